"""Outside commands and the identity of processes."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import select
import shutil
import signal as signals
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vmtui.host import trace
from vmtui.host.faults import CommandFailed, MissingCapability
from vmtui.host.tasks import uncancelled

STDERR_TAIL_BYTES = 4096
PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h

PACKAGES = {
    "skopeo": "skopeo",
    "runc": "runc",
    "crun": "crun",
    "conmon": "conmon",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-storage-daemon": "qemu-system-common",
    "dnsmasq": "dnsmasq-base",
    "nft": "nftables",
    "ip": "iproute2",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
    "busybox": "busybox-static",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits of a child that reads hostile input. None leaves a limit as it is."""

    address_space_bytes: int | None = None
    cpu_s: int | None = None
    file_size_bytes: int | None = None

    def apply(self) -> None:
        for which, value in (
            (resource.RLIMIT_AS, self.address_space_bytes),
            (resource.RLIMIT_CPU, self.cpu_s),
            (resource.RLIMIT_FSIZE, self.file_size_bytes),
        ):
            if value is not None:
                resource.setrlimit(which, (value, value))


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command that succeeded (or was allowed to fail) left behind."""

    code: int
    stdout: bytes
    stderr: bytes


def which(tool: str) -> str:
    """The absolute path of `tool`. Raises MissingCapability that names the Debian package.

    Beside each `bin` of PATH its `sbin` is searched too, since a plain user's PATH lacks those.
    """
    path = os.environ.get("PATH", os.defpath)
    beside = [entry[:-3] + "sbin" for entry in path.split(":") if entry.endswith("/bin")]
    found = shutil.which(tool, path=":".join([path, *beside]))
    if found is None:
        raise MissingCapability(f"{tool} is not in PATH", hint=f"apt-get install {PACKAGES.get(tool, tool)}")
    return found


async def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    stdin: bytes | None = None,
    timeout: float | None = 60.0,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    limits: Limits | None = None,
    pass_fds: Sequence[int] = (),
    on_stdout: Callable[[bytes], None] | None = None,
    output_limit_bytes: int | None = None,
    die_with_parent: bool = False,
    reads: bool = False,
    show_stdin: bool = False,
) -> Completed:
    """Run a command to its end and return its output.

    `argv[0]` is looked up with `which`. The child is killed and reaped on time-out and on cancellation. With
    `on_stdout`, chunks of stdout are handed over as they come (and still returned). A child that says more than
    `output_limit_bytes` is killed; with `die_with_parent` the kernel kills it when this process is gone. The trace
    has `reads` and, with `show_stdin`, what was passed on stdin. Raises MissingCapability, CommandFailed (non-zero
    code with `check`, time-out, too much output).
    """
    tool = os.fspath(argv[0])
    path = tool if "/" in tool else which(tool)
    with trace.begin(
        trace.Way.COMMAND,
        argv,
        reads=reads,
        environment=env,
        cwd=cwd,
        stdin=stdin,
        show_stdin=show_stdin,
        lenient=not check,
    ) as act:
        process = await asyncio.create_subprocess_exec(
            path,
            *[os.fspath(arg) for arg in argv[1:]],
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=None if env is None else {**os.environ, **env},
            cwd=cwd,
            pass_fds=pass_fds,
            preexec_fn=_before_exec(limits, die_with_parent),
        )
        name = Path(tool).name
        try:
            async with asyncio.timeout(timeout):
                if on_stdout is None and output_limit_bytes is None:
                    stdout, stderr = await process.communicate(stdin)
                else:
                    stdout, stderr = await _stream(process, name, stdin, on_stdout, output_limit_bytes)
        except TimeoutError:
            raise CommandFailed(f"{name} did not end within {timeout:g} s", code=-signals.SIGKILL) from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        code = process.returncode
        assert code is not None
        act.ended(code, stderr=stderr)
    if check and code != 0:
        raise CommandFailed(f"{name} failed with code {code}", code=code, details=tail(stderr or stdout))
    return Completed(code, stdout, stderr)


async def spawned(
    starting: Coroutine[Any, Any, asyncio.subprocess.Process],
    end: Callable[[asyncio.subprocess.Process], Awaitable[None]],
) -> asyncio.subprocess.Process:
    """The process that `starting` makes, for who ends it together with what it starts in turn.

    A process may have children before asyncio has it in hand. Cancelled by then, asyncio would kill it alone; here it
    is made, and ended by `end`, first.
    """
    made = asyncio.ensure_future(starting)
    try:
        return await asyncio.shield(made)
    except asyncio.CancelledError:

        async def undo() -> None:
            with contextlib.suppress(OSError):  # of what could not be started
                await end(await made)

        await uncancelled(undo())
        raise


def _before_exec(limits: Limits | None, die_with_parent: bool) -> Callable[[], None] | None:
    if limits is None and not die_with_parent:
        return None
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def prepare() -> None:
        if die_with_parent:
            prctl(PR_SET_PDEATHSIG, signals.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)  # the parent went before the kernel knew
        if limits is not None:
            limits.apply()

    return prepare


async def _stream(
    process: asyncio.subprocess.Process,
    tool: str,
    stdin: bytes | None,
    on_stdout: Callable[[bytes], None] | None,
    limit: int | None,
) -> tuple[bytes, bytes]:
    assert process.stdout is not None
    assert process.stderr is not None
    said: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
    total = 0

    async def pump(to: str, stream: asyncio.StreamReader) -> None:
        nonlocal total
        while chunk := await stream.read(65536):
            total += len(chunk)
            if limit is not None and total > limit:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                return
            said[to].append(chunk)
            if on_stdout is not None and to == "stdout":
                on_stdout(chunk)

    async def feed() -> None:
        if process.stdin is not None:
            process.stdin.write(stdin or b"")
            with contextlib.suppress(ConnectionError):
                await process.stdin.drain()
            process.stdin.close()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(pump("stdout", process.stdout))
            group.create_task(pump("stderr", process.stderr))
            group.create_task(feed())
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None  # of the caller's on_stdout
    await process.wait()
    stdout, stderr = b"".join(said["stdout"]), b"".join(said["stderr"])
    if limit is not None and total > limit:
        raise CommandFailed(
            f"{tool} said more than {limit} bytes", code=-signals.SIGKILL, details=tail(stderr or stdout)
        )
    return stdout, stderr


def tail(output: bytes, limit: int = STDERR_TAIL_BYTES) -> str:
    """The last bytes of a tool's output as text that is safe to print: no control characters but newlines."""
    text = output[-limit:].decode("utf-8", "replace").strip()
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)


