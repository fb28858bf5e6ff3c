"""What of the model a list shows, in which order, under which headings. No widget: plain lists, rebuilt when needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from vmtui.core.resource import Ref
from vmtui.tui.columns import COLUMNS
from vmtui.tui.model import Changes, Item, Model

GROUPS = ("profile", "kind", "none")


class Heading(msgspec.Struct, frozen=True):
    """A line above a group; `folded` hides its items."""

    name: str
    items: int
    up: int
    problems: int
    folded: bool


Line = Heading | Item
Match = Callable[[Item], bool]


class View:
    """`lines` from top to bottom, and where each item is. `rebuild` after anything but a change of one item."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.lines: list[Line] = []
        self.place: dict[Ref, int] = {}
        self.group = "profile"
        self.sort = "name"
        self.descending = False
        self.match: Match | None = None
        self.score: Callable[[Item], float] | None = None  # for fuzzy filters: the best first
        self.folded: set[str] = set()
        self.total = 0

    def rebuild(self) -> None:
        match = self.match
        items: Iterable[Item] = self.model.items.values()
        shown = [item for item in items if match is None or match(item)]
        if self.score is not None and match is not None:
            score = self.score
            shown.sort(key=lambda item: -score(item))
        else:
            key = COLUMNS[self.sort].key
            shown.sort(key=lambda item: (item.ref.profile, item.ref.kind, item.ref.name))
            if self.sort != "name" or self.group == "none":
                shown.sort(key=key, reverse=self.descending)
            elif self.descending:
                shown.reverse()
        self.total = len(shown)
        self.lines = list(shown) if self.group == "none" else self._grouped(shown)
        self.place = {line.status.ref: number for number, line in enumerate(self.lines) if isinstance(line, Item)}

    def _grouped(self, items: list[Item]) -> list[Line]:
        groups: dict[str, list[Item]] = {}
        by_profile = self.group == "profile"
        for item in items:
            ref = item.status.ref
            groups.setdefault(ref.profile if by_profile else str(ref.kind), []).append(item)
        lines: list[Line] = []
        for name in sorted(groups):
            members = groups[name]
            folded = name in self.folded
            up = sum(item.status.phase in ("running", "available") for item in members)
            problems = sum(bool(item.status.problems) for item in members)
            lines.append(Heading(name, len(members), up, problems, folded))
            if not folded:
                lines.extend(members)
        return lines

    def affected(self, changes: Changes) -> list[int] | None:
        """The lines to draw again after a change; None: the order or the members changed, rebuild."""
        if changes.structural:
            return None
        column = COLUMNS[self.sort]
        if not changes.measured and self.sort in ("state", "problem", "address", "age"):
            return None
        if changes.measured and column.moving:
            return None
        found = []
        for ref in changes.refs:
            place = self.place.get(ref)
            if self.match is not None and not changes.measured:
                item = self.model.items.get(ref)
                if item is not None and self.match(item) != (place is not None):
                    return None
            if place is not None:
                found.append(place)
        return found
