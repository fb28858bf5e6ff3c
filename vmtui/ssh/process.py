"""A session that is a process: its terminal or pipes on one side, a client and perhaps watchers on the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable
from pathlib import Path

from vmtui.core.errors import OperationFailed
from vmtui.core.policy import Person
from vmtui.host.files import in_words
from vmtui.ssh import identity
from vmtui.ssh.ends import Ends
from vmtui.ssh.forks import Fork, ForkServer
from vmtui.ssh.hearing import Hearing
from vmtui.ssh.idle import IdleClock
from vmtui.ssh.modes import Modes
from vmtui.ssh.pump import READ_BYTES, Source
from vmtui.ssh.recording import Recording
from vmtui.ssh.session import Audit, Limits, Outlet, Request, Session, Stream
from vmtui.ssh.spawn import Spawn
from vmtui.ssh.watching import Watching
from vmtui.wire import served
from vmtui.wire.lines import WireError

SIGNALS = {"HUP": signal.SIGHUP, "INT": signal.SIGINT, "QUIT": signal.SIGQUIT, "TERM": signal.SIGTERM}
FAREWELL_S = 1.0  # for a client to take what is left for it
SHOWN_BEFORE_BYTES = 16 << 10  # of what is no panel, for who begins to watch


class Process(Session):
    """Made by `begin`. The recording, the terminal and all descriptors are its own."""

    def __init__(self, id: str, request: Request, outlet: Outlet, limits: Limits, audit: Audit) -> None:  # noqa: A002
        super().__init__(id, request)
        self._outlet = outlet
        self._limits = limits
        self._audit = audit
        self._panel = request.argv in ((), ("--read-only",)) and identity.has_screen(request)
        self._modes = Modes()
        self._shown: deque[bytes] = deque()
        self._shown_bytes = 0
        self._recording: Recording | None = None
        self._idle: IdleClock | None = None
        self._fork: Fork | None = None
        self._ends: Ends | None = None
        self._writing: set[asyncio.Timeout] = set()
        self._saying: set[asyncio.Task[None]] = set()
        self._deaf = False  # nothing more is for the client
        self._hung_up = False
        self._life: asyncio.Task[int] | None = None

    async def begin(self, forks: ForkServer, recordings: Path | None) -> None:
        """Raises Fault; nothing is left then."""
        who = identity.of(self.request, os.environ)
        terminal = self.request.size is not None
        self._note("session", "done", " ".join(("begins:", *(self.request.argv or ("panel",)))))
        # Raw from the start where the panel comes: keys that come before it is there would be echoed.
        ends = Ends(self.request.size, raw=self._panel, limit_bytes=self._limits.buffer_bytes)
        spawned = Spawn(
            number=0, person=self.request.person, role=self.request.role, argv=self.request.argv,
            environment=who.environment, terminal=terminal, panel=self._panel, files=self.request.files,
            uid=who.uid, gid=who.gid, groups=who.groups,
        )  # fmt: skip
        try:
            self._fork = await forks.spawn(spawned, ends.theirs)
        except BaseException as error:
            ends.close()
            self._note("session", "failed", str(error))
            raise
        ends.close_theirs()
        self._ends = ends
        if terminal:
            self._record(recordings)
            if self.request.role.idle is not None:
                self._idle = IdleClock(
                    float(self.request.role.idle), self._limits.idle_warning_s, self._warn, self._too_long
                )
        self._life = asyncio.create_task(self._live(self._fork, ends))

    # From the client

    def feed(self, data: bytes) -> None:
        if self._idle is not None:
            self._idle.touch()
        if self._ends is not None:
            self._ends.stdin.feed(data)

    async def drained(self) -> None:
        if self._ends is not None:
            await self._ends.stdin.drained()

    def eof(self) -> None:
        if self._ends is not None:
            self._ends.end_input()

    def resize(self, rows: int, columns: int) -> None:
        if self._ends is not None and self._ends.terminal:
            self._ends.set_size(rows, columns)
            size = self._ends.size
            self._recorded(lambda recording: recording.resize(*size))

    def signal(self, name: str) -> None:
        number = SIGNALS.get(name.removeprefix("SIG"))
        if number is not None and self._fork is not None and self._ends is not None:
            self._fork.signal(number, self._ends.in_front)

    def hang_up(self, reason: str = "") -> None:
        if self._hung_up or self._fork is None or self._fork.ended.done():
            return
        self._hung_up, self.reason = True, reason
        if reason:
            self._tell(served.Ending(reason))
        until = asyncio.get_running_loop().time() + FAREWELL_S
        for writing in self._writing:
            writing.reschedule(until)
        if self._ends is not None and not self._ends.terminal:
            self._ends.stdin.close()
        # A verb hears of it and takes back what it has begun; the panel has begun nothing that it could.
        self._fork.hang_up(self._limits.hang_up_s if self._panel else self._limits.take_back_s)

    async def wait(self) -> int:
        assert self._life is not None
        return await asyncio.shield(self._life)

    @property
    def pid(self) -> int:
        """Of the process, which leads a session and a process group of its own."""
        assert self._fork is not None
        return self._fork.pid

    # To the client

    async def _live(self, fork: Fork, ends: Ends) -> int:
        hearing = Hearing(ends.control, self._heard, self._heard_wrong)
        streams: tuple[Stream, ...] = ("stdout", "stderr")
        pumps = [
            asyncio.create_task(self._pump(source, stream))
            for source, stream in zip(ends.sources, streams, strict=False)
        ]
        for pump in pumps:
            pump.add_done_callback(self._pumped)
        try:
            code = await asyncio.shield(fork.ended)
            await hearing.rest()
            for source in ends.sources:
                source.finish()
            await asyncio.gather(*pumps)
            if self._idle is not None:
                self._idle.stop()
            await self._farewell()
            for watching in self._watching():
                watching.end("the session is over")
            self._note("session", "done", f"ends with {code}" + (f": {self.reason}" if self.reason else ""))
            return code
        finally:
            hearing.close()
            for task in (*pumps, *self._saying):
                task.cancel()
            ends.close()
            if self._recording is not None:
                self._recording.close()

    async def _pump(self, source: Source, stream: Stream) -> None:
        while data := await source.read():
            if self.request.size is not None:
                self._modes.feed(data)
                self._remember(data)
                self._recorded(lambda recording, data=data: recording.output(data))  # type: ignore[misc]
            for watching in self._watching():
                watching.show(data)
            await self._write(stream, data)

    def _pumped(self, pump: asyncio.Task[None]) -> None:
        """A defect of ours: nobody would take what the session writes, and it would wait for ever."""
        if not pump.cancelled() and pump.exception() is not None:
            self.hang_up("a defect of the server's")

    async def _write(self, stream: Stream, data: bytes, within_s: float | None = None) -> None:
        """Once the client is gone or takes nothing more, what comes is dropped: nobody in the session waits for it."""
        if self._deaf:
            return
        writing = asyncio.timeout(FAREWELL_S if self._hung_up else within_s)
        try:
            async with writing:
                self._writing.add(writing)
                try:
                    await self._outlet.write(stream, data)
                finally:
                    self._writing.discard(writing)
        except (OSError, TimeoutError):
            self._deaf = True
            self.hang_up()

    async def _farewell(self) -> None:
        """A terminal that the session left in strange modes is given back as it was, with why it ended."""
        if self.request.size is not None and (back := self._modes.leave()):
            await self._write("stdout", back, FAREWELL_S)
        if self.reason:
            await self._write("stderr", f"vmtui: {self.reason}\r\n".encode(), FAREWELL_S)

    def _remember(self, data: bytes) -> None:
        if self._panel:
            return  # it paints again when asked
        self._shown.append(data)
        self._shown_bytes += len(data)
        while self._shown_bytes - len(self._shown[0]) >= SHOWN_BEFORE_BYTES:
            self._shown_bytes -= len(self._shown.popleft())

    # Watchers

    def watched_by(self, outlet: Outlet, person: Person, *, drives: bool) -> Watching:
        if self.request.size is None or self._fork is None or self._fork.ended.done():
            raise OperationFailed(f"there is nothing to see of session {self.id}: it has no terminal", hint="sessions")
        if len(self.watchers) >= self._limits.watchers:
            raise OperationFailed(f"{len(self.watchers)} watch session {self.id} already")
        watching = Watching(
            outlet, person, drives=drives, limit_bytes=self._limits.buffer_bytes, keys=self.feed,
            restore=self._modes.leave, gone=self._gone,
        )  # fmt: skip
        self.watchers.append(watching)
        watching.show(self._modes.enter(drives=drives) + b"\x1b[2J\x1b[H")
        for data in self._shown:
            watching.show(data[-READ_BYTES:])
        self._tell(served.Repaint())
        self._announce()
        self._audit(person, self.id, watching.verb, (), "done", f"of {self.request.person.name} begins")
        return watching

    def _watching(self) -> list[Watching]:
        return [watcher for watcher in self.watchers if isinstance(watcher, Watching)]

    def _gone(self, watching: Watching) -> None:
        self.watchers.remove(watching)
        self._audit(watching.person, self.id, watching.verb, (), "done", f"of {self.request.person.name} ends")
        self._announce()

    def _announce(self) -> None:
        names = tuple(watching.says for watching in self._watching())
        if self._panel:
            self._tell(served.Watched(names))
        else:
            self._say(f"{', '.join(names) or 'nobody else sees'} this session")

    # What a session says to the server, and the server to it

    def _heard(self, told: served.ToServer) -> None:
        """Held to the session's person, whatever it says."""
        self._audit(self.request.person, self.id, told.verb, told.refs, told.result, told.message)

    def _heard_wrong(self, error: WireError) -> None:
        self._note("session", "failed", f"it said what it must not: {error}")
        self.hang_up("the session is not in order")

    def _tell(self, message: served.ToSession) -> None:
        """To the panel; others do not listen. What it has no room for is lost."""
        if self._panel and self._ends is not None:
            with contextlib.suppress(OSError):
                self._ends.control.send(served.encode(message))

    def _say(self, text: str) -> None:
        """A line for the client, in between what the session shows."""
        if not self._deaf:
            task = asyncio.create_task(self._write("stderr", f"\r\n[vmtui: {text}]\r\n".encode()))
            self._saying.add(task)
            task.add_done_callback(self._saying.discard)

    def _warn(self, left_s: float) -> None:
        if self._panel:
            self._tell(served.Idle(left_s))
        elif left_s > 0:
            self._say(f"no key for long: this session ends in {left_s:.0f} s unless one comes")

    def _too_long(self) -> None:
        self.hang_up("no key came for too long")

    def _note(self, verb: str, result: str, message: str) -> None:
        self._audit(self.request.person, self.id, verb, (), result, message)

    # The recording

    def _record(self, folder: Path | None) -> None:
        if folder is None or not self.request.role.record:
            return
        try:
            self._recording = Recording(folder, self.request, self.id, self.started_at, self._limits.recording_bytes)
        except OSError as error:
            self._note("recordings", "failed", f"the session is not recorded: {in_words(error)}")

    def _recorded(self, write: Callable[[Recording], None]) -> None:
        """A recording that cannot go on is noted; nobody is locked out by a disk that is full."""
        if self._recording is not None:
            try:
                write(self._recording)
            except OSError as error:
                self._recording = None
                self._note("recordings", "failed", f"the recording ends: {in_words(error)}")
