"""Sessions without SSH: a fork server, requests as the server makes them, and a client that takes what it is given."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Sequence
from typing import Literal

from vmtui.core.policy import BUILTIN, Allow, Person, Role, Verb
from vmtui.core.units import Duration
from vmtui.ssh.kin import Seen, everybody
from vmtui.ssh.session import Request, Stream

ANN = Person(name="ann", key="SHA256:ann", origin="192.0.2.7 port 40022")
BERT = Person(name="bert", key="SHA256:bert", origin="192.0.2.8 port 40023")
PATIENCE_S = 60.0
ESCAPES = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07|\x1b.")


class Client:
    """Where the output of a session goes. `stuck` takes nothing until it is set free, `gone` has dropped the link."""

    def __init__(self) -> None:
        self.streams: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}
        self.largest = 0
        self.gone = False
        self.free = asyncio.Event()
        self.free.set()
        self._news = asyncio.Event()

    async def write(self, stream: Stream, data: bytes) -> None:
        await self.free.wait()
        if self.gone:
            raise ConnectionError("gone")
        self.largest = max(self.largest, len(data))
        self.streams[stream] += data
        self._news.set()

    @property
    def out(self) -> bytes:
        return self.streams["stdout"]

    @property
    def err(self) -> bytes:
        return self.streams["stderr"]

    @property
    def text(self) -> str:
        """All of stdout without escape sequences."""
        return ESCAPES.sub(b"", self.out).decode(errors="replace")

    async def until(self, true: Callable[[], bool]) -> None:
        """Raises TimeoutError with what there is."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not true():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise TimeoutError(f"not seen: stdout {self.text[-2000:]!r}, stderr {self.err[-1000:]!r}") from None

    async def sees(self, text: str) -> None:
        await self.until(lambda: text in self.text or text in self.err.decode(errors="replace"))


class Audited(list[tuple[str, str, str, tuple[str, ...], str, str]]):
    """What a server would write: who, session, verb, refs, result, message."""

    def __call__(
        self, person: Person, session: str, verb: str, refs: tuple[str, ...], result: str, message: str
    ) -> None:
        self.append((person.name, session, verb, refs, result, message))

    def of(self, verb: str) -> list[tuple[str, str]]:
        """Who did it, and the result."""
        return [(who, result) for who, _, what, _, result, _ in self if what == verb]


def request(
    *argv: str,
    role: Role | str = "admin",
    person: Person = ANN,
    size: tuple[int, int] | None = None,
    term: str = "xterm-256color",
    via: Literal["ssh", "web"] = "ssh",
) -> Request:
    return Request(
        person=person,
        role=BUILTIN[role] if isinstance(role, str) else role,
        argv=argv,
        term=term if size else "",
        environment={"LANG": "C.UTF-8"},
        size=size,
        via=via,
    )


def role(name: str, *verbs: Verb | str, idle_s: float | None = None, user: str | None = None) -> Role:
    idle = None if idle_s is None else Duration(idle_s)
    return Role(name=name, allow=(Allow(verbs=tuple(map(str, verbs))),), idle=idle, user=user)


def below(pid: int) -> list[Seen]:
    """The processes that live below this one."""
    found = [seen for seen in everybody() if not seen.over]
    pids = {pid}
    while more := {seen.pid for seen in found if seen.parent in pids} - pids:
        pids |= more
    return [seen for seen in found if seen.pid in pids - {pid}]


def descriptors(pid: int | None = None) -> int:
    return len(os.listdir(f"/proc/{pid or os.getpid()}/fd"))


async def nobody_below(pid: int, ours: Sequence[int] = ()) -> None:
    """Until all processes below it are gone, but `ours`. Raises TimeoutError with who is left."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while left := [seen for seen in below(pid) if seen.pid not in ours]:
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"still there: {left}")
        await asyncio.sleep(0.05)
