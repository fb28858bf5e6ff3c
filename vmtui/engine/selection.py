"""From what is declared to what is desired: the backend chosen, its options, and whether the host can do it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from vmtui.core.backend import Desired
from vmtui.core.errors import Conflict, MissingCapability, ProfileInvalid
from vmtui.core.resource import Kind, Ref, Status
from vmtui.core.specs import AUTO, spec_hash
from vmtui.engine.plan import Plan
from vmtui.engine.registry import Registry
from vmtui.engine.store import Applied
from vmtui.profile.schema import Declared

NEW = frozenset({"create", "recreate"})


async def desired(registry: Registry, item: Declared, was: Applied | None, seen: Status | None) -> Desired[Any]:
    name = item.spec.backend
    if name == AUTO:
        name = await choose(registry, item, was, seen)
    backend = registry.get(item.ref.kind, name)
    options = next((value for key, value in item.options if key == name), None)
    if options is None and backend.options_type is not None:
        options = backend.options_type()
    return Desired(ref=item.ref, backend=name, spec=item.spec, options=options, spec_hash=spec_hash(item.spec, options))


async def choose(registry: Registry, item: Declared, was: Applied | None, seen: Status | None) -> str:
    """`auto`: the backend that has it, else of those that suit the spec the usable one of the highest priority."""
    kind = item.ref.kind
    if seen is not None:
        return seen.backend
    if was is not None:
        return was.desired.backend
    candidates = sorted(
        (backend for backend in registry.every(kind) if backend.priority >= registry.lowest_priority),
        key=lambda b: -b.priority,
    )
    unfit = {backend.name: why for backend in candidates if (why := backend.unsuitable(item.spec)) is not None}
    suitable = [backend for backend in candidates if backend.name not in unfit] or candidates[:1]
    if len(suitable) == 1:
        return suitable[0].name  # usable or not: it says itself what is missing, and what mends that
    for backend in suitable:
        if (await backend.probe()).usable:
            return backend.name
    others = "".join(f"; {why}" for why in unfit.values())
    raise MissingCapability(f"no backend for kind {kind} is usable{others}", hint="vmtui doctor")


async def passed_over(registry: Registry, plan: Plan, declared: Mapping[Ref, Declared]) -> list[tuple[Ref, str]]:
    """Of what `auto` makes: why a backend that works here and ranks higher does not get it."""
    notes = []
    for change in plan.changes:
        want = change.desired
        if change.action not in NEW or want is None or declared[want.ref].spec.backend != AUTO:
            continue
        rank = registry.get(want.ref.kind, want.backend).priority
        for backend in registry.every(want.ref.kind):
            why = backend.unsuitable(want.spec) if backend.priority > rank else None
            if why is not None and (await backend.probe()).usable:
                notes.append((want.ref, f"backend {want.backend}, since {why}"))
    return notes


async def preflight(registry: Registry, plan: Plan, declared: Mapping[Ref, Declared]) -> None:
    """Ask the backends whether what is new can be made. Raises the first problem as an error."""
    coming = [change.desired for change in plan.changes if change.action in NEW and change.desired is not None]
    groups: dict[tuple[Kind, str], list[Desired[Any]]] = {}
    for desired in coming:
        groups.setdefault((desired.ref.kind, desired.backend), []).append(desired)
    wants = [want for group in groups.values() for want in group]
    checks = [
        registry.get(want.ref.kind, want.backend).check(want, groups[want.ref.kind, want.backend]) for want in wants
    ]
    for want, problems in zip(wants, await asyncio.gather(*checks), strict=True):
        for problem in problems:
            plain = problem.message.removeprefix(f"{want.ref}: ")
            message = plain if str(want.ref) in plain else f"{want.ref}: {plain}"
            if problem.code == "missing-capability":
                raise MissingCapability(message, hint=problem.hint)
            if problem.code == "conflict":
                raise Conflict(message, hint=problem.hint)
            where = declared[want.ref].where
            raise ProfileInvalid(plain, where=where, key=f"{want.ref.kind}.{want.ref.name}", hint=problem.hint)
