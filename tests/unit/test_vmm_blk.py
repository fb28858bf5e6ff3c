"""The block device in this process: what each request does to the image, however it is framed."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.consoles import until
from tests.support.virtqueue import Driver
from vmtui.vmm.devices.blk.device import QUEUE_SIZE, Blk
from vmtui.vmm.devices.blk.image import Image
from vmtui.vmm.devices.blk.layout import CONFIG, CONFIG_WCE, DISCARD, FLUSH, IOERR, MQ, OK, RO, UNSUPP, BlkConfig
from vmtui.vmm.devices.blk.pool import MAX_THREADS, Pool
from vmtui.vmm.devices.blk.request import MAX_DISCARD_SECTORS, MAX_SEGMENTS, MAX_ZEROES_SECTORS
from vmtui.vmm.loop import Loop

DISK_BYTES = 1 << 20
SECTORS = DISK_BYTES // 512
IN, OUT, FLUSH_REQUEST, GET_ID, DISCARD_REQUEST, ZEROES_REQUEST = 0, 1, 4, 8, 11, 13


def header(kind: int, sector: int = 0) -> bytes:
    return struct.pack("<IIQ", kind, 0, sector)


def segments(*parts: tuple[int, int, int]) -> bytes:
    return b"".join(struct.pack("<QII", *part) for part in parts)


@pytest.fixture
def loop() -> Iterator[Loop]:
    failures: list[BaseException] = []
    loop = Loop("disk", lambda _, error: failures.append(error))
    loop.start()
    yield loop
    loop.stop()
    loop.close()
    assert failures == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"".join(bytes([sector & 0xFF]) * 512 for sector in range(SECTORS)))
    return path


@pytest.fixture
def driver(loop: Loop, path: Path) -> Iterator[Driver]:
    device = Blk("blk0", loop, Image(str(path), writable=True), serial="disk-serial")
    with Driver(device) as driver:
        yield driver.start()
    device.close()


def config(driver: Driver) -> BlkConfig:
    return BlkConfig(*CONFIG.unpack(driver.device.config()))


@pytest.mark.parametrize("indirect", [False, True])
def test_reads(driver: Driver, indirect: bool) -> None:
    used, data = driver.request([header(IN, 7)], [512, 1024, 1], indirect=indirect)
    assert data == b"\x07" * 512 + b"\x08" * 512 + b"\x09" * 512 + b"\0"
    assert used.written == len(data)


def test_reads_at_the_end(driver: Driver) -> None:
    assert driver.request([header(IN, SECTORS - 1)], [512, 1])[1][-1] == OK
    for sector in (SECTORS, SECTORS - 1, 1 << 54, (1 << 64) - 1):
        length = 1024 if sector == SECTORS - 1 else 512
        used, data = driver.request([header(IN, sector)], [length, 1])
        assert data[-1] == IOERR
        assert used.written == 0


def test_writes_and_flushes(driver: Driver, path: Path) -> None:
    used, data = driver.request([header(OUT, 3), b"a" * 512, b"b" * 512], [1])
    assert (used.written, data) == (1, b"\0")
    assert driver.request([header(FLUSH_REQUEST)], [1])[1] == b"\0"
    assert path.read_bytes()[3 * 512 : 5 * 512] == b"a" * 512 + b"b" * 512
    counted = {name: count for name, count in driver.device.counters().items() if count}
    assert counted == {"write_bytes": 1024, "writes": 1, "flushes": 1}


@pytest.mark.parametrize(("sector", "length"), [(SECTORS, 512), (SECTORS - 1, 1024), (0, 511), (1 << 63, 512)])
def test_writes_that_do_not_fit(driver: Driver, path: Path, sector: int, length: int) -> None:
    before = path.read_bytes()
    assert driver.request([header(OUT, sector), bytes(length)], [1])[1] == bytes([IOERR])
    assert path.read_bytes() == before
    assert driver.device.counters()["errors"] == 1


def test_any_framing(driver: Driver, path: Path) -> None:
    """2.7.4.1: a device makes no assumption of how a request lies in descriptors."""
    whole = header(OUT, 2) + b"w" * 512
    for cut in (1, 8, 15, 17, 100):
        assert driver.request([whole[:cut], b"", whole[cut:]], [1])[1] == b"\0"
        assert path.read_bytes()[1024:1536] == b"w" * 512
    assert driver.request([header(IN, 2)], [513])[1] == b"w" * 512 + b"\0"
    assert driver.request([header(IN, 2)], [100, 413, 0])[1] == b"w" * 512 + b"\0"
    assert driver.request([header(IN, 2)[:9], header(IN, 2)[9:]], [512, 0, 1])[1] == b"w" * 512 + b"\0"


@pytest.mark.parametrize(
    ("readable", "writable"),
    [([header(IN)], []), ([], [512, 1]), ([header(IN)[:15]], [1]), ([header(OUT), bytes(512)], [0])],
)
def test_what_has_no_header_or_no_status(driver: Driver, readable: list[bytes], writable: list[int]) -> None:
    driver.drivers[0].add(readable, writable)
    driver.kick()
    while not driver.failures:
        driver.calls[0].drain()
    assert "block request" in driver.failures[0]
    driver.reset()
    driver.start()
    assert driver.request([header(IN)], [512, 1])[1][-1] == OK


def test_identity(driver: Driver) -> None:
    assert driver.request([header(GET_ID)], [20, 1])[1] == b"disk-serial".ljust(20, b"\0") + b"\0"
    assert driver.request([header(GET_ID)], [19, 1])[1][-1] == IOERR


@pytest.mark.parametrize("kind", [2, 3, 5, 10, 12, 14, 0xFFFFFFFF])
def test_requests_that_are_none(driver: Driver, kind: int) -> None:
    assert driver.request([header(kind), bytes(512)], [512, 1])[1][-1] == UNSUPP


def test_discard_gives_space_back(driver: Driver, path: Path) -> None:
    before = os.stat(path).st_blocks
    given = segments((0, 1024, 0), (1024, 512, 0))
    assert driver.request([header(DISCARD_REQUEST), given], [1])[1] == b"\0"
    assert os.stat(path).st_blocks <= before - 1024
    assert os.stat(path).st_size == DISK_BYTES
    assert driver.request([header(IN)], [512, 1])[1] == bytes(513)


@pytest.mark.parametrize("unmap", [0, 1])
def test_zeroes(driver: Driver, path: Path, unmap: int) -> None:
    assert driver.request([header(ZEROES_REQUEST), segments((3, 3, unmap))], [1])[1] == b"\0"
    assert path.read_bytes()[512 * 2 : 512 * 7] == b"\2" * 512 + bytes(1536) + b"\6" * 512


def test_zeroes_where_the_file_system_cannot(driver: Driver, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS before 4.2, vfat and others."""
    monkeypatch.setattr(Image, "_allocate", lambda *_: False)
    assert driver.request([header(ZEROES_REQUEST), segments((3, SECTORS - 4, 1))], [1])[1] == b"\0"
    assert path.read_bytes()[512 * 2 :] == b"\2" * 512 + bytes(512 * (SECTORS - 4)) + b"\xff" * 512
    assert driver.request([header(DISCARD_REQUEST), segments((0, 8, 0))], [1])[1] == b"\0"


