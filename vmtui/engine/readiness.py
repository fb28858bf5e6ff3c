"""Whether a resource is not only up but ready."""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol

from vmtui.core.backend import ExecRequest, ExecSession, LogLine
from vmtui.core.errors import Fault, OperationFailed, ReadinessTimeout
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Ref, Status
from vmtui.core.specs import Ready, Restart, Spec, Workload
from vmtui.engine.endpoints import reach
from vmtui.engine.plan import finished

SETTLE_S = 0.25  # what ends sooner, such as a program that does not understand its arguments, was never up
PROBE_TIMEOUT_S = 2.0
LOG_TAIL_LINES = 20
MAX_HEAD_BYTES = 4096


class Host(Protocol):
    """What readiness needs of the workspace."""

    async def inspect(self, ref: Ref) -> Status: ...

    def logs(self, ref: Ref, *, tail: int | None, follow: bool) -> AsyncIterator[LogLine]: ...

    async def exec(self, ref: Ref, request: ExecRequest) -> ExecSession: ...


def waits_for(ready: Ready | None) -> str:
    """The condition in words."""
    if ready is None:
        return "it to be up"
    if ready.log is not None:
        return f"its log to match {ready.log!r}"
    if ready.tcp is not None:
        return f"port {ready.tcp} to accept connections"
    if ready.http is not None:
        return f"http {ready.http} to answer 200 to 399"
    if ready.exec is not None:
        return f"{' '.join(ready.exec)!r} to succeed inside"
    return f"it to end with code {ready.exit_code}"


def instance(status: Status) -> str:
    """Which run of the workload this is; the start time to ten seconds, as it is measured anew each time."""
    return "" if status.started_at is None else f"{status.pid}@{round(status.started_at / 10)}"


async def wait(host: Host, ref: Ref, spec: Spec, *, seen: str, timeout: float | None) -> Status:
    """Wait until `ref` is ready; returns its status then.

    `seen` is the instance that was found ready before: a condition on its log is not checked again. Raises
    ReadinessTimeout, OperationFailed (it ended and nothing starts it again).
    """
    ready = spec.ready
    limit = timeout if timeout is not None else float(ready.timeout) if ready else 120.0
    try:
        async with asyncio.timeout(limit):
            return await _until_ready(host, ref, spec, seen)
    except TimeoutError:
        message = f"{ref} was not ready after {limit:g} s: waited for {waits_for(ready)}"
        raise ReadinessTimeout(message, hint=f"vmtui logs {ref}", details=await log_tail(host, ref)) from None


async def _until_ready(host: Host, ref: Ref, spec: Spec, seen: str) -> Status:
    ready = spec.ready
    interval = float(ready.interval) if ready else 0.1
    watcher: asyncio.Task[None] | None = None
    up: tuple[str, float] | None = None  # the instance that was seen up, and since when
    try:
        while True:
            status = await host.inspect(ref)
            if await _ended(host, ref, spec, status):
                return status
            if status.phase in (Phase.AVAILABLE, Phase.RUNNING):
                if ready is None:
                    run, now = instance(status), time.monotonic()
                    if up is None or up[0] != run:
                        up = (run, now)
                    # When it says it was started tells nothing: its process is made before its program begins.
                    if not ref.kind.runs or (seen and seen == run) or now - up[1] >= SETTLE_S:
                        return status
                elif ready.log is not None:
                    if seen and seen == instance(status):
                        return status
                    if watcher is None or (watcher.done() and watcher.exception()):
                        watcher = asyncio.create_task(_in_log(host, ref, ready.log))
                    if watcher.done() and not watcher.exception():
                        return status
                elif await _probes(host, ref, spec, ready, status):
                    return status
            else:
                up = None
            if watcher is not None:
                await asyncio.wait({watcher}, timeout=interval)
            else:
                await asyncio.sleep(interval)
    finally:
        if watcher is not None:
            watcher.cancel()
            await asyncio.wait({watcher})


async def _ended(host: Host, ref: Ref, spec: Spec, status: Status) -> bool:
    """True if it ended as it should. Raises OperationFailed if it ended otherwise and stays so."""
    if status.phase is Phase.BROKEN:
        cause = status.problems[0].message if status.problems else "it is broken"
        raise OperationFailed(f"{ref}: {cause}", hint=f"vmtui logs {ref}", details=await log_tail(host, ref))
    if status.phase is not Phase.EXITED:
        return False
    if finished(spec, status):
        if spec.ready is not None and spec.ready.log is not None:
            async for line in host.logs(ref, tail=None, follow=False):
                if re.search(spec.ready.log, line.text):
                    return True
        else:
            return True
    policy = spec.restart if isinstance(spec, Workload) else Restart.NO
    code = status.exit.code if status.exit else 1
    if policy in (Restart.ALWAYS, Restart.UNLESS_STOPPED) or (policy is Restart.ON_FAILURE and code != 0):
        return False
    reason = f": {status.exit.reason}" if status.exit and status.exit.reason else ""
    message = f"{ref} ended with code {code} before it was ready{reason}"
    raise OperationFailed(message, hint=f"vmtui logs {ref}", details=await log_tail(host, ref))


async def _in_log(host: Host, ref: Ref, pattern: str) -> None:
    expression = re.compile(pattern)
    async with aclosing(host.logs(ref, tail=None, follow=True)) as lines:  # type: ignore[type-var]
        async for line in lines:
            if expression.search(line.text):
                return
    raise OperationFailed(f"the log of {ref} ended")


async def _probes(host: Host, ref: Ref, spec: Spec, ready: Ready, status: Status) -> bool:
    if ready.exec is not None:
        return await _tried(lambda: _executes(host, ref, ready.exec or ()))
    if ready.tcp is not None:
        address = reach(spec, status, ready.tcp)
        return address is not None and await _tried(functools.partial(_connects, *address))
    if ready.http is not None:
        port, path = http_target(ready.http)
        address = reach(spec, status, port)
        return address is not None and await _tried(functools.partial(_answers, *address, path))
    return False


async def _tried(probe: Callable[[], Awaitable[bool]]) -> bool:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            return await probe()
    except (OSError, Fault, TimeoutError):
        return False


async def _connects(host: str, port: int) -> bool:
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
    return True


def http_target(text: str) -> tuple[int, str]:
    """ ":8080/health" to port and path; port 80 unless given."""
    port, slash, path = text.partition("/")
    return int(port[1:] or 80) if port else 80, slash + path


async def _answers(host: str, port: int, path: str) -> bool:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: vmtui\r\n\r\n".encode())
        await writer.drain()
        head = await reader.read(MAX_HEAD_BYTES)
    finally:
        writer.close()
    match = re.match(rb"HTTP/\d(?:\.\d)? ([23]\d\d)\b", head)
    return match is not None


async def _executes(host: Host, ref: Ref, argv: tuple[str, ...]) -> bool:
    session = await host.exec(ref, ExecRequest(argv=argv))
    try:
        await session.close_stdin()
        while await session.read() is not None:
            pass
        return await session.wait() == 0
    finally:
        await session.aclose()


async def log_tail(host: Host, ref: Ref) -> str:
    """The last lines of its log, for an error; "" if it keeps none."""
    if not ref.kind.runs:
        return ""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            return "\n".join([line.text async for line in host.logs(ref, tail=LOG_TAIL_LINES, follow=False)])
    except (Fault, OSError, TimeoutError):
        return ""
