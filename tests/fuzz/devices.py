"""The device models that are fuzzed, in one table: how each is made, and what a request to it looks like."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.fuzz.streams import FuzzedConsole, FuzzedVsock, console_request, vsock_request
from tests.support.virtqueue import MEMORY_BYTES
from vmtui.vmm.devices.balloon import Balloon
from vmtui.vmm.devices.blk.device import Blk
from vmtui.vmm.devices.blk.image import Image
from vmtui.vmm.devices.net.card import RX
from vmtui.vmm.devices.net.device import Net
from vmtui.vmm.devices.net.features import HEADER_BYTES
from vmtui.vmm.devices.net.tap import Tap
from vmtui.vmm.devices.rng import Rng
from vmtui.vmm.loop import Loop
from vmtui.vmm.virtio.device import VirtioDevice

Request = tuple[list[bytes], list[int]]  # what the device is to read, and the lengths of what it may write


class Subject(NamedTuple):
    """`make(loop, folder)`: a device that uses nothing else. `request(random, queue)`: nearly a proper one."""

    make: Callable[[Loop, Path], VirtioDevice]
    request: Callable[[Random, int], Request]


def _blk(loop: Loop, folder: Path) -> VirtioDevice:
    path = folder / "disk.raw"
    path.write_bytes(bytes(1 << 20))
    return Blk("blk0", loop, Image(str(path), writable=True), serial="fuzzed", queues=2)


def _blk_request(random: Random, _: int) -> Request:
    kind = random.choice((0, 0, 0, 1, 1, 4, 8, 11, 13, random.getrandbits(32)))
    header = struct.pack("<IIQ", kind, 0, random.choice((0, random.randrange(2048), 2047, random.getrandbits(64))))
    data = random.choice((512, 512, 4096, 511, 0))
    if kind in (11, 13):
        segment = struct.pack(
            "<QII", random.randrange(2100), random.choice((1, 8, 2048, 1 << 31)), random.getrandbits(1)
        )
        return [header, segment * random.randrange(1, 3)], [1]
    return ([header, bytes(data)], [1]) if kind == 1 else ([header], [data, 1])


class Loopback(Tap):
    """A socket in the TAP's place, whose other end sends back what it gets."""

    __slots__ = ("_loop", "_other")

    def __init__(self, loop: Loop) -> None:
        ours, self._other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._loop = loop
        for each in (ours, self._other):
            each.setblocking(False)
        self.fd = ours.detach()
        loop.watch(self._other.fileno(), lambda _: self._send_back())

    def _send_back(self) -> None:
        with contextlib.suppress(OSError):
            self._other.send(self._other.recv(1 << 17))

    def offload(self, offloads: int) -> None:
        return

    def close(self) -> None:
        super().close()
        self._loop.unwatch(self._other.fileno())
        self._other.close()


def _net_request(random: Random, queue: int) -> Request:
    if queue == RX:
        return [], [random.choice((12, 200, 1536, 2048, 11, 0, 65_000)) for _ in range(random.choice((1, 1, 1, 2)))]
    header = random.choice((bytes(HEADER_BYTES), random.randbytes(HEADER_BYTES)))
    return [header, bytes(random.choice((60, 1500, 9000, 40_000, 0)))], []


def _anything(random: Random, _: int) -> Request:
    def lengths() -> list[int]:
        return [random.choice((0, 1, 4, 10, 64, 4096)) for _ in range(random.randrange(3))]

    return [random.randbytes(length) for length in lengths()], lengths()


SUBJECTS = {
    "net": Subject(lambda loop, _: Net("net0", loop, Loopback(loop), bytes((2, 0, 0, 0, 0, 1)), 1500), _net_request),
    "blk": Subject(_blk, _blk_request),
    "rng": Subject(lambda loop, _: Rng("rng0", loop), lambda random, _: ([], [random.randrange(1, 5000)])),
    "console": Subject(FuzzedConsole, console_request),
    "vsock": Subject(FuzzedVsock, vsock_request),
    "balloon": Subject(lambda loop, _: Balloon("balloon0", loop, MEMORY_BYTES), _anything),
}