@pytest.mark.parametrize(
    ("kind", "given", "status"),
    [
        (DISCARD_REQUEST, b"", IOERR),
        (DISCARD_REQUEST, bytes(15), IOERR),
        (DISCARD_REQUEST, segments((0, 1, 1)), UNSUPP),
        (ZEROES_REQUEST, segments((0, 1, 2)), UNSUPP),
        (DISCARD_REQUEST, segments((SECTORS, 1, 0)), IOERR),
        (DISCARD_REQUEST, segments(((1 << 64) - 1, 1, 0)), IOERR),
        (DISCARD_REQUEST, segments((0, MAX_DISCARD_SECTORS + 1, 0)), IOERR),
        (ZEROES_REQUEST, segments((0, MAX_ZEROES_SECTORS + 1, 0)), IOERR),
        (DISCARD_REQUEST, segments(*[(0, 1, 0)] * (MAX_SEGMENTS + 1)), IOERR),
        (ZEROES_REQUEST, segments((0, 1, 0), (SECTORS, 1, 0)), IOERR),
        (DISCARD_REQUEST, segments((0, 0, 0)), OK),
    ],
)
def test_ranges_are_checked_before_any_is_acted_on(
    driver: Driver, path: Path, kind: int, given: bytes, status: int
) -> None:
    before = path.read_bytes()
    assert driver.request([header(kind), given], [1])[1] == bytes([status])
    assert path.read_bytes() == before


def test_read_only(loop: Loop, path: Path) -> None:
    device = Blk("blk0", loop, Image(str(path), writable=False))
    assert device.features & RO
    assert not device.features & (DISCARD | CONFIG_WCE)
    with Driver(device) as driver:
        driver.start()
        assert driver.request([header(IN)], [512, 1])[1][-1] == OK
        assert driver.request([header(FLUSH_REQUEST)], [1])[1] == b"\0"
        for request in (header(OUT) + bytes(512), header(DISCARD_REQUEST) + segments((0, 1, 0))):
            assert driver.request([request[:16], request[16:]], [1])[1] == bytes([IOERR])
    device.close()


def test_configuration(driver: Driver) -> None:
    assert len(driver.device.config()) == 60
    said = config(driver)
    assert (said.capacity_sectors, said.seg_max, said.blk_size, said.num_queues) == (SECTORS, QUEUE_SIZE - 2, 512, 1)
    assert driver.device.read_config(0, 8) == SECTORS
    assert driver.device.read_config(58, 8) == driver.device.read_config(4000, 4) == 0


