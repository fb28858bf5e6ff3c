"""The device models that are fuzzed, in one table: how each is made, and what a request to it looks like."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.support.virtqueue import MEMORY_BYTES
from vmtui.vmm.devices.balloon import Balloon
from vmtui.vmm.devices.blk.device import Blk
from vmtui.vmm.devices.blk.image import Image
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


def _anything(random: Random, _: int) -> Request:
    def lengths() -> list[int]:
        return [random.choice((0, 1, 4, 10, 64, 4096)) for _ in range(random.randrange(3))]

    return [random.randbytes(length) for length in lengths()], lengths()


SUBJECTS = {
    "blk": Subject(_blk, _blk_request),
    "rng": Subject(lambda loop, _: Rng("rng0", loop), lambda random, _: ([], [random.randrange(1, 5000)])),
    "balloon": Subject(lambda loop, _: Balloon("balloon0", loop, MEMORY_BYTES), _anything),
}
