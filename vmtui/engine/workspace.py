"""The facade: the only thing that a front end calls. What it does, it does in the name of its authority."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

import msgspec

from vmtui.core import policy
from vmtui.core.backend import (
    ExecRequest,
    ExecSession,
    Executes,
    HasConsole,
    Progress,
    Terminal,
    roles,
)
from vmtui.core.errors import Conflict, Fault, NotFound, NotPermitted, ResourceBusy
from vmtui.core.events import Event, ReadyReached, StepEnded, StepProgressed
from vmtui.core.lifecycle import Action, refusal
from vmtui.core.policy import Target, Verb
from vmtui.core.resource import Ref, Status
from vmtui.engine import authority as authorities
from vmtui.engine import readiness, rights, selection, verbs
from vmtui.engine.approvals import Request
from vmtui.engine.authority import Authority
from vmtui.engine.consent import Consents
from vmtui.engine.lock import exclusive
from vmtui.engine.operations import Emit, Outcome, Run, roll_back
from vmtui.engine.plan import Change, Plan, make_down_plan, make_plan, plugs
from vmtui.engine.reading import Reading
from vmtui.engine.reap import reap
from vmtui.engine.registry import Registry
from vmtui.engine.store import DATABASE, Applied, Store, open_context
from vmtui.host import trace
from vmtui.host.paths import Paths
from vmtui.profile import graph
from vmtui.profile.schema import Declared, Profile

LOCK_WAIT_S = 3.0
# Who may bring a workload up may wait for it.
WAITS = (Verb.CREATE, Verb.CHANGE, Verb.START, Verb.RESTART)


def unheard(event: Event) -> None:
    """The Emit of those who do not listen."""


class Workspace(Reading):
    """One user's resources: what should exist (the store), what does (the backends), and the acts between them."""

    def __init__(self, registry: Registry, store: Store, authority: Authority | None = None) -> None:
        super().__init__(registry, store, authority)
        self.consents = Consents(self.guard, store)
        self._lock = registry.context.paths.state / "lock"
        self._turn = asyncio.Lock()  # among the tasks of this process, which may wait for each other

    @classmethod
    async def open(cls, paths: Paths, *, by: str = "", authority: Authority | None = None) -> Self:
        """`by` is what the history says of who acts; `authority` in whose name, if not in that of this process.

        For who changes nothing all is opened for reading only. Raises Fault when state directory or database cannot be
        used.
        """
        chosen = authorities.current() if authority is None else authority
        looks = chosen.role is not None and policy.changes_nothing(chosen.role)
        context = open_context(paths, read_only=looks)
        return cls(Registry(context), Store(paths.state / DATABASE, by=by, read_only=looks), chosen)

    def seen_by(self, authority: Authority) -> Workspace:
        """The same workspace in another's name. It shares what this one has open, and is not closed by itself."""
        view = Workspace(self.registry, self.store, authority)
        view._turn = self._turn
        return view

    async def aclose(self) -> None:
        await self.registry.aclose()
        self.store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # Plans

    async def plan(
        self,
        profile: Profile,
        *,
        only: Sequence[str] = (),
        recreate: Sequence[str] = (),
        prune: bool = True,
        check: bool = True,
    ) -> Plan:
        """What would make the host as `profile` says. Changes nothing. Without `check` it may be impossible here.

        `only` restricts it to these resources and what they need; `recreate` names resources, or is ("all",). What is
        not to be seen is left alone. Raises ProfileInvalid, Conflict, MissingCapability for what could not be carried
        out, and Denied for what takes something of the host's that this person may not give.
        """
        declared = {item.ref: item for item in profile.resources}
        needs = _needs(profile.resources)
        chosen = set(declared)
        if only:
            chosen &= graph.closure(self._named(profile.name, only, declared), graph.edges(profile.resources))
        again = set(declared) if "all" in recreate else self._named(profile.name, recreate, declared)
        known, host = self.store.of_profile(profile.name), await self._observed(profile.name)
        self._refuse_taken(ref for ref in chosen if ref in known or ref in host)
        applied = self._seen(known)
        observed = {ref: status for ref, status in host.items() if self.guard.sees(ref)}
        with trace.doing(f"plan {profile.name}", reads=True), self.guard.telling():
            desired = {
                ref: await selection.desired(self.registry, item, applied.get(ref), observed.get(ref))
                for ref, item in declared.items()
                if ref in chosen
            }
        plan = make_plan(
            profile.name,
            desired,
            {ref: needs[ref] for ref in desired},
            applied,
            observed,
            roles=lambda ref: roles(self.operations.backend(desired[ref])),
            recreate=again & chosen,
            interrupted=self._seen_refs(self.store.interrupted()),
            ports=plugs(host.values()),
            prune=prune and not only,
            path=str(profile.path or ""),
        )
        self._refuse_reaching(plan)
        with trace.doing(f"plan {profile.name}", reads=True), self.guard.telling():
            notes = await selection.passed_over(self.registry, plan, declared)
            if check:
                await selection.preflight(self.registry, self._permitted_of(plan), declared)
        changes = tuple(msgspec.structs.replace(each, reason=self.guard.text(each.reason)) for each in plan.changes)
        owned = self._owned_by_others(changes, applied)
        return msgspec.structs.replace(plan, changes=changes, notes=(*plan.notes, *notes, *owned))

    def _owned_by_others(self, changes: Iterable[Change], rows: Mapping[Ref, Applied]) -> Iterator[tuple[Ref, str]]:
        """Whose it stays, whatever is put into it: a role can allow more on what one made, whoever names it, too."""
        for change in changes:
            row = rows.get(change.ref)
            if change.desired is not None and row is not None and row.owner not in ("", self._name):
                yield change.ref, f"{row.owner} made it, and may do with it what their role allows on what is theirs"

    def _seen_refs(self, refs: Iterable[Ref]) -> set[Ref]:
        return {ref for ref in refs if self.guard.sees(ref)}

    def _refuse_taken(self, refs: Iterable[Ref]) -> None:
        """Raises Conflict for what is there and not to be seen: to make it would be to change it."""
        for ref in sorted(refs):
            if not self.guard.sees(ref):
                self.authority.note(Verb.CREATE, (ref,), "denied", "it is there, and not to be seen")
                raise Conflict(f"{ref} cannot be made: its name is taken", hint="give it another name")

    def _refuse_reaching(self, plan: Plan) -> bool:
        """Whether something new of it reaches the host. Raises Denied if this person may not let it."""
        if self.authority.is_owner:
            return False
        rows = self.store.of_profile(plan.profile)
        for ref, field, why in rights.reaching(plan, rows):
            if not self.authority.may(Verb.HOST):
                raise self.authority.denied(Verb.HOST, (ref,), to=f"use the host: {ref}: {field}: {why}")
            return True
        return False

    def _permitted_of(self, plan: Plan) -> Plan:
        """What of a plan this person may carry out: only that is tried on the host."""
        if self.authority.is_owner:
            return plan
        rows = self.store.of_profile(plan.profile)
        changes = []
        for change in plan.changes:
            alone = msgspec.structs.replace(plan, changes=(change,))
            if all(self.authority.may(*right) for right in rights.of_plan(alone, rows, self._name, plan)):
                changes.append(change)
        return msgspec.structs.replace(plan, changes=tuple(changes))

    @property
    def _name(self) -> str:
        return "" if self.authority.person is None else self.authority.person.name

    def _named(self, profile: str, texts: Sequence[str], known: Collection[Ref]) -> set[Ref]:
        found = set()
        for text in texts:
            fits = [ref for ref in known if text in (str(ref), ref.short, ref.name)]
            if len(fits) != 1:
                problem = "is ambiguous" if fits else "is not in it"
                raise NotFound(f"profile {profile}: {text!r} {problem}", hint=", ".join(sorted(r.short for r in known)))
            found.update(fits)
        return found

    async def plan_down(self, profile: str, *, purge: bool, only: Sequence[str] = ()) -> Plan:
        """What would remove a profile, without its file. Raises NotFound if nothing of it is known or there."""
        applied = self._seen(self.store.of_profile(profile))
        observed = {ref: status for ref, status in (await self._observed(profile)).items() if self.guard.sees(ref)}
        if not applied and not observed and profile not in self.profiles():
            known = ", ".join(self.profiles()) or "none"
            raise NotFound(f"nothing of a profile {profile!r} is here", hint=f"profiles that are: {known}")
        chosen = self._named(profile, only, {*applied, *observed}) if only else None
        return make_down_plan(profile, applied, observed, purge=purge, only=chosen)

    # Acts

    @contextlib.asynccontextmanager
    async def changing(self, purpose: str, *, wait_s: float = LOCK_WAIT_S) -> AsyncIterator[None]:
        """Hold the workspace's lock, in turn with others of this process.

        Raises LockHeld if another process has it, Denied for who changes nothing.
        """
        if self.authority.role is not None and policy.changes_nothing(self.authority.role):
            raise self.authority.denied("change", to=purpose)
        async with self._turn, exclusive(self._lock, wait_s=wait_s, purpose=purpose):
            yield

    async def apply(self, plan: Plan, *, emit: Emit, on_failure: Literal["keep", "rollback"] = "rollback") -> Outcome:
        """Carry out a plan. A failing step is in the outcome; raises LockHeld, and CancelledError after clean-up.

        Raises Denied, and waits for a second person where the role says so. What is permitted is asked once more when
        nobody else can change it any more.
        """
        if plan.empty:
            await self._apply_nothing(plan)
            return Outcome(result="converged", changes=0)
        await self.consent_plan(plan, emit=emit)
        async with self.changing(f"apply {plan.profile}"):
            permitted, _ = self._permit(plan)
            self.consents.use_plan(plan, permitted)
            if plan.down:
                self.store.release_reserve()
            else:
                self.store.put_profile(plan.profile, plan.path if self.authority.may(Verb.HOST) else "")
            try:
                if not plan.down:
                    self.store.make_reserve()
                outcome = await Run(self.operations, plan, self._noted(emit)).execute(on_failure)
                if outcome.failure is not None:
                    self.guard.told(outcome.failure)
                if outcome.result == "converged":
                    await self._settle(plan)
                return outcome
            finally:
                self._forget_profile(plan)

    async def _apply_nothing(self, plan: Plan) -> None:
        """Forget what is over: the profile that is down, the steps of an earlier run that did not end."""
        if not self.authority.may(Verb.DELETE if plan.down else Verb.CHANGE):
            return  # others may have more of it than this person sees
        if plan.down:
            self.store.release_reserve()
            self.store.remove_profile(plan.profile)
        if self._open_steps(plan) or (plan.down and self.registry.context.profile_dir(plan.profile).exists()):
            async with self.changing(f"apply {plan.profile}"):
                await self._settle(plan)
                self._forget_profile(plan)

    def _permit(self, plan: Plan) -> tuple[set[Verb], list[Target]]:
        """The verbs that a plan takes, and on what, as things are now. Raises Denied, Conflict, ResourceBusy."""
        if self.authority.is_owner:
            return set(), []
        rows = self.store.of_profile(plan.profile)
        if any(change.ref.profile != plan.profile for change in plan.changes):
            raise self.authority.denied("change", tuple(change.ref for change in plan.changes))
        self._refuse_taken(change.ref for change in plan.changes if change.ref in rows)
        needed = list(rights.of_plan(plan, rows, self._name))
        for verb, target in needed:
            self.authority.require(verb, target)
        reaches = self._refuse_reaching(plan)
        for used, _ in rights.users_left(plan, rows, self.guard.sees):
            raise ResourceBusy(f"{used} is used by others", hint="leave it, or ask them")
        return {verb for verb, _ in needed} | ({Verb.HOST} if reaches else set()), [target for _, target in needed]

    def _noted(self, emit: Emit) -> Emit:
        """`emit`, with each step noted that has ended."""
        if self.authority.is_owner:
            return emit

        def hear(event: Event) -> None:
            told = self.guard.event(event)
            if isinstance(told, StepEnded):
                self.authority.note(told.action, (told.ref,), told.result, told.message)
            emit(told)

        return hear

    async def consent_plan(self, plan: Plan, *, emit: Emit = unheard) -> None:
        """Wait for a second person, where the role asks for one. `apply` does so too. Raises Denied."""
        permitted, targets = self._permit(plan)
        await self.consents.ask_plan(plan, permitted, targets, emit)

    async def consent(
        self, verb: Verb, refs: Sequence[Ref], *, purge: bool = False, detail: str = "", emit: Emit = unheard
    ) -> None:
        """The same for one verb on some resources: before `changing` is held, for `carry_out`. Raises NotFound, Denied.

        `detail` is what else there is to it, such as the command of an `exec`.
        """
        self._permit_act(verb, refs, purge=purge)
        await self.consents.ask(verb, refs, purge=purge, detail=detail, emit=emit)

    def _permit_act(self, verb: Verb, refs: Iterable[Ref], *, purge: bool) -> None:
        for ref in refs:
            self.guard.require(verb, ref)
            if purge:
                self.guard.require(Verb.PURGE, ref)

    def approvals(self) -> tuple[Request, ...]:
        """What waits for a second person: what this one may answer or has asked. Its texts are hostile."""
        return self.consents.requests()

    def answer(self, number: int, granted: bool) -> None:
        """Agree to a request, or refuse it. Raises NotFound if it does not wait any more, Denied for one's own."""
        self.consents.answer(number, granted=granted)

    def _open_steps(self, plan: Plan) -> set[Ref]:
        return {ref for ref in self.store.interrupted() if ref.profile == plan.profile}

    async def _settle(self, plan: Plan) -> None:
        """Forget the steps that an earlier run did not end, of what this plan brought in order or what is gone."""
        changed = {change.ref for change in plan.changes}
        if self._open_steps(plan) - changed:
            here = {status.ref for status in await self._scan(None)} | set(self.store.of_profile(plan.profile))
            changed |= self._open_steps(plan) - here
        self.store.journal_settle(changed)

    def _forget_profile(self, plan: Plan) -> None:
        if not self.store.of_profile(plan.profile):
            self.store.remove_profile(plan.profile)
            self._remove_empty_directories(self.registry.context.profile_dir(plan.profile))

    @staticmethod
    def _remove_empty_directories(top: Path) -> None:
        """What a run leaves that is killed before it has put anything into them, or after it has emptied them."""
        for directory in [*(Path(path) for path, _, _ in os.walk(top, topdown=False)), top.parent]:
            with contextlib.suppress(OSError):
                directory.rmdir()

    async def roll_back(self, plan: Plan, outcome: Outcome, *, emit: Emit) -> None:
        """Take back what an apply did, after it succeeded but did not become ready."""
        async with self.changing(f"roll back {plan.profile}", wait_s=30.0):
            await roll_back(outcome.undo, self._noted(emit), self.store)
            self._forget_profile(plan)

    async def wait_ready(self, refs: Iterable[Ref], *, timeout: float | None, emit: Emit) -> tuple[Status, ...]:
        """Wait for all of them at once; their statuses. Raises ReadinessTimeout, OperationFailed for the first."""
        began = time.monotonic()
        host = _Unguarded(self)

        async def one(ref: Ref) -> Status:
            if not any(self.may(verb, ref) for verb in WAITS):
                self.guard.require(Verb.START, ref, to=f"wait for {ref}")
            row = self.store.get(ref)
            if row is None:
                raise NotFound(f"{ref} is not applied", hint="vmtui ls")
            with trace.doing(f"wait for {ref}", reads=True), self.guard.telling():
                try:
                    status = await readiness.wait(host, ref, row.desired.spec, seen=row.ready, timeout=timeout)
                except Fault as fault:
                    if not self.may(Verb.LOGS, ref):
                        fault.details = ""
                    raise
            instance = readiness.instance(status)
            if instance and instance != row.ready:
                self.store.set_ready(ref, instance)
            elapsed = time.monotonic() - began
            emit(ReadyReached(at=time.time(), ref=ref, elapsed_s=elapsed, endpoints=status.endpoints))
            return self.guard.shown(status)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(ref)) for ref in refs]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return tuple(task.result() for task in tasks)

    async def act(
        self, ref: Ref, action: Action, *, emit: Emit, grace_s: float | None = None, purge: bool = False
    ) -> Status | None:
        """One verb on one resource; its status then, None once deleted.

        Raises NotPermitted, NotFound, LockHeld, and Denied, also once a second person has not agreed.
        """
        await self.consent(Verb(action), [ref], purge=purge, emit=emit)
        async with self.changing(f"{action} {ref}"):
            await self.carry_out(ref, action, emit=emit, grace_s=grace_s, purge=purge)
        return None if action is Action.DELETE else await self.inspect(ref)

    async def carry_out(
        self, ref: Ref, action: Action, *, emit: Emit, grace_s: float | None = None, purge: bool = False
    ) -> None:
        """The same for who holds `changing`: several at once. Raises NotPermitted, NotFound, Denied.

        It does not wait for a second person: `consent` has to have been given.
        """
        verb = Verb(action)
        self._permit_act(verb, [ref], purge=purge)
        self.consents.use(verb, ref, purge=purge)
        with self.guard.noting(verb, (ref,), "with its data" if purge else ""), self.guard.telling():
            await self._carry_out(ref, action, emit=emit, grace_s=grace_s, purge=purge)

    async def _carry_out(self, ref: Ref, action: Action, *, emit: Emit, grace_s: float | None, purge: bool) -> None:
        row = self.store.get(ref)
        if action is Action.DELETE:
            there = await self._inspect_or_none(ref)
            with trace.doing(f"{action} {ref}"):
                await verbs.delete(self.operations, ref, row, there, purge=purge)
            return
        status = await self._find(ref, row)
        backend = self.registry.get(ref.kind, status.backend)
        if (why := refusal(action, status.phase, roles(backend))) is not None:
            raise NotPermitted(f"{action} {ref}: {why}")
        try:
            with trace.doing(f"{action} {ref}"):
                await verbs.carry_out(
                    self.operations, row, status, action, grace_s=grace_s, report=_progress(emit, ref, action)
                )
        except Fault as fault:
            self.store.record(ref, action, "failed", str(fault))
            raise
        self.store.record(ref, action, "done")

    async def reap(self, ref: Ref) -> None:
        """What the parent of a workload asks for when it has ended: its restart policy, or its ports unplugged."""
        self.authority.require(Verb.HOST, to="run restart policies")
        await reap(self.operations, self.changing, ref)

    # Inside

    async def exec(self, ref: Ref, request: ExecRequest, *, emit: Emit = unheard) -> ExecSession:
        """Run a command inside. Raises NotPermitted, NotFound, Denied."""
        said = _said(request)
        await self.consent(Verb.EXEC, [ref], detail=said, emit=emit)
        self.consents.use(Verb.EXEC, ref, detail=said)
        with self.guard.noting(Verb.EXEC, (ref,), said), self.guard.telling():
            return await self._exec(ref, request)

    async def _exec(self, ref: Ref, request: ExecRequest) -> ExecSession:
        backend = await self._running(ref, Action.EXEC)
        assert isinstance(backend, Executes)
        with trace.doing(f"exec {ref}"):
            return await backend.exec(ref, request)

    async def console(self, ref: Ref, *, emit: Emit = unheard) -> Terminal:
        """Attach to its console. Raises NotPermitted, NotFound, ResourceBusy, Denied."""
        await self.consent(Verb.CONSOLE, [ref], emit=emit)
        self.consents.use(Verb.CONSOLE, ref)
        with self.guard.noting(Verb.CONSOLE, (ref,)), self.guard.telling():
            backend = await self._running(ref, Action.CONSOLE)
            assert isinstance(backend, HasConsole)
            return await backend.console(ref)


class _Unguarded:
    """What readiness asks of a workspace, in the name of a spec whose author was asked when it was applied."""

    def __init__(self, workspace: Workspace) -> None:
        self.inspect = workspace._inspect
        self.logs = workspace._logs
        self.exec = workspace._exec


def _said(request: ExecRequest) -> str:
    """All that decides what a command does, as `vmtui exec` takes it: what is agreed to, and noted."""
    words = ["-u", request.user] if request.user is not None else []
    words += ["-w", request.working_dir] if request.working_dir is not None else []
    for name, value in request.environment:
        words += ["-e", f"{name}={value}"]
    return shlex.join([*words, "--", *request.argv] if words else request.argv)


def _needs(resources: Iterable[Declared]) -> dict[Ref, frozenset[Ref]]:
    needs: dict[Ref, set[Ref]] = {item.ref: set() for item in resources}
    for edge in graph.edges(resources):
        needs[edge.consumer].add(edge.provider)
    return {ref: frozenset(found) for ref, found in needs.items()}


def _progress(emit: Callable[[Event], None], ref: Ref, action: str) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        emit(
            StepProgressed(at=time.time(), ref=ref, action=action, message=progress.message, fraction=progress.fraction)
        )

    return report
