"""The lines of the map, from what exists and what the specs say."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Kind, Port, Ref, Status
from vmtui.core.specs import ContainerSpec, DiskSpec, NetworkSpec, SandboxSpec, Spec, VmSpec
from vmtui.core.units import Publish, Size
from vmtui.tui.map.layout import BEGIN, DOWN, GAP, LAST, LEAF, LINE, SHOWN, SLACK, TEE, MapLine, What, layout

DRAWN = str.maketrans({BEGIN: "╭", TEE: "├", LAST: "╰", LEAF: "└", DOWN: "│", LINE: "─"})


def ref(short: str, profile: str = "dev") -> Ref:
    return Ref.parse(f"{profile}/{short}")


def status(of: Ref, *plugged: tuple[Ref, int]) -> Status:
    ports = tuple(
        Port(network=of, consumer=consumer, index=index, medium="tap", interface="t") for consumer, index in plugged
    )
    phase = Phase.RUNNING if of.kind.runs else Phase.AVAILABLE
    return Status(ref=of, backend="fake", phase=phase, ports=ports)


def statuses(*refs: Ref) -> dict[Ref, Status]:
    return {each: status(each) for each in refs}


def picture(lines: list[MapLine]) -> list[str]:
    return [
        f"{line.stem.translate(DRAWN)}{line.ref.short if line.ref else line.text or line.count or ''}" for line in lines
    ]


LAB, DMZ = ref("network/lab"), ref("network/dmz")
WEB, GUEST, HELLO = ref("container/web"), ref("vm/guest"), ref("sandbox/hello")
DATA, SPARE = ref("disk/data"), ref("disk/spare")
SPECS: dict[Ref, Spec] = {
    LAB: NetworkSpec(),
    DMZ: NetworkSpec(),
    WEB: ContainerSpec(image="x", networks=("lab", "dmz"), ports=(Publish.parse("8080:80"),)),
    GUEST: VmSpec(disks=("data",), networks=("lab",)),
    HELLO: SandboxSpec(module="/x"),
    DATA: DiskSpec(size=Size(1)),
    SPARE: DiskSpec(size=Size(1)),
}


def test_a_profile_is_drawn_with_all_that_it_has() -> None:
    lines = layout(statuses(*SPECS), SPECS)
    assert picture(lines) == [
        "dev",
        "╭── network/dmz",
        "╰── container/web",
        "╭── network/lab",
        "├── container/web",
        "╰── vm/guest",
        "    └─ disk/data",
        "╭── on no network",
        "╰── sandbox/hello",
        "╭── disks that nothing uses",
        "╰── disk/spare",
    ]
    (web, *_) = [line for line in lines if line.ref == WEB]
    assert web.published == ("8080:80/tcp",)
    assert lines[0].about == "2 networks, 3 workloads, 2 disks"


def test_the_disks_of_what_is_on_two_networks_are_drawn_once_and_hang_below_it() -> None:
    both = {**SPECS, GUEST: VmSpec(disks=("data", "spare"), networks=("dmz", "lab"))}
    assert picture(layout(statuses(*both), both))[1:8] == [
        "╭── network/dmz",
        "├── container/web",
        "╰── vm/guest",
        "    ├─ disk/data",
        "    └─ disk/spare",
        "╭── network/lab",
        "├── container/web",
    ]


def test_what_is_observed_counts_as_well_as_what_the_specs_say() -> None:
    items = {**statuses(WEB), LAB: status(LAB, (WEB, 0), (ref("vm/orphan"), 0))}
    assert picture(layout(items, {})) == ["dev", "╭── network/lab", "├── container/web", "╰── vm/orphan"]


def test_what_a_spec_names_and_is_not_there_has_its_line() -> None:
    assert picture(layout(statuses(GUEST), SPECS)) == ["dev", "╭── network/lab", "╰── vm/guest", "    └─ disk/data"]


def test_a_network_without_members_and_nothing_at_all() -> None:
    assert picture(layout(statuses(LAB), SPECS)) == ["dev", "─── network/lab"]
    assert layout({}, {}) == []


def test_large_groups_are_folded_until_they_are_unfolded() -> None:
    many = {ref(f"container/c{number:03}"): ContainerSpec(image="x", networks=("lab",)) for number in range(500)}
    specs: dict[Ref, Spec] = {LAB: NetworkSpec(), **many}
    lines = layout(statuses(*specs), specs)
    assert len(lines) == 2 + SHOWN + 1
    assert (lines[-1].what, lines[-1].count, lines[-1].stem) == (What.FOLD, 500 - SHOWN, "BHH ")
    assert lines[1].count == 500
    assert len(layout(statuses(*specs), specs, unfolded={lines[-1].fold})) == 502
    few = dict(list(specs.items())[: 1 + SHOWN + SLACK])
    assert What.FOLD not in {line.what for line in layout(statuses(*few), few)}


def test_a_folded_profile_is_its_heading() -> None:
    specs = {**SPECS, ref("vm/other", "two"): VmSpec()}
    lines = layout(statuses(*specs), specs, folded={"dev"})
    assert picture(lines) == ["dev", "", "two", "╭── on no network", "╰── vm/other"]
    assert lines[-1].about == "user-mode network"


def test_a_filter_keeps_what_its_matches_are_plugged_into() -> None:
    assert picture(layout(statuses(*SPECS), SPECS, keep={DATA})) == [
        "dev",
        "╭── network/lab",
        "╰── vm/guest",
        "    └─ disk/data",
    ]
    assert layout(statuses(*SPECS), SPECS, keep=set()) == []
    assert len(layout(statuses(*SPECS), SPECS, keep={DMZ})) == 3


def test_ten_thousand_resources_are_laid_out_at_once() -> None:
    specs: dict[Ref, Spec] = {}
    for profile in range(20):
        name = f"p{profile}"
        specs[ref("network/n", name)] = NetworkSpec()
        for number in range(250):
            specs[ref(f"disk/d{number}", name)] = DiskSpec(size=Size(1))
            specs[ref(f"vm/v{number}", name)] = VmSpec(networks=("n",), disks=(f"d{number}",))
    items = statuses(*specs)
    began = time.thread_time()
    lines = layout(items, specs, unfolded={f"network p{number}/network/n" for number in range(20)})
    assert time.thread_time() - began < 2
    assert len(lines) > 10_000


NAMES = st.sampled_from(["a", "b", "c"])
PROFILES = st.sampled_from(["p", "q"])


@st.composite
def worlds(draw: st.DrawFn) -> tuple[dict[Ref, Status], dict[Ref, Spec]]:
    specs: dict[Ref, Spec] = {}
    for _ in range(draw(st.integers(0, 12))):
        kind, name, profile = draw(st.sampled_from(list(Kind))), draw(NAMES), draw(PROFILES)
        networks, disks = tuple(draw(st.lists(NAMES, max_size=3))), tuple(draw(st.lists(NAMES, max_size=3)))
        made: dict[Kind, Spec] = {
            Kind.NETWORK: NetworkSpec(),
            Kind.DISK: DiskSpec(size=Size(1)),
            Kind.VM: VmSpec(networks=networks, disks=disks),
            Kind.CONTAINER: ContainerSpec(image="x", networks=networks),
            Kind.SANDBOX: SandboxSpec(module="/x"),
        }
        specs[Ref(profile, kind, name)] = made[kind]
    there = {each: status(each) for each in specs if draw(st.booleans())}
    for each in there:
        if each.kind is Kind.NETWORK:
            consumers = draw(st.lists(st.tuples(st.sampled_from(sorted(specs)), st.integers(0, 2)), max_size=3))
            there[each] = status(each, *(pair for pair in consumers if pair[0].kind.runs))
    known = {each: spec for each, spec in specs.items() if draw(st.booleans()) or each in there}
    return there, known


@given(worlds(), st.integers(1, 4))
def test_everything_is_on_the_map_and_the_lines_hang_together(
    world: tuple[dict[Ref, Status], dict[Ref, Spec]], shown: int
) -> None:
    items, specs = world
    every = layout(items, specs, shown=1000)
    assert set(items) <= {line.ref for line in every}
    ports = [(line.ref, line.network, line.index) for line in every if line.what is What.MEMBER]
    assert len(ports) == len(set(ports))
    folded = layout(items, specs, shown=shown)
    for lines in (every, folded, layout(items, specs, keep=set(list(items)[:2]))):
        _assert_connected(lines)
    hidden = sum(line.count for line in folded if line.what is What.FOLD)
    members = (What.MEMBER, What.DISK)
    heads = [line for line in every if line.what in members and line.stem[0] in (TEE, LAST)]
    assert len([line for line in folded if line.what in members and line.stem[0] in (TEE, LAST)]) + hidden == len(heads)
    unfolded = {line.fold for line in folded if line.what is What.FOLD}
    assert layout(items, specs, shown=shown, unfolded=unfolded) == every


def _assert_connected(lines: list[MapLine]) -> None:
    """Each line that goes on downwards is met by the next one, and none begins in the air."""
    stems = [line.stem.ljust(12) for line in lines] + [" " * 12]
    for above, below in zip([" " * 12, *stems], stems, strict=False):
        for column in range(12):
            if above[column] in (BEGIN, TEE, DOWN):
                assert below[column] in (TEE, DOWN, LAST, LEAF), (above, below)
            elif column == 0:
                assert below[column] in (BEGIN, LINE, GAP), (above, below)
