"""Carries out plans: steps run concurrently along the graph, each journaled before it acts, each with its undo."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

import msgspec

from vmtui.core.backend import Backend, Desired, Pausable, Progress, Reconnectable, Resizable, Runnable, resized
from vmtui.core.errors import Fault, NotFound, NotPermitted, OperationFailed
from vmtui.core.events import Diagnostic, Event, StepEnded, StepProgressed, StepStarted
from vmtui.core.lifecycle import UP, Action, Phase
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import DiskSpec, Workload
from vmtui.engine.plan import Plan, Step, make_steps
from vmtui.engine.registry import Registry
from vmtui.engine.store import Applied, Intent, Store, damaged, with_options
from vmtui.engine.wiring import Wiring
from vmtui.host import trace
from vmtui.host.files import in_words, remedy
from vmtui.host.process import running
from vmtui.host.tasks import uncancelled

Emit = Callable[[Event], None]
Undo = tuple[Ref, str, Callable[[], Awaitable[None]]]
MOST_AT_ONCE = 24
DEFAULT_GRACE_S = 10.0
REAP_ENDS_S = 5.0


class Outcome(msgspec.Struct, kw_only=True):
    """How an apply ended. `undo` is what would take it back, last step last."""

    result: Literal["converged", "kept", "rolled-back"]
    changes: int
    failure: Fault | None = None
    failed: Ref | None = None
    undo: list[Undo] = []


class Operations:
    """The acts on resources, one method each, used by plans, by verbs and by restart policies alike.

    `owner` is whose what is made here for the first time will be.
    """

    def __init__(self, registry: Registry, store: Store, *, owner: str = "") -> None:
        self.registry = registry
        self.store = store
        self.owner = owner
        self.wiring = Wiring(registry, store)

    def backend(self, desired: Desired[Any]) -> Backend[Any]:
        return self.registry.get(desired.ref.kind, desired.backend)

    def typed(self, row: Applied) -> Desired[Any]:
        """What a row was made from, its options as the backend knows them."""
        return with_options(row.desired, self.backend(row.desired).options_type)

    async def create(self, desired: Desired[Any], report: Callable[[Progress], None], *, owner: str = "") -> None:
        await self.backend(desired).create(desired, report)
        self.store.put(desired, Intent.UP, owner=owner)

    async def start(self, desired: Desired[Any], report: Callable[[Progress], None]) -> None:
        """Plug it in and start it; unplugged again if it does not start."""
        backend = self.backend(desired)
        if not isinstance(backend, Runnable):
            raise NotPermitted(f"{desired.ref}: backend {backend.name} cannot start it")
        self.store.set_intent(desired.ref, Intent.UP)
        if (await backend.inspect(desired.ref)).phase in UP:
            return  # a restart policy was faster
        await self.wiring.detach(desired)  # ports of its last run may linger
        attachments = await self.wiring.attach(desired)
        try:
            await backend.start(desired.ref, attachments, report)
        except BaseException:
            await uncancelled(self.wiring.detach(desired))
            raise

    async def stop(self, desired: Desired[Any], *, grace_s: float | None = None) -> None:
        """Recorded before it acts, so that no restart policy works against it."""
        backend = self.backend(desired)
        if not isinstance(backend, Runnable):
            raise NotPermitted(f"{desired.ref}: backend {backend.name} cannot stop it")
        self.store.set_intent(desired.ref, Intent.STOPPED)
        await backend.stop(desired.ref, grace_s=grace(desired) if grace_s is None else grace_s)
        await self.wiring.detach(desired)

    async def delete(self, ref: Ref, backend_name: str, row: Applied | None, *, purge: bool) -> None:
        backend = self.registry.get(ref.kind, backend_name)
        if row is not None:
            self.store.set_intent(ref, Intent.STOPPED)
            if isinstance(backend, Runnable):
                with contextlib.suppress(NotFound, NotPermitted):  # gone, or half gone: its deletion ends what runs
                    await backend.stop(ref, grace_s=grace(row.desired))
        if ref.kind.runs:
            # Before it is deleted: what is gone is not asked for its networks again.
            await self.wiring.forget(ref)
        await backend.delete(ref, purge=purge)
        self.store.remove(ref)
        if ref.kind.runs:
            await self._dismiss(ref)

    async def _dismiss(self, ref: Ref) -> None:
        """End those who wait to act on the end of what is gone now, so that they do not outlive its removal.

        They change nothing without the lock, which is ours.
        """
        context = self.registry.context
        for process in running(context.reap_argv(ref)[1:], context.paths.environment()):
            process.signal(signal.SIGKILL)
            await process.wait(REAP_ENDS_S)


def grace(desired: Desired[Any]) -> float:
    return float(desired.spec.stop_grace_period) if isinstance(desired.spec, Workload) else DEFAULT_GRACE_S


class Run:
    """One execution of one plan."""

    def __init__(self, operations: Operations, plan: Plan, emit: Emit) -> None:
        self._operations = operations
        self._store = operations.store
        self._plan = plan
        self._emit = emit
        self._run = secrets.token_hex(4)
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        self._undo: list[Undo] = []
        self._failure: tuple[Ref, BaseException] | None = None
        self._ended: list[int] = []

    async def execute(self, on_failure: Literal["keep", "rollback"]) -> Outcome:
        """Carry out all steps. A failure stops what has not begun; then it is taken back, or kept as it is.

        Cancellation is a failure that is taken back (or kept) before it goes on.
        """
        steps = make_steps(self._plan)
        changes = len(self._plan.changes)
        try:
            await self._all(steps)
        except BaseException as error:
            cancelled = not isinstance(error, Exception)
            if on_failure == "rollback":
                await uncancelled(roll_back(self._undo, self._emit, self._store))
                self._end_failed()
            if cancelled or self._failure is None:
                raise
            ref, cause = self._failure
            return Outcome(
                result="rolled-back" if on_failure == "rollback" else "kept",
                changes=changes,
                failure=cause if isinstance(cause, Fault) else self._unexpected(ref, cause),
                failed=ref,
            )
        return Outcome(result="converged", changes=changes, undo=self._undo)

    def _unexpected(self, ref: Ref, cause: BaseException) -> Fault:
        return damaged(self._store.path, cause) if isinstance(cause, sqlite3.Error) else unexpected(ref, cause)

    async def _all(self, steps: Sequence[Step]) -> None:
        done = [asyncio.Event() for _ in steps]

        async def one(number: int, step: Step) -> None:
            for before in step.after:
                await done[before].wait()
            async with self._slots:
                await self._step(number, len(steps), step)
            done[number].set()

        try:
            async with asyncio.TaskGroup() as group:
                for number, step in enumerate(steps):
                    group.create_task(one(number, step))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _step(self, number: int, total: int, step: Step) -> None:
        ref, verb = step.change.ref, step.verb
        self._tell(StepStarted(at=time.time(), ref=ref, action=verb, step=number + 1, steps=total))
        began = time.monotonic()
        entry: int | None = None

        def report(progress: Progress) -> None:
            self._tell(
                StepProgressed(
                    at=time.time(), ref=ref, action=verb, message=progress.message, fraction=progress.fraction
                )
            )

        try:
            entry = self._store.journal_begin(self._run, ref, verb)
            with trace.doing(f"{verb} {ref}"):
                undo = await self._act(step, report)
            if undo is not None:
                self._undo.append((ref, verb, undo))
            self._store.journal_end(entry)
        except BaseException as error:
            if self._failure is None and isinstance(error, Exception):
                self._failure = (ref, error)
            message = in_words(error) if isinstance(error, OSError) else str(error) or type(error).__name__
            self._end(step, "failed" if isinstance(error, Exception) else "cancelled", began, message)
            if entry is not None:
                self._ended.append(entry)  # the backend has undone it
                self._end_failed()
            raise
        self._end(step, "done", began, "")

    def _end_failed(self) -> None:
        """Close the journal's entries of steps that failed; on a full disk once there is room again."""
        with contextlib.suppress(sqlite3.Error):
            while self._ended:
                self._store.journal_end(self._ended[-1])
                self._ended.pop()

    def _tell(self, event: Event) -> None:
        self._emit(event)

    def _end(self, step: Step, result: str, began: float, message: str) -> None:
        ref, verb = step.change.ref, step.verb
        with contextlib.suppress(sqlite3.Error):  # its history is not worth failing for
            self._store.record(ref, verb, result, message)
        elapsed = time.monotonic() - began
        self._tell(StepEnded(at=time.time(), ref=ref, action=verb, result=result, elapsed_s=elapsed, message=message))

    async def _act(self, step: Step, report: Callable[[Progress], None]) -> Callable[[], Awaitable[None]] | None:
        """Do one step; returns what takes it back.

        What takes back a delete or a stop is registered before it acts: no backend undoes these, and half done they
        have changed something too.
        """
        change, act = step.change, self._operations
        ref, want, was = change.ref, change.desired, change.before
        quiet = _quiet
        if step.verb == "delete":
            backend = change.backend or _backend_of(was)
            if was is not None and not change.data_loss:
                self._undo.append((ref, step.verb, self._remake(was, backend, start=change.was_up)))
            await act.delete(ref, backend, was, purge=self._plan.purge or change.data_loss)
            return None
        assert want is not None
        if step.verb == "create":
            mending = change.action not in ("create", "recreate")
            if was is not None and change.action == Action.CREATE and ref.kind.runs:
                await act.wiring.forget(ref)  # it went without us

            async def unmake() -> None:
                await act.delete(ref, want.backend, act.store.get(ref), purge=ref.kind is Kind.DISK)

            # What is only adopted by being mended has been made by somebody else.
            new = act.owner if was is None and change.action == Action.CREATE else ""
            try:
                await act.create(want, report, owner=new if was is None else was.owner)
            except sqlite3.Error:  # it is made, and cannot be written down
                self._undo += [] if mending else [(ref, step.verb, unmake)]
                raise
            return None if mending else unmake
        if step.verb == "start":
            try:
                await act.start(want, report)
            except BaseException:
                if was is not None and change.action == Action.START:
                    act.store.put_back(was)
                raise
            act.store.put(want, Intent.UP)

            async def stop() -> None:
                await act.stop(want)
                if was is not None:
                    act.store.put_back(was)

            return stop
        if step.verb == "stop":
            before = want if was is None else act.typed(was)

            async def start() -> None:
                await act.start(before, quiet)

            self._undo.append((ref, step.verb, start))
            await act.stop(before)
            return None
        return await self._act_in_place(step.verb, change.desired, was, report)

    def _remake(self, was: Applied, backend_name: str, *, start: bool) -> Callable[[], Awaitable[None]]:
        """What brings back a resource that is gone, half gone or, if its delete failed at once, still whole."""
        act, old = self._operations, self._operations.typed(was)
        ref = old.ref

        async def remake() -> None:
            backend = act.registry.get(ref.kind, backend_name)
            with contextlib.suppress(NotFound):
                if (await backend.inspect(ref)).phase is Phase.BROKEN:
                    await backend.delete(ref, purge=False)
            await act.create(old, _quiet, owner=was.owner)
            if start and ref.kind.runs:
                await act.start(old, _quiet)
            act.store.put_back(was)

        return remake

    async def _act_in_place(
        self, verb: str, want: Desired[Any] | None, was: Applied | None, report: Callable[[Progress], None]
    ) -> Callable[[], Awaitable[None]] | None:
        act, store = self._operations, self._store
        assert want is not None
        backend = act.backend(want)
        if verb == "resize":
            spec = want.spec
            if not isinstance(backend, Resizable) or not isinstance(spec, DiskSpec):
                raise NotPermitted(f"{want.ref}: backend {backend.name} cannot resize it")
            await backend.resize(want, shrink=spec.shrink, report=report)
            store.put(want, Intent.UP)
            if was is None or (way := resized(getattr(was.desired.spec, "size", None), spec.size)) == 0:
                return None
            if way > 0:
                return self._kept_size(want.ref)
            old = act.typed(was)

            async def grow_back() -> None:
                await backend.resize(old, shrink=False, report=_quiet)
                store.put_back(was)

            return grow_back
        if verb == "resume":
            if not isinstance(backend, Pausable):
                raise NotPermitted(f"{want.ref}: backend {backend.name} cannot resume it")
            await backend.resume(want.ref)
            store.put(want, Intent.UP)

            async def pause() -> None:
                await backend.pause(want.ref)

            return pause
        if verb == "reconnect":
            if not isinstance(backend, Reconnectable):
                raise NotPermitted(f"{want.ref}: backend {backend.name} cannot plug it in while it runs")
            await backend.reconnect(want.ref, await act.wiring.ports(want))
            store.put(want, Intent.UP)
            return None
        store.put(want, Intent.UP)
        if was is None:
            return None

        async def restore() -> None:
            store.put_back(was)

        return restore

    def _kept_size(self, ref: Ref) -> Callable[[], Awaitable[None]]:
        async def keep() -> None:
            message = f"{ref} keeps its new size: shrinking it back could cut off data"
            self._tell(Diagnostic(at=time.time(), level="warning", message=message, ref=ref, code="size-kept"))

        return keep


