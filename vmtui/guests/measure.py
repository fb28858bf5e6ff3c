"""What a VM's process uses, from /proc and /sys."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from vmtui.core.resource import Sample


def sample(pid: int, memory_limit: int, interfaces: Iterable[str]) -> Sample:
    """Unknown where the process or an interface is gone."""
    cpu_s = memory = None
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        fields = text[text.rindex(")") + 2 :].split()  # from the third of proc(5) on
        cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        memory = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pass
    # What the host's end of a TAP sends is what the guest receives.
    taps = list(interfaces)
    return Sample(
        at=time.time(),
        cpu_s=cpu_s,
        memory_bytes=memory,
        memory_limit_bytes=memory_limit,
        net_rx_bytes=_sum(taps, "tx_bytes"),
        net_tx_bytes=_sum(taps, "rx_bytes"),
    )


def _sum(interfaces: list[str], counter: str) -> int | None:
    """None without interfaces, or if one is gone."""
    try:
        numbers = [int(Path(f"/sys/class/net/{name}/statistics/{counter}").read_text()) for name in interfaces]
    except OSError:
        return None
    return sum(numbers) if numbers else None
