"""A panel that is served: what the server tells it is in sight, and it ends with its server and never stops."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot

from bench.pty import Gone, Pty, plain
from tests.support.acting import acting
from tests.support.panel import shown as screen_of
from tests.support.panel import until, workspace_of
from tests.support.terminal import Watched as Terminal
from vmtui.core.policy import BUILTIN
from vmtui.core.resource import Kind, Ref
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.profile.settings import Settings
from vmtui.tui.app import Panel
from vmtui.tui.screens.console import ConsoleScreen
from vmtui.wire.served import Ending, Idle, Repaint, ToSession, Watched, encode

WEB = Ref("dev", Kind.CONTAINER, "web")
ADMIN = BUILTIN["admin"]


@pytest.fixture
async def workspace(paths: Paths) -> AsyncIterator[Workspace]:
    opened = await workspace_of(paths)
    yield opened
    await opened.aclose()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's, and the session's."""
    server, session = socket.socketpair()
    with server, session:
        yield server, session


@contextlib.asynccontextmanager
async def served(
    workspace: Workspace, session: socket.socket, *, size: tuple[int, int] = (120, 30)
) -> AsyncIterator[tuple[Panel, Pilot[None]]]:
    settings = Settings(theme="vmtui-dark", ascii=False)
    app = Panel(acting(workspace, ADMIN), served_fd=session.fileno(), settings=settings)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.feed.model.loaded)
        yield app, pilot


def tell(server: socket.socket, *messages: ToSession) -> None:
    server.sendall(b"".join(map(encode, messages)))


def title(app: Panel) -> str:
    lines = screen_of(app).splitlines()
    return lines[0] if lines else ""


async def test_who_watches_is_in_the_title_of_every_view(
    workspace: Workspace, ends: tuple[socket.socket, socket.socket]
) -> None:
    server, session = ends
    async with served(workspace, session) as (app, pilot):
        assert "role admin" in title(app)
        tell(server, Watched(("anna observes", "bert drives")))
        await until(pilot, lambda: "anna observes, bert drives" in title(app))
        assert any("anna observes this session" in notice.text for notice in app.notices)
        for key in ("6", "7", "4", "1"):
            await pilot.press(key)
            await until(pilot, lambda: "anna observes, bert drives" in title(app), key)
        app.home.select(WEB)
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, ConsoleScreen))
        await until(pilot, lambda: "anna observes, bert drives" in title(app))
        assert "ctrl+] detaches" in title(app)
        tell(server, Watched(("bert drives",)))
        await until(pilot, lambda: "anna" not in title(app))
        assert "bert drives" in title(app)
        tell(server, Watched(()))
        await until(pilot, lambda: "bert" not in title(app))


async def test_many_who_watch_are_counted_and_hostile_names_are_text(
    workspace: Workspace, ends: tuple[socket.socket, socket.socket]
) -> None:
    server, session = ends
    async with served(workspace, session, size=(40, 10)) as (app, pilot):
        tell(server, Watched(("\x1b]0;x\x07\u202e[b]evil", *(f"p{number} observes" for number in range(9)))))
        await until(pilot, lambda: "evil" in title(app))
        assert "\x1b" not in title(app)
        assert "\u202e" not in title(app)
        assert "[b]" in title(app)
        assert "7 more watch" in app.standing()


def left(app: Panel) -> int:
    """The seconds that the warning gives, 60 and more without one."""
    found = re.search(r"idle (\d+) s", title(app))
    return 99 if found is None else int(found[1])


async def test_the_idle_warning_counts_down_and_goes(
    workspace: Workspace, ends: tuple[socket.socket, socket.socket]
) -> None:
    server, session = ends
    async with served(workspace, session) as (app, pilot):
        tell(server, Idle(60.0))
        await until(pilot, lambda: 0 < left(app) <= 60)
        assert "s: a key goes on" in title(app)
        assert any("this session ends in 60 s" in notice.text for notice in app.notices)
        await until(pilot, lambda: left(app) < 59)
        tell(server, Idle(5.0))
        await until(pilot, lambda: left(app) <= 5)
        tell(server, Idle(0.0))
        await until(pilot, lambda: "idle" not in title(app))
        app.home.select(WEB)
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, ConsoleScreen))
        tell(server, Idle(30.0))
        await until(pilot, lambda: "idle " in title(app))


async def test_the_end_is_announced_and_the_rest_is_drawn_again(
    workspace: Workspace, ends: tuple[socket.socket, socket.socket]
) -> None:
    server, session = ends
    async with served(workspace, session) as (app, pilot):
        drawn: list[object] = []
        app.draw_all = lambda: drawn.append(None)  # type: ignore[method-assign]
        line = encode(Ending("the keys file was changed"))
        server.sendall(encode(Repaint()) + line[:9])  # a line comes in pieces
        await until(pilot, lambda: bool(drawn))
        server.sendall(line[9:])
        await until(pilot, lambda: "ends now: the keys file was changed" in title(app))
        assert any("this session ends: the keys file was changed" in notice.text for notice in app.notices)


@pytest.mark.parametrize("ending", [b"", b"no message\n", b"x" * 70_000])
async def test_it_ends_with_its_server_or_one_that_says_nonsense(
    workspace: Workspace, ends: tuple[socket.socket, socket.socket], ending: bytes
) -> None:
    server, session = ends
    async with served(workspace, session) as (app, pilot):
        server.sendall(ending)
        if not ending:
            server.shutdown(socket.SHUT_WR)
        await until(pilot, lambda: not app.is_running)
        assert app.ended_by is signal.SIGHUP
    assert session.fileno() >= 0
    assert session.getblocking()


# In a terminal


SESSION = """
import sys
from vmtui.core.policy import BUILTIN, Person
from vmtui.engine import authority
from vmtui.tui import app
authority.assume(authority.Authority(Person(name="anna", key="k", origin="o"), BUILTIN[sys.argv[1]]))
app.run()
"""


def environment_of(folder: Path) -> dict[str, str]:
    (folder / "run").mkdir(mode=0o700)
    folders = {name: str(folder / name.lower()) for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    return {**folders, "XDG_RUNTIME_DIR": str(folder / "run")}


def test_it_is_never_stopped(tmp_path: Path) -> None:
    session = [sys.executable, "-c", SESSION, "operator"]
    with Terminal(session, rows=24, columns=100, environment=environment_of(tmp_path), folder=tmp_path) as panel:
        panel.shows("role operator")
        panel.send(b"\x1a")
        panel.process.send_signal(signal.SIGTSTP)
        panel.read_for(0.5)
        assert Path(f"/proc/{panel.process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T"
        start = len(panel.raw)
        panel.send(b"?")
        panel.shows("on this screen", since=start)
        panel.press(b"\x1b")
        panel.send(b"q")
        assert panel.end() == 0


def test_it_goes_with_its_connection_and_says_nothing(tmp_path: Path) -> None:
    with Pty([sys.executable, "-c", SESSION, "operator"], environment=environment_of(tmp_path)) as panel:
        panel.shows("role operator")
        start = len(panel.raw)
        os.kill(panel.process.pid, signal.SIGHUP)
        with contextlib.suppress(Gone):
            while True:
                panel.read(60)
        assert panel.process.wait(60) == -signal.SIGHUP
        assert "Traceback" not in plain(bytes(panel.raw[start:]))
        assert b"\x1b[?1049l" in panel.raw[start:]  # the terminal as it was
