"""What a client asks for on a channel: the panel, a verb, files; and the bytes between it and its session."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from typing import TYPE_CHECKING, Any

import asyncssh

from vmtui.core.errors import Fault, NotPermitted
from vmtui.core.policy import Role, Verb, anywhere
from vmtui.headless import exit_codes
from vmtui.headless.exit_codes import Usage
from vmtui.ssh.channel import Channel
from vmtui.ssh.gate import Grant
from vmtui.ssh.intake import Intake
from vmtui.ssh.journal import plain
from vmtui.ssh.session import Request, Session, Stream

if TYPE_CHECKING:
    from vmtui.ssh.visitor import Visitor

MOST_ROWS, MOST_COLUMNS = 1000, 1000
DEFAULT_SIZE = (24, 80)
SFTP, LINK = "sftp", "web"
STDERR = 1  # RFC 4254, section 5.2
OURSELVES = "vmtui"


def words(command: str) -> tuple[str, ...]:
    """As a shell would split them, and no shell sees them. Raises Usage."""
    try:
        found = shlex.split(command)
    except ValueError as error:
        raise Usage(f"{plain(command)}: {str(error).lower()}", hint="ssh HOST ls --json") from None
    if any("\0" in word for word in found):
        raise Usage("a command line cannot hold the character NUL", hint="ssh HOST ls --json")
    return tuple(found[1:] if found[:1] == [OURSELVES] else found)


def clamped(rows: int, columns: int) -> tuple[int, int]:
    """A size that a terminal can have."""
    return min(rows, MOST_ROWS) or DEFAULT_SIZE[0], min(columns, MOST_COLUMNS) or DEFAULT_SIZE[1]


class Asked(asyncssh.SSHServerSession[bytes]):
    """One channel. It is an Outlet: output is written to it."""

    def __init__(self, visitor: Visitor, grant: Grant) -> None:
        self._visitor = visitor
        self._grant = grant
        self._channel: Channel | None = None
        self._command: str | None = None
        self._files = False
        self._size: tuple[int, int] | None = None
        self._term = ""
        self._intake = Intake()
        self._writable = asyncio.Event()
        self._writable.set()
        self._session: Session | None = None
        self.task: asyncio.Task[None] | None = None
        self._over = ""

    # What comes from the client

    def connection_made(self, chan: Any) -> None:
        self._channel = self._intake.channel = chan

    def pty_requested(self, term_type: str, term_size: Any, term_modes: Any) -> bool:
        if not self._grant.pty:
            return False
        self._term = term_type
        self._size = clamped(term_size[1], term_size[0])
        return True

    def shell_requested(self) -> bool:
        return self._begins(None)

    def exec_requested(self, command: str) -> bool:
        return self._begins(command)

    def subsystem_requested(self, subsystem: str) -> bool:
        if self._grant.command is None:
            if subsystem != SFTP or not anywhere(self._grant.role, Verb.FILES):
                return False
            self._files = True
        return self._begins(None)

    def _begins(self, command: str | None) -> bool:
        self._command = command if self._grant.command is None else self._grant.command
        return True

    def session_started(self) -> None:
        self.task = self._visitor.server.start(self._run())

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._intake.put(data)

    def eof_received(self) -> bool:
        self._intake.end()
        return True  # output goes on

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        if self._size is not None:
            self._size = clamped(height, width)
            if self._session is not None:
                self._session.resize(*self._size)

    def signal_received(self, signal: str) -> None:
        if self._session is not None:
            self._session.signal(signal)

    def break_received(self, msec: int) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel = self._intake.channel = None
        self._writable.set()
        self.hang_up("")
        self._visitor.sessions.discard(self)

    # What goes to the client

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def write(self, stream: Stream, data: bytes) -> None:
        """Returns when the client has room for more. Raises ConnectionError when it is gone."""
        channel = self._channel
        if channel is None or channel.is_closing():
            raise ConnectionResetError("the client is gone")
        channel.write(data, STDERR if stream == "stderr" and self._size is None else None)
        await self._writable.wait()
        await self._visitor.writable.wait()

    # The session

    def hang_up(self, reason: str) -> None:
        """End it: it is told why, if it can be."""
        self._over = self._over or reason or "the client is gone"
        if self._session is not None:
            self._session.hang_up(reason)
        elif self.task is not None:
            self.task.cancel()

    async def _run(self) -> None:
        code = int(exit_codes.ExitCode.INTERNAL)
        try:
            code = await self._serve()
        except Fault as fault:
            code = int(exit_codes.of(fault))
            await self._complain(fault)
        except ConnectionError:
            pass
        finally:
            self._visitor.sessions.discard(self)
            if (channel := self._channel) is not None:
                with contextlib.suppress(OSError):
                    channel.exit(code)

    async def _complain(self, fault: Fault) -> None:
        end = "\r\n" if self._size is not None else "\n"
        hint = f"hint: {plain(fault.hint)}{end}" if fault.hint else ""
        with contextlib.suppress(ConnectionError):
            await self.write("stderr", f"error: {plain(str(fault))}{end}{hint}".encode())

    async def _serve(self) -> int:
        """The exit code. Raises Fault, ConnectionError."""
        assert self._channel is not None
        server = self._visitor.server
        request = Request(
            person=self._grant.person,
            role=self._grant.role,
            argv=(SFTP,) if self._files else () if self._command is None else words(self._command),
            term=self._term,
            environment=self._channel.variables(),
            size=None if self._files else self._size,
            files=self._files,
        )
        if request.argv == (LINK,) and not self._files:
            return await self._link()
        session = await server.open(request, self)
        self._session = session
        if request.size is not None and self._size is not None and self._size != request.size:
            session.resize(*self._size)
        if self._over:
            session.hang_up(self._over)
        feeding = asyncio.create_task(self._feed(session))
        try:
            return await session.wait()
        finally:
            feeding.cancel()
            session.hang_up()

    async def _link(self) -> int:
        """Say where the console is in a browser: a link that lets this person in, once and soon."""
        visitor, was = self._visitor, self._grant
        url = visitor.server.url
        if url is None:
            raise NotPermitted("the console is not served in a browser", hint="vmtui serve --web")
        if not was.pty:
            raise NotPermitted("a key that gets no terminal gets none in a browser", hint="ssh HOST ls")

        def still() -> Role | None:
            assert visitor.login is not None
            now = visitor.server.gate.judge(visitor.login).grant
            stays = now is not None and now.pty and (now.person, now.command) == (was.person, was.command)
            return now.role if now is not None and stays else None

        end = "\r\n" if self._size is not None else "\n"
        await self.write("stdout", f"{url(was.person, was.role, still)}{end}".encode())
        return 0

    async def _feed(self, session: Session) -> None:
        """Input as it comes, no faster than the session takes it."""
        while data := await self._intake.take():
            session.feed(data)
            await session.drained()
        session.eof()
