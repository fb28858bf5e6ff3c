"""The block device: what it offers, its configuration space, and its queue's work."""

from __future__ import annotations

from functools import partial
from time import monotonic

from vmtui.vmm.devices.blk.image import Image
from vmtui.vmm.devices.blk.layout import (
    BLK_SIZE,
    CONFIG_WCE,
    DISCARD,
    FLUSH,
    MQ,
    RO,
    SECTOR,
    SEG_MAX,
    TOPOLOGY,
    TYPE_BLOCK,
    WRITE_ZEROES,
    WRITEBACK_AT,
    BlkConfig,
)
from vmtui.vmm.devices.blk.pool import Pool
from vmtui.vmm.devices.blk.request import (
    COUNTERS,
    MAX_DISCARD_SECTORS,
    MAX_SEGMENTS,
    MAX_ZEROES_SECTORS,
    Later,
    Requests,
)
from vmtui.vmm.loop import Loop
from vmtui.vmm.virtio.device import Activation, QueueWorker
from vmtui.vmm.virtio.queue import RING_EVENT_IDX, RING_INDIRECT_DESC, Queue

QUEUE_SIZE = 256
INTERRUPT_S = 50e-6  # how long the answer to a request may wait for those after it
TURN_S = 1e-3  # then others have theirs: who resets the device, and the other queues


class Blk(QueueWorker):
    """A raw disk in this process. To have a `loop` of its own: a slow disk may hold up whatever shares it.

    What the page cache has is read in the loop at once; what has to be waited for is the pool's.
    """

    type_id = TYPE_BLOCK

    def __init__(self, name: str, loop: Loop, image: Image, *, serial: str = "", queues: int = 1) -> None:
        """Takes `image` over. `serial`: what the guest sees as its identity, 20 bytes of it."""
        super().__init__(loop)
        self.name = name
        self.image = image
        self.queue_sizes = (QUEUE_SIZE,) * queues
        self.features = RING_INDIRECT_DESC | RING_EVENT_IDX | SEG_MAX | BLK_SIZE | TOPOLOGY | FLUSH
        self.features |= DISCARD | WRITE_ZEROES | CONFIG_WCE if image.writable else RO
        self.features |= MQ if queues > 1 else 0
        self._requests = Requests(image, serial.encode())
        self._pool = Pool(name)
        self._writeback = 1
        self._left = False  # whether chains were left for a later turn

    def config(self) -> bytes:
        writable = self.image.writable
        return BlkConfig(
            capacity_sectors=self._requests.size_bytes // SECTOR,
            seg_max=QUEUE_SIZE - 2,  # without the header and the status
            physical_block_exp=(self.image.block_bytes // SECTOR).bit_length() - 1,
            writeback=self._writeback,
            num_queues=len(self.queue_sizes),
            max_discard_sectors=MAX_DISCARD_SECTORS if writable else 0,
            max_discard_seg=MAX_SEGMENTS if writable else 0,
            discard_sector_alignment=self.image.block_bytes // SECTOR,
            max_write_zeroes_sectors=MAX_ZEROES_SECTORS if writable else 0,
            max_write_zeroes_seg=MAX_SEGMENTS if writable else 0,
            write_zeroes_may_unmap=int(writable),
        ).packed()

    def write_config(self, offset: int, size: int, value: int) -> None:
        session = self.session
        if (offset, size) == (WRITEBACK_AT, 1) and session is not None and session.features & CONFIG_WCE:
            self._writeback = value & 1
            self._requests.sync_each = not self._writeback

    def resize(self, size_bytes: int) -> None:
        """Make the disk larger under the guest. Raises OSError, ValueError for a smaller one; nothing has changed."""
        if size_bytes % SECTOR or size_bytes < self._requests.size_bytes:
            raise ValueError(f"a disk of {self._requests.size_bytes} bytes that is in use cannot become {size_bytes}")
        with self.lock:
            self.image.grow(size_bytes)
            self._requests.size_bytes = size_bytes
            session = self.session
        if session is not None:
            session.config_changed()

    def begun(self, activation: Activation) -> None:
        self._writeback = int(bool(activation.features & FLUSH))  # 5.2.5.2: who does not flush is written through
        self._requests.sync_each = not self._writeback

    def process(self, index: int, queue: Queue) -> None:
        pop, push, serve = queue.pop, queue.push, self._requests.serve
        session = self.session
        if session is None:
            return
        began = monotonic()
        due = began + INTERRUPT_S
        self._left = False
        while (chain := pop()) is not None:
            served = serve(chain)
            if isinstance(served, int):
                push(chain.head, served)
            else:
                self._pool.submit(partial(self._serve_later, session, index, chain.head, served))
            if (now := monotonic()) > due:
                self.interrupt(index)
                due = now + INTERRUPT_S
                if now > began + TURN_S:
                    self._left = True
                    return

    def _serve_later(self, session: Activation, index: int, head: int, serve: Later) -> None:
        """In a thread of the pool."""
        if self.session is session:
            written = serve()
            with self.lock:
                if self.session is session:
                    session.queues[index].push(head, written)
                    self.interrupt(index)

    def reset(self) -> None:
        super().reset()
        self._pool.drain()

    def more(self, index: int) -> bool:
        if self._left and self.session is not None:
            self.session.kicks[index].signal()
        return not self._left

    def counters(self) -> dict[str, int]:
        return {name: getattr(self._requests, name) for name in COUNTERS}

    def close(self) -> None:
        self._pool.close()
        self.image.close()
