"""The planner, case by case. It is pure, so everything is made by hand."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from vmtui.core.backend import Desired
from vmtui.core.lifecycle import Phase, Role
from vmtui.core.resource import Exit, Kind, Port, Problem, Ref, Status
from vmtui.core.specs import ContainerSpec, DiskSpec, NetworkSpec, Ready, Restart, SandboxSpec, Spec, VmSpec, spec_hash
from vmtui.core.units import Size
from vmtui.engine.plan import Plan, make_down_plan, make_plan, make_steps
from vmtui.engine.store import Applied, Intent

NET = Ref("dev", Kind.NETWORK, "lab")
DISK = Ref("dev", Kind.DISK, "data")
VM = Ref("dev", Kind.VM, "guest")
BOX = Ref("dev", Kind.CONTAINER, "web")
JOB = Ref("dev", Kind.SANDBOX, "hello")
ALL_ROLES = frozenset(Role)
SPECS: dict[Ref, Spec] = {
    NET: NetworkSpec(),
    DISK: DiskSpec(size=Size(1 << 30)),
    VM: VmSpec(kernel="/k", disks=("data",), networks=("lab",)),
    BOX: ContainerSpec(image="oci:x", networks=("lab",)),
    JOB: SandboxSpec(module="/m.wasm"),
}
NEEDS = {
    NET: frozenset[Ref](),
    DISK: frozenset[Ref](),
    VM: frozenset({NET, DISK}),
    BOX: frozenset({NET}),
    JOB: frozenset[Ref](),
}


def want(ref: Ref, **changes: Any) -> Desired[Any]:
    spec = msgspec.structs.replace(SPECS[ref], **changes)
    return Desired(ref=ref, backend="fake", spec=spec, spec_hash=spec_hash(spec))


def was(desired: Desired[Any]) -> Applied:
    return Applied(desired=desired, intent=Intent.UP)


def port(consumer: Ref, *, present: bool = True, live: bool = True) -> Port:
    return Port(
        network=NET,
        consumer=consumer,
        index=0,
        medium="tap",
        interface=f"if-{consumer.name}",
        present=present,
        live=live,
    )


def seen(desired: Desired[Any], phase: Phase | None = None, **changes: Any) -> Status:
    ref = desired.ref
    if phase is None:
        phase = Phase.RUNNING if ref.kind.runs else Phase.AVAILABLE
    ports = (port(VM), port(BOX)) if ref == NET else ()
    size = int(desired.spec.size) if ref == DISK else None
    status = Status(ref=ref, backend="fake", phase=phase, spec_hash=desired.spec_hash, ports=ports, size_bytes=size)
    return msgspec.structs.replace(status, **changes)


class World:
    """All five resources up and as declared; a test changes what it is about."""

    def __init__(self) -> None:
        self.desired = {ref: want(ref) for ref in SPECS}
        self.applied = {ref: was(desired) for ref, desired in self.desired.items()}
        self.observed = {ref: seen(desired) for ref, desired in self.desired.items()}
        self.roles = ALL_ROLES

    def plan(self, **options: Any) -> Plan:
        return make_plan("dev", self.desired, NEEDS, self.applied, self.observed, roles=lambda _: self.roles, **options)

    def actions(self, **options: Any) -> dict[str, str]:
        return {change.ref.name: change.action for change in self.plan(**options).changes}


@pytest.fixture
def world() -> World:
    return World()


def verbs(plan: Plan) -> list[str]:
    return [f"{step.verb} {step.change.ref.name}" for step in make_steps(plan)]


def test_nothing_changes_when_all_is_as_declared(world: World) -> None:
    plan = world.plan()
    assert plan.empty
    assert set(plan.unchanged) == set(SPECS)


def test_everything_is_made_when_nothing_is_there(world: World) -> None:
    world.applied, world.observed = {}, {}
    plan = world.plan()
    assert {change.action for change in plan.changes} == {"create"}
    steps = make_steps(plan)
    names = verbs(plan)
    start = steps[names.index("start guest")]
    assert {names[number] for number in start.after} == {"create guest", "create lab", "create data"}
    assert "start lab" not in names


@pytest.mark.parametrize(
    ("phase", "exit_code", "changes", "action"),
    [
        (Phase.STOPPED, None, {}, "start"),
        (Phase.EXITED, 3, {}, "start"),
        (Phase.EXITED, 0, {}, None),
        (Phase.EXITED, 0, {"restart": Restart.ALWAYS}, "start"),
        (Phase.EXITED, 3, {"ready": Ready(exit_code=3)}, None),
        (Phase.EXITED, 0, {"ready": Ready(exit_code=3)}, "start"),
        (Phase.PAUSED, None, {}, "resume"),
        (Phase.BROKEN, None, {}, "recreate"),
    ],
)
def test_a_container_by_its_phase(
    world: World, phase: Phase, exit_code: int | None, changes: dict[str, Any], action: str | None
) -> None:
    desired = want(BOX, **changes)
    world.desired[BOX], world.applied[BOX] = desired, was(desired)
    end = None if exit_code is None else Exit(code=exit_code)
    world.observed[BOX] = seen(desired, phase, exit=end)
    assert world.actions().get("web") == action


def test_a_vm_that_powered_off_is_started_again(world: World) -> None:
    world.observed[VM] = seen(world.desired[VM], Phase.EXITED, exit=Exit(code=0))
    assert world.actions() == {"guest": "start"}


def test_a_missing_tap_is_plugged_in_again_and_nothing_else(world: World) -> None:
    world.observed[NET] = seen(world.desired[NET], ports=(port(VM, present=False), port(BOX)))
    plan = world.plan()
    assert [(change.ref, change.action) for change in plan.changes] == [(VM, "reconnect")]
    assert "if-guest" in plan.changes[0].reason


def test_without_the_role_a_missing_tap_restarts(world: World) -> None:
    world.observed[NET] = seen(world.desired[NET], ports=(port(BOX),))
    world.roles = ALL_ROLES - {Role.RECONNECTABLE}
    assert world.actions() == {"guest": "restart"}


def test_a_broken_network_is_mended_in_place(world: World) -> None:
    problem = Problem(code="bridge", message="bridge is gone")
    world.observed[NET] = seen(
        world.desired[NET], Phase.BROKEN, problems=(problem,), ports=(port(VM, live=False), port(BOX))
    )
    plan = world.plan()
    assert world.actions() == {"lab": "mend", "guest": "reconnect"}
    steps = make_steps(plan)
    names = verbs(plan)
    assert names.index("create lab") in steps[names.index("reconnect guest")].after


def test_a_changed_network_restarts_its_members_around_it(world: World) -> None:
    world.desired[NET] = want(NET, subnet="10.1.0.0/24")
    plan = world.plan()
    assert world.actions() == {"lab": "recreate", "guest": "restart", "web": "restart"}
    steps, names = make_steps(plan), verbs(plan)
    deletes = steps[names.index("delete lab")]
    assert {names[number] for number in deletes.after} == {"stop guest", "stop web"}
    assert names.index("create lab") in steps[names.index("start guest")].after


def test_a_larger_disk_is_resized_while_its_vm_is_stopped(world: World) -> None:
    world.desired[DISK] = want(DISK, size=Size(2 << 30))
    plan = world.plan()
    assert world.actions() == {"data": "resize", "guest": "restart"}
    change = next(change for change in plan.changes if change.ref == DISK)
    assert (change.fields[0].before, change.fields[0].after) == ("1GiB", "2GiB")
    steps, names = make_steps(plan), verbs(plan)
    assert names.index("stop guest") in steps[names.index("resize data")].after


def test_a_disk_is_never_made_anew_unasked(world: World) -> None:
    world.desired[DISK] = want(DISK, source="/other.raw", source_format="raw")
    plan = world.plan()
    assert all(change.action == "update" and not change.data_loss for change in plan.changes)
    assert plan.notes
    assert next(change for change in world.plan(recreate={DISK}).changes if change.ref == DISK).data_loss


def test_restart_policy_and_readiness_change_in_place(world: World) -> None:
    world.desired[BOX] = want(BOX, restart=Restart.ALWAYS, ready=Ready(http="/"))
    assert world.actions() == {"web": "update"}


def test_a_lost_database_adopts_what_fits(world: World) -> None:
    world.applied = {}
    assert set(world.actions().values()) == {"update"}


def test_what_an_interrupted_run_touched_is_made_again(world: World) -> None:
    assert world.actions(interrupted={BOX, NET}) == {"web": "recreate", "lab": "mend"}


def test_what_is_no_longer_declared_goes_but_disks_stay(world: World) -> None:
    for ref in (DISK, BOX):
        del world.desired[ref]
    plan = world.plan()
    assert world.actions() == {"web": "delete"}
    assert plan.notes[0][0] == DISK
    assert world.actions(prune=False) == {}


def test_down_removes_workloads_before_what_they_use(world: World) -> None:
    plan = make_down_plan("dev", world.applied, world.observed, purge=True)
    steps, names = make_steps(plan), verbs(plan)
    for provider in ("lab", "data"):
        after = {names[number] for number in steps[names.index(f"delete {provider}")].after}
        assert after == {"delete guest", "delete web", "delete hello"}
    kept = make_down_plan("dev", world.applied, world.observed, purge=False)
    assert DISK in kept.unchanged
    assert "delete data" not in verbs(kept)


def test_a_move_to_another_backend_deletes_with_the_old_one(world: World) -> None:
    world.observed[BOX] = msgspec.structs.replace(world.observed[BOX], backend="old")
    change = world.plan().changes[0]
    assert (change.action, change.backend) == ("recreate", "old")
    assert change.desired is not None
    assert change.desired.backend == "fake"


def test_what_a_stop_did_not_reach_is_to_run_again(world: World) -> None:
    """Otherwise its restart policy would never act, although it runs as declared."""
    world.applied[BOX] = msgspec.structs.replace(world.applied[BOX], intent=Intent.STOPPED)
    assert world.actions() == {"web": "update"}
    world.observed[BOX] = seen(world.desired[BOX], Phase.STOPPED)
    assert world.actions() == {"web": "start"}
