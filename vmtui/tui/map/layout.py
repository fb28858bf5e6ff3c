"""What is plugged into what, as lines to draw. Pure: what exists and the specs in, lines out.

A line says what is where and not how it is: states, addresses and links are looked up when a line is drawn, so that
only a change of what is plugged in asks for another layout.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from vmtui.core.resource import Kind, Ref, Status
from vmtui.core.specs import NetworkMode, Spec

SHOWN = 24  # of the members of a network, and of every other group, before the rest is folded
SLACK = 6  # folding fewer than these saves nothing

# The letters of `MapLine.stem`, which the drawing turns into the glyphs of the theme.
BEGIN, TEE, LAST, LEAF, DOWN, LINE, GAP = "C", "T", "B", "L", "V", "H", " "


class What(StrEnum):
    """What a line is."""

    PROFILE = "profile"
    NETWORK = "network"
    MEMBER = "member"  # a workload, on `network` or on none
    DISK = "disk"
    GROUP = "group"  # the heading of what belongs to no network
    FOLD = "fold"  # the rest of a group, not shown
    BLANK = "blank"


@dataclass(slots=True)
class MapLine:
    """`ref` is the resource of the line; `network` and `index` the port of a member; `fold` what Enter folds or not,
    `group` what the line is in; `text` and `about` are words of ours; `count` members, or lines that are not shown.
    """

    what: What
    stem: str = ""
    ref: Ref | None = None
    network: Ref | None = None
    index: int = 0
    text: str = ""
    about: str = ""
    fold: str = ""
    group: str = ""
    published: tuple[str, ...] = ()
    count: int = 0

    @property
    def selectable(self) -> bool:
        return self.ref is not None or bool(self.fold)


@dataclass(slots=True)
class _Profile:
    """What one profile has, sorted into its place."""

    networks: dict[Ref, set[tuple[Ref, int]]] = field(default_factory=dict)
    alone: list[Ref] = field(default_factory=list)
    disks: set[Ref] = field(default_factory=set)
    used: set[Ref] = field(default_factory=set)
    workloads: int = 0


def layout(
    items: Mapping[Ref, Status],
    specs: Mapping[Ref, Spec],
    *,
    unfolded: Container[str] = (),
    folded: Container[str] = (),
    keep: Collection[Ref] | None = None,
    shown: int = SHOWN,
) -> list[MapLine]:
    """The map, profile by profile. Of a group with more than `shown` lines the rest is folded unless in `unfolded`;
    a profile in `folded` is its heading alone. With `keep` only what is in it, and what that is plugged into.

    What a spec names and what does not exist has its line too.
    """
    return joined(parts(items, specs, unfolded=unfolded, folded=folded, keep=keep, shown=shown))


def parts(
    items: Mapping[Ref, Status],
    specs: Mapping[Ref, Spec],
    *,
    unfolded: Container[str] = (),
    folded: Container[str] = (),
    keep: Collection[Ref] | None = None,
    shown: int = SHOWN,
) -> dict[str, list[MapLine]]:
    """The same by profile: each of them depends on its own resources alone."""
    maker = _Maker(items, specs, unfolded, folded, keep, shown)
    profiles = _sorted_into_place(items, specs)
    return {name: list(_of_profile(name, profile, maker)) for name, profile in profiles.items()}


def joined(by_profile: Mapping[str, list[MapLine]]) -> list[MapLine]:
    """The lines of all profiles in order, an empty line between two."""
    lines: list[MapLine] = []
    for name in sorted(name for name, part in by_profile.items() if part):
        lines += [MapLine(What.BLANK), *by_profile[name]] if lines else by_profile[name]
    return lines


def _sorted_into_place(items: Mapping[Ref, Status], specs: Mapping[Ref, Spec]) -> dict[str, _Profile]:
    profiles: dict[str, _Profile] = {}
    plugged: set[Ref] = set()
    for ref, status in items.items():
        profile = profiles.setdefault(ref.profile, _Profile())
        if ref.kind is Kind.NETWORK:
            members = profile.networks.setdefault(ref, set())
            for port in status.ports:
                members.add((port.consumer, port.index))
                plugged.add(port.consumer)
        elif ref.kind is Kind.DISK:
            profile.disks.add(ref)
    for ref in items:
        if not ref.kind.runs:
            continue
        profile, spec = profiles[ref.profile], specs.get(ref)
        profile.workloads += 1
        networks: tuple[str, ...] = getattr(spec, "networks", ())
        for index, name in enumerate(networks):
            profile.networks.setdefault(Ref(ref.profile, Kind.NETWORK, name), set()).add((ref, index))
        for name in getattr(spec, "disks", ()):
            profile.used.add(Ref(ref.profile, Kind.DISK, name))
        if not networks and ref not in plugged:
            profile.alone.append(ref)
    return profiles


@dataclass(slots=True)
class _Maker:
    items: Mapping[Ref, Status]
    specs: Mapping[Ref, Spec]
    unfolded: Container[str]
    folded: Container[str]
    keep: Collection[Ref] | None
    shown: int
    told: set[Ref] = field(default_factory=set)  # workloads whose disks have been drawn

    def wants(self, *refs: Ref) -> bool:
        return self.keep is None or any(ref in self.keep for ref in refs)

    def disks(self, ref: Ref) -> list[Ref]:
        names: tuple[str, ...] = getattr(self.specs.get(ref), "disks", ())
        return [Ref(ref.profile, Kind.DISK, name) for name in dict.fromkeys(names)]

    def group(self, key: str, members: Iterable[tuple[Ref, MapLine]], before: str, last: str) -> Iterator[MapLine]:
        """Members under one heading: each with its disks, the last one with a corner, the rest folded."""
        chosen = list(members)
        total = len(chosen)
        hidden = 0 if key in self.unfolded or total <= self.shown + SLACK else total - self.shown
        chosen = chosen[: total - hidden]
        for place, (ref, line) in enumerate(chosen):
            ends = place == len(chosen) - 1 and not hidden
            line.stem = last if ends else before
            line.group = key
            yield line
            yield from self._below(ref, line, GAP if ends else DOWN)
        if hidden:
            yield MapLine(What.FOLD, last, fold=key, group=key, count=hidden)

    def _below(self, ref: Ref, line: MapLine, backbone: str) -> Iterator[MapLine]:
        disks = self.disks(ref) if line.what is What.MEMBER else []
        if not disks or ref in self.told:
            return
        self.told.add(ref)
        for place, disk in enumerate(disks):
            branch = LEAF if place == len(disks) - 1 else TEE
            yield MapLine(What.DISK, f"{backbone}{GAP * 3}{branch}{LINE}{GAP}", ref=disk, group=line.group)


def _of_profile(name: str, profile: _Profile, maker: _Maker) -> Iterator[MapLine]:
    """Its heading, its networks, what is on none, and disks that nothing uses; nothing if all of it is filtered out."""
    body: list[MapLine] = []
    if name not in maker.folded:
        for network in sorted(profile.networks):
            body += _of_network(network, profile.networks[network], maker)
        body += _apart(name, profile, maker)
        if not body and maker.keep is not None:
            return
    said = counted(len(profile.networks), profile.workloads, len(profile.disks))
    yield MapLine(What.PROFILE, text=name, about=said, fold=f"profile {name}", count=int(name in maker.folded))
    yield from body


def counted(networks: int, workloads: int, disks: int) -> str:
    """In words, what there is none of left out."""
    counts = ((networks, "network"), (workloads, "workload"), (disks, "disk"))
    return ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts if count)


def _of_network(network: Ref, members: set[tuple[Ref, int]], maker: _Maker) -> Iterator[MapLine]:
    chosen = [
        (consumer, index)
        for consumer, index in sorted(members)
        if maker.wants(network, consumer, *(maker.disks(consumer) if maker.keep is not None else ()))
    ]
    if not chosen and not maker.wants(network):
        return
    key = f"network {network}"
    yield MapLine(
        What.NETWORK, f"{BEGIN if chosen else LINE}{LINE * 2}{GAP}", ref=network, group=key, count=len(members)
    )
    lines = (
        (ref, MapLine(What.MEMBER, ref=ref, network=network, index=index, published=_published(maker.specs.get(ref))))
        for ref, index in chosen
    )
    yield from maker.group(key, lines, f"{TEE}{LINE * 2}{GAP}", f"{LAST}{LINE * 2}{GAP}")


def _apart(name: str, profile: _Profile, maker: _Maker) -> Iterator[MapLine]:
    alone = [ref for ref in sorted(profile.alone) if maker.wants(ref, *maker.disks(ref))]
    loose = [ref for ref in sorted(profile.disks - profile.used) if maker.wants(ref)]
    for title, refs in (("on no network", alone), ("disks that nothing uses", loose)):
        if not refs:
            continue
        yield MapLine(What.GROUP, f"{BEGIN}{LINE * 2}{GAP}", text=title, count=len(refs))
        lines = ((ref, _single(ref, maker.specs.get(ref))) for ref in refs)
        yield from maker.group(f"{title} {name}", lines, f"{TEE}{LINE * 2}{GAP}", f"{LAST}{LINE * 2}{GAP}")


def _single(ref: Ref, spec: Spec | None) -> MapLine:
    if ref.kind is Kind.DISK:
        return MapLine(What.DISK, ref=ref)
    user = ref.kind is Kind.VM and getattr(spec, "network_mode", None) is NetworkMode.USER
    return MapLine(What.MEMBER, ref=ref, about="user-mode network" if user else "", published=_published(spec))


def _published(spec: Spec | None) -> tuple[str, ...]:
    return tuple(str(port) for port in getattr(spec, "ports", ()))
