"""The console's screen: all keys are the guest's, the banner tells the truth, and nothing but cells is drawn."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import pytest
from textual import events
from textual.pilot import Pilot

from tests.support.panel import panel_of, shown, until, workspace_of
from tests.support.terminals import EchoTerminal
from vmtui.core.backend import Terminal
from vmtui.core.errors import NotPermitted, OperationFailed
from vmtui.core.lifecycle import Action
from vmtui.core.resource import Kind, Ref
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.profile.settings import Settings
from vmtui.tui.app import Panel
from vmtui.tui.console.session import ConsoleSession, Sessions, State, open_console, open_exec
from vmtui.tui.console.view import ConsoleView
from vmtui.tui.screens.console import ConsoleScreen

GUEST = Ref("dev", Kind.VM, "guest")
WEB = Ref("dev", Kind.CONTAINER, "web")


@pytest.fixture
async def workspace(paths: Paths) -> AsyncIterator[Workspace]:
    opened = await workspace_of(paths)
    yield opened
    await opened.aclose()


class Line:
    """A session on an EchoTerminal, a new one each time it connects."""

    def __init__(self, ref: Ref = GUEST, *, echo: bool = True, serial: bool = True) -> None:
        self.terminal = EchoTerminal(echo=echo)
        self.refuse = ""
        self.asked: list[Ref] = []
        self._echo = echo
        self.session = ConsoleSession(ref, "serial console", self._connect, serial=serial)

    async def _connect(self, ref: Ref, rows: int, columns: int) -> Terminal:
        self.asked.append(ref)
        if self.refuse:
            raise OperationFailed(self.refuse)
        if self.terminal.closed or self.session.state is State.ENDED:
            self.terminal = EchoTerminal(echo=self._echo)
        return self.terminal


@contextlib.asynccontextmanager
async def console_of(
    workspace: Workspace,
    line: Line,
    *,
    size: tuple[int, int] = (80, 24),
    read_only: bool = False,
    settings: Settings | None = None,
) -> AsyncIterator[tuple[Panel, Pilot[None]]]:
    await line.session.connect()
    async with panel_of(workspace, size=size, read_only=read_only, settings=settings) as (app, pilot):
        app.sessions.add(line.session)
        app.show(ConsoleScreen(line.session))
        await until(pilot, lambda: isinstance(app.screen, ConsoleScreen) and app.screen.focused is not None)
        yield app, pilot


def row(app: Panel, y: int) -> str:
    return shown(app).split("\n")[y]


async def test_what_is_typed_and_said_is_on_the_screen(workspace: Workspace) -> None:
    line = Line()
    async with console_of(workspace, line) as (app, pilot):
        line.terminal.say(b"login: \x1b[1mroot\x1b[0m ")
        await pilot.press("h", "i", "space", "漢")
        await until(pilot, lambda: row(app, 1) == "login: root hi 漢")
        assert line.terminal.sent == "hi 漢".encode()
        assert line.terminal.size == (23, 80)


KEYS = {
    "ctrl+p": b"\x10", "ctrl+q": b"\x11", "ctrl+c": b"\x03", "ctrl+backslash": b"\x1c", "ctrl+underscore": b"\x1f",
    "ctrl+@": b"\0", "shift+tab": b"\x1b[Z", "tab": b"\t", "escape": b"\x1b", "q": b"q", "1": b"1", "7": b"7",
    "colon": b":", "slash": b"/", "question_mark": b"?", "minus": b"-", "left_square_bracket": b"[", "f9": b"\x1b[20~",
    "right_square_bracket": b"]", "ctrl+t": b"\x14", "enter": b"\r", "up": b"\x1b[A",
    "f1": b"\x1bOP", "shift+f5": b"\x1b[15;2~", "alt+x": b"\x1bx", "ctrl+z": b"\x1a", "delete": b"\x1b[3~",
}  # fmt: skip


async def test_every_key_is_the_guests(workspace: Workspace) -> None:
    line = Line(echo=False)
    async with console_of(workspace, line) as (app, pilot):
        for key, expected in KEYS.items():
            line.terminal.sent = b""
            await pilot.press(key)
            await until(pilot, lambda: bool(line.terminal.sent), key)
            assert line.terminal.sent == expected, key
            assert isinstance(app.screen, ConsoleScreen), key
        line.terminal.say(b"\x1b[?1h")
        await until(pilot, lambda: line.session.engine.modes.application_cursor)
        line.terminal.sent = b""
        await pilot.press("up")
        await until(pilot, lambda: line.terminal.sent == b"\x1bOA")
        assert list(app.screen.active_bindings) == [
            "ctrl+right_square_bracket",
            "shift+f12",
            "shift+pageup",
            "shift+pagedown",
        ]


async def test_keys_of_the_keymap_do_not_reach_past_the_guest(workspace: Workspace) -> None:
    line = Line(echo=False)
    settings = Settings(theme="vmtui-dark", keys={"quit": "f8,z", "console-menu": "f7"}, detach_key="f6")
    async with console_of(workspace, line, settings=settings) as (app, pilot):
        await pilot.press("z", "f8", "ctrl+right_square_bracket")
        await until(pilot, lambda: line.terminal.sent == b"z\x1b[19~\x1d")
        assert "f6 detaches" in row(app, 0)
        await pilot.press("f6")
        await until(pilot, lambda: not isinstance(app.screen, ConsoleScreen))


async def test_the_banner_is_the_streams_own_and_stays(workspace: Workspace) -> None:
    line = Line()
    async with console_of(workspace, line) as (app, pilot):
        line.terminal.say(b"\x1b]0;dev/vm/other\x07\x1b[1;1H\x1b[2Jprod/vm/other")
        await until(pilot, lambda: "prod/vm/other" in shown(app))
        assert row(app, 0).startswith(" dev/vm/guest  serial console · connected ")
        assert row(app, 0).endswith(" ctrl+] detaches  shift+f12 menu")
        assert line.asked == [GUEST]
        await pilot.resize_terminal(100, 20)
        await until(pilot, lambda: line.terminal.size == (19, 100))
        await until(pilot, lambda: row(app, 0).startswith(" vm guest  dev/vm/guest  serial console · connected "))
        await pilot.resize_terminal(40, 10)
        await until(pilot, lambda: line.terminal.size == (9, 40))
        await until(pilot, lambda: row(app, 0).split()[0] == "dev/vm/guest")
        assert row(app, 0).endswith("ctrl+] detaches")


async def test_detached_it_goes_on_and_the_same_is_shown_again(workspace: Workspace) -> None:
    line = Line()
    async with console_of(workspace, line, size=(80, 10)) as (app, pilot):
        await pilot.press("ctrl+right_square_bracket")
        await until(pilot, lambda: app.screen is app.home)
        assert not line.session.shown
        line.terminal.say(b"".join(b"line %d\r\n" % number for number in range(40)))
        await until(pilot, lambda: line.session.engine.history.end > 20)
        assert not line.terminal.closed
        await pilot.press("3")
        await until(pilot, lambda: "line 39" in shown(app))
        await pilot.press("shift+pageup", "shift+pageup")
        await until(pilot, lambda: "line 20" in shown(app))
        await until(pilot, lambda: "line 39" not in shown(app))
        await until(pilot, lambda: "rows back" in row(app, 0))
        line.terminal.say(b"more\r\n")
        await pilot.pause()
        await until(pilot, lambda: "line 20" in shown(app))
        await pilot.press("x")
        await until(pilot, lambda: "line 39" in shown(app))
        await until(pilot, lambda: "connected" in row(app, 0))
    assert line.terminal.closed  # with the panel


async def test_an_end_is_told_and_can_be_mended(workspace: Workspace) -> None:
    line = Line()
    async with console_of(workspace, line, size=(120, 24)) as (app, pilot):
        line.terminal.say(b"\x1b[?1049h\x1b[?1000hin vi")
        await until(pilot, lambda: "in vi" in shown(app))
        line.terminal.end()
        await until(pilot, lambda: "ended, r connects again: the other side closed it" in row(app, 0))
        line.refuse = "the VM is gone \x1b[31m"
        await pilot.press("r")
        await until(pilot, lambda: "ended, r connects again: the VM is gone" in row(app, 0))
        line.refuse = ""
        await pilot.press("enter")
        await until(pilot, lambda: "connected" in row(app, 0))
        assert line.asked == [GUEST] * 3
        assert not line.session.engine.modes.alternate
        await pilot.press("o", "k")
        await until(pilot, lambda: "ok" in shown(app))
        line.terminal.end()
        await until(pilot, lambda: "ended" in row(app, 0))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.home)


async def test_the_menu_has_what_keeps_no_key(workspace: Workspace) -> None:
    line = Line(echo=False)
    async with console_of(workspace, line) as (app, pilot):
        await pilot.press("shift+f12")
        await until(pilot, lambda: "s send stty" in row(app, 0))
        await pilot.press("s")
        await until(pilot, lambda: line.terminal.sent == b"stty rows 23 cols 80\r")
        await pilot.press("shift+f12", "k", "shift+f12", "m", "shift+f12", "escape", "x")
        await until(pilot, lambda: line.terminal.sent.endswith(b"\r\x1d\x1b[24;2~x"))
        await pilot.press("shift+f12", "d")
        await until(pilot, lambda: app.screen is app.home)


async def test_hanging_up_ends_the_stream(workspace: Workspace) -> None:
    line = Line()
    async with console_of(workspace, line) as (app, pilot):
        await pilot.press("shift+f12", "x")
        await until(pilot, lambda: app.screen is app.home and line.terminal.closed)
        assert app.sessions.last() is None
        assert line.session.state is State.ENDED


async def test_a_console_that_takes_no_input_says_so(workspace: Workspace) -> None:
    line = Line()
    async with console_of(workspace, line, size=(120, 10)) as (app, pilot):
        line.terminal.refusal = "it has no terminal and reads nothing"
        await pilot.press("x")
        await until(pilot, lambda: "takes no input: it has no terminal and reads nothing" in row(app, 0))
        line.terminal.say(b"still here")
        await until(pilot, lambda: "still here" in shown(app))


async def test_mouse_and_wheel(workspace: Workspace) -> None:
    line = Line(echo=False)
    async with console_of(workspace, line, size=(80, 10)) as (app, pilot):
        view = line_view(app)
        await pilot.click(view, offset=(4, 2))
        assert line.terminal.sent == b""
        line.terminal.say(b"".join(b"line %d\r\n" % number for number in range(40)))
        await until(pilot, lambda: "line 39" in shown(app))
        wheel(view, events.MouseScrollUp)
        await until(pilot, lambda: "rows back" in row(app, 0))
        assert "line 29" in shown(app)
        wheel(view, events.MouseScrollDown)
        await until(pilot, lambda: "connected" in row(app, 0))
        line.terminal.say(b"\x1b[?1049h")
        await until(pilot, lambda: line.session.engine.modes.alternate)
        wheel(view, events.MouseScrollUp)
        await until(pilot, lambda: line.terminal.sent == b"\x1b[A" * 3)
        line.terminal.say(b"\x1b[?1002;1006h")
        await until(pilot, lambda: line.session.engine.modes.mouse.value == "1002")
        line.terminal.sent = b""
        await pilot.click(view, offset=(4, 2))
        wheel(view, events.MouseScrollDown)
        await until(pilot, lambda: line.terminal.sent == b"\x1b[<0;5;3M\x1b[<0;5;3m\x1b[<65;5;3M")


def line_view(app: Panel) -> ConsoleView:
    assert isinstance(app.screen, ConsoleScreen)
    return app.screen.view


def wheel(view: ConsoleView, kind: type[events.MouseEvent]) -> None:
    view.post_message(kind(view, 4, 2, 0, 0, 0, False, False, False))


async def test_paste_and_focus(workspace: Workspace) -> None:
    line = Line(echo=False)
    async with console_of(workspace, line) as (app, pilot):
        view = line_view(app)
        view.post_message(events.Paste("two\nlines\x1b[201~"))
        await until(pilot, lambda: line.terminal.sent == b"two\rlines[201~")
        line.terminal.say(b"\x1b[?2004;1004h")
        await until(pilot, lambda: line.session.engine.modes.focus)
        line.terminal.sent = b""
        view.post_message(events.Paste("x"))
        app.post_message(events.AppBlur())
        app.post_message(events.AppFocus())
        await until(pilot, lambda: line.terminal.sent == b"\x1b[200~x\x1b[201~\x1b[O\x1b[I")


async def test_read_only_sends_nothing(workspace: Workspace) -> None:
    line = Line()
    async with console_of(workspace, line, read_only=True) as (app, pilot):
        line_view(app).post_message(events.Paste("x"))
        await pilot.press("x", "shift+f12", "s")
        await pilot.pause()
        assert line.terminal.sent == b""
        assert "read-only" in row(app, 0)


async def test_the_picture_is_held_back_while_the_guest_draws_it_but_not_for_ever(workspace: Workspace) -> None:
    line = Line()
    async with console_of(workspace, line) as (app, pilot):
        line.terminal.say(b"\x1b[?2026hhalf")
        await until(pilot, lambda: row(app, 1) == "half")


async def test_what_the_guest_draws_is_all_that_is_drawn(workspace: Workspace) -> None:
    hostile = (
        b"[/ [@click=app.quit]x[/] \x1b]52;c;QQ==\x07\x1b]0;title\x07\x1bPq~\x1b\\"
        + "\u202eevil\u2066 \u009b31m".encode()
        + b"\xed\xa0\x80 \x1b[?1049h\x1b[?1049l"
        + b"x" * 100_000
    )
    line = Line()
    async with console_of(workspace, line) as (app, pilot):
        line.terminal.say(hostile)
        await until(pilot, lambda: line.session.engine.history.end > 1000)
        await pilot.click(line_view(app), offset=(3, 1))
        assert isinstance(app.screen, ConsoleScreen)
        drawn = shown(app)
        assert all(char.isprintable() or char in "\n\ufffd" for char in drawn)
        await pilot.press("shift+pageup")
        assert app.is_running


async def test_sessions_are_one_for_each_resource_and_kind(workspace: Workspace) -> None:
    sessions = Sessions()
    console = await open_console(sessions, workspace, GUEST)
    shell = await open_exec(sessions, workspace, WEB, ["sh"], rows=10, columns=40)
    try:
        assert await open_console(sessions, workspace, GUEST) is console
        assert sessions.last() is console
        assert (console.ref, console.what, console.serial) == (GUEST, "serial console", True)
        assert (shell.ref, shell.what, shell.serial) == (WEB, "shell: sh", False)
        shell.send(b"stty size\r")
        await waited(lambda: "10 40" in screen(shell))
        shell.resize(12, 50)
        shell.send(b"stty size\r")
        await waited(lambda: "12 50" in screen(shell))
        shell.send(b"exit 3\r")
        await waited(lambda: shell.state is State.ENDED)
        assert shell.ending == "the command ended with code 3"
        assert not shell.send(b"x")
        assert await open_exec(sessions, workspace, WEB, ["sh"]) is shell
        assert shell.state is State.CONNECTED
    finally:
        await sessions.close_all()
    assert list(sessions) == []
    assert console.state is State.ENDED


async def test_what_cannot_be_opened_is_not_kept(workspace: Workspace) -> None:
    sessions = Sessions()
    await workspace.act(GUEST, Action.STOP, emit=lambda _: None)
    with pytest.raises(NotPermitted):
        await open_console(sessions, workspace, GUEST)
    assert sessions.last() is None


async def test_a_guest_that_is_not_read_has_to_wait_and_nothing_is_lost() -> None:
    line = Line(echo=False)
    await line.session.connect()
    for number in range(400):
        line.terminal.say(b"".join(b"\x1b[3%dm%06d\x1b[m\r\n" % (number % 8, number * 100 + at) for at in range(100)))
    longest = 0.0
    while line.session.engine.history.end < 39_900:
        began = time.thread_time()
        await asyncio.sleep(0)
        longest = max(longest, time.thread_time() - began)
    assert longest < 0.5  # of the processor in one turn of the loop; 10 ms on a quiet machine
    history = line.session.engine.history
    assert [run.text for run in history[history.end - 1]] == [f"{history.end - 1:06d}"]
    await line.session.aclose()


def screen(session: ConsoleSession) -> str:
    return "\n".join("".join(run.text for run in session.engine.row(y)) for y in range(session.engine.rows))


async def waited(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
