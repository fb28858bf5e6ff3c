"""Runs commands inside a running container, each the child of a runtime process of ours."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import signal
import struct
import termios
import tty
from pathlib import Path

from vmtui.backends.oci.observe import container_process
from vmtui.backends.oci.places import Places
from vmtui.backends.oci.processes import descendants
from vmtui.core.backend import Desired, ExecRequest
from vmtui.core.errors import NotPermitted
from vmtui.core.specs import ContainerSpec
from vmtui.host import trace
from vmtui.host.process import ProcessId, spawned
from vmtui.runtime import bundle, capabilities, users
from vmtui.runtime.manifest import ImageConfig
from vmtui.runtime.oci_runtime import last_error

CHUNK_BYTES = 64 << 10
QUEUED = 16  # chunks that wait for their reader before the command has to
CANNOT_RUN, NOT_FOUND = 126, 127  # as a shell says it (POSIX, 2.8.2)
PASSWD_TIMEOUT_S = 5.0


class Exec:
    """An ExecSession. Its files are below the runtime directory, named by a token."""

    def __init__(
        self,
        places: Places,
        process: asyncio.subprocess.Process,
        token: str,
        master_fd: int | None,
        act: trace.Act,
    ) -> None:
        self._act = act
        self._places = places
        self._process = process
        self._pid_file, self._process_file, self._log = files(places, token)
        self._master_fd = master_fd
        self._output: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(QUEUED)
        self._tasks: list[asyncio.Task[None]] = []
        if master_fd is not None:
            os.set_blocking(master_fd, False)
            self._tasks.append(asyncio.create_task(self._pump_terminal(master_fd)))
        else:
            assert process.stdout is not None
            assert process.stderr is not None
            for name, stream in (("stdout", process.stdout), ("stderr", process.stderr)):
                self._tasks.append(asyncio.create_task(self._pump(name, stream)))
        self._all = asyncio.create_task(self._until_end())

    async def _pump(self, name: str, stream: asyncio.StreamReader) -> None:
        while data := await stream.read(CHUNK_BYTES):
            await self._output.put((name, data))

    async def _pump_terminal(self, fd: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            ready = asyncio.Event()
            loop.add_reader(fd, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_reader(fd)
            try:
                data = os.read(fd, CHUNK_BYTES)
            except BlockingIOError:
                continue
            except OSError:  # EIO: nobody has the other end open any more
                return
            if not data:
                return
            await self._output.put(("stdout", data))

    async def _until_end(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def read(self) -> tuple[str, bytes] | None:
        while True:
            with contextlib.suppress(asyncio.QueueEmpty):
                return self._output.get_nowait()
            if self._all.done():
                return None
            got = asyncio.ensure_future(self._output.get())
            done, _ = await asyncio.wait({got, self._all}, return_when=asyncio.FIRST_COMPLETED)
            if got in done:
                return got.result()
            got.cancel()

    async def write(self, data: bytes) -> None:
        """Raises ConnectionError when the command does not read any more."""
        if self._master_fd is None:
            assert self._process.stdin is not None
            self._process.stdin.write(data)
            await self._process.stdin.drain()
            return
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._master_fd, view) :]
            except BlockingIOError:
                await asyncio.sleep(0.01)
            except OSError as error:
                raise ConnectionError("the command has ended") from error

    async def close_stdin(self) -> None:
        """The end of input; a terminal is sent the end-of-file character."""
        if self._master_fd is not None:
            with contextlib.suppress(ConnectionError):
                await self.write(b"\x04")
        elif self._process.stdin is not None:
            self._process.stdin.close()

    async def resize(self, rows: int, columns: int) -> None:
        if self._master_fd is not None:
            with contextlib.suppress(OSError):
                set_size(self._master_fd, rows, columns)
                self._process.send_signal(signal.SIGWINCH)  # runc then reads the size and passes it on
            with contextlib.suppress(OSError, ValueError):
                self._resize_inside(int(self._pid_file.read_text()), rows, columns)

    def _resize_inside(self, pid: int, rows: int, columns: int) -> None:
        """crun does not pass it on: set it on the terminal inside, where the command has that as its stdin."""
        if self._places.cgroup.contains(pid):
            fd = os.open(f"/proc/{pid}/fd/0", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if os.isatty(fd):
                    set_size(fd, rows, columns)
            finally:
                os.close(fd)

    async def wait(self) -> int:
        code = await ended(self._process)
        said = last_error(self._log).lower() if code != 0 else ""  # the runtime's own word, not the command's
        if "permission denied" in said:
            return CANNOT_RUN
        if "not found" in said or "no such file" in said:
            return NOT_FOUND
        return code if code >= 0 else 128 - code

    async def aclose(self) -> None:
        if self._process.returncode is None:
            await self._kill()
        for task in self._tasks:
            task.cancel()
        await self._all
        self._act.ended(self._process.returncode)
        if self._master_fd is not None:
            os.close(self._master_fd)
            self._master_fd = None
        for path in (self._pid_file, self._process_file, self._log):
            path.unlink(missing_ok=True)

    async def _kill(self) -> None:
        """End the command and what it started, then the runtime that waits for it."""
        deadline = asyncio.get_running_loop().time() + 2.0
        while not self._pid_file.exists() and self._process.returncode is None:
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.01)
        with contextlib.suppress(OSError, ValueError):
            leader = int(self._pid_file.read_text())
            below = {process.pid for process in descendants(leader)}
            for pid in self._places.cgroup.pids():  # of this container alone, so that no stale number hits another
                with contextlib.suppress(ProcessLookupError):
                    if pid == leader or pid in below or os.getsid(pid) == leader:  # runc makes it lead a session
                        os.kill(pid, signal.SIGKILL)
        try:
            await asyncio.wait_for(ended(self._process), 2.0)
        except TimeoutError:
            # The container can hold up the runtime inside, which reads its /etc/passwd: end both halves of it.
            for process in descendants(self._process.pid):
                process.signal(signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await ended(self._process)


async def ended(process: asyncio.subprocess.Process) -> int:
    """Its exit code once it has ended. Process.wait also waits for its pipes, which others may hold open."""
    identity = ProcessId.of(process.pid)
    if identity is not None:
        await identity.wait()
    while process.returncode is None:  # noqa: ASYNC110 - asyncio reaps it in a moment
        await asyncio.sleep(0.002)
    return process.returncode


def files(places: Places, token: str) -> tuple[Path, Path, Path]:
    """Pid file, process description and log of one command."""
    return places.execs / f"{token}.pid", places.execs / f"{token}.json", places.execs / f"{token}.log"


def set_size(fd: int, rows: int, columns: int) -> None:
    limit = 0xFFFF
    size = struct.pack("HHHH", min(max(rows, 1), limit), min(max(columns, 1), limit), 0, 0)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, size)


async def start(places: Places, desired: Desired[ContainerSpec], image: ImageConfig, request: ExecRequest) -> Exec:
    """Raises NotPermitted (it does not run), InvalidInput (no such user)."""
    process, state = container_process(places), places.read_state()
    if process is None or state is None:
        raise NotPermitted(f"{places.ref} does not run", hint=f"vmtui start {places.ref}")
    spec = desired.spec
    async with asyncio.timeout(PASSWD_TIMEOUT_S):
        user = await asyncio.to_thread(_user, process.pid, request.user or spec.user or image.user)
    env = bundle.environment(spec, image, spec.hostname or desired.ref.name, user.home)
    variables = dict(pair.split("=", 1) for pair in env)
    if request.tty:
        variables.setdefault("TERM", "xterm")
    variables.update(request.environment)
    content = bundle.process_json(
        request.argv,
        bundle.checked_environment(variables, str(places.ref)),
        request.working_dir or spec.working_dir or image.working_dir or "/",
        user,
        capabilities.resolve(spec.cap_add, spec.cap_drop),
        terminal=(request.rows, request.columns) if request.tty else None,
    )
    token = secrets.token_hex(6)
    pid_file, process_file, log = files(places, token)
    places.execs.mkdir(mode=0o700, exist_ok=True)
    process_file.write_bytes(content)
    argv = places.containers(state).exec_argv(places.name, process_file, pid_file, log)
    act = trace.begin(trace.Way.COMMAND, argv)
    try:
        if request.tty:
            return await _with_terminal(places, argv, token, request, act)
        starting = asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        child = await spawned(starting, lambda child: Exec(places, child, token, None, act).aclose())
        return Exec(places, child, token, None, act)
    except BaseException as error:
        act.ended(error=str(error))
        process_file.unlink(missing_ok=True)
        raise


async def _with_terminal(places: Places, argv: list[str], token: str, request: ExecRequest, act: trace.Act) -> Exec:
    """On a pseudo-terminal of ours, which the runtime copies to and from the one inside."""
    master_fd, slave_fd = os.openpty()
    try:
        tty.setraw(slave_fd)  # the one inside echoes and edits
        set_size(master_fd, request.rows, request.columns)
        starting = asyncio.create_subprocess_exec(
            *argv, stdin=slave_fd, stdout=slave_fd, stderr=slave_fd, start_new_session=True
        )
        child = await spawned(starting, lambda child: Exec(places, child, token, os.dup(master_fd), act).aclose())
    except BaseException:
        os.close(master_fd)
        raise
    finally:
        os.close(slave_fd)
    return Exec(places, child, token, master_fd, act)


def _user(pid: int, text: str) -> users.User:
    root_fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return users.resolve(root_fd, text)
    finally:
        os.close(root_fd)
