"""Disks through the real qemu-storage-daemon: data gets there, and a back-end's end is survived or told."""

from __future__ import annotations

import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.vhost_backends import StorageDaemon, needs_storage
from tests.support.virtqueue import Driver
from vmtui.vmm.backends.storage import DURABLE, FORMATS
from vmtui.vmm.devices.blk.layout import CONFIG, DISCARD, IOERR, MQ, OK, RO, BlkConfig
from vmtui.vmm.devices.vhost_user import device
from vmtui.vmm.devices.vhost_user.blk import VhostUserBlk
from vmtui.vmm.loop import Loop
from vmtui.vmm.memory import GuestMemory

pytestmark = [pytest.mark.real, needs_storage]

DISK_BYTES = 8 << 20
IN, OUT, FLUSH, DISCARD_REQUEST = 0, 1, 4, 11


def header(kind: int, sector: int = 0) -> bytes:
    return struct.pack("<IIQ", kind, 0, sector)


class Disk:
    """An image, its daemon, the device, and its driver."""

    def __init__(self, folder: Path, loop: Loop, image_format: str, *, writable: bool = True, queues: int = 1) -> None:
        self.path = folder / f"disk, one.{image_format}"
        argv = ["qemu-img", "create", "-q", "-f", image_format, str(self.path), str(DISK_BYTES)]
        subprocess.run(argv, check=True, timeout=60)
        self.daemon = StorageDaemon(folder, self.path, image_format, writable=writable, queues=queues)
        self.lost: list[str] = []
        self.back = 0
        connection = self.daemon.connect()
        durable = image_format in DURABLE
        self.device = VhostUserBlk("blk0", loop, connection, durable=durable, lost=self.lost.append, back=self._is_back)
        self.driver = Driver(self.device, memory=GuestMemory(16 << 20)).start()

    def _is_back(self) -> None:
        self.back += 1

    def config(self) -> BlkConfig:
        return BlkConfig(*CONFIG.unpack(self.device.config()))

    def read(self, sector: int, count: int = 1) -> bytes:
        data = self.driver.request([header(IN, sector)], [count * 512, 1])[1]
        assert data[-1] == OK
        return data[:-1]

    def write(self, sector: int, data: bytes) -> None:
        assert self.driver.request([header(OUT, sector), data], [1])[1] == b"\0"

    def restart(self, number: int) -> None:
        """End the daemon by a signal, and go on with another."""
        clean = self.daemon.end(number) == 0
        eventually(lambda: not self.device.is_connected)
        self.device.reconnected(self.daemon.connect(), clean=clean)

    def close(self) -> None:
        self.driver.close()
        self.device.close()
        self.daemon.end(signal.SIGKILL)


@pytest.fixture
def loop() -> Iterator[Loop]:
    failures: list[BaseException] = []
    loop = Loop("blk0", lambda _, error: failures.append(error))
    loop.start()
    yield loop
    loop.stop()
    loop.close()
    assert failures == []


@pytest.fixture
def make(tmp_path: Path, loop: Loop) -> Iterator[Callable[..., Disk]]:
    made: list[Disk] = []

    def _make(image_format: str = "qcow2", *, writable: bool = True, queues: int = 1) -> Disk:
        made.append(Disk(tmp_path, loop, image_format, writable=writable, queues=queues))
        return made[-1]

    yield _make
    for disk in made:
        disk.close()


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(2e-3)


@pytest.mark.parametrize("image_format", FORMATS)
def test_data_is_in_the_image(make: Callable[..., Disk], image_format: str) -> None:
    disk = make(image_format)
    assert disk.config().capacity_sectors >= DISK_BYTES // 512
    disk.write(8, b"a" * 4096)
    assert disk.driver.request([header(OUT, 16), b"b" * 512], [1], indirect=True)[1] == b"\0"
    assert disk.driver.request([header(FLUSH)], [1])[1] == b"\0"
    assert disk.read(8, 9) == b"a" * 4096 + b"b" * 512
    disk.close()
    command = f"read -P 97 4096 4096\nread -P 98 8192 512\nread -P 0 8704 {DISK_BYTES - 8704}\n"
    argv = ["qemu-io", "-f", image_format, str(disk.path)]
    said = subprocess.run(argv, input=command, capture_output=True, text=True, timeout=60, check=True)
    assert "Pattern verification failed" not in said.stdout


