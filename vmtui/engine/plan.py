"""From what is declared, what was applied and what is observed to what must be done. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from vmtui.core.backend import Desired
from vmtui.core.lifecycle import UP, Action, Phase, Role
from vmtui.core.resource import Kind, Port, Ref, Status
from vmtui.core.specs import DiskSpec, Restart, Spec, Workload, encode
from vmtui.core.units import Size
from vmtui.engine.store import Applied, Intent

MEND = "mend"
RECREATE = "recreate"
UPDATE = "update"
INTERRUPTED = "an earlier run was interrupted while it changed this"


class FieldChange(msgspec.Struct, frozen=True):
    name: str
    before: str
    after: str


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One resource that is not as declared, and what brings it there.

    `action` is create, recreate, mend, resize, start, resume, restart, reconnect, update or delete. `data_loss` says
    that what cannot be made again goes (a disk's content). `backend` is the one that has it now, which may differ
    from `desired.backend`.
    """

    ref: Ref
    action: str
    reason: str
    desired: Desired[Any] | None = None
    before: Applied | None = None
    backend: str = ""
    was_up: bool = False
    fields: tuple[FieldChange, ...] = ()
    data_loss: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What `apply` will do, and nothing else. `needs` are the references of each desired resource."""

    profile: str
    changes: tuple[Change, ...]
    unchanged: tuple[Ref, ...] = ()
    needs: Mapping[Ref, frozenset[Ref]] = {}
    notes: tuple[tuple[Ref, str], ...] = ()
    path: str = ""
    purge: bool = False
    down: bool = False

    @property
    def empty(self) -> bool:
        return not self.changes


Held = tuple[str, int | str]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One act on one resource; `after` are the indices of the steps that must have succeeded before."""

    change: Change
    verb: str
    after: tuple[int, ...] = ()


# change → the acts it consists of, in order; start is left out for kinds that do not run
VERBS: dict[str, tuple[str, ...]] = {
    Action.CREATE: ("create", "start"),
    RECREATE: ("delete", "create", "start"),
    MEND: ("create",),
    Action.RESIZE: ("resize",),
    Action.START: ("start",),
    Action.RESUME: ("resume",),
    Action.RESTART: ("stop", "start"),
    Action.RECONNECT: ("reconnect",),
    UPDATE: ("save",),
    Action.DELETE: ("delete",),
}
RELEASES = frozenset({"stop", "delete"})  # acts after which a workload no longer uses what it refers to


def finished(spec: Spec, status: Status) -> bool:
    """Whether a workload that ended did its job: it need not run again."""
    if status.phase is not Phase.EXITED or status.exit is None or not isinstance(spec, Workload):
        return False
    if spec.ready is not None and spec.ready.exit_code is not None:
        return status.exit.code == spec.ready.exit_code
    service = status.ref.kind is Kind.VM or spec.restart in (Restart.ALWAYS, Restart.UNLESS_STOPPED)
    return not service and status.exit.code == 0


def up(spec: Spec, status: Status) -> bool:
    """Whether the resource is where a profile wants it, by its phase alone."""
    return status.phase in (Phase.RUNNING, Phase.AVAILABLE) or finished(spec, status)


def diff(before: Spec | None, after: Spec) -> tuple[FieldChange, ...]:
    """The fields that differ, as text."""
    if before is None:
        return ()
    old, new = encode(before), encode(after)
    return tuple(
        FieldChange(key, _text(old.get(key)), _text(new.get(key)))
        for key in new
        if old.get(key) != new.get(key) and key != "backend"
    )


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode() if not isinstance(value, str) else value


Plugs = Mapping[tuple[Ref, Ref, int], Port]  # by network, consumer and index


def plugs(observed: Iterable[Status]) -> Plugs:
    """The ports that networks have."""
    return {(port.network, port.consumer, port.index): port for status in observed for port in status.ports}


def missing_ports(want: Desired[Any], ports: Plugs) -> list[str]:
    """What a running workload should be plugged into and is not, in words."""
    lost = []
    for index, name in enumerate(getattr(want.spec, "networks", ())):
        port = ports.get((Ref(want.ref.profile, Kind.NETWORK, name), want.ref, index))
        if port is None:
            lost.append(f"its port on network {name} is gone")
        elif not port.present:
            lost.append(f"interface {port.interface} on network {name} is gone")
        elif not port.live:
            lost.append(f"interface {port.interface} on network {name} is not plugged in")
    return lost


