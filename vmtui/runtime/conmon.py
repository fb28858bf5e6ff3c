"""Drives conmon, the tiny parent of a container: it holds the terminal, writes the log and the exit code.

It calls the OCI runtime's `create` and outlives us. No other module knows its arguments, files and wire formats.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from vmtui.core.errors import OperationFailed
from vmtui.core.resource import Exit
from vmtui.host import trace
from vmtui.host.files import read_tail
from vmtui.host.process import ProcessId, tail, which

CREATE_TIMEOUT_S = 60.0
MAX_REPORT_BYTES = 64 << 10
STDOUT, STDERR = 2, 3  # the first byte of a packet of the attach socket (conmon, utils.h: stdpipe_t)
PACKET_BYTES = 32 << 10  # more than conmon sends or takes at once (config.h: STDIO_BUF_SIZE, CONN_SOCK_BUF_SIZE)
RESIZE = 1  # ctrl.h: WIN_RESIZE_EVENT
MAX_WINDOW = 1000  # ctrl.c refuses more


class Files:
    """Where one conmon keeps its files, below a directory of its own."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name
        self.conmon_pid = directory / "conmon.pid"
        self.container_pid = directory / "pid"
        self.exits = directory / "exit"
        self.attach_socket = directory / "attach"
        self.control_fifo = directory / "ctl"

    def conmon(self) -> ProcessId | None:
        """The live conmon of this container: the pid of its file, if that process is still it."""
        process = _live(self.conmon_pid)
        if process is None:
            return None
        try:
            arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return None
        return process if os.fsencode(self.directory) in arguments else None

    def container(self) -> ProcessId | None:
        """The process of the container's pid file, if it lives; the caller checks that it is the container's."""
        return _live(self.container_pid)

    def exit(self) -> Exit | None:
        """How the container ended, as conmon wrote it."""
        file = self.exits / self.name
        try:
            return Exit(code=int(file.read_text()[:8]), at=file.stat().st_mtime)
        except (OSError, ValueError):
            return None


class _Created(msgspec.Struct):
    pid: int
    message: str = ""


async def create(
    files: Files,
    *,
    bundle: Path,
    runtime: Sequence[str],
    log: Path,
    log_max_bytes: int,
    terminal: bool,
    exit_command: Sequence[str],
    environment: Mapping[str, str],
) -> int:
    """Start conmon, have it create the container, and return the pid of the container's first process.

    `runtime` is the command and its arguments before `create`. On failure conmon has ended, or ends with its
    runtime; what the runtime left behind is for the caller to remove. Raises OperationFailed with what it said.
    """
    files.exits.mkdir(mode=0o700, parents=True, exist_ok=True)
    options: list[str] = []
    for argument in runtime[1:]:
        options += ["--runtime-arg", argument]
    # conmon keeps its environment for the exit command: what only it needs is taken away again
    restore = ["-u", "TMPDIR"] if "TMPDIR" not in os.environ else [f"TMPDIR={os.environ['TMPDIR']}"]
    for argument in [*restore, *exit_command]:
        options += ["--exit-command-arg", argument]
    argv = [which("conmon"), "--cid", files.name, "--cuuid", files.name, "--name", files.name]
    argv += ["--runtime", runtime[0], *options, "--exit-command", which("env"), "--bundle", str(bundle)]
    argv += [
        "--full-attach",
        "--container-pidfile",
        str(files.container_pid),
        "--conmon-pidfile",
        str(files.conmon_pid),
    ]
    # Relative, since conmon splits this argument at colons; its `oom` file lands beside it.
    argv += ["--log-path", f"k8s-file:{log.name}", "--log-size-max", str(log_max_bytes), "--log-level", "error"]
    argv += ["--exit-dir", str(files.exits), *(["--terminal"] if terminal else [])]
    read_fd, write_fd = os.pipe()
    errors = files.directory / "conmon.log"
    act = trace.begin(trace.Way.COMMAND, argv, environment={"TMPDIR": str(files.directory)}, cwd=log.parent)
    try:
        with errors.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=stderr,
                env={**os.environ, **environment, "TMPDIR": str(files.directory), "_OCI_SYNCPIPE": str(write_fd)},
                pass_fds=(write_fd,),
                cwd=log.parent,
            )
    except BaseException as error:
        act.ended(error=str(error))
        os.close(read_fd)
        raise
    finally:
        os.close(write_fd)
    try:
        async with asyncio.timeout(CREATE_TIMEOUT_S):
            line = await _read_line(read_fd)
            await process.wait()
        report = msgspec.json.decode(line, type=_Created) if line else _Created(pid=-1)
        if report.pid <= 0:
            said = report.message or tail(b"\n".join(read_tail(errors, 20)))
            raise OperationFailed(f"container {files.name} could not be created", details=tail(said.encode()))
        return report.pid
    except TimeoutError:
        raise OperationFailed(f"creating container {files.name} took more than {CREATE_TIMEOUT_S:g} s") from None
    except msgspec.MsgspecError as error:
        raise OperationFailed(f"conmon reports what is no report: {error}") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        act.ended(process.returncode, stderr=b"\n".join(read_tail(errors, 20)))