def test_discard_gives_space_back(make: Callable[..., Disk]) -> None:
    disk = make("raw")
    assert disk.device.features & DISCARD
    disk.write(0, b"x" * (1 << 20))
    disk.driver.request([header(FLUSH)], [1])
    before = disk.path.stat().st_blocks
    given = struct.pack("<QII", 0, 2048, 0)
    assert disk.driver.request([header(DISCARD_REQUEST), given], [1])[1] == b"\0"
    assert disk.path.stat().st_blocks < before
    assert disk.read(0, 8) == bytes(4096)


def test_read_only(make: Callable[..., Disk]) -> None:
    disk = make(writable=False)
    assert disk.device.features & RO
    assert disk.driver.request([header(OUT), bytes(512)], [1])[1] == bytes([IOERR])


def test_several_queues(make: Callable[..., Disk]) -> None:
    disk = make(queues=4)
    assert disk.device.features & MQ
    assert len(disk.device.queue_sizes) == disk.config().num_queues == 4
    disk.write(1, b"q" * 512)
    for queue in range(4):
        assert disk.driver.request([header(IN, 1)], [512, 1], queue=queue)[1] == b"q" * 512 + b"\0"


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reset waits for the back-end for as long as a busy machine takes."""
    monkeypatch.setattr(device, "STOP_S", 60.0)


def test_a_reset_and_another_driver(make: Callable[..., Disk], patience: None) -> None:
    disk = make()
    disk.write(1, b"1" * 512)
    for _ in range(3):
        disk.driver.reset()
        disk.driver.drivers[0].add([header(IN, 1)], [512, 1])
        disk.driver.kick()
        time.sleep(0.01)
        assert disk.driver.drivers[0].used in (0, 1)
        disk.driver.start()
        assert disk.read(1) == b"1" * 512
    assert disk.lost == []


def test_a_reset_at_work(make: Callable[..., Disk], patience: None) -> None:
    """Requests that are under way come to their end before the reset does."""
    disk = make()
    for _ in range(10):
        disk.write(0, bytes(512))
        for sector in range(50):
            disk.driver.drivers[0].add([header(OUT, sector), bytes(4096)], [1], indirect=True)
        disk.driver.kick()
        time.sleep(1e-3)
        disk.driver.reset()
        assert disk.driver.drivers[0].used == 51
        disk.driver.start()
    assert disk.lost == []


def test_growing_reaches_the_guest(make: Callable[..., Disk]) -> None:
    disk = make()
    disk.daemon.resize(2 * DISK_BYTES)
    disk.device.resized(2 * DISK_BYTES)
    assert disk.driver.config_changes == 1
    assert disk.config().capacity_sectors == 2 * DISK_BYTES // 512
    disk.write(2 * DISK_BYTES // 512 - 1, b"e" * 512)
    disk.restart(signal.SIGTERM)
    assert disk.read(2 * DISK_BYTES // 512 - 1) == b"e" * 512
    assert disk.config().capacity_sectors == 2 * DISK_BYTES // 512


def test_write_through(make: Callable[..., Disk]) -> None:
    disk = make()
    assert disk.config().writeback == 1
    disk.device.write_config(32, 1, 0)
    assert disk.config().writeback == 0
    disk.write(0, bytes(512))
    assert disk.lost == []


@pytest.mark.parametrize("image_format", sorted(DURABLE))
def test_a_back_end_that_is_killed_at_rest_is_not_missed(make: Callable[..., Disk], image_format: str) -> None:
    """Nothing that was acknowledged is lost, flushed or not."""
    disk = make(image_format)
    for sector in range(300):  # more than the ring holds, and all over the image
        disk.write(sector * 50, bytes([sector & 0xFF]) * 512)
    disk.daemon.end(signal.SIGKILL)
    eventually(lambda: disk.lost)
    assert not disk.device.is_connected
    disk.driver.drivers[0].add([header(IN, 299 * 50)], [512, 1])  # asked for while there is none
    disk.driver.kick()
    time.sleep(0.05)
    disk.device.reconnected(disk.daemon.connect())
    assert disk.driver.wait()[1] == bytes([299 & 0xFF]) * 512 + b"\0"
    assert (disk.back, disk.driver.failures) == (1, [])
    for sector in range(300):
        assert disk.read(sector * 50) == bytes([sector & 0xFF]) * 512
    assert disk.device.counters() == {"backends_lost": 1}


def test_tables_that_were_not_written_end_the_session(make: Callable[..., Disk]) -> None:
    """A qcow2 image of which the daemon has kept tables in its memory."""
    disk = make("qcow2")
    disk.write(0, b"1" * 512)
    disk.restart(signal.SIGKILL)
    eventually(lambda: disk.driver.failures)
    assert "not written" in disk.driver.failures[0]
    eventually(lambda: disk.back)
    disk.driver.reset()
    disk.driver.start()
    assert disk.read(0) == bytes(512)  # lost indeed


def test_a_daemon_that_ends_by_itself_loses_nothing(make: Callable[..., Disk]) -> None:
    disk = make("qcow2")
    disk.write(0, b"1" * 512)
    disk.restart(signal.SIGTERM)
    assert disk.read(0) == b"1" * 512
    assert disk.driver.failures == []


def test_nor_does_one_that_writes_through(make: Callable[..., Disk]) -> None:
    disk = make("qcow2")
    disk.device.write_config(32, 1, 0)
    for _ in range(2):
        disk.write(0, b"1" * 512)
        disk.restart(signal.SIGKILL)
        assert disk.read(0) == b"1" * 512
        assert disk.config().writeback == 0
        disk.lost.clear()
    assert disk.driver.failures == []


def test_a_back_end_that_ends_at_work_takes_the_session_along(make: Callable[..., Disk]) -> None:
    disk = make("raw")
    disk.write(0, b"1" * 512)
    disk.daemon.hang()
    disk.driver.drivers[0].add([header(IN)], [512, 1])
    disk.driver.kick()
    disk.daemon.end(signal.SIGKILL)
    eventually(lambda: disk.driver.failures)
    assert "with 1 requests unanswered" in disk.driver.failures[0]
    disk.device.reconnected(disk.daemon.connect())
    eventually(lambda: disk.back)
    time.sleep(0.05)
    assert disk.driver.drivers[0].used == 1  # the session is over, whoever is back
    disk.driver.reset()
    disk.driver.start()
    assert disk.read(0) == b"1" * 512


def test_a_back_end_that_hangs_holds_nobody(make: Callable[..., Disk]) -> None:
    """A reset does not wait for it for ever: the back-end is given up."""
    disk = make("raw")
    disk.write(0, b"1" * 512)
    disk.daemon.hang()
    disk.driver.reset()
    eventually(lambda: disk.lost)
    disk.driver.start()  # nobody is there: it is waited for
    disk.driver.drivers[0].add([header(IN)], [512, 1])
    disk.driver.kick()
    disk.daemon.end(signal.SIGKILL)
    disk.device.reconnected(disk.daemon.connect())
    assert disk.driver.wait()[1] == b"1" * 512 + b"\0"


def test_a_back_end_that_cannot_do_as_much_is_refused(make: Callable[..., Disk]) -> None:
    disk = make("raw", queues=2)
    disk.daemon.queues = 1
    disk.restart(signal.SIGKILL)
    eventually(lambda: disk.lost[1:] == ["the new back-end has 1 queues, the one before had 2"])
    disk.daemon.queues = 2
    disk.restart(signal.SIGKILL)
    assert disk.read(0) == bytes(512)
    assert disk.back == 1


def test_a_daemon_that_cannot_open_its_image(make: Callable[..., Disk], tmp_path: Path, loop: Loop) -> None:
    daemon = StorageDaemon(tmp_path, tmp_path / "absent", "qcow2")
    with pytest.raises(OSError, match="blk1: the back-end is gone"):
        VhostUserBlk("blk1", loop, daemon.connect(), durable=True, lost=print, back=print)
    daemon.end(signal.SIGKILL)
