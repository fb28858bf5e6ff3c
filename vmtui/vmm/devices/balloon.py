"""virtio-balloon (VIRTIO 5.5): memory that the guest can do without goes back to the host.

Three ways to it: the balloon, which the guest fills up to a target; its reports of pages that are free; statistics, by
which somebody chooses a target. What was given back reads as zeros, and is there again once the guest touches it.
"""

from __future__ import annotations

import ctypes
import struct
import time

from vmtui.vmm.loop import Loop
from vmtui.vmm.memory import PAGE, GuestFault, GuestMemory
from vmtui.vmm.virtio.device import Activation, QueueWorker
from vmtui.vmm.virtio.queue import Chain, Queue

TYPE_BALLOON = 5  # 5.5.1
QUEUE_SIZE = 128
# 5.5.3, as bits
STATS_VQ, DEFLATE_ON_OOM, REPORTING = 1 << 1, 1 << 2, 1 << 5
# 5.5.2. Queue 3 would be for hints, which are not offered. Linux numbers only the queues that it has (6.12 still does),
# so that it takes 3 for reports, or 2 if it wants no statistics.
INFLATE, DEFLATE, STATS, HINTS, REPORTS = range(5)
CONFIG_ACTUAL = 4  # 5.5.4: num_pages, actual
MAX_PFNS = 1024  # of a request; Linux sends 256
TURN_CALLS = 256  # to the kernel, some microseconds each; then other devices of the loop have their turn
_STAT = struct.Struct("<HQ")  # 5.5.6.3, virtio_balloon_stat: tag, val
STAT_NAMES = (  # by tag, 5.5.6.4, then include/uapi/linux/virtio_balloon.h of Linux 6.12; with their units
    "swap_in_bytes", "swap_out_bytes", "major_faults", "minor_faults", "free_bytes", "total_bytes", "available_bytes",
    "disk_cache_bytes", "hugetlb_allocations", "hugetlb_failures", "oom_kills", "allocation_stalls",
    "async_scans", "direct_scans", "async_reclaims", "direct_reclaims",
)  # fmt: skip
MAX_STATS = 64


