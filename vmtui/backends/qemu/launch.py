"""Starts QEMU under its parent, and ends both."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from vmtui.backends.qemu import qmp, state
from vmtui.core.backend import Context
from vmtui.core.errors import Conflict, OperationFailed
from vmtui.core.resource import Ref
from vmtui.core.units import Publish
from vmtui.host import trace
from vmtui.host.files import write_atomic
from vmtui.host.process import ProcessId, which
from vmtui.host.sockets import look, obstacle

PARENT = Path(__file__).with_name("parent.sh")
START_S = 30.0
END_S = 10.0
POLL_S = 0.02
ALIVE = frozenset(
    {"running", "paused", "shutdown", "debug", "guest-panicked", "watchdog"}
)  # QMP RunState after a start


def require_free(ports: Iterable[Publish]) -> None:
    """Raises Conflict: a host port that QEMU is to listen on is taken."""
    for port in ports:
        reason = obstacle(port.host_address, port.host_port, port.protocol)
        if reason is not None:
            raise Conflict(reason, hint=look(port.host_port, port.protocol))


def prepare(context: Context, ref: Ref, launch: state.Launch) -> Path:
    """Fresh folders for one start; returns the run's. Raises OSError."""
    folder, sockets = context.resource_dir(ref), context.runtime_dir(ref)
    run = folder / state.RUN
    for old in (run, sockets):
        shutil.rmtree(old, ignore_errors=True)
    for log in (folder / state.LOG, folder / f"{state.LOG}.1"):
        log.unlink(missing_ok=True)
    sockets.mkdir(mode=0o700, parents=True)
    run.mkdir(mode=0o700)
    (folder / state.LOG).touch(0o600)
    write_atomic(run / state.LAUNCH, msgspec.json.encode(launch))
    variables = " ".join(f"{key}={shlex.quote(value)}" for key, value in context.paths.environment().items())
    reap = " ".join(map(shlex.quote, context.reap_argv(ref)))
    write_atomic(run / state.REAP, f"exec env {variables} {reap}\n".encode())
    return run


async def spawn(ref: Ref, run: Path, log: Path, argv: Sequence[str]) -> None:
    """Start the parent in a session of its own, child of nobody here; once its file is there, let it start QEMU.

    Raises MissingCapability, OperationFailed, OSError; then, as when this process dies, the parent ends by itself.
    """
    command = (which("setsid"), "--fork", "/bin/sh", str(PARENT), str(run), str(log), *argv)
    reading, writing = os.pipe()
    act = trace.begin(trace.Way.COMMAND, command, cwd="/")
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=reading,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath), "HOME": "/", "LC_ALL": "C"},
            )
        finally:
            os.close(reading)
        await process.wait()
        deadline = time.monotonic() + START_S
        while not (run / state.PARENT).exists():
            if time.monotonic() > deadline:
                raise OperationFailed(f"the parent of {ref} did not start within {START_S:g} s")
            await asyncio.sleep(POLL_S / 4)
        with contextlib.suppress(BrokenPipeError):
            os.write(writing, b"go\n")
    finally:
        os.close(writing)
        act.ended()


async def wait_up(ref: Ref, run: Path, sockets: Path) -> None:
    """Wait until QEMU answers, then confirm the start. Raises OperationFailed with what QEMU said."""
    deadline = time.monotonic() + START_S
    qmp_socket = state.socket_path(str(sockets), "qmp")
    while True:
        if (run / state.EXIT).exists():
            if state.read(run / state.EXIT).strip() == b"0":
                return  # a guest that was faster than we
            raise OperationFailed(f"qemu did not start {ref}", details=state.errors(run))
        if (run / state.PROCESS).exists() and qmp_socket.exists():
            try:
                runstate = await qmp.status(qmp_socket)
            except OperationFailed as fault:
                if time.monotonic() > deadline:
                    raise OperationFailed(f"qemu started {ref} and does not answer", details=str(fault)) from None
            else:
                if runstate not in ALIVE:
                    raise OperationFailed(f"qemu started {ref} into state {runstate}", details=state.errors(run))
                write_atomic(run / state.STARTED, b"")
                return
        if time.monotonic() > deadline:
            raise OperationFailed(f"qemu did not start {ref} within {START_S:g} s", details=state.errors(run))
        await asyncio.sleep(POLL_S)


async def end(folder: Path, *, reap: bool) -> None:
    """Kill QEMU if it runs, and wait until its parent has noted how it ended. Without `reap` nobody is told.

    Raises OperationFailed: it does not die.
    """
    run = folder / state.RUN
    if not reap:
        (run / state.REAP).unlink(missing_ok=True)
    parent = await _settled_parent(run)
    process = state.identity(run / state.PROCESS)
    if process is not None:
        process.signal(signal.SIGKILL)
        if not await process.wait(END_S):
            raise OperationFailed(f"qemu {process.pid} does not die")
    await noted(run)
    if reap or parent is None or parent.pid == os.getpid():
        return
    if not await parent.wait(1.0):
        parent.signal(signal.SIGKILL)
        await parent.wait(END_S)


async def _settled_parent(run: Path) -> ProcessId | None:
    """The parent; if it has just been started, once it has started QEMU."""
    deadline = time.monotonic() + END_S
    while (parent := state.identity(run / state.PARENT)) is not None and parent.alive:
        if (run / state.PROCESS).exists() or (run / state.EXIT).exists() or time.monotonic() > deadline:
            break
        await asyncio.sleep(POLL_S)
    return parent


async def noted(run: Path) -> None:
    """Wait until the parent has written how QEMU ended, or is gone itself."""
    deadline = time.monotonic() + END_S
    while not (run / state.EXIT).exists() and time.monotonic() < deadline:
        parent = state.identity(run / state.PARENT)
        if parent is None or not parent.alive:
            return
        await asyncio.sleep(POLL_S)


def remove_run(folder: Path) -> None:
    """Forget the last start, but for its log. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder / state.RUN)


def remove_sockets(sockets: Path) -> None:
    """Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(sockets)