@cache
def boot_id() -> str:
    """This boot of the kernel (random(4), /proc/sys/kernel/random/boot_id)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that cannot be confused with a later one of the same pid.

    `start_ticks` is field 22 of /proc/PID/stat (proc(5)), clock ticks since boot.
    """

    pid: int
    start_ticks: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The identity of a live process, or None if there is none (a zombie counts as gone)."""
        stat = _stat(pid)
        return None if stat is None else cls(pid, stat, boot_id())

    @property
    def alive(self) -> bool:
        return self.boot == boot_id() and _stat(self.pid) == self.start_ticks

    @property
    def started_at(self) -> float:
        """Unix time of the start, to a clock tick."""
        ticks: int = os.sysconf("SC_CLK_TCK")
        since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.time() - since_boot + self.start_ticks / ticks

    def signal(self, number: int) -> bool:
        """Send a signal through a pidfd, so that a recycled pid is never hit; False if the process is gone."""
        try:
            fd = os.pidfd_open(self.pid)
        except (ProcessLookupError, OSError):
            return False
        try:
            if not self.alive:
                return False
            name = number.name.removeprefix("SIG") if isinstance(number, signals.Signals) else number
            with trace.begin(trace.Way.SIGNAL, ("kill", "-s", name, self.pid)):
                signals.pidfd_send_signal(fd, number)
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until the process is gone; False if it is still there after `timeout` seconds."""
        try:
            fd = os.pidfd_open(self.pid)
        except OSError:
            return True
        try:
            if not self.alive:
                return True
            loop = asyncio.get_running_loop()
            gone = asyncio.Event()
            loop.add_reader(fd, gone.set)
            try:
                async with asyncio.timeout(timeout):
                    await gone.wait()
            except TimeoutError:
                return bool(select.select([fd], [], [], 0)[0])
            finally:
                loop.remove_reader(fd)
            return True
        finally:
            os.close(fd)

    async def end(self, *, grace_s: float = 5.0, first: int = signals.SIGTERM) -> None:
        """Ask with `first`, then SIGKILL after `grace_s`. Returns when the process is gone."""
        if self.signal(first) and not await self.wait(grace_s):
            self.signal(signals.SIGKILL)
            await self.wait(10.0)


def running(arguments: Sequence[str], variables: Mapping[str, str]) -> list[ProcessId]:
    """Live processes, but this one, whose command ends with `arguments` and whose environment has `variables`."""
    command = os.fsencode("\0".join(["", *arguments, ""]))
    wanted = {os.fsencode(f"{name}={value}") for name, value in variables.items()}
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # gone, or another user's
            if Path(entry.path, "cmdline").read_bytes().endswith(command):
                process = ProcessId.of(int(entry.name))
                if process is not None and wanted <= set(Path(entry.path, "environ").read_bytes().split(b"\0")):
                    found.append(process)
    return found


def _stat(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])
