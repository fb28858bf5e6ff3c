"""The console: a log of 10 MB through it, and how soon a key is seen, beside tmux and the bare terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import statistics
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.measure import Row, milliseconds
from bench.pty import Pty, plain
from bench.workspace import scratch
from vmtui.host.paths import Paths

LOG_BYTES = 10_000_000
KEYS = 60
RUNS = 3
PROMPT = "bench$ "
SHELL = ["bash", "--norc", "--noprofile"]
ENVIRONMENT = {"PS1": PROMPT, "HISTFILE": "", "TEXTUAL_ANIMATIONS": "none"}
ROWS, COLUMNS = 40, 120


def rows() -> Iterator[Row]:
    with scratch() as paths, tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        log, gaps = folder / "log", folder / "gaps"
        log.write_bytes(log_text())
        panel = [sys.executable, "-m", "bench.console", str(gaps)]
        ours = _measured(panel, log, gaps, environment=paths.environment())
        bare = _measured(SHELL, log, None)
        name = f"cat of a {LOG_BYTES / 1e6:.0f} MB log"
        tmux_cat = tmux_echo = "no tmux"
        ratio = None
        if shutil.which("tmux") is not None:
            socket = folder / "tmux"
            command = ["tmux", "-S", str(socket), "-f", "/dev/null"]
            try:
                tmux = _measured([*command, "new-session", *SHELL], log, None)
            finally:
                subprocess.run([*command, "kill-server"], capture_output=True, check=False)
            tmux_cat, tmux_echo = f"tmux {tmux.cat_s:.2f} s", f"tmux {tmux.echo_s * 1000:.1f} ms"
            ratio = ours.cat_s / tmux.cat_s
        peers = f"{tmux_cat}, bare {bare.cat_s:.2f} s"
        yield Row(f"console: {name}", f"{ours.cat_s:.2f} s", peers, ratio, goal="3 s")
        yield Row("console: longest gap of the loop meanwhile", milliseconds(ours.gap_s), goal="50 ms")
        peers = f"{tmux_echo}, bare {bare.echo_s * 1000:.1f} ms"
        yield Row("console: key to its echo, median", f"{ours.echo_s * 1000:.1f} ms", peers, goal="8 ms")


def log_text() -> bytes:
    """Lines as services write them."""
    lines = []
    size = number = 0
    while size < LOG_BYTES:
        line = (
            f"2026-05-{number % 28 + 1:02d}T12:{number // 60 % 60:02d}:{number % 60:02d}Z host-{number % 17} "
            f"svc[{number % 4000}]: request {number} handled in {number % 977} ms path=/api/v1/items/{number % 1000}\n"
        ).encode()
        lines.append(line)
        size += len(line)
        number += 1
    return b"".join(lines)


class Figures:
    """Medians of the runs; the gap is the longest of all."""

    def __init__(self, cat_s: float, echo_s: float, gap_s: float) -> None:
        self.cat_s, self.echo_s, self.gap_s = cat_s, echo_s, gap_s


def _measured(argv: list[str], log: Path, gaps: Path | None, environment: dict[str, str] | None = None) -> Figures:
    with Pty(argv, rows=ROWS, columns=COLUMNS, environment={**ENVIRONMENT, **(environment or {})}) as terminal:
        terminal.shows(PROMPT.strip())
        terminal.settle()
        echoes = [_echo_s(terminal, key) for key in _keys()]
        terminal.send(b"\x03")
        terminal.settle()
        times, gap_s = [], 0.0
        for run in range(RUNS):
            terminal.raw.clear()
            began = terminal.send(f"cat {log}; echo done-$((40 + {run}))\r".encode())
            done, tail = f"done-{40 + run}".encode(), b""
            while done not in tail:
                terminal.raw.clear()
                tail = tail[-len(done) :] + terminal.read(60.0)
            ended = time.perf_counter()
            times.append(ended - began)
            terminal.settle()
            if gaps is not None:
                gap_s = max(gap_s, *_gaps_between(gaps, began, ended))
        return Figures(statistics.median(times), statistics.median(echoes), gap_s)


def _keys() -> Iterator[str]:
    """Letters, none of them twice in a row."""
    letters = string.ascii_lowercase
    return (letters[number % len(letters)] for number in range(KEYS))


def _echo_s(terminal: Pty, key: str) -> float:
    """From a key to the terminal's being told to draw it, as a person types: not before the last one is drawn."""
    terminal.read_for(random.uniform(0.04, 0.09))
    terminal.raw.clear()
    began = terminal.send(key.encode())
    while key not in plain(bytes(terminal.raw)):
        if not terminal.read(5.0):
            raise TimeoutError(f"{key!r} was not echoed")
    return time.perf_counter() - began


def _gaps_between(file: Path, began: float, ended: float) -> list[float]:
    found = [0.0]
    for line in file.read_text().splitlines():
        at, _, length = line.partition(" ")
        if began <= float(at) <= ended:
            found.append(float(length))
    return found


# The panel that is measured: `python -m bench.console GAPS`


def panel(gaps: Path) -> None:
    """A panel with a shell of this machine in its console; gaps of its loop above 4 ms go to a file."""
    from tests.support.terminals import PtyTerminal
    from vmtui.core.backend import Terminal
    from vmtui.core.resource import Kind, Ref
    from vmtui.engine.workspace import Workspace
    from vmtui.tui.app import Panel
    from vmtui.tui.console.session import ConsoleSession
    from vmtui.tui.screens.console import ConsoleScreen

    async def connect(ref: Ref, rows: int, columns: int) -> Terminal:  # noqa: ARG001
        return PtyTerminal(SHELL, {**os.environ, **ENVIRONMENT}, Path("/"), rows, columns)

    async def beat() -> None:
        with gaps.open("w", buffering=1) as file:
            last = time.perf_counter()
            while True:
                await asyncio.sleep(0.001)
                now = time.perf_counter()
                if now - last > 0.004:
                    file.write(f"{last} {now - last}\n")
                last = now

    async def run() -> None:
        async with await Workspace.open(Paths.from_environment()) as workspace:
            app = Panel(workspace)

            async def show() -> None:
                session = ConsoleSession(Ref("bench", Kind.CONTAINER, "shell"), "shell: bash", connect)
                await session.connect()
                app.sessions.add(session)
                app.show(ConsoleScreen(session))

            async def later() -> None:
                while not app.ready or not app.is_running:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                await asyncio.sleep(1)
                app.call_later(show)

            beating, showing = asyncio.create_task(beat()), asyncio.create_task(later())
            try:
                await app.run_async()
            finally:
                for task in (beating, showing):
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task

    asyncio.run(run())


if __name__ == "__main__":
    panel(Path(sys.argv[1]))
