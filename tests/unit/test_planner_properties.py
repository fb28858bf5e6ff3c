"""Random profiles, random changes and random faults, on resources that are not real: what a plan promises, holds.

Applied, the host is as declared and a second plan is empty; rolled back, everything is as before; taken down, nothing
is left. A fault may strike any act of any backend, once.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.fakes import (
    assert_converged,
    assert_nothing_left,
    open_fakes,
    picture,
    profile,
    take_down,
    whoever_has_which,
)
from vmtui.backends.fake.script import Effect, Script
from vmtui.core.errors import OperationFailed
from vmtui.core.events import Event
from vmtui.core.lifecycle import Action
from vmtui.core.specs import ContainerSpec, DiskSpec, NetworkSpec, Restart, SandboxSpec, Spec, VmSpec
from vmtui.core.units import Publish, Size
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.profile.schema import Profile

FAKE = "fake"
NAMES = ["a", "b", "c"]
MIB = 1 << 20
FAULTY = [
    Action.CREATE,
    Action.START,
    Action.STOP,
    Action.DELETE,
    Action.RESIZE,
    Action.RECONNECT,
    "add_port",
    "remove_ports",
    "attach",
]

names = st.lists(st.sampled_from(NAMES), unique=True)


@st.composite
def profiles(draw: Callable[..., Any]) -> Profile:
    """Networks, disks and workloads that refer to them, and to each other without a ring."""
    specs: dict[str, Spec] = {}
    for name in draw(names):
        number = NAMES.index(name)  # a subnet does not move from one network to another: that takes two runs
        subnet = draw(st.sampled_from([None, f"10.77.{number}.0/24", f"10.78.{number}.0/24"]))
        specs[f"network/{name}"] = NetworkSpec(backend=FAKE, subnet=subnet, internal=draw(st.booleans()))
    for name in draw(names):
        size = Size(draw(st.integers(1, 3)) * MIB)
        specs[f"disk/{name}"] = DiskSpec(backend=FAKE, size=size, shrink=draw(st.booleans()))
    networks = [short.partition("/")[2] for short in specs if short.startswith("network/")]
    free_disks = [short.partition("/")[2] for short in specs if short.startswith("disk/")]
    some_networks = st.lists(st.sampled_from(networks), unique=True) if networks else st.just([])
    before: list[str] = []
    for kind, index, name in draw(
        st.lists(
            st.tuples(st.sampled_from(["vm", "container", "sandbox"]), st.integers(0, 9), st.sampled_from(NAMES)),
            max_size=5,
            unique_by=lambda item: (item[0], item[2]),
        )
    ):
        shared: dict[str, Any] = {
            "backend": FAKE,
            "restart": draw(st.sampled_from(Restart)),
            "depends_on": tuple(draw(st.lists(st.sampled_from(before), unique=True))) if before else (),
        }
        plugged: dict[str, Any] = {}
        if kind != "sandbox":
            port = Publish(8000 + len(before), 80)
            plugged = {"networks": tuple(draw(some_networks)), "ports": (port,) if draw(st.booleans()) else ()}
        if kind == "vm":
            disks = [free_disks.pop() for _ in range(draw(st.integers(0, len(free_disks))))]
            spec: Spec = VmSpec(**shared, **plugged, kernel=f"/boot/{index}", disks=tuple(disks))
        elif kind == "container":
            spec = ContainerSpec(**shared, **plugged, image=f"oci:/{index}")
        else:
            spec = SandboxSpec(**shared, module=f"/{index}.wasm")
        specs[f"{kind}/{name}"] = spec
        before.append(f"{kind}/{name}")
    order = draw(st.permutations(list(specs)))
    return profile("prop", {short: specs[short] for short in order})


faults = st.lists(
    st.tuples(
        st.sampled_from(FAULTY),
        st.sampled_from(["fail", "fail", "fail", "break", "vanish"]),
    ),
    min_size=1,
    max_size=2,
)


def script_of(chosen: list[tuple[Any, str]]) -> Script:
    script = Script()
    for call, what in chosen:
        error = OperationFailed(f"{call}: a scripted fault")
        effects = {"fail": Effect(error=error), "break": Effect(breaks=True), "vanish": Effect(vanishes=True)}
        script.on(call, effects[what])
    return script


async def apply(workspace: Workspace, wanted: Profile, on_failure: Any = "rollback") -> tuple[str, list[Event]]:
    told: list[Event] = []
    outcome = await workspace.apply(await workspace.plan(wanted), emit=told.append, on_failure=on_failure)
    return outcome.result, told


async def converge(workspace: Workspace, wanted: Profile) -> None:
    outcome = await workspace.apply(await workspace.plan(wanted), emit=lambda event: None)
    assert outcome.result == "converged", f"{outcome.failed}: {outcome.failure}"
    await assert_converged(workspace, wanted)


def growing(wanted: Profile, before: Profile) -> bool:
    """Whether a change makes a disk smaller without the word for it: then it is refused, rightly."""
    sizes = {item.ref: item.spec.size for item in before.resources if isinstance(item.spec, DiskSpec)}
    return all(
        item.spec.shrink or (item.spec.size or 0) >= (sizes.get(item.ref) or 0)
        for item in wanted.resources
        if isinstance(item.spec, DiskSpec)
    )


def in_a_workspace(test: Any, *args: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="vt-") as root:
        paths = Paths(*(Path(root) / name for name in ("s", "c", "r")))
        asyncio.run(test(paths, *args))


example = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


@example
@given(profiles(), profiles())
def test_what_is_declared_comes_and_goes(first: Profile, second: Profile) -> None:
    async def run(paths: Paths) -> None:
        async with open_fakes(paths) as workspace:
            for wanted in (first, second, first):
                result, _ = await apply(workspace, wanted)
                if result != "converged":
                    assert not (growing(second, first) and growing(first, second))
                    break
                await assert_converged(workspace, wanted)
            await take_down(workspace, "prop")
            assert_nothing_left(workspace)

    in_a_workspace(run)


@example
@given(profiles(), profiles(), faults)
def test_rolled_back_everything_is_as_before(first: Profile, second: Profile, chosen: list[tuple[Any, str]]) -> None:
    # One fault, and none where the change is refused anyway: a fault in the rollback itself cannot be rolled back.
    chosen = [(call, "fail") for call, _ in chosen[:1]] if growing(second, first) else []

    async def run(paths: Paths) -> None:
        async with open_fakes(paths) as workspace:
            await apply(workspace, first)
            before = await picture(workspace)
        async with open_fakes(paths, script_of(chosen)) as workspace:
            result, told = await apply(workspace, second)
            after = await picture(workspace)
        if result == "rolled-back":
            sizes_kept = any(getattr(event, "code", "") == "size-kept" for event in told)
            assert sizes_kept or whoever_has_which(after) == whoever_has_which(before)
        async with open_fakes(paths) as workspace:
            if growing(second, first):
                await converge(workspace, second)
            await take_down(workspace, "prop")
            assert_nothing_left(workspace)

    in_a_workspace(run)


@example
@given(profiles(), profiles(), faults, st.sampled_from(["keep", "rollback"]))
def test_after_any_faults_the_next_runs_converge(
    first: Profile, second: Profile, chosen: list[tuple[Any, str]], on_failure: str
) -> None:
    async def run(paths: Paths) -> None:
        async with open_fakes(paths) as workspace:
            await apply(workspace, first)
        async with open_fakes(paths, script_of(chosen)) as workspace:
            await apply(workspace, second, on_failure)
        async with open_fakes(paths) as workspace:
            if growing(second, first):
                await converge(workspace, second)
            await take_down(workspace, "prop")
            assert_nothing_left(workspace)

    in_a_workspace(run)


@example
@given(profiles(), faults)
def test_after_any_faults_nothing_is_left_when_down(first: Profile, chosen: list[tuple[Any, str]]) -> None:
    async def run(paths: Paths) -> None:
        async with open_fakes(paths, script_of(chosen)) as workspace:
            await apply(workspace, first, "keep")
        async with open_fakes(paths) as workspace:
            await take_down(workspace, "prop")
            assert_nothing_left(workspace)

    in_a_workspace(run)