def test_write_through(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    assert config(driver).writeback == 1
    driver.request([header(OUT), bytes(512)], [1])
    assert synced == []
    driver.device.write_config(32, 1, 0)
    assert config(driver).writeback == 0
    driver.request([header(OUT), bytes(512)], [1])
    assert len(synced) == 1
    for at, size, value in ((0, 8, 5), (32, 4, 1), (34, 2, 9)):
        driver.device.write_config(at, size, value)
    assert (config(driver).writeback, config(driver).capacity_sectors) == (0, SECTORS)


def test_a_driver_that_does_not_flush_is_written_through(
    loop: Loop, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    device = Blk("blk0", loop, Image(str(path), writable=True))
    with Driver(device, refused=FLUSH | CONFIG_WCE) as driver:
        driver.start()
        monkeypatch.setattr(os, "fdatasync", synced.append)
        driver.request([header(OUT), bytes(512)], [1])
        driver.request([header(ZEROES_REQUEST), segments((0, 1, 0))], [1])
        assert len(synced) == 2
    device.close()


def test_several_queues(loop: Loop, path: Path) -> None:
    device = Blk("blk0", loop, Image(str(path), writable=True), queues=4)
    assert device.features & MQ
    with Driver(device) as driver:
        driver.start()
        assert config(driver).num_queues == 4
        for queue in range(4):
            assert driver.request([header(IN, queue)], [512, 1], queue=queue)[1][0] == queue
    device.close()


def test_grows_while_it_is_used(driver: Driver, path: Path) -> None:
    device = driver.device
    assert isinstance(device, Blk)
    assert driver.request([header(IN, SECTORS)], [512, 1])[1][-1] == IOERR
    device.resize(2 * DISK_BYTES)
    assert driver.config_changes == 1
    assert config(driver).capacity_sectors == 2 * SECTORS
    assert path.stat().st_size == 2 * DISK_BYTES
    assert driver.request([header(IN, 2 * SECTORS - 1)], [512, 1])[1] == bytes(513)
    for size in (DISK_BYTES, 2 * DISK_BYTES + 1):
        with pytest.raises(ValueError, match="cannot become"):
            device.resize(size)
    assert config(driver).capacity_sectors == 2 * SECTORS


def test_an_image_that_was_cut(driver: Driver, path: Path) -> None:
    os.truncate(path, 1024)
    assert driver.request([header(IN, 1)], [1024, 1])[1][-1] == IOERR
    assert driver.request([header(IN, 1)], [512, 1])[1][-1] == OK


def test_a_queue_that_is_filled_at_once(driver: Driver) -> None:
    """More than a turn's worth: every chain comes back, and none is forgotten."""
    ring = driver.drivers[0]
    for _ in range(20):
        for sector in range(QUEUE_SIZE):
            ring.add([header(IN, sector)], [512, 1], indirect=True)
        driver.kick()
        for sector in range(QUEUE_SIZE):
            assert driver.wait()[1] == bytes([sector & 0xFF]) * 512 + b"\0"


def forget(path: Path) -> None:
    """Have the page cache hold none of it, where the file system does as it is told."""
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def test_what_is_not_in_the_page_cache(driver: Driver, path: Path) -> None:
    """Those that have to wait come back whenever they are done; all do, once."""
    ring = driver.drivers[0]
    for _ in range(5):
        forget(path)
        expected = {}
        for sector in range(0, 1000, 8):
            expected[ring.add([header(IN, sector)], [512, 1], indirect=True)] = bytes([sector & 0xFF]) * 512 + b"\0"
        driver.kick()
        for _ in range(len(expected)):
            used, data = driver.wait()
            assert data == expected.pop(used.head)
        assert expected == {}


def test_a_reset_waits_for_what_is_being_read(driver: Driver, path: Path) -> None:
    for _ in range(20):
        forget(path)
        ring = driver.drivers[0]
        for sector in range(0, 1000, 8):
            ring.add([header(IN, sector)], [512, 1], indirect=True)
        driver.kick()
        driver.reset()
        before = driver.memory.read(0, driver.memory.size_bytes)
        time.sleep(2e-3)
        assert driver.memory.read(0, driver.memory.size_bytes) == before
        driver.start()


def test_the_pool_does_everything_once() -> None:
    pool, done, busy = Pool("pool of a test"), list[int](), threading.Semaphore(MAX_THREADS)

    def job(number: int) -> None:
        assert busy.acquire(blocking=False)
        time.sleep(1e-4)
        done.append(number)
        busy.release()

    for number in range(300):
        pool.submit(partial(job, number))
    pool.drain()
    assert sorted(done) == list(range(300))
    pool.close()
    until(lambda: not any(thread.name == "pool of a test" for thread in threading.enumerate()))


def test_nothing_happens_after_a_reset(driver: Driver) -> None:
    driver.reset()
    driver.drivers[0].add([header(IN)], [512, 1])
    driver.kick()
    driver.start()
    assert driver.drivers[0].used == 0
    assert driver.request([header(IN)], [512, 1])[1][-1] == OK
