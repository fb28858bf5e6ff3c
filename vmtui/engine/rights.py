"""Which permissions a plan takes: for each change the verbs, on the resource as it is and as it will be. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import msgspec

from vmtui.core.backend import Desired
from vmtui.core.lifecycle import Action
from vmtui.core.policy import Target, Verb
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import DiskSpec, Spec
from vmtui.engine import host_reach
from vmtui.engine.plan import MEND, RECREATE, UPDATE, Change, Plan
from vmtui.engine.store import Applied

Right = tuple[Verb, Target]

# Making anew is removing and making, whatever it is done for.
VERBS: dict[str, tuple[Verb, ...]] = {
    Action.CREATE: (Verb.CREATE,),
    RECREATE: (Verb.DELETE, Verb.CREATE),
    MEND: (Verb.CHANGE,),
    UPDATE: (Verb.CHANGE,),
    Action.RESIZE: (Verb.RESIZE,),
    Action.START: (Verb.START,),
    Action.RESUME: (Verb.RESUME,),
    Action.RESTART: (Verb.RESTART,),
    Action.RECONNECT: (Verb.RECONNECT,),
    Action.DELETE: (Verb.DELETE,),
}
# What a resource must be allowed for, so that another one may begin to use it.
USES: dict[Kind, Verb] = {Kind.DISK: Verb.CHANGE, Kind.NETWORK: Verb.CONNECT}


def of_plan(plan: Plan, rows: Mapping[Ref, Applied], person: str, whole: Plan | None = None) -> Iterator[Right]:
    """What it takes, all of it. `rows` are what the profile has in the store, `person` is who would own what is new.

    `whole` is the plan of which it is a part, if it is one.
    """
    coming = {change.ref: change.desired for change in (whole or plan).changes if change.desired is not None}

    def target(ref: Ref) -> Target:
        row, want = rows.get(ref), coming.get(ref)
        if row is None and want is not None:
            return _after(want, None, person)
        return Target(ref) if row is None else Target(ref, row.desired.spec.labels, row.owner)

    for change in plan.changes:
        yield from _of_change(change, rows.get(change.ref), plan, person)
        if change.desired is not None:
            before = None if (row := rows.get(change.ref)) is None else row.desired.spec
            for ref in sorted(_used(change.ref, change.desired.spec) - _used(change.ref, before)):
                yield USES.get(ref.kind, Verb.VIEW), target(ref)
            shared = _volumes(change.desired.spec) - _volumes(before)
            for ref, other in rows.items():
                if ref != change.ref and shared & _volumes(other.desired.spec):
                    yield Verb.CHANGE, target(ref)


def _of_change(change: Change, row: Applied | None, plan: Plan, person: str) -> Iterator[Right]:
    ref, want = change.ref, change.desired
    before = None if row is None else Target(ref, row.desired.spec.labels, row.owner)
    after = None if want is None else _after(want, row, person)
    if before is None and (change.action != Action.CREATE or after is None):
        before = Target(ref)  # it is on the host alone: nobody's, and without labels
    targets = [target for target in (before, after) if target is not None]
    verbs = list(VERBS[change.action])
    if change.data_loss or (plan.purge and Verb.DELETE in verbs) or _shrinks(change):
        verbs.append(Verb.PURGE)
    if row is not None and want is not None and _rewrites(change, row, want):
        verbs += [Verb.CHANGE, *_asks_inside(row.desired.spec, want.spec)]
    for verb in verbs:
        yield from ((verb, target) for target in targets)


def _after(want: Desired[Any], row: Applied | None, person: str) -> Target:
    return Target(want.ref, want.spec.labels, person if row is None else row.owner)


def _shrinks(change: Change) -> bool:
    """Whether it may cut off data: the size that the disk has by now is nobody's word."""
    spec = None if change.desired is None else change.desired.spec
    return change.action == Action.RESIZE and isinstance(spec, DiskSpec) and spec.shrink


def _rewrites(change: Change, row: Applied, want: Desired[Any]) -> bool:
    """Whether it is written down anew in more than the change is named for."""
    was = msgspec.structs.replace(row.desired.spec, backend=want.spec.backend)
    if change.action == Action.RESIZE and isinstance(was, DiskSpec) and isinstance(want.spec, DiskSpec):
        was = msgspec.structs.replace(was, size=want.spec.size, shrink=want.spec.shrink)
    return was != want.spec or row.desired.backend != want.backend or _options(row.desired) != _options(want)


def _asks_inside(before: Spec, after: Spec) -> Iterator[Verb]:
    """What a new condition of being ready does in what was made by others: it runs commands, it tells of the log."""
    if after.ready is not None and after.ready != before.ready:
        if after.ready.exec is not None:
            yield Verb.EXEC
        if after.ready.log is not None:
            yield Verb.LOGS


def _volumes(spec: Spec | None) -> set[str]:
    """The named volumes of a spec: the containers of a profile share those of one name."""
    return {mount.source for mount in getattr(spec, "volumes", ()) if mount.is_volume}


def _options(desired: Desired[Any]) -> Any:
    return msgspec.to_builtins(desired.options, enc_hook=str)


def _used(ref: Ref, spec: Spec | None) -> set[Ref]:
    """The disks and networks of a spec, and what it waits for."""
    disks = {Ref(ref.profile, Kind.DISK, name) for name in getattr(spec, "disks", ())}
    networks = {Ref(ref.profile, Kind.NETWORK, name) for name in getattr(spec, "networks", ())}
    waits = {Ref.parse(f"{ref.profile}/{short}") for short in getattr(spec, "depends_on", ())}
    return disks | networks | waits


def reaching(plan: Plan, rows: Mapping[Ref, Applied]) -> Iterator[tuple[Ref, str, str]]:
    """The changes that make something new of the host's: the resource, the field, and how.

    One that writes down nothing new takes no more than there was.
    """
    for change in plan.changes:
        row, want = rows.get(change.ref), change.desired
        if want is not None and (row is None or _rewrites(change, row, want)):
            for field, why in host_reach.of_desired(want):
                yield change.ref, field, why


def users_left(plan: Plan, rows: Mapping[Ref, Applied], sees: Callable[[Ref], bool]) -> Iterator[tuple[Ref, Ref]]:
    """Networks and disks that go or are made anew, and each user of them that is neither in the plan nor to be seen."""
    changed: Collection[Ref] = {change.ref for change in plan.changes}
    going = {change.ref for change in plan.changes if change.action in (Action.DELETE, RECREATE)}
    for ref, row in rows.items():
        if ref not in changed and not sees(ref):
            yield from ((used, ref) for used in sorted(_used(ref, row.desired.spec) & going))
