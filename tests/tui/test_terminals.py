"""The panel in the terminals that people come with: what is written to each, and what happens when one goes away."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.pty import Pty, terminal_environment
from tests.support.terminal import Watched

COLOUR = re.compile(rb"\x1b\[(?:[0-9;]*;)?(?:3[0-7]|4[0-7]|9[0-7]|10[0-7]|38;[25]|48;[25])[0-9;]*m")
WAIT_S = 60
WRITE = ["1", "0x2"]  # asm/unistd_64.h; to stderr
DEMO = (sys.executable, "-m", "vmtui", "--demo", "20")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "run").mkdir(mode=0o700)
    folders = {name: str(tmp_path / name.lower()) for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    return {**folders, "XDG_RUNTIME_DIR": str(tmp_path / "run")}


@pytest.fixture
def left(tmp_path: Path) -> Callable[[], list[str]]:
    """What the demo has left behind."""
    folder = tmp_path / "run" / "vmtui" / "demo"
    return lambda: [path.name for path in folder.iterdir()] if folder.exists() else []


@pytest.mark.parametrize(
    ("term", "colours", "sign"),
    [
        ("xterm-256color", True, "●"),
        ("xterm", True, "●"),
        ("screen", True, "●"),
        ("linux", True, "*"),
        ("vt100", False, "*"),
    ],
)
def test_each_terminal_gets_what_it_can_show(
    environment: dict[str, str], tmp_path: Path, term: str, colours: bool, sign: str
) -> None:
    chosen = {**environment, "TERM": term, "COLORTERM": ""}
    with Watched(DEMO, rows=24, columns=80, environment=chosen, folder=tmp_path) as panel:
        panel.sees(f"{sign} running")
        panel.press(b"\x1b[B", b"d", b"6", b"?")
        panel.sees("everywhere")
        assert bool(COLOUR.search(panel.raw)) is colours
        assert (b"38;2;" in panel.raw) is False
        assert (b"38;5;" in panel.raw) is ("256" in term)
        if sign == "*":
            assert panel.raw.isascii()
        assert panel.stream.wrong == []
        panel.press(b"\x1b", b"q")
        assert panel.end() == 0


def test_a_terminal_that_goes_away_ends_it_by_that_signal(
    environment: dict[str, str], left: Callable[[], list[str]]
) -> None:
    with Pty(DEMO, environment=environment) as panel:
        panel.shows("running")
        assert left()
        panel.hang_up()
        assert panel.process.wait(WAIT_S) == -signal.SIGHUP
    assert left() == []


def test_a_terminal_that_is_not_its_own_ends_it_too(environment: dict[str, str], left: Callable[[], list[str]]) -> None:
    """No signal comes then: it reads nothing for ever, and cannot write."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        DEMO,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env={**terminal_environment(), **environment, "COLUMNS": "80", "LINES": "24"},
    )
    os.close(slave)
    seen = b""
    while b"running" not in seen:
        seen += os.read(master, 65536)
    os.close(master)
    assert process.wait(WAIT_S) == -signal.SIGHUP
    assert left() == []


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_one_that_takes_nothing_any_more_does_not_keep_it(environment: dict[str, str], number: signal.Signals) -> None:
    with Pty(DEMO, environment=environment) as panel:
        panel.shows("running")
        stop = threading.Event()

        def type_on() -> None:
            while not stop.wait(0.02):
                try:
                    panel.send(b"6" if int(time.monotonic() * 10) % 2 else b"1")
                except OSError:
                    return

        typing = threading.Thread(target=type_on)
        typing.start()
        deadline = time.monotonic() + WAIT_S
        try:
            while not _stands(panel.process.pid):
                assert time.monotonic() < deadline, "it writes and writes"
                time.sleep(0.2)
        finally:
            stop.set()
            typing.join()
        panel.process.send_signal(number)
        assert panel.process.wait(WAIT_S) == -number


def _stands(pid: int) -> bool:
    """Whether a thread of it waits in write(2) for the terminal (proc(5))."""
    calls = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            calls.append((task / "syscall").read_text().split()[:2])
    return WRITE in calls