def decide(
    want: Desired[Any],
    was: Applied | None,
    seen: Status | None,
    ports: Plugs,
    *,
    recreate: bool,
    interrupted: bool,
    roles: frozenset[Role],
) -> Change | None:
    """What one declared resource needs, by itself."""
    ref = want.ref
    fields = diff(was.desired.spec if was else None, want.spec)

    def change(action: str, reason: str, fields: tuple[FieldChange, ...] = fields, loss: bool = False) -> Change:
        running = seen is not None and seen.phase in UP
        return Change(
            ref=ref, action=action, reason=reason, desired=want, before=was,
            backend=seen.backend if seen else want.backend, was_up=running, fields=fields, data_loss=loss,
        )  # fmt: skip

    if seen is None or seen.phase is Phase.ABSENT:
        return change(Action.CREATE, "it is gone" if was else "it is new", () if was is None else fields)
    data = ref.kind is Kind.DISK
    if recreate:
        return change(RECREATE, "asked for", loss=data)
    if seen.backend != want.backend:
        moved = (FieldChange("backend", seen.backend, want.backend), *fields)
        return change(RECREATE, f"it moves to backend {want.backend}", moved, loss=data)
    if interrupted and ref.kind.runs:
        return change(RECREATE, INTERRUPTED)
    if seen.phase is Phase.BROKEN:
        cause = seen.problems[0].message if seen.problems else "it is broken"
        return change(RECREATE if ref.kind.runs else MEND, cause)
    if seen.spec_hash != want.spec_hash and not data:
        names = ", ".join(field.name for field in fields) or "its options"
        return change(RECREATE, f"changed: {names}")
    size = want.spec.size if isinstance(want.spec, DiskSpec) else None
    if size is not None and seen.size_bytes not in (None, int(size)):
        before = "" if seen.size_bytes is None else str(Size(seen.size_bytes))
        sizes = (FieldChange("size", before, str(size)),)
        return change(Action.RESIZE, "its size differs", sizes)
    if interrupted:
        return change(MEND, INTERRUPTED)
    if seen.phase is Phase.PAUSED:
        return change(Action.RESUME, "it is paused")
    if not up(want.spec, seen):
        code = f" with code {seen.exit.code}" if seen.exit else ""
        return change(Action.START, f"it is {seen.phase}{code}")
    if seen.phase is Phase.RUNNING and (lost := missing_ports(want, ports)):
        action = Action.RECONNECT if Role.RECONNECTABLE in roles else Action.RESTART
        return change(action, "; ".join(lost))
    if was is None:
        return change(UPDATE, "it is adopted: the database did not know it", ())
    if was.intent is Intent.STOPPED and seen.phase is Phase.RUNNING:  # its restart policy would not act
        return change(UPDATE, "it runs, though it was to be stopped")
    if msgspec.structs.replace(was.desired.spec, backend=want.spec.backend) != want.spec:
        return change(UPDATE, "changed in place: " + ", ".join(field.name for field in fields))
    return None


def make_plan(
    profile: str,
    desired: Mapping[Ref, Desired[Any]],
    needs: Mapping[Ref, frozenset[Ref]],
    applied: Mapping[Ref, Applied],
    observed: Mapping[Ref, Status],
    *,
    roles: Callable[[Ref], frozenset[Role]],
    recreate: Collection[Ref] = (),
    interrupted: Collection[Ref] = (),
    ports: Plugs | None = None,
    prune: bool = True,
    path: str = "",
) -> Plan:
    """The plan that makes the host as `desired`. All refs are of `profile`; `observed` holds what the host shows.

    `ports` are those of all networks, where `observed` has not all of them.

    A workload whose network or disk is made anew or resized is restarted. What the profile no longer declares goes,
    but disks stay: they are data.
    """
    found: dict[Ref, Change] = {}
    unchanged: list[Ref] = []
    notes: list[tuple[Ref, str]] = []
    ports = plugs(observed.values()) if ports is None else ports
    for ref, want in desired.items():
        decided = decide(
            want,
            applied.get(ref),
            observed.get(ref),
            ports,
            recreate=ref in recreate,
            interrupted=ref in interrupted,
            roles=roles(ref),
        )
        if decided is not None:
            found[ref] = decided
        else:
            unchanged.append(ref)
        seen = observed.get(ref)
        other = seen is not None and seen.spec_hash not in ("", want.spec_hash)
        if other and ref.kind is Kind.DISK and ref not in recreate:
            notes.append((ref, f"its source changed; the disk keeps its data: --recreate {ref.short} imports it again"))
    _restart_consumers(found, unchanged, desired, needs, applied, observed)
    if prune:
        for ref in sorted({*applied, *observed} - set(desired)):
            if ref.kind is Kind.DISK:
                notes.append((ref, f"no longer declared; the disk stays: vmtui rm --purge {ref.short} removes it"))
            else:
                found[ref] = _deletion(ref, applied.get(ref), observed.get(ref), "no longer declared")
    return Plan(
        profile=profile,
        changes=tuple(found.values()),
        unchanged=tuple(unchanged),
        needs=needs,
        notes=tuple(notes),
        path=path,
    )


