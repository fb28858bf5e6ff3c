"""Sessions without SSH: a fork server, requests as the server makes them, and a client that takes what it is given."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Literal

from vmtui.core.policy import BUILTIN, Allow, Person, Role, Verb
from vmtui.core.units import Duration
from vmtui.engine.store import DATABASE, Store, open_context
from vmtui.host.paths import Paths
from vmtui.ssh.forks import ForkServer
from vmtui.ssh.kin import Seen, everybody, look
from vmtui.ssh.process import Process
from vmtui.ssh.session import Limits, Request, Session, Stream
from vmtui.ssh.sessions import Sessions

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


class House:
    """A workspace with simulated resources, a fork server and sessions over it. Made by `open_house`."""

    def __init__(self, paths: Paths, forks: ForkServer, sessions: Sessions, audited: Audited, said: list[str]) -> None:
        self.paths = paths
        self.forks = forks
        self.sessions = sessions
        self.audited = audited
        self.said = said  # for the server's log

    @property
    def recordings(self) -> Path:
        return self.paths.state / "recordings"

    async def begin(
        self, *argv: str, role: Role | str = "admin", person: Person = ANN, size: tuple[int, int] | None = None,
        term: str = "xterm-256color", stdin: bytes | None = b"",
    ) -> tuple[Client, Session]:  # fmt: skip
        """A session and its client; without a terminal stdin is what is given, open for None."""
        client = Client()
        session = await self.sessions.open(request(*argv, role=role, person=person, size=size, term=term), client)
        if size is None and stdin is not None:
            session.feed(stdin)
            session.eof()
        return client, session

    async def run(self, *argv: str, role: Role | str = "admin", stdin: bytes = b"") -> tuple[int, str, str]:
        """A verb without a terminal, to its end."""
        client, session = await self.begin(*argv, role=role, stdin=stdin)
        async with asyncio.timeout(PATIENCE_S):
            code = await session.wait()
        return code, client.out.decode(), client.err.decode()

    async def panel(
        self, *, role: Role | str = "admin", person: Person = ANN, term: str = "xterm-256color"
    ) -> tuple[Client, Session]:
        """The panel, once it shows the resources."""
        client, session = await self.begin(role=role, person=person, size=(30, 100), term=term)
        await client.sees("guest")
        return client, session

    def pid(self, session: Session) -> int:
        assert isinstance(session, Process)
        return session.pid

    async def all_over(self) -> None:
        """Hang up what is left of a test."""
        left = list(self.sessions.sessions.values())
        for session in left:
            session.hang_up()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(session.wait() for session in left))


PROFILE = b"""
name = "dev"
[vm.guest]
backend = "fake"
kernel = "deb:linux-image-cloud-amd64"
[container.web]
backend = "fake"
image = "docker://web"
fake = { log = ["one", "two"] }
"""


@contextlib.asynccontextmanager
async def open_house(limits: Limits | None = None) -> AsyncIterator[House]:
    """Nothing of it is left afterwards: no process, no descriptor, no file."""
    root = Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp"))
    before = {name: os.environ.get(name) for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "HOME")}
    paths = Paths(root / "s" / "vmtui", root / "c" / "vmtui", root / "r" / "vmtui")
    paths.make()
    os.environ.update(paths.environment(), HOME=str(root))
    open_context(paths)
    audited, said = Audited(), list[str]()
    try:
        with contextlib.closing(Store(paths.state / DATABASE)):
            forks = await ForkServer.start(said.append)
            sessions = Sessions(forks, audit=audited, limits=limits, recordings=paths.state / "recordings")
            house = House(paths, forks, sessions, audited, said)
            try:
                code, _, err = await house.run("apply", "--yes", stdin=PROFILE)
                assert code == 0, err
                yield house
                await house.all_over()
            finally:
                pid = forks.pid
                await sessions.aclose()
                await forks.aclose()
                assert pid is None or look(pid) is None
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        shutil.rmtree(root, ignore_errors=True)
