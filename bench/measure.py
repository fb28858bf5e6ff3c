"""How a figure is taken: several runs, the median, beside its peer in the same run."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

RUNS = 9


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `ratio` is ours to the peer's; `goal` is for the reader, never asserted."""

    what: str
    ours: str
    peer: str = ""
    ratio: float | None = None
    goal: str = ""


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def median(act: Callable[[], object], runs: int = RUNS) -> float:
    """Seconds; the first run warms caches and does not count."""
    act()
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def command(argv: Sequence[str], env: Mapping[str, str] | None = None) -> Callable[[], object]:
    """An act that runs a command to its end; raises CalledProcessError with its stderr on failure."""

    def act() -> object:
        done = subprocess.run(argv, env={**os.environ, **(env or {})}, capture_output=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)}: code {done.returncode}: {done.stderr.decode()[-2000:]}")
        return done

    return act


def table(rows: Sequence[Row]) -> str:
    """Fixed columns, for terminals and notes."""
    cells = [("measured", "vmtui", "peer", "ratio", "goal")]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
        cells.append((row.what, row.ours, row.peer, ratio, row.goal))
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
