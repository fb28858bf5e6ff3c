"""References and the order that follows from them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import ContainerSpec, DiskSpec, NetworkSpec, Spec, VmSpec
from vmtui.profile import graph
from vmtui.profile.schema import Declared


def declared(kind: Kind, name: str, spec: Spec) -> Declared:
    return Declared(ref=Ref("p", kind, name), spec=spec)


def ref(number: int) -> Ref:
    return Ref("p", Kind.CONTAINER, f"c{number}")


def edge(consumer: int, provider: int) -> graph.Edge:
    return graph.Edge(ref(consumer), ref(provider), "depends_on", 0)


def ordered(refs: list[Ref], between: list[graph.Edge]) -> tuple[Ref, ...] | graph.Cycle:
    try:
        return graph.order(refs, between)
    except graph.Cycle as cycle:
        return cycle


def test_edges_say_where_they_are_written() -> None:
    vm = declared(Kind.VM, "guest", VmSpec(disks=("a", "data"), networks=("lab",), depends_on=("container/web",)))
    assert [(str(one.provider), one.key) for one in graph.dependencies(vm)] == [
        ("p/network/lab", "vm.guest.networks[0]"),
        ("p/disk/a", "vm.guest.disks[0]"),
        ("p/disk/data", "vm.guest.disks[1]"),
        ("p/container/web", "vm.guest.depends_on[0]"),
    ]


def test_edges_to_what_is_not_there_are_left_out() -> None:
    resources = [
        declared(Kind.VM, "guest", VmSpec(disks=("data", "gone"))),
        declared(Kind.DISK, "data", DiskSpec()),
        declared(Kind.NETWORK, "lab", NetworkSpec()),
        declared(Kind.CONTAINER, "web", ContainerSpec(image="x", networks=("lab",))),
    ]
    assert {(one.consumer.name, one.provider.name) for one in graph.edges(resources)} == {
        ("guest", "data"),
        ("web", "lab"),
    }


def test_a_cycle_is_named_in_its_order() -> None:
    with pytest.raises(graph.Cycle) as caught:
        graph.order([ref(0), ref(1), ref(2), ref(3)], [edge(0, 1), edge(1, 2), edge(2, 3), edge(3, 1)])
    assert str(caught.value) == "container/c1 needs container/c2 needs container/c3 needs container/c1"
    assert [one.consumer for one in caught.value.edges] == [ref(1), ref(2), ref(3)]


def test_what_needs_itself_is_a_cycle() -> None:
    with pytest.raises(graph.Cycle, match="container/c0 needs container/c0"):
        graph.order([ref(0)], [edge(0, 0)])


def test_a_long_chain_is_ordered_quickly() -> None:
    count = 10_000
    began = time.thread_time()
    made = graph.order([ref(n) for n in range(count)], [edge(n, n + 1) for n in range(count - 1)])
    assert made == tuple(ref(n) for n in reversed(range(count)))
    assert time.thread_time() - began < 2


def test_closure() -> None:
    assert graph.closure([ref(0)], [edge(0, 1), edge(1, 2), edge(3, 0)]) == {ref(0), ref(1), ref(2)}


pairs = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=30)


@given(pairs)
def test_order_respects_every_edge_or_names_a_real_cycle(chosen: list[tuple[int, int]]) -> None:
    refs = [ref(number) for number in range(12)]
    between = [edge(consumer, provider) for consumer, provider in chosen]
    made = ordered(refs, between)
    if isinstance(made, graph.Cycle):
        assert set(made.edges) <= set(between)
        following = [*made.edges[1:], made.edges[0]]
        assert all(one.provider == then.consumer for one, then in zip(made.edges, following, strict=True))
        return
    assert sorted(made) == sorted(refs)
    place = {one: index for index, one in enumerate(made)}
    assert all(place[one.provider] < place[one.consumer] for one in between)


@given(pairs)
def test_downward_edges_are_never_a_cycle_and_keep_the_order_given(chosen: list[tuple[int, int]]) -> None:
    refs = [ref(number) for number in range(12)]
    between = [edge(max(pair), min(pair)) for pair in chosen if pair[0] != pair[1]]
    assert graph.order(refs, between) == tuple(refs)
