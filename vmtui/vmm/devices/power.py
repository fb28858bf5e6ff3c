"""The port by which a guest turns itself off or restarts (ACPI 4.8.3.7 sleep control, 4.8.3.6 reset register)."""

from __future__ import annotations

from collections.abc import Callable

SLEEP_ENABLE = 1 << 5  # sleep control register: SLP_EN, with SLP_TYP in bits 2 to 4
S5 = 5  # what the DSDT's \\_S5 names
RESET = 1  # what the FADT names as RESET_VALUE


class PowerPort:
    """Both callbacks are called in the vCPU's thread, which then waits for its end: it must not go on (VMM, S5)."""

    def __init__(self, off: Callable[[], None], reset: Callable[[], None]) -> None:
        self._off = off
        self._reset = reset

    def read(self, offset: int, size: int) -> int:
        return 0  # no wake status

    def write(self, offset: int, size: int, value: int) -> None:
        if value & SLEEP_ENABLE and value >> 2 & 7 == S5:
            self._off()
        elif value == RESET:
            self._reset()
