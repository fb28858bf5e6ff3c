"""Verbs on resources: what is permitted, what asks first, what can be taken back, and how far it has got."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from vmtui.core.backend import Desired
from vmtui.core.errors import Denied, Fault
from vmtui.core.events import Event, StepProgressed
from vmtui.core.lifecycle import Action, allowed, refusal
from vmtui.core.policy import Verb
from vmtui.core.resource import Kind, Ref, Status
from vmtui.tui.columns import size
from vmtui.tui.faults import told
from vmtui.tui.screens.dialogs import Confirm, TypeName

if TYPE_CHECKING:
    from vmtui.tui.app import Panel

T = TypeVar("T")
REVERSE = {
    Action.START: Action.STOP,
    Action.STOP: Action.START,
    Action.PAUSE: Action.RESUME,
    Action.RESUME: Action.PAUSE,
}
ASKS = frozenset({Action.STOP, Action.RESTART, Action.KILL})
AT_ONCE = 8  # how many of a bulk action run together
SHOWN_AFTER_S = 4.0  # how long a job that went well stays in sight
UNDOS_KEPT = 20
REFUSALS = 3  # that are told one by one


@dataclass(slots=True)
class Part:
    """One resource of a job. `state` is waiting, running, done or failed."""

    ref: Ref
    state: str = "waiting"
    message: str = ""


@dataclass(slots=True)
class Job:
    """A verb on some resources, carried out now or just before."""

    title: str
    parts: list[Part]
    ended: bool = False
    waits: str = ""  # for a second person, as the engine says it
    asking: asyncio.Task[Any] | None = None  # what waits for that person, and ends when it is cancelled

    @property
    def failures(self) -> list[Part]:
        return [part for part in self.parts if part.state == "failed"]

    @property
    def done(self) -> int:
        return sum(part.state in ("done", "failed") for part in self.parts)


@dataclass(frozen=True, slots=True)
class Undo:
    """How the last act is taken back."""

    text: str
    run: Callable[[], Awaitable[None]] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Taken:
    """An act that was carried out; `before` is what the resource was made from."""

    action: Action
    ref: Ref
    before: Desired[Any] | None


class Acts:
    """Owns the jobs and the undo history of one panel."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._undoing = asyncio.Lock()
        self.jobs: list[Job] = []
        self.undos: list[Undo] = []
        self.taken: list[Taken] = []
        self.on_change: list[Callable[[], None]] = []

    # What may be done

    def permitted(self, status: Status, action: Action) -> bool:
        return self.why_not(status, action) is None

    def why_not(self, status: Status, action: Action) -> str | None:
        """Why not, in words, or None."""
        for verb in needed(action, status.ref):
            if (why := self._panel.why_not(verb, status.ref)) is not None:
                return why
        roles = self._panel.workspace.roles(status.ref.kind, status.backend)
        return None if action in allowed(status.phase, roles) else refusal(action, status.phase, roles)

    # Doing it

    async def act(self, action: Action, statuses: Sequence[Status]) -> None:
        """Ask if it has to be asked, then do exactly what was shown. In a worker."""
        asked = [(status, self.why_not(status, action)) for status in statuses]
        fit = [status for status, why in asked if why is None]
        left_out = [f"cannot {action} {status.ref.short}: {why}" for status, why in asked if why is not None]
        if not fit or (action is not Action.DELETE and action not in ASKS):
            for text in left_out[:REFUSALS]:
                self._panel.say(text, "warning")
            if len(left_out) > REFUSALS:
                self._panel.say(f"cannot {action}: and {len(left_out) - REFUSALS} more", "warning")
        if fit and await self._agreed(action, fit, left_out):
            await self.carry_out(action, [status.ref for status in fit])

    async def _agreed(self, action: Action, statuses: Sequence[Status], left_out: Sequence[str]) -> bool:
        names = [str(status.ref) for status in statuses]
        one = names[0] if len(names) == 1 else f"{len(names)} resources"
        if action is Action.DELETE:
            lines = [_loss(status) for status in statuses]
            total = sum(status.size_bytes or 0 for status in statuses if status.ref.kind is Kind.DISK)
            if total:
                lines.insert(0, f"{total} bytes of data are lost for good")
            word = statuses[0].ref.name if len(statuses) == 1 else f"delete {len(statuses)}"
            return await self._panel.ask(TypeName(f"delete {one}?", [*lines, *left_out], word)) is not None
        if action in ASKS:
            lines = [*(f"{status.ref}  {status.phase}" for status in statuses), *left_out]
            agreed: bool = await self._panel.ask(Confirm(f"{action} {one}?", lines, str(action).capitalize()))
            return agreed
        return True

    async def carry_out(self, action: Action, refs: Sequence[Ref], *, undoes: bool = False) -> None:
        """Do it to each, several at once; one list of how far it has got. What `undoes` is not taken back again."""
        job = Job(f"{action} {refs[0].short if len(refs) == 1 else f'{len(refs)} resources'}", [Part(r) for r in refs])
        self.jobs.append(job)
        self._changed()
        refused = await self._consent(action, job)
        faults = await self._together(action, job) if refused is None else [refused]
        job.ended = True
        self._panel.feed.touch(refs)
        done = [part.ref for part in job.parts if part.state == "done"]
        undo = None if undoes else self._remember(action, done)
        if faults and len(refs) == 1:
            self._panel.fail(faults[0], job.title)
        elif faults:
            self._panel.say(f"{job.title}: {len(faults)} failed, the first: {faults[0]}", "error")
        else:
            self._panel.say(f"{job.title}: done{f', u takes it back ({undo.text})' if undo else ''}")
        self._changed()
        if not job.failures:
            self._panel.set_timer(SHOWN_AFTER_S, lambda: self.dismiss(job))

    async def _consent(self, action: Action, job: Job) -> Fault | None:
        """Wait for a second person where the role asks for one; why there is none to be had."""
        workspace, emit = self._panel.workspace, self.hears(job)
        try:
            for purge in (False, True):
                refs = [part.ref for part in job.parts if _purges(action, part.ref) is purge]
                if refs:
                    await self.asking(job, workspace.consent(Verb(action), refs, purge=purge, emit=emit))
        except Exception as error:
            return self._failed(job, error)
        return None

    def hears(self, job: Job) -> Callable[[Event], None]:
        """For what the engine says while a second person is waited for."""

        def emit(event: Event) -> None:
            if isinstance(event, StepProgressed) and not job.ended:
                if job not in self.jobs:
                    self.jobs.append(job)
                job.waits = event.message
                self._changed()

        return emit

    async def asking(self, job: Job, wait: Coroutine[Any, Any, T]) -> T:
        """Wait for what may wait for a second person. Raises Denied if that is withdrawn meanwhile."""
        asking: asyncio.Task[T] = asyncio.create_task(wait)
        job.asking = asking
        try:
            return await asking
        except asyncio.CancelledError:
            mine = asyncio.current_task()
            if mine is not None and mine.cancelling():
                raise
            raise Denied(f"{job.title}: you have withdrawn it") from None
        finally:
            job.asking, job.waits = None, ""
            self._changed()

    @contextlib.contextmanager
    def going_on(self, job: Job) -> Iterator[None]:
        """A job that is seen while it waits, and not afterwards."""
        try:
            yield
        finally:
            job.ended = True
            self.dismiss(job)

    @property
    def waiting(self) -> list[Job]:
        """Those that wait for a second person."""
        return [job for job in self.jobs if job.waits]

    def withdraw(self) -> None:
        """Ask nobody any more."""
        for job in self.waiting:
            if job.asking is not None:
                job.asking.cancel()

    def _failed(self, job: Job, error: Exception) -> Fault:
        fault = self._told(error)
        for part in job.parts:
            part.state, part.message = "failed", str(fault)
        return fault

    async def _together(self, action: Action, job: Job) -> list[Fault]:
        """All parts under one hold of the workspace's lock; what is deleted after those that may use it."""
        first = [part for part in job.parts if part.ref.kind.runs or action is not Action.DELETE]
        faults: list[Fault | None] = []
        try:
            async with self._panel.workspace.changing(job.title):
                for parts in (first, [part for part in job.parts if part not in first]):
                    faults += await asyncio.gather(*(self._one(action, part) for part in parts))
        except (Fault, OSError) as error:  # the lock cannot be had
            return [self._failed(job, error)]
        return [fault for fault in faults if fault is not None]

    async def _one(self, action: Action, part: Part) -> Fault | None:
        def emit(event: Event) -> None:
            if isinstance(event, StepProgressed):
                part.message = event.message
                self._changed()

        async with self._slots:
            workspace = self._panel.workspace
            part.state = "running"
            self._changed()
            try:
                before = workspace.applied(part.ref)
                await workspace.carry_out(part.ref, action, emit=emit, purge=_purges(action, part.ref))
            except Exception as error:
                fault = self._told(error)
                part.state, part.message = "failed", str(fault)
                return fault
            finally:
                self._changed()
            part.state, part.message = "done", ""
            self.taken.append(Taken(action, part.ref, before))
            del self.taken[:-UNDOS_KEPT]
            return None

    def _told(self, error: Exception) -> Fault:
        return told(error, self._panel.workspace.store.path)

    def _remember(self, action: Action, refs: Sequence[Ref]) -> Undo | None:
        reverse = REVERSE.get(action)
        if reverse is None or not refs:
            return None

        async def run() -> None:
            await self.carry_out(reverse, refs, undoes=True)

        return self.can_undo(f"{reverse} {refs[0].short if len(refs) == 1 else f'{len(refs)} resources'}", run)

    def can_undo(self, text: str, run: Callable[[], Awaitable[None]]) -> Undo:
        """Something was done that `run` takes back."""
        undo = Undo(text, run)
        self.undos.append(undo)
        del self.undos[:-UNDOS_KEPT]
        self._panel.screen.refresh_bindings()
        return undo

    async def undo(self) -> None:
        """Take back the last act that can be, after what is being taken back already. In a worker."""
        going_on = None if self._undoing.locked() else next((job for job in self.jobs if not job.ended), None)
        if going_on is not None:
            self._panel.say(f"{going_on.title} is still going on: it can be taken back when it has ended", "warning")
            return
        async with self._undoing:
            if self.undos:
                undo = self.undos.pop()
                self._panel.screen.refresh_bindings()
                await undo.run()
            else:
                self._panel.say("there is nothing to take back", "warning")

    def dismiss(self, job: Job) -> None:
        if job in self.jobs:
            self.jobs.remove(job)
            self._changed()

    def dismiss_ended(self) -> bool:
        """Whether there was a job to put away."""
        ended = [job for job in self.jobs if job.ended]
        for job in ended:
            self.dismiss(job)
        return bool(ended)

    def _changed(self) -> None:
        for listener in list(self.on_change):
            listener()


def needed(action: Action, ref: Ref) -> tuple[Verb, ...]:
    """What must be permitted for it."""
    return (Verb(action), Verb.PURGE) if _purges(action, ref) else (Verb(action),)


def _purges(action: Action, ref: Ref) -> bool:
    """Of a disk nothing is deleted but its data."""
    return action is Action.DELETE and ref.kind is Kind.DISK


def _loss(status: Status) -> str:
    if status.ref.kind is Kind.DISK:
        return f"{status.ref}  {size(status.size_bytes)}, all of its data"
    return f"{status.ref}  {status.phase}"
