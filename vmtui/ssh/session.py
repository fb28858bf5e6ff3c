"""What a session is to those who open and watch one: what they ask for, where output goes, what can be done to it."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

from vmtui.core.errors import OperationFailed
from vmtui.core.policy import Person, Role

Stream = Literal["stdout", "stderr"]
# person, id of the session, verb, refs, result, message: a line of the audit log
Audit = Callable[[Person, str, str, tuple[str, ...], str, str], None]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Who wants what. `argv` is empty for the panel; `size` is (rows, columns), None without a terminal.

    Of `environment` only what speaks of language and colours passes.
    """

    person: Person
    role: Role
    argv: tuple[str, ...] = ()
    term: str = ""
    environment: dict[str, str] = {}
    size: tuple[int, int] | None = None
    via: Literal["ssh", "web"] = "ssh"
    files: bool = False  # SFTP: `argv` is only how it is called then


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on all sessions together and on each."""

    sessions: int = 100
    sessions_per_person: int = 100  # so that nobody takes all of them
    watchers: int = 8  # of one session
    buffer_bytes: int = 256 << 10  # between a terminal and its client, in either direction
    hang_up_s: float = 0.5  # for the panel to go
    take_back_s: float = 60.0  # for a verb to take back what it has begun
    idle_warning_s: float = 60.0
    recording_bytes: int = 64 << 20


class Outlet(Protocol):
    """Where output goes: an SSH channel, a websocket."""

    async def write(self, stream: Stream, data: bytes) -> None:
        """Returns when the client has room for more. Raises ConnectionError when it is gone."""
        ...


class Watcher(Protocol):
    """Somebody who sees the output of a session of another's."""

    person: Person
    drives: bool

    def feed(self, data: bytes) -> None:
        """Keys, which the session gets only from who drives."""
        ...

    def leave(self) -> None: ...

    async def wait(self) -> str:
        """Until it is over; why: "" if they left, else in words."""
        ...


class Session(ABC):
    """One channel of a client. Whoever opened it feeds it, waits for its end, and hangs up when the client is gone."""

    def __init__(self, id: str, request: Request) -> None:  # noqa: A002
        self.id = id
        self.request = request
        self.started_at = time.time()
        self.watchers: list[Watcher] = []
        self.reason = ""  # why it was hung up, for people

    @abstractmethod
    def feed(self, data: bytes) -> None:
        """Input. Read no more of it from the client until `drained`."""

    @abstractmethod
    async def drained(self) -> None:
        """Until there is room for input. Returns too when there never will be any more."""

    @abstractmethod
    def eof(self) -> None:
        """No more input comes."""

    @abstractmethod
    def resize(self, rows: int, columns: int) -> None:
        """The client's window has another size; means nothing without a terminal."""

    @abstractmethod
    def signal(self, name: str) -> None:
        """As RFC 4254 names them: "INT", "TERM". What a session may not get is ignored."""

    @abstractmethod
    def hang_up(self, reason: str = "") -> None:
        """End it, as when a modem hung up; `wait` returns soon. Twice is once."""

    @abstractmethod
    async def wait(self) -> int:
        """The exit code, once all output is with the client; 128+n for a signal."""

    def observe(self, outlet: Outlet, person: Person) -> Watcher:
        """Show them what is shown from now on. Raises OperationFailed."""
        return self.watched_by(outlet, person, drives=False)

    def drive(self, outlet: Outlet, person: Person) -> Watcher:
        """The same, and take their keys. Raises OperationFailed."""
        return self.watched_by(outlet, person, drives=True)

    def watched_by(self, outlet: Outlet, person: Person, *, drives: bool) -> Watcher:  # noqa: ARG002
        """Raises OperationFailed where there is nothing to see."""
        raise OperationFailed(f"there is nothing to see of session {self.id}", hint="ssh HOST sessions")

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.hang_up()
        await asyncio.shield(self.wait())
