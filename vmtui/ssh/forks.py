"""The server's end of the fork server: it is started, asked for sessions, and started again should it die."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from itertools import count

import msgspec

from vmtui.core.errors import OperationFailed
from vmtui.ssh import spawn
from vmtui.ssh.spawn import Ended, HangUp, Ready, Refused, Signal, Spawn, Spawned, Unfit

START_S = 60.0  # of imports, on a busy machine
KEPT_VARIABLES = ("PATH", "HOME", "VIRTUAL_ENV", "VMTUI_DEBUG")
KEPT_PREFIXES = ("PYTHON", "TEXTUAL_")  # which are read when modules are imported
KILLED = 128 + signal.SIGKILL
GONE = "the fork server is gone"


class Fork:
    """A session process. It is gone, with all that belonged to it, when `ended` has its exit code."""

    def __init__(self, forks: ForkServer, number: int) -> None:
        self.number = number
        self.pid = 0
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._forks = forks

    def signal(self, number: int, group: int = 0) -> None:
        """To a process group of its session, its own for 0."""
        self._forks.send(Signal(self.number, number, group))

    def hang_up(self, grace_s: float) -> None:
        """SIGHUP, and SIGKILL to all of it after a while. The shortest of several is what counts."""
        self._forks.send(HangUp(self.number, grace_s))


class ForkServer:
    """Owns the process and the socket to it. `say` gets a line for the server's log."""

    def __init__(self, say: Callable[[str], None] = lambda _: None) -> None:
        self._say = say
        self._socket: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._ready: asyncio.Future[None] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._numbers = count(1)
        self._asked: dict[int, asyncio.Future[Fork]] = {}
        self._forks: dict[int, Fork] = {}
        self._unsent: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._closed = False

    @classmethod
    async def start(cls, say: Callable[[str], None] = lambda _: None) -> ForkServer:
        """Raises OperationFailed when it does not come up."""
        forks = cls(say)
        await forks.ready()
        return forks

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def ready(self) -> None:
        """Until it runs and has imported everything. Raises OperationFailed."""
        if self._closed:
            raise OperationFailed(GONE)
        if self._starting is None or (self._starting.done() and self._socket is None):
            self._starting = asyncio.create_task(self._start())
        await asyncio.shield(self._starting)

    async def spawn(self, message: Spawn, fds: tuple[int, ...]) -> Fork:
        """Fork a session; the descriptors stay the caller's. The number of `message` is chosen here.

        Raises OperationFailed: there is no such process then.
        """
        await self.ready()
        number = next(self._numbers)
        try:
            packet = spawn.encode(msgspec.structs.replace(message, number=number))
        except Unfit as error:
            raise OperationFailed(f"the request cannot be passed on: {error}") from None
        asked: asyncio.Future[Fork] = asyncio.get_running_loop().create_future()
        self._asked[number] = asked
        owned = tuple(os.dup(fd) for fd in fds)  # they may have to wait, and the caller to close its own
        self._queue(packet, owned)
        try:
            return await asked
        except asyncio.CancelledError:
            self.send(HangUp(number, 0.0))
            raise
        finally:
            self._asked.pop(number, None)

    def send(self, message: Signal | HangUp) -> None:
        self._queue(spawn.encode(message), ())

    async def aclose(self) -> None:
        """End it and all of its sessions."""
        self._closed = True
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
        process = self._process
        self._lost("the server ends")
        if process is not None:
            try:
                async with asyncio.timeout(10.0):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    async def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            with theirs:
                environment = {
                    name: value
                    for name, value in os.environ.items()
                    if name in KEPT_VARIABLES or name.startswith(KEPT_PREFIXES)
                }
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-P", "-m", "vmtui.ssh.zygote", str(theirs.fileno()),
                    pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
                    cwd="/", env=environment, start_new_session=True,  # no key of the server's terminal reaches it
                )  # fmt: skip
        except BaseException as error:
            ours.close()
            if isinstance(error, OSError):
                raise OperationFailed(f"the fork server cannot be started: {error.strerror}") from None
            raise
        self._process, self._socket = process, ours
        self._ready = loop.create_future()
        loop.add_reader(ours, self._hear)
        try:
            async with asyncio.timeout(START_S):
                await self._ready
        except TimeoutError:
            self._lost("it did not come up")
            raise OperationFailed(f"the fork server did not come up within {START_S:g} s") from None

    def _hear(self) -> None:
        assert self._socket is not None
        while self._socket is not None:
            try:
                told = spawn.receive_told(self._socket)
            except BlockingIOError:
                return
            except (OSError, Unfit):
                told = None
            if told is None:
                self._say("the fork server died, and its sessions with it; another one is started")
                self._lost(GONE)
                if not self._closed:
                    self._starting = asyncio.create_task(self._restart())
            elif isinstance(told, Ready):
                if self._ready is not None and not self._ready.done():
                    self._ready.set_result(None)
            else:
                self._settle(told)

    def _settle(self, told: Spawned | Refused | Ended) -> None:
        asked = self._asked.get(told.number)
        if isinstance(told, Spawned):
            fork = self._forks[told.number] = Fork(self, told.number)
            fork.pid = told.pid
            if asked is not None and not asked.done():
                asked.set_result(fork)
        elif isinstance(told, Refused):
            if asked is not None and not asked.done():
                asked.set_exception(OperationFailed(told.why, hint="try again later"))
        elif (ended := self._forks.pop(told.number, None)) is not None and not ended.ended.done():
            ended.ended.set_result(told.code)

    async def _restart(self) -> None:
        try:
            await self._start()
        except OperationFailed as fault:
            self._say(fault.message)  # whoever opens the next session tries again
            raise

    def _lost(self, why: str) -> None:
        """The process is gone or to go: its sessions are over."""
        loop = asyncio.get_running_loop()
        if self._socket is not None:
            loop.remove_reader(self._socket)
            loop.remove_writer(self._socket)
            self._socket.close()
            self._socket = None
        while self._unsent:
            spawn.close_all(list(self._unsent.popleft()[1]))
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(OperationFailed(f"the fork server did not come up: {why}"))
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(OperationFailed(why, hint="try again"))
        for fork in self._forks.values():
            if not fork.ended.done():
                fork.ended.set_result(KILLED)
        self._forks.clear()

    def _queue(self, packet: bytes, fds: tuple[int, ...]) -> None:
        if self._socket is None:
            spawn.close_all(list(fds))
            return
        self._unsent.append((packet, fds))
        self._flush()

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._unsent and self._socket is not None:
            packet, fds = self._unsent[0]
            try:
                spawn.send(self._socket, packet, fds)
            except BlockingIOError:
                loop.add_writer(self._socket, self._flush)
                return
            except OSError:
                return  # `_hear` learns of it
            self._unsent.popleft()
            spawn.close_all(list(fds))
        if self._socket is not None:
            with contextlib.suppress(OSError):
                loop.remove_writer(self._socket)