def _restart_consumers(
    found: dict[Ref, Change],
    unchanged: list[Ref],
    desired: Mapping[Ref, Desired[Any]],
    needs: Mapping[Ref, frozenset[Ref]],
    applied: Mapping[Ref, Applied],
    observed: Mapping[Ref, Status],
) -> None:
    moved = {ref for ref, change in found.items() if change.action in (RECREATE, Action.RESIZE) and not ref.kind.runs}
    if not moved:
        return
    for ref in desired:
        causes = sorted(needs.get(ref, frozenset()) & moved)
        seen = observed.get(ref)
        mild = ref not in found or found[ref].action in (UPDATE, Action.RECONNECT)
        if causes and mild and seen is not None and seen.phase in UP:
            reason = "its " + ", ".join(f"{cause.kind} {cause.name}" for cause in causes) + " changes"
            found[ref] = Change(
                ref=ref, action=Action.RESTART, reason=reason, desired=desired[ref], before=applied.get(ref),
                backend=desired[ref].backend, was_up=True, fields=found[ref].fields if ref in found else (),
            )  # fmt: skip
            if ref in unchanged:
                unchanged.remove(ref)


def _deletion(ref: Ref, was: Applied | None, seen: Status | None, reason: str, *, loss: bool = False) -> Change:
    backend = seen.backend if seen else was.desired.backend if was else ""
    return Change(
        ref=ref, action=Action.DELETE, reason=reason, before=was, backend=backend,
        was_up=seen is not None and seen.phase in UP, data_loss=loss,
    )  # fmt: skip


def make_down_plan(
    profile: str,
    applied: Mapping[Ref, Applied],
    observed: Mapping[Ref, Status],
    *,
    purge: bool,
    only: Collection[Ref] | None = None,
) -> Plan:
    """The plan that removes a profile, from the database and the host alone. Disks stay unless `purge`."""
    gone: list[Change] = []
    kept: list[Ref] = []
    for ref in sorted({*applied, *observed}):
        if only is not None and ref not in only:
            continue
        if ref.kind is Kind.DISK and not purge:
            kept.append(ref)
            continue
        loss = ref.kind is Kind.DISK and ref in observed
        gone.append(_deletion(ref, applied.get(ref), observed.get(ref), "taken down", loss=loss))
    return Plan(
        profile=profile, changes=tuple(gone), unchanged=tuple(kept), purge=purge, down=only is None,
        notes=tuple((ref, f"the disk stays: vmtui down {profile} --purge removes it") for ref in kept),
    )  # fmt: skip


def make_steps(plan: Plan) -> tuple[Step, ...]:
    """The acts of a plan with their order: what is referred to first, what refers to it stopped before it goes."""
    numbered: dict[tuple[Ref, str], int] = {}
    chains: dict[Ref, list[int]] = {}
    drafts: list[tuple[Change, str]] = []
    for change in plan.changes:
        for verb in VERBS[change.action]:
            if verb == "start" and not change.ref.kind.runs:
                continue
            numbered[change.ref, verb] = len(drafts)
            chains.setdefault(change.ref, []).append(len(drafts))
            drafts.append((change, verb))
    users: dict[Ref, list[Ref]] = {}
    for ref, needed in plan.needs.items():
        for provider in needed:
            users.setdefault(provider, []).append(ref)
    for change in plan.changes:  # what is used until now counts too, though it is no longer declared
        for provider in _used(change.before):
            users.setdefault(provider, []).append(change.ref)
    undeclared = [ref for (ref, verb) in numbered if verb == "delete" and ref.kind.runs and ref not in plan.needs]
    going = {numbered[ref, "delete"] for ref in undeclared}
    released: dict[Held, list[int]] = {}
    for (ref, verb), number in numbered.items():
        before = drafts[number][0].before
        if verb in RELEASES and ref.kind.runs and before is not None:
            for held in _held(before.desired.spec):
                released.setdefault(held, []).append(number)
    steps = []
    for number, (change, verb) in enumerate(drafts):
        chain = chains[change.ref]
        after = set(chain[: chain.index(number)][-1:])
        if verb in ("start", "reconnect"):
            after.update(chains[ref][-1] for ref in plan.needs.get(change.ref, ()) if ref in chains)
        if verb == "start" and change.desired is not None:
            after.update(one for held in _held(change.desired.spec) for one in released.get(held, ()))
        if not change.ref.kind.runs and verb in ("delete", "resize"):
            after.update(going)
            after.update(_releases(users.get(change.ref, ()), numbered))
        steps.append(Step(change=change, verb=verb, after=tuple(sorted(after))))
    return tuple(steps)


def _held(spec: Spec) -> set[Held]:
    """What only one running workload can have: host ports and disks. Moved to another, the first lets go before."""
    ports = {(publish.protocol, publish.host_port) for publish in getattr(spec, "ports", ())}
    return ports | {("disk", name) for name in getattr(spec, "disks", ())}


def _used(before: Applied | None) -> Iterator[Ref]:
    """The networks and disks that a resource was made to use."""
    if before is not None:
        ref, spec = before.desired.ref, before.desired.spec
        for kind, names in ((Kind.NETWORK, "networks"), (Kind.DISK, "disks")):
            yield from (Ref(ref.profile, kind, name) for name in getattr(spec, names, ()))


def _releases(refs: Iterable[Ref], numbered: Mapping[tuple[Ref, str], int]) -> set[int]:
    return {numbered[ref, verb] for ref in refs for verb in RELEASES if (ref, verb) in numbered}
