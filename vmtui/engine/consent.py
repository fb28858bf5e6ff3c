"""Asking a second person, and holding what is done then to what they agreed to."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from vmtui.core.errors import Denied, NotFound
from vmtui.core.events import Event, StepProgressed
from vmtui.core.policy import Target, Verb
from vmtui.core.resource import Ref
from vmtui.core.specs import to_json
from vmtui.core.units import Duration
from vmtui.engine.approvals import Approvals, Request, State
from vmtui.engine.guard import Guard
from vmtui.engine.plan import Plan
from vmtui.engine.store import Store

POLL_S = 0.25
LASTS_S = 600.0  # after it was given
MOST_LINES = 1000
LONGEST_LINE = 2000
OWNER = "the owner of the workspace"

Emit = Callable[[Event], None]
Asked = tuple[Verb, Ref, bool, str]  # the verb, on what, with its data too, and what more there is to it


class Consents:
    """Those that this process has been given and not used yet. None is needed where the role asks for none."""

    def __init__(self, guard: Guard, store: Store) -> None:
        self._guard = guard
        self._authority = guard.authority
        self._store = store
        self._given: dict[Asked | str, tuple[str, float]] = {}

    @property
    def approvals(self) -> Approvals:
        return Approvals(self._store)

    # Those who ask

    async def ask(self, verb: Verb, refs: Sequence[Ref], *, purge: bool, detail: str, emit: Emit) -> None:
        """Wait for consent to one verb on these. Raises Denied: refused, lapsed, or changed meanwhile."""
        wanted = {ref: (verb, ref, purge, detail) for ref in refs}
        if not self._asks(verb, purge=purge) or all(self._holds(key, (ref,)) for ref, key in wanted.items()):
            return
        named = Verb.PURGE if purge else verb
        about = tuple(f"{named} {ref}" + (f": {detail}" if detail else "") for ref in refs)
        states = {ref: self._state((ref,)) for ref in refs}
        digest = _digest([verb, refs, purge, detail, list(states.values())])
        targets = [self._store.target(ref) for ref in refs]
        await self._agreed(named, refs, targets, about, digest, emit)
        until = time.monotonic() + LASTS_S
        self._given |= {wanted[ref]: (state, until) for ref, state in states.items()}

    async def ask_plan(self, plan: Plan, verbs: Collection[Verb], targets: Iterable[Target], emit: Emit) -> None:
        """Wait for consent to a plan that needs these verbs. Raises Denied."""
        asking = sorted({verb for verb in verbs if self._authority.asks(verb)})
        digest = _digest(_of_plan(plan))
        refs = [change.ref for change in plan.changes]
        if not asking or self._holds(digest, refs):
            return
        state = self._state(refs)
        await self._agreed(", ".join(asking), refs, targets, _lines(plan), digest, emit)
        self._given[digest] = state, time.monotonic() + LASTS_S

    def _asks(self, verb: Verb, *, purge: bool) -> bool:
        return self._authority.asks(verb) or (purge and self._authority.asks(Verb.PURGE))

    # Those who act, with the lock in their hands

    def use(self, verb: Verb, ref: Ref, *, purge: bool = False, detail: str = "") -> None:
        """Raises Denied without a consent to just this."""
        if self._asks(verb, purge=purge):
            self._take((verb, ref, purge, detail), (ref,), verb)

    def use_plan(self, plan: Plan, verbs: Collection[Verb]) -> None:
        """Raises Denied without a consent to just this plan."""
        if asking := sorted({verb for verb in verbs if self._authority.asks(verb)}):
            self._take(_digest(_of_plan(plan)), [change.ref for change in plan.changes], ", ".join(asking))

    def _take(self, key: Asked | str, refs: Sequence[Ref], verb: str) -> None:
        state, until = self._given.pop(key, ("", 0.0))
        what = f"{verb} {', '.join(map(str, refs[:3]))}"
        if until <= time.monotonic():
            raise self._refused(verb, refs, f"{what}: a second person must agree first")
        if self._state(refs) != state:
            raise self._refused(verb, refs, f"{what}: it has changed since a second person agreed; ask again")

    def _holds(self, key: Asked | str, refs: Sequence[Ref]) -> bool:
        state, until = self._given.get(key, ("", 0.0))
        return until > time.monotonic() and self._state(refs) == state

    def _state(self, refs: Iterable[Ref]) -> str:
        """What these are in the database: a consent is void once that is something else."""
        rows = [self._store.get(ref) for ref in refs]
        return _digest([(row.desired, row.owner) if row else None for row in rows])

    # The asking itself

    async def _agreed(
        self, verb: str, refs: Sequence[Ref], targets: Iterable[Target], about: tuple[str, ...], digest: str, emit: Emit
    ) -> None:
        person = self._authority.person
        assert person is not None
        request = self.approvals.ask(
            Request(
                who=person.name, key=person.key, origin=person.origin, verb=verb, refs=tuple(refs),
                targets=tuple(targets), about=about, digest=digest,
            )
        )  # fmt: skip
        self._authority.note(verb, request.refs, "asked", f"request {request.id}: {'; '.join(about)}")
        try:
            by = await self._answer(request, emit)
        except BaseException:
            self.approvals.withdraw(request.id)
            raise
        self._authority.note(verb, request.refs, "approved", f"request {request.id}, by {by}")

    async def _answer(self, request: Request, emit: Emit) -> str:
        """Who agreed. Raises Denied."""
        told = 0.0
        what = f"{request.verb} {', '.join(map(str, request.refs[:3]))}"
        while True:
            state, by = self.approvals.state(request.id)
            if state is State.APPROVED and self.approvals.use(request.id):
                return by
            if state is State.DENIED:
                raise self._refused(request.verb, request.refs, f"{what}: {by} does not agree")
            if state is State.WITHDRAWN:
                raise self._refused(request.verb, request.refs, f"{what}: the request was withdrawn")
            if state is not State.ASKED:
                raise self._refused(request.verb, request.refs, f"{what}: nobody agreed in time")
            if time.monotonic() - told >= 1.0:
                told = time.monotonic()
                left = Duration(max(0, int(request.expires_at - time.time())))
                message = f"waits for a second person: request {request.id}, {left} left"
                emit(StepProgressed(at=time.time(), ref=request.refs[0], action=request.verb, message=message))
            await asyncio.sleep(POLL_S)

    def _refused(self, verb: str, refs: Sequence[Ref], why: str) -> Denied:
        self._authority.note(verb, tuple(refs), "denied", why)
        return Denied(why, hint="vmtui approvals")

    # Those who answer

    def requests(self) -> tuple[Request, ...]:
        """Those that wait, as far as this person may answer them or has asked them."""
        return tuple(found for found in self.approvals.waiting() if self._is_own(found) or self._may(found))

    def _may(self, request: Request) -> bool:
        targets = (*request.targets, *(self._store.target(ref) for ref in request.refs))
        return all(self._authority.may(verb, target) for target in targets for verb in (Verb.VIEW, Verb.APPROVE))

    def _is_own(self, request: Request) -> bool:
        """Whether it is this person's, who may have several keys, or several names for one key."""
        person = self._authority.person
        return person is not None and (person.name == request.who or person.key == request.key != "")

    def answer(self, number: int, *, granted: bool) -> None:
        """Raises NotFound if it does not wait, or not for this person; Denied for one's own.

        Neither a second key nor a second name makes a second person, and who has no key is none.
        """
        request = next((found for found in self.requests() if found.id == number), None)
        if request is None:
            raise NotFound(f"no request {number} waits", hint="vmtui approvals")
        person, own = self._authority.person, self._is_own(request)
        if granted and (own or (person is not None and not person.key)):
            raise self._refused("approve", request.refs, f"request {number} is yours: another person must agree to it")
        if own:
            self.approvals.withdraw(number)
        elif not self.approvals.answer(number, OWNER if person is None else person.name, granted=granted):
            raise NotFound(f"no request {number} waits", hint="vmtui approvals")
        result = "approved" if granted else "denied"
        self._authority.note("approve", request.refs, result, f"request {number} of {request.who}: {request.verb}")


def _digest(value: Any) -> str:
    return hashlib.sha256(to_json(value)).hexdigest()


def _of_plan(plan: Plan) -> Any:
    changes = [(c.ref, c.action, c.desired, c.before, c.backend, c.data_loss) for c in plan.changes]
    return plan.profile, plan.purge, plan.down, changes


def _lines(plan: Plan) -> tuple[str, ...]:
    """What a plan does, for who has to agree."""
    lines = []
    for change in plan.changes:
        lost = ", with its data" if change.data_loss or (plan.purge and change.desired is None) else ""
        lines.append(f"{change.action} {change.ref}{lost}: {change.reason}")
        lines += [f"  {field.name}: {field.before} → {field.after}" for field in change.fields]
        if change.desired is not None and not change.fields:
            lines.append(f"  {to_json(change.desired.spec).decode()}")
    cut = len(lines) > MOST_LINES or any(len(line) > LONGEST_LINE for line in lines)
    shown = [line[:LONGEST_LINE] for line in lines[:MOST_LINES]]
    return ("too much to show: this is not all of it", *shown) if cut else tuple(shown)
