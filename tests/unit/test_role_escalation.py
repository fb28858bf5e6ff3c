"""Ways to more than a role says, each of them tried."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from tests.support.acting import Notes, acting, role
from tests.support.fakes import open_fakes, picture, profile
from vmtui.backends.fake.options import FakeOptions
from vmtui.core.errors import Conflict, Denied, Fault, NotFound, NotPermitted, ResourceBusy
from vmtui.core.events import Event
from vmtui.core.lifecycle import Action, Phase
from vmtui.core.policy import BUILTIN, Allow, Role, Target, Verb
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import ContainerSpec, DiskSpec, NetworkSpec, Ready, SandboxSpec, Spec, VmSpec
from vmtui.core.units import Mount, Size
from vmtui.engine.operations import Outcome
from vmtui.engine.plan import Plan
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths

LAB, DATA = Ref("dev", Kind.NETWORK, "lab"), Ref("dev", Kind.DISK, "data")
WEB, ANNAS = Ref("dev", Kind.CONTAINER, "web"), Ref("dev", Kind.CONTAINER, "annas")
FREE = tuple(str(verb) for verb in Verb if verb is not Verb.HOST)
FRONT = role(Allow(verbs=FREE, labels={"tier": "front"}))
OWN = role(Allow(verbs=FREE, own=True))


def box(**fields: object) -> ContainerSpec:
    return msgspec.structs.replace(ContainerSpec(backend="fake", image="x"), **fields)


def vm(**fields: object) -> VmSpec:
    return msgspec.structs.replace(VmSpec(backend="fake", kernel="deb:k-1", networks=("lab",)), **fields)


BASE: dict[str, Spec] = {
    "network/lab": NetworkSpec(backend="fake"),
    "disk/data": DiskSpec(backend="fake", size=Size(1 << 20)),
    "container/web": box(networks=("lab",)),
}


def quiet(event: Event) -> None:
    """Nobody listens."""


@pytest.fixture
async def workspace(paths: Paths) -> AsyncIterator[Workspace]:
    opened = open_fakes(paths)
    await apply(opened, BASE)
    yield opened
    await opened.aclose()


async def apply(workspace: Workspace, specs: dict[str, Spec], **how: object) -> Outcome:
    plan = await workspace.plan(profile("dev", specs), **how)  # type: ignore[arg-type]
    outcome = await workspace.apply(plan, emit=quiet)
    assert outcome.result == "converged", outcome.failure
    return outcome


async def refused(workspace: Workspace, theirs: Workspace, specs: dict[str, Spec], why: str, **how: object) -> None:
    """Nothing of it has happened."""
    before = await picture(workspace)
    with pytest.raises(Fault, match=why) as caught:
        await apply(theirs, specs, **how)
    assert isinstance(caught.value, Denied | Conflict | ResourceBusy), caught.value
    assert await picture(workspace) == before


# Labels


async def test_no_label_is_put_on_to_gain_a_resource(workspace: Workspace) -> None:
    mine = BASE | {"container/web": box(networks=("lab",), labels={"tier": "front"})}
    await refused(workspace, acting(workspace, FRONT), mine, "name is taken")
    seeing = role(Allow(verbs=("view",)), *FRONT.allow)
    await refused(workspace, acting(workspace, seeing), mine, "may not change dev/container/web")


async def test_no_label_is_taken_off_to_hide_a_resource(workspace: Workspace) -> None:
    await apply(workspace, BASE | {"container/front": box(labels={"tier": "front"})})
    theirs = acting(workspace, FRONT)
    for labels in ({}, {"tier": "back"}):
        await refused(workspace, theirs, {"container/front": box(labels=labels)}, "may not change dev/container/front")
    await apply(theirs, {"container/front": box(labels={"tier": "front", "team": "a"})})


async def test_a_start_does_not_carry_other_labels_in(workspace: Workspace) -> None:
    await workspace.act(WEB, Action.STOP, emit=quiet, grace_s=0.0)
    starter = role(Allow(verbs=("view", "start")))
    changed = BASE | {"container/web": box(networks=("lab",), labels={"tier": "front"})}
    await refused(workspace, acting(workspace, starter), changed, "may not change dev/container/web")
    await apply(acting(workspace, starter), BASE)
    assert (await workspace.inspect(WEB)).phase is Phase.RUNNING


# Owners


async def test_what_one_makes_is_ones_own(workspace: Workspace) -> None:
    anna, bert = acting(workspace, OWN), acting(workspace, OWN, "bert")
    await apply(anna, {"container/annas": box()})
    assert [status.ref for status in await anna.scan()] == [ANNAS]
    assert await bert.scan() == ()
    assert workspace.store.target(ANNAS) == Target(ANNAS, {}, "anna")
    with pytest.raises(NotFound):
        await bert.act(ANNAS, Action.STOP, emit=quiet)
    await refused(workspace, bert, {"container/annas": box(image="y")}, "name is taken")
    with pytest.raises(NotFound):
        await bert.plan_down("dev", purge=True)
    await apply(anna, {"container/annas": box(image="y")})
    assert workspace.store.target(ANNAS).owner == "anna"
    await apply(workspace, {"container/annas": box(image="z")}, prune=False)
    assert workspace.store.target(ANNAS).owner == "anna"


async def test_whose_it_stays_is_said_to_who_changes_what_others_made(workspace: Workspace) -> None:
    """Who makes a resource of another's profile before they do could else wait in it for what they put there."""
    anna = acting(workspace, OWN)
    assert (await anna.plan(profile("dev", {"container/annas": box()}))).notes == ()
    await apply(anna, {"container/annas": box()})
    changed = profile("dev", {"container/annas": box(image="y")})
    assert (await anna.plan(changed)).notes == ()
    ((ref, note),) = (await workspace.plan(changed, prune=False)).notes
    assert ref == ANNAS
    assert note.startswith("anna made it")


