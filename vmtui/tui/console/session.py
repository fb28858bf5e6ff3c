"""A stream to a guest with the screen that it draws: it goes on while nobody looks, and ends with a word of why."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import Awaitable, Callable, Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from vmtui.core.backend import ExecRequest, Terminal
from vmtui.core.errors import Fault, NotPermitted
from vmtui.core.events import Event, StepProgressed
from vmtui.core.resource import Kind, Ref
from vmtui.tui.console import pacing
from vmtui.tui.console.bittty_engine import BitttyEngine
from vmtui.tui.console.engine import Engine
from vmtui.tui.console.streams import ExecTerminal, how_it_ended

if TYPE_CHECKING:
    from vmtui.engine.operations import Emit
    from vmtui.engine.workspace import Workspace

MOST_BACKLOG_BYTES = 64 << 10  # read ahead of what is interpreted
MOST_OUTGOING_BYTES = 1 << 20  # typed and pasted ahead of a guest that does not read
WRITE_BYTES = 1024
CLOSE_S = 5.0
MOST_ENDED = 16  # sessions that are over and not shown
SERIAL = "serial console"
SHELL = "shell: "
TERM = (("TERM", "xterm-256color"), ("COLORTERM", "truecolor"))
# After a stream that ended in the middle of a program: no alternate screen, modes as after power on, a line of its own.
AFRESH = b"\x18\x1b[?1049l\x1b[!p\x1b[?1;9;66;1000;1002;1003;1004;1005;1006;1015;2004;2026l\x1b[?7;25h\x1b[m\r\n"

Connect = Callable[[Ref, int, int], Awaitable[Terminal]]


def unheard(_: Event) -> None:
    """For who does not say how long a second person is waited for."""


class State(Enum):
    CLOSED = "not connected"
    CONNECTED = "connected"
    ENDED = "ended"


class Viewer(Protocol):
    """Who shows a session."""

    def output_came(self, behind: bool) -> None:
        """The screen changed; `behind` while more waits to be interpreted."""
        ...

    def state_changed(self) -> None: ...


class ConsoleSession:
    """What is shown, and where keys go, for one resource.

    The stream is opened with `ref` and nothing else, here: what a banner says of a session is true of its stream.
    """

    def __init__(
        self, ref: Ref, what: str, connect: Connect, *, rows: int = 24, columns: int = 80, serial: bool = False
    ) -> None:
        self.ref = ref
        self.what = what  # "console", or the command
        self.serial = serial  # a line without a size
        self.engine: Engine = BitttyEngine(rows, columns)
        self.state = State.CLOSED
        self.ending = ""
        self.refusal = ""  # why it takes no input, though it is connected
        self._open = connect
        self._terminal: Terminal | None = None
        self._viewer: Viewer | None = None
        self._backlog = bytearray()
        self._outgoing = bytearray()
        self._resized = False
        self._ended = False  # the stream, though some of it may wait in the backlog
        self._came, self._room, self._leaving = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._connecting = asyncio.Lock()

    async def connect(self) -> None:
        """Open the stream, again if it has ended; what is on the screen stays above. Raises Fault, OSError."""
        async with self._connecting:
            if self.state is State.CONNECTED:
                return
            await self._hang_up()
            terminal = await self._open(self.ref, self.engine.rows, self.engine.columns)
            if self.state is State.ENDED:
                self.engine.feed(AFRESH)
            self._terminal, self._ended, self._resized = terminal, False, True
            self._outgoing.clear()
            self.refusal = ""
            self._became(State.CONNECTED, "")
            self._leaving.set()
            loops = (self._receive(terminal), self._interpret(), self._send(terminal))
            self._tasks = [asyncio.create_task(loop, name=f"console {self.ref}") for loop in loops]

    def attach(self, viewer: Viewer) -> None:
        self._viewer = viewer

    def detach(self, viewer: Viewer) -> None:
        """The stream goes on."""
        if self._viewer is viewer:
            self._viewer = None

    @property
    def runs_command(self) -> bool:
        """A command, and not what was there before."""
        return self.what.startswith(SHELL)

    @property
    def shown(self) -> bool:
        return self._viewer is not None

    def send(self, data: bytes) -> bool:
        """Give bytes to the guest, in order. False if it takes no more."""
        if self.state is not State.CONNECTED or len(self._outgoing) + len(data) > MOST_OUTGOING_BYTES:
            return False
        self._outgoing += data
        self._leaving.set()
        return True

    def resize(self, rows: int, columns: int) -> None:
        """The screen, and the guest's terminal where it can have a size."""
        if (rows, columns) != (self.engine.rows, self.engine.columns) and rows > 0 and columns > 0:
            self.engine.resize(rows, columns)
            self._resized = True
            self._leaving.set()

    def send_size(self) -> bool:
        """Type the command that tells a shell on a serial line the size of the screen."""
        return self.send(f"stty rows {self.engine.rows} cols {self.engine.columns}\r".encode())

    def says(self, text: str) -> None:
        """Why it is not connected yet."""
        self._became(self.state, text)

    async def aclose(self) -> None:
        """End the stream; a command that runs in it ends too."""
        await self._hang_up()
        if self.state is State.CONNECTED:
            self._became(State.ENDED, "closed here")

    # The stream

    async def _receive(self, terminal: Terminal) -> None:
        ending = ""
        try:
            while data := await terminal.read():
                self._backlog += data
                self._came.set()
                while len(self._backlog) > MOST_BACKLOG_BYTES:  # the guest has to wait
                    self._room.clear()
                    await self._room.wait()
        except Exception as error:  # a backend may be a third party's
            ending = str(error) or type(error).__name__
        self.ending = ending or how_it_ended(terminal)
        self._ended = True
        self._came.set()

    async def _interpret(self) -> None:
        loop = asyncio.get_running_loop()
        while not (self._ended and not self._backlog):
            await self._came.wait()
            self._came.clear()
            while self._backlog:
                until = loop.time() + (pacing.SLICE_S if self._viewer else pacing.HIDDEN_SLICE_S)
                while self._backlog and loop.time() < until:
                    length = pacing.next_piece(self._backlog)
                    self.engine.feed(bytes(self._backlog[:length]))
                    del self._backlog[:length]
                self._room.set()
                if replies := self.engine.take_replies():
                    self.send(replies)
                if self._viewer is not None:
                    self._viewer.output_came(bool(self._backlog))
                await asyncio.sleep(0)
        self._became(State.ENDED, self.ending)

    async def _send(self, terminal: Terminal) -> None:
        while True:
            await self._leaving.wait()
            self._leaving.clear()
            try:
                if self._resized:
                    self._resized = False
                    await terminal.resize(self.engine.rows, self.engine.columns)
                while self._outgoing:
                    piece = bytes(self._outgoing[:WRITE_BYTES])
                    del self._outgoing[:WRITE_BYTES]
                    await terminal.write(piece)
            except Exception as error:  # what it says can still be read; if it is gone, reading says so
                self._outgoing.clear()
                self.refusal = str(error) or type(error).__name__
                self._became(self.state, self.ending)

    async def _hang_up(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._backlog.clear()
        terminal, self._terminal = self._terminal, None
        if terminal is not None:
            with contextlib.suppress(Fault, OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await terminal.aclose()

    def _became(self, state: State, ending: str) -> None:
        self.state, self.ending = state, ending
        if self._viewer is not None:
            self._viewer.state_changed()


class Sessions:
    """The sessions that are open, shown or not, by resource and what they are."""

    def __init__(self) -> None:
        self._open: dict[tuple[Ref, str], ConsoleSession] = {}

    def __iter__(self) -> Iterator[ConsoleSession]:
        return iter(list(self._open.values()))

    def get(self, ref: Ref, what: str) -> ConsoleSession | None:
        return self._open.get((ref, what))

    def add(self, session: ConsoleSession) -> None:
        """Also makes it the last one; the oldest of those that are over are forgotten."""
        self._open.pop((session.ref, session.what), None)
        self._open[session.ref, session.what] = session
        over = [key for key, old in self._open.items() if old.state is State.ENDED and not old.shown]
        for key in over[:-MOST_ENDED]:
            del self._open[key]

    def heard(self, ref: Ref, what: str, emit: Emit) -> Emit:
        """For `emit`, and for who shows the session, which may wait for a second person again."""

        def hear(event: Event) -> None:
            emit(event)
            session = self.get(ref, what)
            if session is not None and isinstance(event, StepProgressed):
                session.says(event.message)

        return hear

    def last(self) -> ConsoleSession | None:
        """The one that was opened, or asked for again, last."""
        return next(reversed(self._open.values()), None)

    async def close(self, session: ConsoleSession) -> None:
        if self._open.get((session.ref, session.what)) is session:
            del self._open[session.ref, session.what]
        await session.aclose()

    async def close_all(self) -> None:
        await asyncio.gather(*(self.close(session) for session in self))


async def open_console(
    sessions: Sessions, workspace: Workspace, ref: Ref, *, rows: int = 24, columns: int = 80, emit: Emit = unheard
) -> ConsoleSession:
    """The session on the console of `ref`: the one there is, connected again if it has ended. Raises Fault, OSError.

    `emit` is told how long a second person is waited for, where the role asks for one.
    """

    async def connect(ref: Ref, rows: int, columns: int) -> Terminal:  # noqa: ARG001
        return await workspace.console(ref, emit=sessions.heard(ref, what, emit))

    what = SERIAL if ref.kind is Kind.VM else "console"
    return await _opened(sessions, ref, what, connect, rows, columns)


async def open_exec(
    sessions: Sessions,
    workspace: Workspace,
    ref: Ref,
    argv: Sequence[str],
    *,
    rows: int = 24,
    columns: int = 80,
    emit: Emit = unheard,
) -> ConsoleSession:
    """The session of a command in `ref` with a terminal: the one there is. Raises Fault, OSError."""

    async def connect(ref: Ref, rows: int, columns: int) -> Terminal:
        request = ExecRequest(argv=tuple(argv), environment=TERM, tty=True, rows=rows, columns=columns)
        return ExecTerminal(await workspace.exec(ref, request, emit=sessions.heard(ref, what, emit)))

    if not argv:
        raise NotPermitted("there is no command to run", hint=f"vmtui exec -it {ref} -- sh")
    what = f"{SHELL}{shlex.join(argv)}"
    return await _opened(sessions, ref, what, connect, rows, columns)


async def _opened(sessions: Sessions, ref: Ref, what: str, connect: Connect, rows: int, columns: int) -> ConsoleSession:
    session = sessions.get(ref, what)
    known = session is not None and session.state is not State.CLOSED
    if session is None:
        serial = what == SERIAL
        session = ConsoleSession(ref, what, connect, rows=max(rows, 1), columns=max(columns, 1), serial=serial)
    sessions.add(session)  # before it is connected: who asks meanwhile gets the same one
    try:
        await session.connect()
    except (Fault, OSError, asyncio.CancelledError):
        if not known:  # else what it said last can be read all the same, and the banner offers to connect again
            await sessions.close(session)
            raise
    return session