async def _read_line(fd: int) -> bytes:
    """The first line from a pipe, or what came before its end; closes it."""
    reader = asyncio.StreamReader(limit=MAX_REPORT_BYTES)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb"))
    try:
        return await reader.readline()
    finally:
        transport.close()


def _live(file: Path) -> ProcessId | None:
    try:
        return ProcessId.of(int(file.read_text()[:12]))
    except (OSError, ValueError):
        return None


class Attachment:
    """A Terminal on what a container writes, and, if it has a terminal, to what it reads.

    conmon waits for slow readers and the container waits for conmon, so everything is taken at once; of what nobody
    reads, the oldest is dropped.
    """

    KEPT_BYTES = 1 << 20

    def __init__(self, files: Files, connection: socket.socket, *, terminal: bool) -> None:
        self._files = files
        self._socket = connection
        self._terminal = terminal
        self._kept: deque[bytes] = deque()
        self._size = 0
        self._news = asyncio.Event()
        self._ended = False
        self._pump = asyncio.create_task(self._receive())

    @classmethod
    async def open(cls, files: Files, *, terminal: bool) -> Attachment:
        """Raises OSError when no conmon listens."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        directory = os.open(files.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Through the descriptor: unix(7) limits an address to 107 bytes.
            path = f"/proc/self/fd/{directory}/{files.attach_socket.name}"
            await asyncio.get_running_loop().sock_connect(connection, path)
        except BaseException:
            connection.close()
            raise
        finally:
            os.close(directory)
        return cls(files, connection, terminal=terminal)

    async def _receive(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while packet := await loop.sock_recv(self._socket, PACKET_BYTES):
                if packet[0] in (STDOUT, STDERR) and len(packet) > 1:
                    self._kept.append(packet[1:])
                    self._size += len(packet) - 1
                    while self._size > self.KEPT_BYTES:
                        self._size -= len(self._kept.popleft())
                    self._news.set()
        except OSError:
            pass  # the same as an end
        finally:
            self._ended = True
            self._news.set()

    async def read(self) -> bytes:
        while not self._kept and not self._ended:
            self._news.clear()
            await self._news.wait()
        data = b"".join(self._kept)
        self._kept.clear()
        self._size = 0
        return data

    async def write(self, data: bytes) -> None:
        if not self._terminal:
            raise ConnectionError("it has no terminal and reads nothing; set tty = true")
        loop = asyncio.get_running_loop()
        for begin in range(0, len(data), PACKET_BYTES // 8):
            await loop.sock_sendall(self._socket, data[begin : begin + PACKET_BYTES // 8])

    async def resize(self, rows: int, columns: int) -> None:
        if not self._terminal:
            return
        line = f"{RESIZE} {min(max(rows, 1), MAX_WINDOW)} {min(max(columns, 1), MAX_WINDOW)}\n"
        with contextlib.suppress(OSError):  # conmon is gone
            fd = os.open(self._files.control_fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(fd, line.encode())
            finally:
                os.close(fd)

    async def aclose(self) -> None:
        self._pump.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._pump
        self._socket.close()