async def test_a_plan_that_was_made_before_somebody_else_took_the_name_is_void(workspace: Workspace) -> None:
    anna, bert = acting(workspace, OWN), acting(workspace, OWN, "bert")
    berts = await bert.plan(profile("dev", {"container/annas": box(image="y")}))
    await apply(anna, {"container/annas": box()})
    before = await picture(workspace)
    with pytest.raises(Conflict, match="name is taken"):
        await bert.apply(berts, emit=quiet)
    assert await picture(workspace) == before


async def test_what_is_adopted_is_nobodys(workspace: Workspace) -> None:
    both = role(Allow(verbs=("view", "change", "create", "start", "connect")), *OWN.allow)
    workspace.store.remove(WEB)  # the database is lost, the container runs
    anna = acting(workspace, both)
    await apply(anna, BASE)
    assert workspace.store.target(WEB).owner == ""
    with pytest.raises(Denied):
        await anna.act(WEB, Action.DELETE, emit=quiet)
    with pytest.raises(NotFound):
        await acting(workspace, OWN).inspect(WEB)


async def test_what_is_brought_back_keeps_its_owner(workspace: Workspace) -> None:
    anna = acting(workspace, role(Allow(verbs=("*",))))
    await apply(anna, BASE | {"container/annas": box()})
    failing = profile("dev", BASE | {"container/annas": box(image="y")})
    options = {"container/annas": FakeOptions(fail_on=(Action.START,))}
    plan = await workspace.plan(profile("dev", {item.ref.short: item.spec for item in failing.resources}, options))
    outcome = await workspace.apply(plan, emit=quiet)
    assert outcome.result == "rolled-back"
    assert workspace.store.target(ANNAS).owner == "anna"


async def test_nobody_owns_by_having_no_name(workspace: Workspace) -> None:
    assert await acting(workspace, OWN, "").scan() == ()


# Deleting by other words


async def test_making_anew_is_deleting_and_creating(workspace: Workspace) -> None:
    changed = BASE | {"container/web": box(image="y", networks=("lab",))}
    for lacking in ("delete", "create", "change"):
        verbs = tuple(verb for verb in FREE if verb != lacking)
        why = f"may not {lacking} dev/container/web"
        await refused(workspace, acting(workspace, role(Allow(verbs=verbs))), changed, why)


async def test_what_destroys_data_is_purging(workspace: Workspace) -> None:
    operator = acting(workspace, BUILTIN["operator"])
    await refused(workspace, operator, BASE, "may not purge dev/disk/data", recreate=("disk/data",))
    smaller = BASE | {"disk/data": DiskSpec(backend="fake", size=Size(1 << 19), shrink=True)}
    await refused(workspace, operator, smaller, "may not purge dev/disk/data")
    with pytest.raises(Denied, match="may not purge"):
        await operator.act(WEB, Action.DELETE, emit=quiet, purge=True)
    with pytest.raises(NotPermitted, match="is data"):
        await operator.act(DATA, Action.DELETE, emit=quiet)
    larger = BASE | {"disk/data": DiskSpec(backend="fake", size=Size(1 << 21))}
    await apply(operator, larger)


async def test_leaving_out_is_deleting(workspace: Workspace) -> None:
    keeper = role(Allow(verbs=tuple(verb for verb in FREE if verb != "delete")))
    less = {name: spec for name, spec in BASE.items() if name != "container/web"}
    await refused(workspace, acting(workspace, keeper), less, "may not delete dev/container/web")


