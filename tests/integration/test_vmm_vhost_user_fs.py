"""A shared directory through the real virtiofsd: it speaks FUSE over the queues, and its end is told."""

from __future__ import annotations

import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.vhost_backends import Virtiofsd, needs_virtiofsd
from tests.support.virtqueue import Driver
from vmtui.vmm.devices.fs import Fs
from vmtui.vmm.loop import Loop
from vmtui.vmm.memory import GuestMemory

pytestmark = [pytest.mark.real, needs_virtiofsd]

HIPRIO, REQUESTS = 0, 1
# linux/fuse.h
LOOKUP, OPEN, READ, INIT = 1, 14, 15, 26
ROOT = 1
_IN = struct.Struct("<IIQQIIII")  # struct fuse_in_header: len, opcode, unique, nodeid, uid, gid, pid, padding
_OUT = struct.Struct("<IiQ")  # struct fuse_out_header: len, error, unique


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(2e-3)


class Mount:
    """What the guest's kernel does with the device."""

    def __init__(self, folder: Path, loop: Loop, tag: str = "shared") -> None:
        self.server = Virtiofsd(folder)
        self.lost: list[str] = []
        self.back: list[bool] = []
        connection = self.server.connect()
        self.device = Fs("fs0", loop, connection, tag, lost=self.lost.append, back=lambda: self.back.append(True))
        self.driver = Driver(self.device, memory=GuestMemory(16 << 20)).start()
        self.unique = 0

    def ask(self, opcode: int, node: int, body: bytes, room: int) -> tuple[int, bytes]:
        """The error, and what comes with it."""
        self.unique += 2
        header = _IN.pack(_IN.size + len(body), opcode, self.unique, node, 0, 0, 1, 0)
        used, data = self.driver.request([header, body], [_OUT.size, room], queue=REQUESTS)
        length, error, unique = _OUT.unpack(data[: _OUT.size])
        assert unique == self.unique
        assert length <= used.written
        return error, data[_OUT.size : length]

    def init(self) -> tuple[int, int]:
        """struct fuse_init_in: major, minor, max_readahead, flags. Returns the version that the server speaks."""
        error, body = self.ask(INIT, 0, struct.pack("<IIII", 7, 31, 1 << 17, 0), 64)
        assert error == 0
        major, minor = struct.unpack_from("<II", body)
        return major, minor

    def look_up(self, name: str) -> int:
        error, body = self.ask(LOOKUP, ROOT, name.encode() + b"\0", 128)
        assert error == 0
        return int(struct.unpack_from("<Q", body)[0])

    def read(self, name: str) -> bytes:
        node = self.look_up(name)
        error, body = self.ask(OPEN, node, struct.pack("<II", 0, 0), 16)
        assert error == 0
        (handle,) = struct.unpack_from("<Q", body)
        error, data = self.ask(READ, node, struct.pack("<QQIIQII", handle, 0, 4096, 0, 0, 0, 0), 4096)
        assert error == 0
        return data

    def close(self) -> None:
        self.driver.close()
        self.device.close()
        self.server.end(signal.SIGKILL)


@pytest.fixture
def loop() -> Iterator[Loop]:
    failures: list[BaseException] = []
    loop = Loop("fs0", lambda _, error: failures.append(error))
    loop.start()
    yield loop
    loop.stop()
    loop.close()
    assert failures == []


@pytest.fixture
def mount(tmp_path: Path, loop: Loop) -> Iterator[Mount]:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "file").write_text("content")
    mount = Mount(tmp_path, loop)
    yield mount
    mount.close()


def test_files_are_read(mount: Mount) -> None:
    assert mount.init()[0] == 7
    assert mount.read("file") == b"content"
    assert mount.ask(LOOKUP, ROOT, b"absent\0", 128)[0] == -2  # ENOENT


def test_configuration(mount: Mount) -> None:
    assert mount.device.config() == b"shared".ljust(36, b"\0") + struct.pack("<I", 1)
    assert len(mount.device.queue_sizes) == 2


def test_a_reset_and_another_mount(mount: Mount) -> None:
    for _ in range(2):
        mount.init()
        assert mount.read("file") == b"content"
        mount.driver.reset()
        mount.driver.start()
    assert mount.lost == []


def test_its_end_ends_the_mount_even_at_rest(mount: Mount) -> None:
    mount.init()
    mount.server.end(signal.SIGKILL)
    eventually(lambda: mount.driver.failures)
    assert mount.lost == mount.driver.failures
    mount.device.reconnected(mount.server.connect())
    eventually(lambda: mount.back)
    mount.driver.reset()
    mount.driver.start()
    mount.init()
    assert mount.read("file") == b"content"
