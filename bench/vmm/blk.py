"""The block device in this process, alone: from the available ring through the image and back to the used ring.

`python -m bench.vmm.blk`. The image is in the page cache, so the figures are of our code and the kernel's copy.
"""

from __future__ import annotations

import os
import struct
import tempfile
import time

from bench.measure import Row, table
from tests.support.virtqueue import Driver, Piece
from vmtui.vmm.devices.blk.device import Blk
from vmtui.vmm.devices.blk.image import Image
from vmtui.vmm.loop import Loop
from vmtui.vmm.memory import GuestMemory

DISK_BYTES = 16 << 20
MEMORY_BYTES = 192 << 20
SEGMENT_BYTES = 4096  # how a guest's page cache is: no two pages beside each other
ROUNDS = 400


def per_request_s(kind: int, length: int, *, indirect: bool, segments: int) -> float:
    """Seconds a request: the best of many turns, each of a queue full of requests."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(os.urandom(DISK_BYTES))
        file.flush()
        device = Blk("bench", Loop("bench", _failed), Image(file.name, writable=True))
        with Driver(device, memory=GuestMemory(MEMORY_BYTES)) as driver:
            driver.start()
            ring, queue = driver.drivers[0], driver.queues[0]
            descriptors = 1 if indirect else segments + 2
            count = min(ring.size // descriptors, (128 << 20) // length)
            for number in range(count):
                at = ring.allocate(16)
                driver.memory.write(at, struct.pack("<IIQ", kind, 0, number * length % (DISK_BYTES - length) // 512))
                data = [
                    Piece(ring.allocate(length // segments + 64), length // segments, kind == 0)
                    for _ in range(segments)
                ]
                ring.add_pieces([Piece(at, 16, False), *data, Piece(ring.allocate(1), 1, True)], indirect=indirect)
            heads, best = list(ring.chains), 1.0
            for turn in range(ROUNDS):
                if turn:
                    for head in heads:
                        ring.offer(head)
                began = time.perf_counter()
                while queue.used != ring.avail:
                    device.run(0)
                best = min(best, (time.perf_counter() - began) / count)
        device.close()
    return best


def _failed(_: str, error: BaseException) -> None:
    raise error


def rows() -> list[Row]:
    found = []
    for what, kind, length, indirect, segments, goal in (
        ("read 4 KiB", 0, 4096, False, 1, "300k/s"),
        ("read 4 KiB, indirect", 0, 4096, True, 1, "300k/s"),
        ("write 4 KiB, indirect", 1, 4096, True, 1, ""),
        ("read 64 KiB in pages, indirect", 0, 64 << 10, True, 16, ""),
        ("read 1 MiB, indirect", 0, 1 << 20, True, 1, "4 GB/s"),
        ("read 1 MiB in pages, indirect", 0, 1 << 20, True, 254, ""),
    ):
        if length % segments:
            length = segments * SEGMENT_BYTES
        seconds = per_request_s(kind, length, indirect=indirect, segments=segments)
        ours = f"{seconds * 1e6:.2f} us, {1e-3 / seconds:.0f}k/s, {length / seconds / 1e9:.1f} GB/s"
        found.append(Row(f"virtio-blk in process: {what}", ours, goal=goal))
    return found


if __name__ == "__main__":
    print(table(rows()))