async def test_what_is_hidden_is_neither_pruned_nor_taken_down(workspace: Workspace) -> None:
    anna = acting(workspace, OWN)
    await apply(anna, {"container/annas": box()})
    plan = await anna.plan(profile("dev", {"container/other": box()}))
    assert {change.ref.name for change in plan.changes} == {"annas", "other"}
    assert (await anna.apply(await anna.plan_down("dev", purge=True), emit=quiet)).result == "converged"
    assert {status.ref.short for status in await workspace.scan()} == set(BASE)
    assert workspace.profiles() == ("dev",)


async def test_a_profile_that_one_does_not_see_is_not_forgotten(workspace: Workspace) -> None:
    paths = workspace.profile_paths()
    assert paths
    for who in (OWN, BUILTIN["viewer"], role(Allow(verbs=("*",), names=("other/*",)))):
        await acting(workspace, who).apply(Plan(profile="dev", changes=(), down=True), emit=quiet)
        assert workspace.profile_paths() == paths


async def test_a_profile_keeps_the_owners_file(workspace: Workspace) -> None:
    paths = workspace.profile_paths()
    await apply(acting(workspace, BUILTIN["operator"]), BASE | {"container/new": box()})
    assert workspace.profile_paths() == paths
    assert acting(workspace, BUILTIN["operator"]).profile_paths() == {}


# What others use


async def test_what_others_use_does_not_go(workspace: Workspace) -> None:
    anna = acting(workspace, role(Allow(verbs=FREE, kinds=(Kind.NETWORK,))))
    with pytest.raises(NotPermitted) as caught:
        await anna.act(LAB, Action.DELETE, emit=quiet)
    assert "web" not in f"{caught.value} {caught.value.hint}"
    before = await picture(workspace)
    with pytest.raises(ResourceBusy, match="dev/network/lab is used by others"):
        await anna.apply(await anna.plan_down("dev", purge=False), emit=quiet)
    await refused(workspace, anna, {"network/lab": NetworkSpec(backend="fake", mtu=1400)}, "is used by others")
    assert await picture(workspace) == before


async def test_no_disk_of_others_is_plugged_in(workspace: Workspace) -> None:
    vms = role(Allow(verbs=("*",), kinds=(Kind.VM,)), Allow(verbs=("view", "connect")))
    wanted = BASE | {"vm/spy": vm(disks=("data",))}
    await refused(workspace, acting(workspace, vms), wanted, "may not change dev/disk/data")
    await apply(acting(workspace, vms), BASE | {"vm/spy": vm()})
    await refused(workspace, acting(workspace, vms), wanted, "may not change dev/disk/data")


async def test_no_network_of_others_is_joined(workspace: Workspace) -> None:
    vms = role(Allow(verbs=("*",), kinds=(Kind.VM,)), Allow(verbs=("view",)))
    await refused(workspace, acting(workspace, vms), BASE | {"vm/spy": vm()}, "may not connect dev/network/lab")


async def test_no_volume_of_others_is_mounted(workspace: Workspace) -> None:
    await apply(workspace, BASE | {"container/db": box(volumes=(Mount("pgdata", "/data"),))})
    anna = acting(workspace, OWN)
    spy: dict[str, Spec] = {"container/annas": box(volumes=(Mount("pgdata", "/loot", read_only=True),))}
    await refused(workspace, anna, spy, "may not change dev/container/db")
    await apply(anna, {"container/annas": box(volumes=(Mount("mine", "/data"),))})
    await refused(workspace, anna, spy, "may not change dev/container/db")


async def test_being_ready_runs_no_commands_in_what_others_made(workspace: Workspace) -> None:
    for ready, lacking in ((Ready(exec=("cat", "/secret")), "exec"), (Ready(log="^password: a"), "logs")):
        who = role(Allow(verbs=tuple(verb for verb in FREE if verb != lacking)))
        changed = BASE | {"container/web": box(networks=("lab",), ready=ready)}
        await refused(workspace, acting(workspace, who), changed, f"may not {lacking} dev/container/web")
        await apply(acting(workspace, who), BASE | {f"container/no-{lacking}": box(ready=ready)})


# What is told


async def test_a_network_does_not_tell_who_else_is_on_it(workspace: Workspace) -> None:
    theirs = acting(workspace, role(Allow(verbs=("view",), kinds=(Kind.NETWORK,))))
    assert (await workspace.inspect(LAB)).ports
    assert (await theirs.inspect(LAB)).ports == ()
    (status,) = await theirs.scan()
    assert "web" not in repr(status)
    assert theirs.references(LAB) == ((), ())


