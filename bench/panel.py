"""The panel in a terminal: first frame, keys, idle load, memory, and its end. Each beside its peer in the same run."""

from __future__ import annotations

import contextlib
import re
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Row, milliseconds
from bench.pty import FRAME_END, Gone, Pty, plain
from bench.workspace import scratch
from vmtui.host.paths import program

MANY = 10_000
MORE = 100_000
CHANGE = "VMTUI_DEMO_CHANGE"
RUNS = 9
KEYS = 60
KEY_EVERY_S = 0.13  # not in step with anything that is done each second
IDLE_S = 20.0
LOADED_S = 60.0
ROWS, COLUMNS = 40, 120
PEER = [sys.executable, "-m", "bench.peers"]
DOWN, UP, PAGE_DOWN = b"\x1b[B", b"\x1b[A", b"\x1b[6~"
PLACED = re.compile(rb"\x1b\[(\d+);\d+H")


def panel(size: int) -> list[str]:
    return [program(), "--demo", str(size)]


def table(size: int, change: float) -> list[str]:
    return [*PEER, "table", str(size), str(change)]


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from a key written to the end of the frame that has repainted its row."""

    times: Sequence[float]

    @property
    def p50(self) -> float:
        return statistics.median(self.times)

    @property
    def p95(self) -> float:
        return statistics.quantiles(self.times, n=20)[18]

    def __str__(self) -> str:
        return f"{self.p50 * 1000:.1f} / {self.p95 * 1000:.1f} ms"


def first_frame(argv: Sequence[str], text: str, environment: Mapping[str, str]) -> float:
    """Seconds from exec to `text` on the terminal."""
    with Pty(argv, rows=ROWS, columns=COLUMNS, environment=environment) as terminal:
        return terminal.shows(text) - terminal.began


def medians(
    cases: Mapping[str, tuple[Sequence[str], str]], environment: Mapping[str, str], runs: int
) -> dict[str, float]:
    """First frames by name, taken in turn, so that what else the machine does falls on all of them."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for run in range(runs + 1):
        for name, (argv, text) in cases.items():
            taken = first_frame(argv, text, environment)
            if run:  # the first one warms caches
                times[name].append(taken)
    return {name: statistics.median(found) for name, found in times.items()}


def loaded(terminal: Pty, size: int) -> None:
    """Wait until all resources are there."""
    number = re.compile(rf"\b{size}\b|\b{size:,}\b")
    terminal.until(lambda raw: number.search(plain(raw)) is not None, timeout_s=LOADED_S)
    terminal.settle(0.5, 3.0)


def keys(terminal: Pty, count: int) -> Latency:
    """Go down twenty lines and up again, and so on, waiting for each to be painted."""
    times = []
    at, by = 0, 1
    for _ in range(count):
        by = by if 0 <= at + by < 20 else -by
        at += by
        times.append(pressed(terminal, DOWN if by > 0 else UP))
    return Latency(times)


def pressed(terminal: Pty, key: bytes) -> float:
    """Seconds until a frame has ended in which the cursor moved: two rows, one below the other, were painted.

    What changes meanwhile by itself are single rows here and there.
    """
    terminal.read_for(KEY_EVERY_S)
    since = len(terminal.raw)
    sent = terminal.send(key)
    return terminal.until(lambda raw: any(moved(rows) for rows in frames(raw)), since=since) - sent


def frames(raw: bytes) -> list[set[int]]:
    """The rows that each whole frame has painted."""
    return [{int(match[1]) for match in PLACED.finditer(frame)} for frame in raw.split(FRAME_END)[:-1]]


def moved(rows: set[int]) -> bool:
    return any(row + 1 in rows for row in rows if row > 1)


@dataclass(frozen=True, slots=True)
class Load:
    cpu: float
    bytes_s: float
    rss_bytes: int


def idle(terminal: Pty) -> Load:
    terminal.read_for(3.0)
    cpu, began = terminal.cpu_s(), time.perf_counter()
    written = terminal.read_for(IDLE_S)
    passed = time.perf_counter() - began
    return Load((terminal.cpu_s() - cpu) / passed, written / passed, terminal.rss_bytes())


def after_hang_up(terminal: Pty) -> tuple[float, float]:
    """Seconds until it has ended after its terminal went away, and what it computed meanwhile."""
    used, began = terminal.cpu_s(), time.perf_counter()
    terminal.hang_up()
    while terminal.process.poll() is None and time.perf_counter() - began < 5.0:
        with contextlib.suppress(OSError, IndexError):
            used_now = terminal.cpu_s()
        time.sleep(0.01)
    return time.perf_counter() - began, used_now - used


