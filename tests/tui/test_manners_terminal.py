"""What a terminal does to the panel: signals, bytes that are no text, and going away."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.pty import Gone, Pty, plain

LEFT = (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1000l", b"\x1b[?2004l")  # alternate screen, cursor, mouse, paste


@pytest.fixture
def panel(tmp_path: Path) -> Iterator[Pty]:
    folders = {name: str(tmp_path / name.lower()) for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    environment = {**folders, "XDG_RUNTIME_DIR": str(runtime)}
    with Pty([sys.executable, "-m", "vmtui", "--demo", "20"], environment=environment) as opened:
        opened.shows("running")
        opened.read_for(0.5)
        yield opened


def rest(panel: Pty) -> bytes:
    """All that it writes until it ends."""
    start = len(panel.raw)
    with contextlib.suppress(Gone):
        while True:
            panel.read(60)
    return bytes(panel.raw[start:])


def test_bytes_that_are_no_text_do_no_harm(panel: Pty) -> None:
    panel.send(b"\xff\xfe\xc3(\x80")
    panel.send(b"\x1b[M\xe0\xff\xff")  # a report of the mouse as of old, far to the right
    panel.read_for(0.5)
    start = len(panel.raw)
    panel.send(b":zzz\r")
    panel.shows("there is no command", since=start)


def test_it_is_terminated_and_the_terminal_is_as_before(panel: Pty) -> None:
    panel.process.send_signal(signal.SIGTERM)
    said = rest(panel)
    assert panel.process.wait(60) == -signal.SIGTERM
    assert all(sequence in said for sequence in LEFT), said
    assert "Traceback" not in plain(said)


def test_it_ends_with_its_terminal(panel: Pty) -> None:
    panel.hang_up()
    panel.process.wait(60)


def test_it_stops_and_goes_on_as_a_job_of_the_shell(panel: Pty) -> None:
    start = len(panel.raw)
    panel.process.send_signal(signal.SIGTSTP)
    deadline = time.monotonic() + 120
    while os.waitid(os.P_PID, panel.process.pid, os.WSTOPPED | os.WNOHANG) is None:
        assert time.monotonic() < deadline, "it does not stop"
        panel.read(0.05)  # it has to say all that it is saying before it can stop
    panel.until(lambda raw: LEFT[0] in raw, since=start)
    start = len(panel.raw)
    panel.process.send_signal(signal.SIGCONT)
    panel.shows("Resources", since=start)
    panel.shows("Help", since=start)
    panel.send(b"q")
    assert panel.end() == 0


def test_a_defect_is_told_in_a_line(tmp_path: Path) -> None:
    """What breaks the panel itself: here a module that it loads when a view is first shown."""
    code = (
        "import sys; from vmtui.tui.screens import map as view; from vmtui import cli\n"
        "def broken(self): raise ValueError('a defect')\n"
        "view.MapScreen.on_mount = broken\n"
        "sys.argv = ['vmtui', '--demo', '20']; sys.exit(cli.main())"
    )
    (tmp_path / "run").mkdir(mode=0o700)
    with Pty([sys.executable, "-c", code], environment={"XDG_RUNTIME_DIR": str(tmp_path / "run")}) as opened:
        opened.shows("running")
        opened.send(b"6")
        said = plain(rest(opened))
        assert opened.process.wait(60) == 1
        assert "error: ValueError: a defect" in said
        assert "VMTUI_DEBUG=1" in said
        assert "Traceback" not in said


SLOW_TO_LOOK = """
import sys, time
from pathlib import Path
from textual.drivers.linux_driver import LinuxDriver
from vmtui import cli
look, looks, depth, most = LinuxDriver._get_terminal_size, 0, 0, 0
def slow(self):
    global looks, depth, most
    looks, depth = looks + 1, depth + 1
    most = max(most, depth)
    size = look(self)
    time.sleep(0.05)
    depth -= 1
    Path("looked").write_text(f"{size[0]} {most} {looks}")
    return size
LinuxDriver._get_terminal_size = slow
sys.argv = ["vmtui", "--demo", "20"]
cli.main()
"""


def test_a_window_that_is_dragged_is_looked_at_once_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    environment = {"XDG_RUNTIME_DIR": str(tmp_path / "run")}
    with Pty([sys.executable, "-c", SLOW_TO_LOOK], environment=environment, folder=tmp_path) as opened:
        opened.shows("running")
        for columns in range(60, 120):
            opened.resize(30, columns)
            opened.read(0.01)
        deadline = time.monotonic() + 60
        while not (looked := (tmp_path / "looked").read_text()).startswith("119 "):
            assert time.monotonic() < deadline, looked
            opened.read(0.05)
    _, most, looks = map(int, looked.split())
    assert most == 1
    assert looks < 60


def stopped_after(pid: int) -> int | None:
    """How often it had the processor before it was stopped; None if it is not (proc(5))."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["voluntary_ctxt_switches"]) if status["State"].startswith("T") else None


def test_a_job_that_was_in_the_background_still_follows_its_window(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    environment = {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "PS1": "here> "}
    with Pty(["bash", "--norc", "--noediting", "-i"], environment=environment, folder=tmp_path) as shell:
        shell.shows("here> ")
        shell.send(f"{sys.executable} -m vmtui --demo 20\r".encode())
        shell.shows("running")
        start = len(shell.raw)
        panel = os.tcgetpgrp(shell._master)
        os.killpg(panel, signal.SIGTSTP)
        shell.shows("Stopped", since=start)
        before = stopped_after(panel)
        shell.send(b"bg\r")
        deadline = time.monotonic() + 120
        while stopped_after(panel) in (None, before):  # it may not have the terminal, and stops by itself
            assert time.monotonic() < deadline, "it does not stop again"
            shell.read(0.05)
        start = len(shell.raw)
        shell.send(b"fg\r")
        shell.shows("Help", since=start)
        for columns in (90, 110):
            start = len(shell.raw)
            shell.resize(30, columns)
            shell.shows("Resources", since=start)
        shell.send(b"q")
        shell.shows("here> ", since=start)
        shell.send(b"exit\r")
        assert shell.end() == 0