async def test_errors_name_no_others(workspace: Workspace) -> None:
    theirs = acting(workspace, role(Allow(verbs=("*",), names=("mine/*",))))
    text = "port 80 is taken by dev/container/web; see /run/dev/container/web/log and mine/vm/a"
    fault = Conflict(text, hint="vmtui rm dev/container/web")
    with pytest.raises(Conflict) as caught, theirs.guard.telling():
        raise fault
    assert str(caught.value) == ("port 80 is taken by another resource; see /run/another resource/log and mine/vm/a")
    assert caught.value.hint == "vmtui rm another resource"


# The host


@pytest.mark.parametrize(
    ("short", "spec", "field"),
    [
        ("container/a", box(volumes=(Mount("/", "/host"),)), "volumes"),
        ("container/a", box(cap_add=("SYS_ADMIN",)), "cap_add"),
        ("container/a", box(image="oci-archive:/etc/shadow"), "image"),
        ("sandbox/a", SandboxSpec(backend="fake", module="/etc/shadow"), "module"),
        ("disk/a", DiskSpec(backend="fake", source="/etc/shadow", source_format="raw"), "source"),
        ("vm/a", vm(kernel="/boot/vmlinuz"), "kernel"),
        ("vm/a", VmSpec(backend="fake", kernel="deb:k-1"), "network_mode"),
    ],
)
async def test_the_host_is_not_reached(workspace: Workspace, short: str, spec: Spec, field: str) -> None:
    """Refused when it is planned, before anything on the host is looked at."""
    for who in (BUILTIN["operator"], role(Allow(verbs=("*",), names=("dev/*",)))):
        notes = Notes()
        with pytest.raises(Denied, match=f"may not use the host: dev/{short}: {field}: "):
            await acting(workspace, who, notes=notes).plan(profile("dev", BASE | {short: spec}))
        assert notes.results == [("host", "denied")]
    await apply(acting(workspace, BUILTIN["admin"]), BASE | {short: spec})


async def test_options_of_a_backend_are_the_hosts(workspace: Workspace) -> None:
    operator = acting(workspace, BUILTIN["operator"])
    with pytest.raises(Denied, match=r"container/a: fake\.seed: it is an option"):
        await operator.plan(profile("dev", BASE | {"container/a": box()}, {"container/a": FakeOptions(seed=3)}))
    assert await operator.plan(profile("dev", BASE | {"container/a": box()}, {"container/a": FakeOptions()}))


async def test_what_an_admin_let_reach_the_host_goes_on_but_is_not_rewritten(workspace: Workspace) -> None:
    bound = box(volumes=(Mount("/srv", "/srv"),))
    await apply(workspace, BASE | {"container/bound": bound})
    ref = Ref("dev", Kind.CONTAINER, "bound")
    operator = acting(workspace, BUILTIN["operator"])
    await operator.act(ref, Action.STOP, emit=quiet, grace_s=0.0)
    await apply(operator, BASE | {"container/bound": bound})
    for change in ({"command": ("sh",)}, {"labels": {"a": "b"}}, {"volumes": (Mount("/", "/srv"),)}):
        rewritten = msgspec.structs.replace(bound, **change)
        await refused(workspace, operator, BASE | {"container/bound": rewritten}, "may not use the host")


async def test_a_role_that_may_do_everything_in_one_profile_runs_no_policies(workspace: Workspace) -> None:
    theirs = acting(workspace, role(Allow(verbs=("*",), names=("*",))))
    with pytest.raises(Denied, match="may not run restart policies"):
        await theirs.reap(WEB)


async def test_a_plan_of_one_profile_does_not_act_on_another(workspace: Workspace) -> None:
    theirs = acting(workspace, BUILTIN["operator"])
    plan = await theirs.plan_down("dev", purge=False)
    with pytest.raises(Denied):
        await theirs.apply(msgspec.structs.replace(plan, profile="other"), emit=quiet)


def roles() -> list[Role]:
    return [*BUILTIN.values(), FRONT, OWN]


@pytest.mark.parametrize("who", roles(), ids=lambda who: who.name)
async def test_what_is_offered_is_what_is_done(workspace: Workspace, who: Role) -> None:
    """`may` and the act itself never differ."""
    for action in (Action.STOP, Action.START, Action.PAUSE, Action.RESUME, Action.RESTART, Action.KILL):
        theirs = acting(workspace, who)
        offered = theirs.may(Verb(action), WEB)
        try:
            await theirs.act(WEB, action, emit=quiet, grace_s=0.0)
        except (Denied, NotFound):
            assert not offered
        except Fault:
            assert offered
        else:
            assert offered