def rows() -> Iterator[Row]:
    with scratch() as paths:
        environment = {**paths.environment(), "XDG_CONFIG_HOME": str(paths.state.parent), "PYTHONPATH": "."}
        yield from start(environment, paths.state)
        yield from latencies(environment)
        yield from loads(environment)


def start(environment: Mapping[str, str], folder: Path) -> Iterator[Row]:
    log = folder / "some.log"
    log.write_text("".join(f"Jan 02 03:04:05 host program[1]: line {number}\n" for number in range(MANY)))
    cases = {
        "minimal": ([*PEER, "minimal"], "minimal and there"),
        "panel": (panel(MANY), "Resources"),
        "rows": (panel(MANY), "ci-runner"),
        "table": (table(MANY, 0), "orders"),
    }
    others = {"htop": (["htop"], "PID"), "lnav": (["lnav", str(log)], "line 9999")}
    cases |= {name: case for name, case in others.items() if shutil.which(name)}
    found = medians(cases, environment, RUNS)
    minimal = found["minimal"]
    yield Row(
        f"first frame, {MANY:,} resources / minimal Textual app",
        milliseconds(found["panel"]), milliseconds(minimal), found["panel"] / minimal, "<= 1.3x",
    )  # fmt: skip
    yield Row(
        f"first of {MANY:,} resources shown / DataTable of the same rows",
        milliseconds(found["rows"]), milliseconds(found["table"]), found["rows"] / found["table"],
    )  # fmt: skip
    for name in others:
        if name in found:
            yield Row(f"first frame / {name}", milliseconds(found["panel"]), milliseconds(found[name]))


def latencies(environment: Mapping[str, str]) -> Iterator[Row]:
    for size, share, goal in ((MANY, 0.01, "p95 <= 20 ms"), (MORE, 0.01, "p95 <= 40 ms")):
        with Pty(panel(size), rows=ROWS, columns=COLUMNS, environment={**environment, CHANGE: str(share)}) as terminal:
            loaded(terminal, size)
            mine = keys(terminal, KEYS)
            pages = Latency([pressed(terminal, PAGE_DOWN) for _ in range(KEYS // 3)])
            rss = terminal.rss_bytes()
        theirs = ""
        with Pty(table(size, share), rows=ROWS, columns=COLUMNS, environment=environment) as terminal:
            with contextlib.suppress(TimeoutError, Gone):
                terminal.shows("orders", timeout_s=LOADED_S)
                terminal.settle(0.5, 5.0)
                theirs = str(keys(terminal, KEYS // 2))
        what = f"{size:,} rows, 1 % changing each second"
        yield Row(f"key to frame p50 / p95, {what} / DataTable", str(mine), theirs, None, goal)
        yield Row(f"page down to frame p50 / p95, {what}", str(pages), f"{rss >> 20} MiB")


def loads(environment: Mapping[str, str]) -> Iterator[Row]:
    with Pty([*PEER, "minimal"], rows=ROWS, columns=COLUMNS, environment=environment) as terminal:
        terminal.shows("minimal and there")
        terminal.read_for(1.0)
        base = terminal.rss_bytes()
        theirs = after_hang_up(terminal)
    with Pty(panel(MANY), rows=ROWS, columns=COLUMNS, environment=environment) as terminal:
        loaded(terminal, MANY)
        load = idle(terminal)
        end_s, computed_s = after_hang_up(terminal)
    yield Row(f"idle with {MANY:,} resources, of a core", f"{load.cpu:.1%}", "", None, "<= 1 %")
    yield Row(f"idle with {MANY:,} resources, written", f"{load.bytes_s / 1000:.1f} kB/s", "", None, "<= 5 kB/s")
    yield Row(
        f"RSS with {MANY:,} resources / minimal Textual app",
        f"{load.rss_bytes >> 20} MiB", f"{base >> 20} MiB", load.rss_bytes / base, "<= 60 MiB",
    )  # fmt: skip
    yield Row(
        "ended after its terminal went away / minimal Textual app",
        f"{milliseconds(end_s)}, {milliseconds(computed_s)} computed",
        f"{milliseconds(theirs[0])}, {milliseconds(theirs[1])}", None, "<= 1 s",
    )  # fmt: skip


if __name__ == "__main__":
    from bench.measure import table as printed

    print(printed([*rows()]))