class Balloon(QueueWorker):
    """With hugepages, only whole ones can go back: reports have that size, a balloon of 4 KiB pages seldom."""

    type_id = TYPE_BALLOON
    queue_sizes = (QUEUE_SIZE,) * 5
    features = STATS_VQ | DEFLATE_ON_OOM | REPORTING

    def __init__(self, name: str, loop: Loop, memory_bytes: int, page_bytes: int = PAGE) -> None:
        """`memory_bytes`: the guest's; `page_bytes`: of which size the host's pages behind it are."""
        super().__init__(loop)
        self.name = name
        self._memory_bytes, self._page_bytes = memory_bytes, page_bytes
        self._target_pages = self._actual_pages = 0
        self._inflated = self._reported = self._refused = 0
        self._calls = 0  # left in this turn
        self._asked: int | None = None  # the statistics buffer, while it is ours: giving it back asks for new ones
        self._stats: dict[str, int] = {}
        self._stats_at = 0.0

    def set_target(self, size_bytes: int) -> None:
        """How much memory the guest is to give away; it may take its time, or take some back when it has none left.

        Raises ValueError: more than it has, or less than nothing.
        """
        if not 0 <= size_bytes <= self._memory_bytes:
            raise ValueError(f"a balloon of {size_bytes} bytes in a memory of {self._memory_bytes}")
        with self.lock:
            self._target_pages = size_bytes // PAGE
            if self.session is not None:
                self.session.config_changed()

    @property
    def actual_bytes(self) -> int:
        """What the balloon holds, by the guest's own account: at most its memory."""
        return min(self._actual_pages * PAGE, self._memory_bytes)

    def ask_statistics(self) -> None:
        """Have the guest send new ones, if its driver does that. They come when they come."""
        self.loop.call(self._ask)

    def statistics(self) -> tuple[dict[str, int], float]:
        """The last that came, and how many seconds ago; nothing and 0.0 before."""
        with self.lock:
            return dict(self._stats), time.monotonic() - self._stats_at if self._stats else 0.0

    def config(self) -> bytes:
        return struct.pack("<IIII", self._target_pages, self._actual_pages, 0, 0)

    def write_config(self, offset: int, size: int, value: int) -> None:
        if (offset, size) == (CONFIG_ACTUAL, 4):
            self._actual_pages = value & 0xFFFFFFFF

    def begun(self, activation: Activation) -> None:
        self._actual_pages = 0

    def ended(self) -> None:
        self._asked = None
        self._stats = {}
        self._actual_pages = 0

    def process(self, index: int, queue: Queue) -> None:
        session = self.session
        if session is None:
            return
        if index == STATS and not session.features & STATS_VQ:
            index = REPORTS
        self._calls = TURN_CALLS
        while self._calls > 0:
            chain = queue.pop()
            if chain is None:
                return
            self._calls -= 1
            if index == STATS:
                self._take_statistics(chain, queue)
                continue  # and keep it
            if index == INFLATE:
                self._inflate(chain, session.memory)
            elif index in (HINTS, REPORTS) and session.features & REPORTING:
                self._reclaim(chain, session.memory)
            queue.push(chain.head, 0)

    def more(self, index: int) -> bool:
        """What came meanwhile has its turn after the other devices of the loop."""
        if self.session is not None:
            self.session.kicks[index].signal()
        return False

    def _inflate(self, chain: Chain, memory: GuestMemory) -> None:
        """5.5.6.1. Pages that are not RAM are passed over, and so are those beyond the limit: they just stay."""
        # le32 page numbers, in pages of 4 KiB whatever the guest's are
        listed = chain.copy_in(4 * MAX_PFNS)
        pages = sorted(set(memoryview(listed[: len(listed) & ~3]).cast("I")))
        at = 0
        while at < len(pages):
            end = at + 1
            while end < len(pages) and pages[end] == pages[end - 1] + 1:
                end += 1
            self._inflated += self._discard(memory, pages[at] * PAGE, (end - at) * PAGE)
            at = end

    def _reclaim(self, chain: Chain, memory: GuestMemory) -> None:
        """5.5.6.7: the buffers themselves are what is free."""
        for view in chain.writable:
            if view:
                self._reported += self._discard(memory, guest_address(memory, view), len(view))

    def _discard(self, memory: GuestMemory, addr: int, length: int) -> int:
        """The whole pages in a range; returns how many bytes they had. A range that is not all RAM is refused."""
        start = -(-addr // self._page_bytes) * self._page_bytes
        end = (addr + length) // self._page_bytes * self._page_bytes
        if start >= end:
            return 0
        self._calls -= 1
        try:
            memory.discard(start, end - start)
        except (OSError, GuestFault):
            self._refused += 1
            return 0
        return end - start

    def _take_statistics(self, chain: Chain, queue: Queue) -> None:
        """5.5.6.3: the buffer stays with us until new ones are wanted."""
        if self._asked is not None:
            queue.push(self._asked, 0)  # the driver has but one
        self._asked = chain.head
        data = chain.copy_in(_STAT.size * MAX_STATS)
        found = {}
        for tag, value in _STAT.iter_unpack(data[: len(data) // _STAT.size * _STAT.size]):
            if tag < len(STAT_NAMES):
                found[STAT_NAMES[tag]] = value
        if found:
            self._stats, self._stats_at = found, time.monotonic()

    def _ask(self) -> None:
        with self.lock:
            session, head = self.session, self._asked
            if session is None or head is None:
                return
            self._asked = None
            queue = session.queues[STATS]
            queue.push(head, 0)
            if queue.interrupt_wanted():
                session.calls[STATS].signal()

    def counters(self) -> dict[str, int]:
        return {
            "target_bytes": self._target_pages * PAGE,
            "actual_bytes": self.actual_bytes,
            "inflated_bytes": self._inflated,
            "reported_bytes": self._reported,
            "refused_ranges": self._refused,
        }


def guest_address(memory: GuestMemory, view: memoryview) -> int:
    """Where in guest memory a view of it lies; it must not be empty."""
    addr = ctypes.addressof(ctypes.c_char.from_buffer(view))
    for region in memory.regions:
        if region.host_addr <= addr < region.host_addr + region.size_bytes:
            return region.guest_addr + addr - region.host_addr
    raise ValueError("a view of something else")
