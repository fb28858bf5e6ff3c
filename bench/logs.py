"""A log of 1 GB in the panel: its ends, a search through all of it, memory, keys meanwhile; beside lnav and less."""

from __future__ import annotations

import asyncio
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Row, command, median, milliseconds
from bench.panel import frames
from bench.pty import Pty, plain
from bench.workspace import scratch
from vmtui.host.paths import Paths

LOG_BYTES = 1 << 30
LINES_A_BLOCK = 10_000
FIRST, LAST, RARE = "the first line of all", "the last line of all", "zebra crossing"
COUNTED, FREQUENT = "crossing", "ERROR"
ROWS, COLUMNS = 40, 120
KEYS = 40
PATIENCE_S = 300.0
QUIET_S = 3.0


def write_log(path: Path) -> None:
    """Lines as conmon writes those of a service; a rare one in the middle."""
    head = "2026-01-02T03:{:02d}:{:02d}.{:09d}+00:00 {} F "
    block = "".join(
        head.format(at // 60 % 60, at % 60, at * 7919 % 10**9, "stderr" if at % 9 == 0 else "stdout")
        + f"{('INFO', 'INFO', 'WARN', 'DEBUG', 'ERROR')[at % 5]} GET /items/{at * 31 % 100_003} {at % 900} ms\n"
        for at in range(LINES_A_BLOCK)
    ).encode()
    stamp = head.format(0, 0, 0, "stdout")
    with path.open("wb") as file:
        file.write(f"{stamp}{FIRST}\n".encode())
        rare = False
        while file.tell() < LOG_BYTES:
            file.write(block)
            if not rare and file.tell() > LOG_BYTES // 2:
                file.write(f"{stamp}{RARE}\n".encode())
                rare = True
        file.write(f"{stamp}{LAST}\n".encode())


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds and bytes; None is what cannot be told of a program."""

    open_s: float
    start_s: float | None
    end_s: float | None
    count_s: float | None
    rss_bytes: int
    key_s: float | None = None


def rows() -> Iterator[Row]:
    with scratch() as paths, tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        log = Path(directory) / "log"
        write_log(log)
        subprocess.run(["cat", log], stdout=subprocess.DEVNULL, check=True)  # into the page cache, for all of them
        ours = of_panel(log, paths)
        others = {"less": of_less(log), "lnav": of_lnav(log)} if shutil.which("lnav") else {"less": of_less(log)}
        grep_s = median(command(["grep", "-c", COUNTED, str(log)]), 1)

    def row(what: str, mine: float, of: str, ratio_to: str, **peers: float) -> Row:
        found = {**{name: getattr(figures, of) for name, figures in others.items()}, **peers}
        told = {name: seconds for name, seconds in found.items() if seconds is not None}
        beside = ", ".join(f"{name} {milliseconds(seconds)}" for name, seconds in told.items())
        ratio = mine / told[ratio_to] if ratio_to in told else None
        return Row(f"{what} / {ratio_to}", milliseconds(mine), beside, ratio)

    assert ours.start_s is not None
    assert ours.end_s is not None
    assert ours.count_s is not None
    assert ours.key_s is not None
    yield row("log of 1 GB: its last lines on the screen", ours.open_s, "open_s", "less")
    yield row("log of 1 GB: from its end to its start", ours.start_s, "start_s", "less")
    yield row("log of 1 GB: from its start to its end", ours.end_s, "end_s", "less")
    yield row("log of 1 GB: a word counted in all of it", ours.count_s, "count_s", "lnav", grep=grep_s)
    yield Row("log of 1 GB: key to frame p95 while it is counted", f"{ours.key_s * 1000:.1f} ms", goal="<= 20 ms")
    sizes = ", ".join(f"{name} {figures.rss_bytes >> 20} MiB" for name, figures in others.items())
    yield Row("log of 1 GB: memory after all that", f"{ours.rss_bytes >> 20} MiB", sizes, goal="<= 60 MiB")


def timed(terminal: Pty, keys: str, text: str) -> float:
    """Seconds from keys to a text."""
    terminal.settle()
    since = len(terminal.raw)
    sent = terminal.send(keys.encode())
    return terminal.shows(text, since=since, timeout_s=PATIENCE_S) - sent


def of_panel(log: Path, paths: Paths) -> Figures:
    """The panel runs, and the container's log is opened by a key."""
    argv = [sys.executable, "-m", "bench.logs", str(log)]
    with Pty(argv, rows=ROWS, columns=COLUMNS, environment=paths.environment()) as terminal:
        terminal.shows("running")
        open_s = timed(terminal, "l", LAST)
        terminal.shows(" of ", timeout_s=PATIENCE_S)  # the lines are counted
        start_s = timed(terminal, "g", FIRST)
        end_s = timed(terminal, "G", LAST)
        count_s = timed(terminal, f"/{COUNTED}\r", f"/{COUNTED}  1 of 1")
        terminal.settle()
        terminal.send(b"\x1bG")
        terminal.settle()
        terminal.send(f"/{FREQUENT}\r".encode())
        terminal.read_for(0.3)
        times = [_key_s(terminal, b"k" if number % 2 else b"j") for number in range(KEYS)]
        return Figures(open_s, start_s, end_s, count_s, terminal.rss_bytes(), statistics.quantiles(times, n=20)[18])


def _key_s(terminal: Pty, key: bytes) -> float:
    """Seconds until a frame has ended that painted most of the screen: the counts paint one row."""
    terminal.read_for(0.05)
    since = len(terminal.raw)
    sent = terminal.send(key)
    return terminal.until(lambda raw: any(len(rows) > ROWS // 2 for rows in frames(raw)), since=since) - sent


def of_less(log: Path) -> Figures:
    with Pty(["less", "-n", "+G", str(log)], rows=ROWS, columns=COLUMNS) as terminal:
        open_s = terminal.shows(LAST) - terminal.began
        start_s = timed(terminal, "g", FIRST)
        end_s = timed(terminal, "G", LAST)
        return Figures(open_s, start_s, end_s, None, terminal.rss_bytes())


def of_lnav(log: Path) -> Figures:
    """It reads all of the log before it shows the end, and says so many hits until it has searched all of it."""
    with Pty(["lnav", "-N", str(log)], rows=ROWS, columns=COLUMNS) as terminal:
        open_s = terminal.shows(LAST, timeout_s=PATIENCE_S) - terminal.began
        terminal.settle(2.0, 30.0)
        began = terminal.send(f"/{COUNTED}\r".encode())
        ended, since = began, len(terminal.raw)
        while time.perf_counter() - ended < QUIET_S:
            since = max(since, len(terminal.raw) - 100)
            if terminal.read(QUIET_S) and "hit" in plain(bytes(terminal.raw[since:])):
                ended = time.perf_counter()
        return Figures(open_s, None, None, ended - began, terminal.rss_bytes())


# The panel that is measured: `python -m bench.logs LOG`


async def panel(log: Path) -> None:
    """Over two simulated containers with this log."""
    from tests.support.logs import files_of
    from vmtui.tui.app import Panel

    async with files_of(Paths.from_environment()) as (workspace, files):
        for file in files.values():
            file.symlink_to(log)
        await Panel(workspace).run_async()


if __name__ == "__main__":
    asyncio.run(panel(Path(sys.argv[1])))
