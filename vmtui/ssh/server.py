"""The SSH server: who is here, what they have open, and the rules that it all goes by."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import asyncssh
from asyncssh.kex import get_kex_algs

from vmtui.core.errors import Conflict, Fault, MissingCapability, NotPermitted
from vmtui.core.policy import Person, Role
from vmtui.host import sockets
from vmtui.host.files import in_words
from vmtui.profile.serving import Serve
from vmtui.ssh.connection import Connection
from vmtui.ssh.forward import Forwarding
from vmtui.ssh.gate import Gate
from vmtui.ssh.host_key import HostKeys
from vmtui.ssh.journal import Journal
from vmtui.ssh.session import Outlet, Request, Session
from vmtui.ssh.throttle import Throttle, WaitingRoom
from vmtui.ssh.visitor import Visitor
from vmtui.ssh.web.logins import Still

BACKLOG = 512
LEAVE_S = 2.0  # for what must end to do so by itself
PRIVILEGED = 1024  # ip(7), ip_unprivileged_port_start
# What asyncssh offers, without SHA-1, MD5 and modes that are only there for old servers. Of key exchanges, which
# strangers can ask for as often as they like, only those that cost little: no larger groups, no key made for each.
KEY_EXCHANGES = (
    "mlkem768x25519-sha256",
    "sntrup761x25519-sha512",
    "sntrup761x25519-sha512@openssh.com",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group14-sha256",
    "diffie-hellman-group16-sha512",
)
CIPHERS = (
    "chacha20-poly1305@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-gcm@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
)
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")


class Opens(Protocol):
    """Where sessions come from."""

    async def open(self, request: Request, outlet: Outlet) -> Session: ...


class Server:
    """Listens, and owns every connection. `open` makes a session; `aclose` ends them all."""

    def __init__(self, settings: Serve, gate: Gate, journal: Journal, sessions: Opens, *, recorded: bool) -> None:
        self.settings = settings
        self.gate = gate
        self.journal = journal
        self.recorded = recorded
        self.throttle = Throttle()
        self.room = WaitingRoom[Visitor](settings.unauthenticated, settings.unauthenticated_per_address)
        self.forwarding = Forwarding(journal)
        self.visitors: set[Visitor] = set()
        self.url: Callable[[Person, Role, Still], str] | None = None  # a link to the console in a browser
        self._sessions = sessions
        self._listeners: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._options: asyncssh.SSHServerConnectionOptions | None = None

    async def use(self, keys: HostKeys) -> None:
        """The host keys for connections from here on."""
        silence()
        self._options = await asyncssh.SSHServerConnectionOptions.construct(
            server_factory=lambda: Visitor(self),
            server_version="vmtui",
            server_host_keys=keys.served,
            send_server_host_keys=True,
            kex_algs=[name for name in KEY_EXCHANGES if name.encode() in get_kex_algs()],  # some need a newer OpenSSL
            encryption_algs=list(CIPHERS),
            mac_algs=list(MACS),
            compression_algs=["none"],  # what unpacks to more than it is would be kept whole
            public_key_auth=True,
            host_based_auth=False,
            password_auth=False,
            kbdint_auth=False,
            gss_host=None,
            gss_kex=False,
            gss_auth=False,
            x11_forwarding=False,
            agent_forwarding=False,
            allow_scp=False,
            encoding=None,
            line_editor=False,
            rdns_lookup=False,
            login_timeout=float(self.settings.login_timeout),
            keepalive_interval=float(self.settings.keepalive),
            keepalive_count_max=3,
        )

    async def listen(self, bound: Sequence[socket.socket]) -> None:
        """Accept whoever comes to what `bind` made, which is the server's from here on."""
        loop = asyncio.get_running_loop()
        for sock in bound:
            self._listeners.append(await loop.create_server(self._arrives, sock=sock, backlog=BACKLOG))

    def _arrives(self) -> Connection:
        assert self._options is not None
        return Connection(asyncio.get_running_loop(), self._options)

    # Who is here

    def came(self, visitor: Visitor) -> None:
        for other in self.room.enter(visitor, visitor.address):
            other.drop()

    def let_in(self, visitor: Visitor) -> None:
        self.room.leave(visitor)
        self.visitors.add(visitor)

    def went(self, visitor: Visitor) -> None:
        self.room.leave(visitor)
        self.visitors.discard(visitor)

    def full(self, person: Person) -> str:
        """Why there is no place for one more connection of theirs, "" if there is."""
        if len(self.visitors) >= self.settings.connections:
            return f"there are {len(self.visitors)} connections already"
        theirs = Counter(visitor.grant.person.name for visitor in self.visitors if visitor.grant)[person.name]
        if theirs >= self.settings.connections_per_person:
            return f"{person.name} has {theirs} connections already"
        return ""

    def use_settings(self, settings: Serve) -> None:
        """The limits for who comes from here on."""
        self.settings = settings
        self.room.most, self.room.most_of_one_place = settings.unauthenticated, settings.unauthenticated_per_address

    def use_gate(self, gate: Gate) -> int:
        """Decide by it from here on; whoever it would let in as somebody else, or not at all, must go. How many."""
        self.gate = gate
        gone = 0
        for visitor in list(self.visitors):
            assert visitor.grant is not None
            assert visitor.login is not None
            now = gate.judge(visitor.login).grant
            was = visitor.grant
            if now is None or now.comparable != was.comparable:
                gone += 1
                self.journal.say(
                    f"{was.person.name} from {was.person.origin}: ended, the new files permit other things"
                )
                self.start(visitor.leave("what you may do here has changed; log in again", grace_s=LEAVE_S))
        return gone

    # What they have open

    async def open(self, request: Request, outlet: Outlet) -> Session:
        """Raises Fault."""
        return await self._sessions.open(request, outlet)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that lives as long as it needs, and whose error is said."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.journal.say(f"internal error: {type(error).__name__}: {error}")

    async def aclose(self, reason: str, *, grace_s: float) -> None:
        """Tell everybody, and end what has not ended by then."""
        for listener in self._listeners:
            listener.close()
        await asyncio.gather(*(visitor.leave(reason, grace_s=grace_s) for visitor in [*self.visitors, *self.room]))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def bind(address: str, port: int) -> socket.socket:
    """A socket that can listen there. Raises Conflict, MissingCapability, NotPermitted, each with what mends it."""
    six = ":" in address
    where = f"[{address}]:{port}" if six else f"{address}:{port}"
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0]
        sock = socket.socket(found[0], socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise NotPermitted(f"cannot listen at {where}: {in_words(error)}", hint="ip -brief address") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if six:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(found[4])
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise _explained(error, address, port, where) from None
    return sock


def _explained(error: OSError, address: str, port: int, where: str) -> Fault:
    why = sockets.obstacle(address, port, "tcp")
    if isinstance(error, PermissionError) and 0 < port < PRIVILEGED:
        hint = f"sysctl net.ipv4.ip_unprivileged_port_start={port}, or a port from {PRIVILEGED} on"
        return MissingCapability(f"port {port} is for root: cannot listen at {where}", hint=hint)
    if why is not None and "in use" in why:
        return Conflict(f"cannot listen at {where}: {why}", hint=sockets.look(port, "tcp"))
    return NotPermitted(f"cannot listen at {where}: {why or in_words(error)}", hint="ip -brief address")


def silence() -> None:
    """asyncssh tells of each connection, and of what it would raise anyway."""
    for name in ("asyncssh", "asyncssh.sftp", "asyncio"):  # the last warns of each write to who is gone
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
    with contextlib.suppress(AttributeError):
        asyncssh.set_sftp_log_level(logging.CRITICAL)
