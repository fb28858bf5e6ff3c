"""References between resources, and the order that follows from them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from vmtui.core.resource import Kind, Ref
from vmtui.profile.schema import Declared

# field of a spec → the kind of resource that it names; None: KIND/NAME is written out
REFERENCES: Mapping[str, Kind | None] = {"networks": Kind.NETWORK, "disks": Kind.DISK, "depends_on": None}


class Edge(msgspec.Struct, frozen=True):
    """`consumer` needs `provider` to be there first. `field` and `index` say where that is written."""

    consumer: Ref
    provider: Ref
    field: str
    index: int

    @property
    def key(self) -> str:
        """As in an error: vm.guest.disks[0]."""
        return f"{self.consumer.kind}.{self.consumer.name}.{self.field}[{self.index}]"


class Cycle(ValueError):
    """The resources of `edges` need each other; the last edge closes the ring."""

    def __init__(self, edges: Sequence[Edge]) -> None:
        self.edges = tuple(edges)
        names = [edge.consumer.short for edge in self.edges]
        super().__init__(" needs ".join([*names, names[0]]))


def dependencies(declared: Declared) -> Iterator[Edge]:
    """What one resource names, whether or not that exists. Raises ValueError for a text that is not KIND/NAME."""
    profile = declared.ref.profile
    for field, kind in REFERENCES.items():
        for index, text in enumerate(getattr(declared.spec, field, ())):
            provider = Ref.parse(f"{profile}/{text}") if kind is None else Ref(profile, kind, text)
            yield Edge(declared.ref, provider, field, index)


def edges(resources: Iterable[Declared]) -> tuple[Edge, ...]:
    """All edges between `resources`, those to what is not among them left out."""
    known = {declared.ref: declared for declared in resources}
    return tuple(edge for declared in known.values() for edge in dependencies(declared) if edge.provider in known)


def order(refs: Sequence[Ref], between: Iterable[Edge]) -> tuple[Ref, ...]:
    """`refs` with every provider before its consumers, else as they came. Raises Cycle."""
    needs: dict[Ref, list[Edge]] = {ref: [] for ref in refs}
    for known in between:
        needs[known.consumer].append(known)
    done: dict[Ref, None] = {}
    for root in refs:
        # Depth first without recursion: a chain of references may be as long as the profile.
        trail = [] if root in done else [(root, iter(needs[root]))]
        path: list[Edge] = []
        depth = {root: 0}
        while trail:
            ref, rest = trail[-1]
            edge = next((edge for edge in rest if edge.provider not in done), None)
            if edge is None:
                trail.pop()
                del path[-1:], depth[ref]
                done[ref] = None
                continue
            path.append(edge)
            if edge.provider in depth:
                raise Cycle(path[depth[edge.provider] :])
            depth[edge.provider] = len(trail)
            trail.append((edge.provider, iter(needs[edge.provider])))
    return tuple(done)


def closure(wanted: Iterable[Ref], between: Iterable[Edge]) -> frozenset[Ref]:
    """`wanted` and everything that they need, however far away."""
    needs: dict[Ref, list[Ref]] = {}
    for edge in between:
        needs.setdefault(edge.consumer, []).append(edge.provider)
    found: set[Ref] = set()
    todo = list(wanted)
    while todo:
        ref = todo.pop()
        if ref not in found:
            found.add(ref)
            todo.extend(needs.get(ref, ()))
    return frozenset(found)
