"""Starts the program of a VM under a parent process that outlives us, and ends both.

The parent notes who it is (RUN/parent), waits for a line on its stdin, starts the program (RUN/process), and notes how
it ended (RUN/exit); then it becomes the script RUN/reap, if that is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from vmtui.core.backend import Context
from vmtui.core.errors import Conflict, OperationFailed
from vmtui.core.resource import Ref
from vmtui.core.units import Publish
from vmtui.guests import run as files
from vmtui.host import trace
from vmtui.host.files import write_atomic
from vmtui.host.process import ProcessId, which
from vmtui.host.sockets import look, obstacle

START_S = 30.0
END_S = 10.0
POLL_S = 0.02


def require_free(ports: Iterable[Publish]) -> None:
    """Raises Conflict: a host port that a VM is to listen on is taken."""
    for port in ports:
        reason = obstacle(port.host_address, port.host_port, port.protocol)
        if reason is not None:
            raise Conflict(reason, hint=look(port.host_port, port.protocol))


def prepare(context: Context, ref: Ref, launch: msgspec.Struct) -> Path:
    """Fresh folders for one start, with launch.json; returns the run's. Raises OSError."""
    folder, sockets = context.resource_dir(ref), context.runtime_dir(ref)
    run = folder / files.RUN
    for old in (run, sockets):
        shutil.rmtree(old, ignore_errors=True)
    for log in (folder / files.LOG, folder / f"{files.LOG}.1"):
        log.unlink(missing_ok=True)
    sockets.mkdir(mode=0o700, parents=True)
    run.mkdir(mode=0o700)
    (folder / files.LOG).touch(0o600)
    write_atomic(run / files.LAUNCH, msgspec.json.encode(launch))
    variables = " ".join(f"{key}={shlex.quote(value)}" for key, value in context.paths.environment().items())
    reap = " ".join(map(shlex.quote, context.reap_argv(ref)))
    write_atomic(run / files.REAP, f"exec env {variables} {reap}\n".encode())
    return run


async def spawn(ref: Ref, run: Path, parent: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    """Start the parent in a session of its own, child of nobody here; once its file is there, let it start the VM.

    Raises MissingCapability, OperationFailed, OSError; then, as when this process dies, the parent ends by itself.
    """
    command = (which("setsid"), "--fork", *parent)
    plain = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/", "LC_ALL": "C", **(environment or {})}
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
                env=plain,
            )
        finally:
            os.close(reading)
        await process.wait()
        deadline = time.monotonic() + START_S
        while not (run / files.PARENT).exists():
            if time.monotonic() > deadline:
                raise OperationFailed(f"the parent of {ref} did not start within {START_S:g} s")
            await asyncio.sleep(POLL_S / 4)
        with contextlib.suppress(BrokenPipeError):
            os.write(writing, b"go\n")
    finally:
        os.close(writing)
        act.ended()


async def end(folder: Path, *, reap: bool) -> None:
    """Kill the program if it runs, and wait until its parent has noted how it ended. Without `reap` nobody is told.

    Raises OperationFailed: it does not die.
    """
    run = folder / files.RUN
    if not reap:
        (run / files.REAP).unlink(missing_ok=True)
    parent = await _settled_parent(run)
    process = files.identity(run / files.PROCESS)
    if process is not None:
        process.signal(signal.SIGKILL)
        if not await process.wait(END_S):
            raise OperationFailed(f"process {process.pid} does not die")
    await noted(run)
    if reap or parent is None or parent.pid == os.getpid():
        return
    if not await parent.wait(1.0):
        parent.signal(signal.SIGKILL)
        await parent.wait(END_S)


async def _settled_parent(run: Path) -> ProcessId | None:
    """The parent; if it has just been started, once it has started the VM."""
    deadline = time.monotonic() + END_S
    while (parent := files.identity(run / files.PARENT)) is not None and parent.alive:
        if (run / files.PROCESS).exists() or (run / files.EXIT).exists() or time.monotonic() > deadline:
            break
        await asyncio.sleep(POLL_S)
    return parent


async def noted(run: Path) -> None:
    """Wait until the parent has written how the VM ended, or is gone itself."""
    deadline = time.monotonic() + END_S
    while not (run / files.EXIT).exists() and time.monotonic() < deadline:
        parent = files.identity(run / files.PARENT)
        if parent is None or not parent.alive:
            return
        await asyncio.sleep(POLL_S)


def remove_run(folder: Path) -> None:
    """Forget the last start, but for its log. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder / files.RUN)


def remove_sockets(sockets: Path) -> None:
    """Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(sockets)
