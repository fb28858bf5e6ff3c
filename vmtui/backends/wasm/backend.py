"""WASM sandboxes: made as a folder with a copy of the module, run by `python -m vmtui.sandbox`."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from vmtui.backends.records import RECORD, Records
from vmtui.backends.wasm import logs, module, program, state
from vmtui.backends.wasm.options import WasmOptions
from vmtui.backends.wasm.status import differs, facts, problems, spec_problems
from vmtui.core.backend import (
    Attachments,
    Backend,
    Context,
    Desired,
    HasLogs,
    Killable,
    LogFiles,
    LogLine,
    LogSource,
    Measurable,
    Pausable,
    Probe,
    Progress,
    Report,
    Runnable,
)
from vmtui.core.errors import InvalidInput, NotFound, NotPermitted, OperationFailed
from vmtui.core.lifecycle import UP, Phase
from vmtui.core.resource import Fact, Kind, Problem, Ref, Sample, Status
from vmtui.core.specs import SandboxSpec
from vmtui.host.files import in_words, remedy, write_atomic

FIRST_UID = 0x7E00_0000  # above the user namespaces of containers, below the VMs, below 2**31
UIDS = 1 << 24
STOP_MARGIN_S = 3.0  # for the monitor to write the result, on top of the grace period
KILL_S = 10.0
STILL_S = 2.0  # until every thread of a process has stopped


class WasmBackend(Backend[SandboxSpec]):
    name: ClassVar[str] = "wasm"
    kind: ClassVar[Kind] = Kind.SANDBOX
    options_type: ClassVar[type[msgspec.Struct] | None] = WasmOptions
    priority: ClassVar[int] = 10

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._records = Records(context, Kind.SANDBOX, SandboxSpec, self.name, WasmOptions)

    @property
    def _cache(self) -> Path:
        return self.context.paths.cache / "wasm"

    async def probe(self) -> Probe:
        from vmtui.backends.wasm.probe import probe

        return await probe(self.context, self._cache, self.name)

    async def scan(self) -> Sequence[Status]:
        return [self._status(ref) for ref in self._records.refs() if self._ours(ref)]

    async def inspect(self, ref: Ref) -> Status:
        if not self.context.resource_dir(ref).is_dir() or not self._ours(ref):
            raise NotFound(f"{ref} does not exist")
        status = self._status(ref)
        made = state.load(self.context.resource_dir(ref) / state.MODULE_FACTS, state.ModuleFacts)
        if made is None:
            return status
        changed = " (changed since)" if await asyncio.to_thread(differs, made) else ""
        origin = Fact(name="module", value=made.source + changed)
        return msgspec.structs.replace(status, facts=(origin, *status.facts))

    async def check(self, desired: Desired[SandboxSpec], others: Sequence[Desired[Any]]) -> Sequence[Problem]:  # noqa: ARG002
        found = spec_problems(desired.spec)
        try:
            await asyncio.to_thread(module.read, Path(desired.spec.module))
        except InvalidInput as error:
            found.append(Problem(code="module", message=error.message, hint=error.hint))
        return found

    async def create(self, desired: Desired[SandboxSpec], report: Report) -> None:
        existing = self._records.read(desired.ref)
        if existing is not None and existing.complete and existing.desired.spec_hash == desired.spec_hash:
            return
        spec, ref = desired.spec, desired.ref
        for problem in spec_problems(spec):
            raise InvalidInput(problem.message, hint=problem.hint)
        source = Path(spec.module)
        report(Progress(message=f"reading {source.name}"))
        data = await asyncio.to_thread(module.read, source)
        made = state.ModuleFacts(
            sha256=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            source=str(source),
            wasmtime=program.wasmtime_version(),
        )
        await self.delete(ref, purge=False)
        try:
            directory = self._records.begin(desired)
            report(Progress(message=f"copying {source.name}"))
            write_atomic(directory / state.MODULE, data)
            write_atomic(directory / state.MODULE_FACTS, msgspec.json.encode(made))
            report(Progress(message=f"compiling {source.name}"))
            await program.compile_module(self._launch(desired, made), self.context.paths, source)
            self._records.finish(desired)
        except BaseException as error:
            self._records.remove(ref)
            if isinstance(error, OSError):
                hint = remedy(error, self.context.paths.state, self._cache)
                raise OperationFailed(f"cannot make {ref}: {in_words(error)}", hint=hint) from error
            raise

    async def delete(self, ref: Ref, *, purge: bool) -> None:  # noqa: ARG002  # a sandbox keeps no data
        directory = self.context.resource_dir(ref)
        if not directory.is_dir() or not self._ours(ref):
            return
        running = state.load(directory / state.PROCESS, state.Running)
        if running is not None:
            for identity in (running.monitor, running.guest):  # the monitor first: nobody acts on this end
                identity.process.signal(signal.SIGKILL)
                if not await identity.process.wait(KILL_S):
                    raise OperationFailed(
                        f"process {identity.pid} of {ref} cannot be killed", hint=f"ps {identity.pid}"
                    )
        try:
            self._records.remove(ref)
        except OSError as error:
            raise OperationFailed(f"cannot remove {error.filename}: {error.strerror}") from error

    async def watch(self) -> AsyncIterator[Ref]:
        from vmtui.backends.wasm.watch import Watcher

        async with contextlib.aclosing(Watcher(self.context).refs()) as refs:  # type: ignore[type-var]
            async for ref in refs:
                yield ref

    async def start(self, ref: Ref, attachments: Attachments, report: Report) -> None:  # noqa: ARG002
        desired, directory = self._made(ref)
        if state.observe(directory).phase in UP:
            return
        made = state.load(directory / state.MODULE_FACTS, state.ModuleFacts)
        if made is None:
            raise OperationFailed(f"{ref} is damaged: {directory / state.MODULE_FACTS} cannot be read")
        report(Progress(message="starting"))
        for problem in spec_problems(desired.spec):
            raise InvalidInput(problem.message, hint=problem.hint)
        launch = self._launch(desired, made, wasmtime=program.wasmtime_version())
        task = asyncio.ensure_future(program.start_module(launch, self.context.paths, desired.spec.module))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            # The program either started it or did not; killed in between it could not say which.
            await asyncio.gather(task, return_exceptions=True)
            await self.stop(ref, grace_s=0)
            raise

    async def stop(self, ref: Ref, *, grace_s: float) -> None:
        _, directory = self._made(ref)
        seen = state.observe(directory)
        if seen.phase is Phase.EXITED and seen.result is not None:
            stopped = msgspec.structs.replace(seen.result, stopped=True)
            write_atomic(directory / state.RESULT, msgspec.json.encode(stopped))
        if seen.phase not in UP or seen.running is None:
            return
        monitor = seen.running.monitor.process
        monitor.signal(signal.SIGTERM)
        if not await monitor.wait(grace_s + STOP_MARGIN_S):
            await self._force(directory, seen.running, stopped=True)

    async def kill(self, ref: Ref) -> None:
        _, directory = self._made(ref)
        seen = state.observe(directory)
        if seen.phase not in UP or seen.running is None:
            return
        seen.running.guest.process.signal(signal.SIGKILL)
        if not await seen.running.monitor.process.wait(STOP_MARGIN_S):
            await self._force(directory, seen.running, stopped=False)

    async def _force(self, directory: Path, running: state.Running, *, stopped: bool) -> None:
        """End a monitor that does not react, and write the result in its place."""
        for identity in (running.monitor, running.guest):
            identity.process.signal(signal.SIGKILL)
            await identity.process.wait(KILL_S)
        if state.observe(directory).result is None:
            state.write_result(directory, running, "killed with its monitor", stopped=stopped)

    async def pause(self, ref: Ref) -> None:
        await self._signal(ref, Phase.RUNNING, signal.SIGSTOP, Phase.PAUSED)

    async def resume(self, ref: Ref) -> None:
        await self._signal(ref, Phase.PAUSED, signal.SIGCONT, Phase.RUNNING)

    async def _signal(self, ref: Ref, now: Phase, number: int, then: Phase) -> None:
        _, directory = self._made(ref)
        seen = state.observe(directory)
        if seen.phase is then:
            return
        if seen.phase is not now or seen.running is None:
            raise NotPermitted(f"{ref} is {seen.phase}", hint=f"vmtui inspect {ref}")
        seen.running.guest.process.signal(number)
        deadline = time.monotonic() + STILL_S
        while state.observe(directory).phase is now and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.002)  # /proc tells nobody of a stop, and it takes no longer than this

    async def logs(self, ref: Ref, *, tail: int | None, follow: bool) -> AsyncIterator[LogLine]:
        directory = self.context.resource_dir(ref)
        if not directory.is_dir() or not self._ours(ref):
            raise NotFound(f"{ref} does not exist")
        async with contextlib.aclosing(logs.read(directory, tail=tail, follow=follow)) as lines:  # type: ignore[type-var]
            async for line in lines:
                yield line

    async def log_source(self, ref: Ref) -> LogSource:
        directory = self.context.resource_dir(ref)
        if not directory.is_dir() or not self._ours(ref):
            raise NotFound(f"{ref} does not exist")
        return LogSource(paths=(directory / f"{state.LOG}.1", directory / state.LOG), parse=logs.entry, timed=True)

    async def stats(self, ref: Ref) -> Sample:
        desired, directory = self._made(ref)
        running = state.observe(directory).running
        if running is None:
            raise NotPermitted(f"{ref} does not run", hint=f"vmtui start {ref}")
        return state.sample(running, desired.spec.memory)

    def _ours(self, ref: Ref) -> bool:
        """Whether the folder is this backend's: by its record, or because it has none that can be read."""
        if self._records.read(ref) is not None:
            return True
        plain = state.load(self.context.resource_dir(ref) / RECORD, _AnyRecord)
        return plain is None or plain.desired.backend == self.name

    def _made(self, ref: Ref) -> tuple[Desired[SandboxSpec], Path]:
        """Raises NotFound, NotPermitted."""
        directory = self.context.resource_dir(ref)
        if not directory.is_dir() or not self._ours(ref):
            raise NotFound(f"{ref} does not exist")
        record = self._records.read(ref)
        if record is None or not record.complete:
            raise NotPermitted(f"{ref} is half made", hint=f"vmtui rm {ref}")
        return record.desired, directory

    def _status(self, ref: Ref) -> Status:
        directory = self.context.resource_dir(ref)
        record = self._records.read(ref)
        if record is None or not record.complete:
            problem = Problem(code="incomplete", message=f"{ref} is half made", hint=f"vmtui rm {ref}")
            return Status(ref=ref, backend=self.name, phase=Phase.BROKEN, problems=(problem,))
        seen = state.observe(directory)
        running = seen.running
        return Status(
            ref=ref,
            backend=self.name,
            phase=seen.phase,
            spec_hash=record.desired.spec_hash,
            pid=running.guest.pid if running is not None and seen.phase in UP else None,
            started_at=running.started_at if running is not None else None,
            exit=seen.exit,
            facts=facts(directory, seen),
            problems=tuple(problems(ref, seen)),
            log=str(directory / state.LOG),
        )

    def _launch(
        self, desired: Desired[SandboxSpec], made: state.ModuleFacts, *, wasmtime: str | None = None
    ) -> program.Launch:
        spec, ref = desired.spec, desired.ref
        options = desired.options if isinstance(desired.options, WasmOptions) else WasmOptions()
        return program.Launch(
            directory=str(self.context.resource_dir(ref)),
            module=state.MODULE,
            sha256=made.sha256,
            cache=str(self._cache),
            wasmtime=wasmtime or made.wasmtime,
            entrypoint=spec.entrypoint,
            memory_bytes=int(spec.memory),
            uid=FIRST_UID + int(ref.token(self.context.workspace), 16) % UIDS,
            args=(Path(spec.module).name, *spec.args),
            environment=spec.environment,
            volumes=tuple(
                program.Volume(source=mount.source, target=mount.target, read_only=mount.read_only)
                for mount in spec.volumes
            ),
            fuel=spec.fuel,
            timeout_s=None if spec.timeout is None else float(spec.timeout),
            log_max_bytes=int(options.log_max_size),
            reap=tuple(self.context.reap_argv(ref)),
        )


class _AnyDesired(msgspec.Struct, frozen=True):
    backend: str


class _AnyRecord(msgspec.Struct, frozen=True):
    """As much of a record as every backend's has."""

    desired: _AnyDesired


def _roles(backend: WasmBackend) -> tuple[Runnable, Killable, Pausable, HasLogs, LogFiles, Measurable]:
    """For mypy: the roles that it claims, it has."""
    return backend, backend, backend, backend, backend, backend
