"""pvpanic (QEMU's docs/specs/pvpanic): the port by which a guest's kernel says that it panicked, or shut down."""

from __future__ import annotations

from collections.abc import Callable

PORT, PORTS = 0x505, 1
HID = "QEMU0001"  # in the DSDT: Linux finds the port by it (drivers/misc/pvpanic/pvpanic-mmio.c)
# include/uapi/misc/pvpanic.h; older kernels say nothing of a shutdown
PANICKED, CRASH_LOADED, SHUTDOWN = 1 << 0, 1 << 1, 1 << 2
EVENTS = {PANICKED: "panicked", CRASH_LOADED: "crash-loaded", SHUTDOWN: "shutdown"}


class Pvpanic:
    """Read: the events that it takes. Write: those that happened. `told` must not raise; a vCPU's thread calls it."""

    def __init__(self, told: Callable[[str], None]) -> None:
        """`told(event)` with one of the names of EVENTS. A guest that repeats itself is heard once for each."""
        self._told = told
        self._heard = 0

    def read(self, offset: int, size: int) -> int:
        return sum(EVENTS)

    def write(self, offset: int, size: int, value: int) -> None:
        new = value & sum(EVENTS) & ~self._heard
        self._heard |= new
        for bit, event in EVENTS.items():
            if new & bit:
                self._told(event)

    def reset(self) -> None:
        """The machine was: another kernel may panic."""
        self._heard = 0
