"""Who is at the other end of a connection: unknown until a key is proved, then a person with a role."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import TYPE_CHECKING

import asyncssh

from vmtui.core.errors import Fault
from vmtui.core.policy import Person
from vmtui.ssh.asked import Asked
from vmtui.ssh.gate import Grant, Login
from vmtui.ssh.journal import LOGIN, LOGOUT, NOBODY, plain

if TYPE_CHECKING:
    from vmtui.ssh.server import Server

MOST_FAILURES = 20  # keys that one connection may try
LONGEST_WAIT_S = 5.0  # of one connection for its failures, so that a good key after some others is still in time


class Visitor(asyncssh.SSHServer):
    """What asyncssh asks of us about one connection. Everything that is not here is refused by asyncssh."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.connection: asyncssh.SSHServerConnection | None = None
        self.address, self.port = "", 0
        self.grant: Grant | None = None
        self.login: Login | None = None  # that which let in
        self.sessions: set[Asked] = set()
        self.forwards = 0
        self.leaving = False
        self.writable = asyncio.Event()
        self.writable.set()
        self._proved: tuple[Grant, Login] | None = None
        self._failures = 0
        self._waited_s = 0.0
        self._why = ""
        self._who = NOBODY

    # The connection

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.connection = conn
        peer = conn.get_extra_info("peername") or ("", 0)
        self.address, self.port = str(peer[0]), int(peer[1])
        self.server.came(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.writable.set()
        self.connection = None
        self.server.went(self)
        if self.grant is not None:
            message = "" if exc is None or isinstance(exc, asyncssh.ConnectionLost) else str(exc)[:200]
            self.server.journal.try_note(self.grant.person, "", LOGOUT, (), "done", message)
            self.server.journal.say(f"{self.grant.person.name} from {self.grant.person.origin}: logged out")
        elif self._failures:
            self.server.journal.refused(self._who, self._why)

    def spoke(self) -> None:
        """Something came."""
        if self.grant is None:
            self.server.room.spoke(self)

    async def leave(self, reason: str, *, grace_s: float) -> None:
        """End the connection: what is open on it is told why, and has this time to leave its terminal as it was."""
        self.leaving = True
        for asked in list(self.sessions):
            asked.hang_up(reason)
        if tasks := [asked.task for asked in self.sessions if asked.task is not None]:
            await asyncio.wait(tasks, timeout=grace_s)
        if self.connection is not None:
            self.connection.disconnect(asyncssh.DISC_BY_APPLICATION, reason)

    def drop(self) -> None:
        """End it at once, for another to have its place."""
        if self.connection is not None:
            self.connection.abort()

    # The login

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return False

    def kbdint_auth_supported(self) -> bool:
        return False

    async def shows_key(self, login: Login, signed: bytes, signature: bytes) -> bool:
        """Whether the key is worth a signature, and with one, whether it lets in. False comes late."""
        verdict = self.server.gate.judge(login)
        if verdict.key is None:
            return await self.refuse(verdict.why)
        if not signed:
            return True
        self._who = Person(name="", key=verdict.key.get_fingerprint("sha256"), origin=login.origin)
        if not verdict.key.verify(signed, signature):
            return await self.refuse("a wrong signature")
        grant, why = verdict.grant, verdict.why
        if grant is not None:
            self._who = grant.person
            why = self._welcome(grant)
            if not why:
                self._proved = (grant, login)
                return True
        self.tell(f"refused: {why}")
        return await self.refuse(why)

    def _welcome(self, grant: Grant) -> str:
        """Note the login; why it cannot be, "" if it can."""
        if why := self.server.full(grant.person):
            return why
        try:
            message = f"role {grant.role.name}"
            self.server.journal.note(grant.person, "", LOGIN, (), "done", message)
        except Fault as fault:  # what would not be noted does not happen
            self.server.journal.say(f"nobody is let in: {fault}")
            return "the audit log cannot be written"
        if grant.pty and grant.role.record and self.server.recorded:
            self.tell("sessions on a terminal are recorded here")
        return ""

    def tell(self, text: str) -> None:
        """A line for who is logging in."""
        if self.connection is not None:
            with contextlib.suppress(OSError):  # logged in meanwhile
                self.connection.send_auth_banner(f"vmtui: {plain(text)}\r\n")

    async def refuse(self, why: str) -> bool:
        """Count a failure; False after its delay."""
        if self._who.name or not self._why or self._why.endswith("is not known"):
            self._why = why  # of several keys the one that was nearest to be let in is told of
        if not self._who.origin:
            self._who = Person(name="", origin=f"{self.address} port {self.port}")
        self._failures += 1
        delay = self.server.throttle.failed(self.address)
        delay = min(delay, LONGEST_WAIT_S - self._waited_s)
        self._waited_s += delay
        await asyncio.sleep(delay)
        if self._failures >= MOST_FAILURES:
            raise asyncssh.PermissionDenied("too many keys were tried")
        return False

    def auth_completed(self) -> None:
        assert self._proved is not None
        self.grant, self.login = self._proved
        self.server.throttle.forgive(self.address, self._failures)
        self.server.let_in(self)
        person = self.grant.person
        self.server.journal.say(f"{person.name} from {person.origin}: logged in as {self.grant.role.name}")

    # What is asked for then

    def session_requested(self) -> tuple[asyncssh.SSHServerChannel[bytes], Asked]:
        grant, connection = self._still()
        most = self.server.settings.sessions_per_connection
        if len(self.sessions) >= most:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_RESOURCE_SHORTAGE, f"there are {most} sessions on this connection already"
            )
        asked = Asked(self, grant)
        self.sessions.add(asked)
        return connection.create_server_channel(), asked

    def connection_requested(
        self,
        dest_host: str,
        dest_port: int,
        orig_host: str,
        orig_port: int,
    ) -> Awaitable[asyncssh.SSHTCPSession[bytes]]:
        return self.server.forwarding.open(self, self._still()[0], dest_host, dest_port)

    def _still(self) -> tuple[Grant, asyncssh.SSHServerConnection]:
        """What is granted, now too: keys expire while a connection is open. Raises ChannelOpenError."""
        if self.grant is None or self.login is None or self.connection is None or self.leaving:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "not logged in")
        verdict = self.server.gate.judge(self.login)
        if verdict.grant is None:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, plain(verdict.why))
        return self.grant, self.connection
