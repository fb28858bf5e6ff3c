"""Real programs behind a pty, in the panel's console: what is typed runs, and the screen is the program's."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.panel import panel_of, shown, until, workspace_of
from tests.support.terminals import PtyTerminal
from vmtui.core.backend import Terminal
from vmtui.core.resource import Kind, Ref
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.tui.console.session import ConsoleSession, State
from vmtui.tui.screens.console import ConsoleScreen

ENVIRONMENT = {
    "TERM": "xterm-256color",
    "PATH": os.environ["PATH"],
    "LANG": "C.UTF-8",
    "PS1": "guest$ ",
    "LESSHISTFILE": "-",
}
GUEST = Ref("dev", Kind.CONTAINER, "web")


@pytest.fixture
async def workspace(paths: Paths) -> AsyncIterator[Workspace]:
    opened = await workspace_of(paths)
    yield opened
    await opened.aclose()


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def bash_in(folder: Path) -> ConsoleSession:
    async def connect(ref: Ref, rows: int, columns: int) -> Terminal:
        environment = {**ENVIRONMENT, "HOME": str(folder)}
        return PtyTerminal(["bash", "--norc", "--noprofile"], environment, folder, rows, columns)

    return ConsoleSession(GUEST, "shell: bash", connect)


@needs("bash", "vim.tiny", "less")
async def test_a_shell_an_editor_and_a_pager(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "numbers").write_text("".join(f"line {number}\n" for number in range(1000)))
    session = bash_in(tmp_path)
    await session.connect()
    async with panel_of(workspace, size=(80, 24)) as (app, pilot):
        app.sessions.add(session)
        app.show(ConsoleScreen(session))

        async def types(text: str) -> None:
            await pilot.press(*({" ": "space", "\r": "enter", "\x1b": "escape", ":": "colon", "!": "exclamation_mark",
                                 "/": "slash"}.get(char, char) for char in text))  # fmt: skip

        def row(y: int) -> str:
            return shown(app).split("\n")[1 + y]

        await until(pilot, lambda: "guest$" in row(0))
        await types("stty size\r")
        await until(pilot, lambda: "23 80" in shown(app))

        await types("vim.tiny -u NONE -N new\r")
        await until(pilot, lambda: session.engine.modes.alternate and row(1) == "~")
        await types("ihello\r漢字\x1b")
        await until(pilot, lambda: row(1) == "漢字")
        await pilot.press("up", "A")
        await types("!\x1b:wq\r")
        await until(pilot, lambda: not session.engine.modes.alternate)
        assert (tmp_path / "new").read_text() == "hello!\n漢字\n"

        await types("less numbers\r")
        await until(pilot, lambda: row(0) == "line 0")
        await types("/line 500\r")
        await until(pilot, lambda: row(0) == "line 500")
        await pilot.resize_terminal(60, 12)
        await until(pilot, lambda: session.engine.rows == 11 and row(9) == "line 509")
        await types("q")
        await until(pilot, lambda: not session.engine.modes.alternate)

        await types("echo a''sleep; sleep 60\r")
        await until(pilot, lambda: "\nasleep" in shown(app))  # from here on it is the terminal's foreground
        await pilot.press("ctrl+c")
        await types("cat numbers\r")
        await until(pilot, lambda: "line 999" in shown(app))
        assert session.engine.history.end > 950
        await types("exit\r")
        await until(pilot, lambda: session.state is State.ENDED)


@needs("bash")
async def test_the_program_goes_on_while_nobody_looks(workspace: Workspace, tmp_path: Path) -> None:
    session = bash_in(tmp_path)
    await session.connect()
    async with panel_of(workspace, size=(80, 24)) as (app, pilot):
        app.sessions.add(session)
        app.show(ConsoleScreen(session))
        await until(pilot, lambda: "guest$" in shown(app))
        session.send(b"for i in $(seq 100); do echo tick $i; sleep 0.002; done; touch done\r")
        await pilot.press("ctrl+right_square_bracket")
        await until(pilot, lambda: app.screen is app.home)
        await until(pilot, lambda: (tmp_path / "done").exists())
        app.show(ConsoleScreen(session))
        await until(pilot, lambda: "tick 100" in shown(app))
        assert session.engine.history.end > 70
