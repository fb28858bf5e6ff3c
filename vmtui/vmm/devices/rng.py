"""virtio-rng (VIRTIO 5.4): the host's random bytes for the guest's pool, no faster than a pool needs them."""

from __future__ import annotations

import os
import time

from vmtui.vmm.loop import Loop
from vmtui.vmm.virtio.device import QueueWorker
from vmtui.vmm.virtio.queue import Queue

TYPE_RNG = 4  # 5.4.1
QUEUE_SIZE = 64
MAX_REQUEST_BYTES = 4096  # 5.4.6: less than the buffer holds may be given
REQUEST_BYTES = 256  # what a request counts as at the least: it costs us as much time
BYTES_PER_S = 1 << 20
BURST_BYTES = 64 << 10


class Rng(QueueWorker):
    """A guest that asks for more than BYTES_PER_S waits; whoever shares the loop does not."""

    type_id = TYPE_RNG
    queue_sizes = (QUEUE_SIZE,)

    def __init__(self, name: str, loop: Loop) -> None:
        super().__init__(loop)
        self.name = name
        self._bytes = self._requests = 0
        self._credit = float(BURST_BYTES)
        self._credited = time.monotonic()
        self._waiting = False  # for credit

    def process(self, index: int, queue: Queue) -> None:
        if self._waiting:
            return
        now = time.monotonic()
        self._credit = min(BURST_BYTES, self._credit + (now - self._credited) * BYTES_PER_S)
        self._credited = now
        while self._credit > 0:
            chain = queue.pop()
            if chain is None:
                return
            size = min(chain.writable_bytes, MAX_REQUEST_BYTES)
            written = chain.copy_out(os.getrandom(size)) if size else 0
            queue.push(chain.head, written)
            self._credit -= max(written, REQUEST_BYTES)
            self._bytes += written
            self._requests += 1
        self._waiting = True
        self.loop.after((BURST_BYTES / 2 - self._credit) / BYTES_PER_S, self._credit_due)

    def more(self, index: int) -> bool:
        return not self._waiting

    def _credit_due(self) -> None:
        with self.lock:
            self._waiting = False
        self.run(0)

    def counters(self) -> dict[str, int]:
        return {"bytes": self._bytes, "requests": self._requests}