def _backend_of(row: Applied | None) -> str:
    return "" if row is None else row.desired.backend


def _quiet(progress: Progress) -> None:
    """Undo steps report as whole steps."""


def unexpected(ref: Ref, cause: BaseException) -> OperationFailed:
    """A defect of ours, or a fault of the host that no backend foresaw, as an error for people."""
    if isinstance(cause, OSError):
        path = f"{cause.filename}: " if cause.filename else ""
        fault = OperationFailed(f"{ref}: {path}{in_words(cause)}", hint=remedy(cause))
    else:
        fault = OperationFailed(f"{ref}: {type(cause).__name__}: {cause}", hint="vmtui doctor")
    fault.__cause__ = cause
    return fault


async def roll_back(undo: list[Undo], emit: Emit, store: Store) -> None:
    """Take steps back, last first. One that cannot be is told, and does not keep the others."""
    store.release_reserve()
    while undo:
        ref, verb, act = undo.pop()
        began = time.monotonic()
        try:
            entry = store.journal_begin("undo", ref, f"undo {verb}")
            with trace.doing(f"undo {verb} {ref}"):
                await act()
            store.journal_end(entry)
            result, message = "undone", ""
        except Exception as error:
            result, message = "failed", f"cannot take back {verb}: {error}"
        with contextlib.suppress(sqlite3.Error):
            store.record(ref, verb, result, message)
        elapsed = time.monotonic() - began
        emit(StepEnded(at=time.time(), ref=ref, action=verb, result=result, elapsed_s=elapsed, message=message))
