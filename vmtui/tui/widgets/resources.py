"""The resource list: headings and items of a view, in columns chosen by the width."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region

from vmtui.core.resource import Ref
from vmtui.tui import columns
from vmtui.tui.model import Changes, Item, Model
from vmtui.tui.rights import BRING_UP, FILES, LOCAL, NEW, NOTHING, Rights
from vmtui.tui.text import plain
from vmtui.tui.view import Heading, View
from vmtui.tui.widgets.bars import Bar
from vmtui.tui.widgets.lines import LineView

WELCOME = (
    ("", "", NOTHING),
    ("", "Nothing is here yet: no VM, container, sandbox, network or disk.", NOTHING),
    ("", "", NOTHING),
    ("enter", "bring up the demo profile: one of each kind, for real", BRING_UP),
    ("", "(nothing is fetched for it but Debian packages)", BRING_UP),
    ("4", "open a profile of yours: see its plan, apply it", FILES),
    ("n", "make something new", NEW),
    ("D", "look around in a demo first: nothing in it is real", LOCAL),
    ("7", "what this machine can do, and what mends what it cannot", NOTHING),
)
NARROWED = "Nothing is here that the role {role} may see."

MOVING = frozenset(column.name for column in columns.COLUMNS.values() if column.moving)
DRAWN_KEPT = 500


class Drawn(msgspec.Struct, frozen=True):
    """A line as it was drawn last."""

    item: Item
    chosen: list[tuple[columns.Column, int]]
    cells: list[columns.Cell]


class ResourceList(LineView):
    """`view` says what is listed; `marked` are the refs that bulk actions take."""

    def __init__(self, model: Model, wanted: Sequence[str] = ()) -> None:
        super().__init__(id="resources")
        self.view = View(model)
        self.wanted = wanted
        self.marked: set[Ref] = set()
        self._columns: list[tuple[columns.Column, int]] = []
        self._columns_of = (0, "")
        self._empty = ""
        self._drawn: dict[int, Drawn] = {}

    def columns(self) -> list[tuple[columns.Column, int]]:
        key = self.size.width, self.view.group
        if key != self._columns_of:
            self._columns, self._columns_of = columns.choose(key[0], self.wanted, without=key[1]), key
        return self._columns

    @property
    def welcomes(self) -> bool:
        """Whether there is nothing yet, and it is said how that can be changed."""
        return self.view.model.loaded and not self.view.model.items

    def _welcome(self) -> list[tuple[str, str]]:
        """Each key, and what can be done by it, of what who sits here has a right to."""
        rights: Rights = self.app.rights  # type: ignore[attr-defined]
        role = rights.authority.role
        lines = [(key, said) for key, said, need in WELCOME if rights.has(need)]
        if rights.by_resource and role is not None:
            lines[1] = "", NARROWED.format(role=plain(role.name, 60))
        return lines

    # LineView

    def line_count(self) -> int:
        return len(self._welcome()) if self.welcomes else len(self.view.lines) or bool(self._empty)

    def selectable(self, y: int) -> bool:  # noqa: ARG002
        return bool(self.view.lines)

    def shows_cursor(self) -> bool:
        return bool(self.view.lines)

    def say_empty(self, text: str) -> None:
        """Why nothing is listed, and what helps; outside text is cleaned."""
        if text != self._empty:
            self._empty = text
            if not self.view.lines:
                self.reset()

    def draw(self, y: int, width: int, selected: bool) -> Sequence[Segment]:  # noqa: ARG002
        if self.welcomes:
            key, said = self._welcome()[y]
            return [Segment(f"  {key:>7}  ", self.palette.key), Segment(said, self.palette.text)]
        palette = self.palette
        if not self.view.lines:
            return [Segment(f" {plain(self._empty, 200)}", palette.dim)]
        line = self.view.lines[y]
        if isinstance(line, Heading):
            sign = palette.glyphs.right if line.folded else palette.glyphs.down
            words = f"{line.items}, {line.up} up" + (f", {line.problems} with problems" if line.problems else "")
            return [
                Segment(f"{sign} ", palette.accent),
                Segment(plain(line.name, 60), palette.accent),
                Segment(f"  {words}", palette.bad if line.problems else palette.dim),
            ]
        chosen = self.columns()
        cells = [column.cell(line, palette) for column, _ in chosen]
        if len(self._drawn) > DRAWN_KEPT:
            self._drawn.clear()
        self._drawn[y] = Drawn(line, chosen, cells)
        drawn = columns.segments(cells, chosen, palette.glyphs.more)
        if line.status.ref in self.marked:
            return [Segment(palette.glyphs.mark, palette.accent), *drawn]
        return [Segment(f" {drawn[0].text}", drawn[0].style), *drawn[1:]] if drawn else []

    # What is selected

    def current(self) -> Item | None:
        lines = self.view.lines
        line = lines[self.cursor] if 0 <= self.cursor < len(lines) else None
        return line if isinstance(line, Item) else None

    def heading(self) -> Heading | None:
        lines = self.view.lines
        line = lines[self.cursor] if 0 <= self.cursor < len(lines) else None
        return line if isinstance(line, Heading) else None

    def chosen(self) -> list[Item]:
        """What an action is for: the marked ones, in sight or not, else the selected one."""
        view = self.view
        marked = [item for ref in self.marked if (item := view.model.items.get(ref)) is not None]
        if marked:
            last = len(view.lines)
            return sorted(marked, key=lambda item: (view.place.get(item.ref, last), item.ref))
        current = self.current()
        return [current] if current is not None else []

    def out_of_sight(self) -> int:
        """How many of the marked ones are not listed."""
        return sum(ref not in self.view.place for ref in self.marked)

    def refs_in_sight(self) -> Collection[Ref]:
        sight = self.in_sight()
        return [line.ref for line in self.view.lines[sight.start : sight.stop] if isinstance(line, Item)]

    def select(self, ref: Ref) -> bool:
        """Whether it is listed."""
        place = self.view.place.get(ref)
        if place is not None:
            self.move_to(place)
        return place is not None

    # Changes

    def apply(self, changes: Changes) -> bool:
        """Show a change of the model. Whether the lines are others now."""
        if changes.structural and self.marked:
            self.marked &= self.view.model.items.keys()
        affected = self.view.affected(changes)
        if affected is None:
            self.rebuild()
            return True
        self.changed_cells(affected, MOVING if changes.measured else ())
        return False

    def changed_cells(self, lines: Iterable[int], names: Collection[str] = ()) -> None:
        """Draw again as far as a cell has another text now; `names` are the columns to look at, () all."""
        top, chosen, palette = self.scroll_offset.y, self.columns(), self.palette
        sight = self.in_sight()
        regions = []
        for y in lines:
            if y not in sight or y >= len(self.view.lines):  # a line may say why there are none
                continue
            line, drawn = self.view.lines[y], self._drawn.get(y)
            if not isinstance(line, Item):
                continue
            if drawn is None or drawn.item is not line or drawn.chosen is not chosen:
                regions.append(Region(0, y - top, self.size.width, 1))
                continue
            at, end = 1, 0
            for (column, width), before in zip(chosen, drawn.cells, strict=True):
                at += width + 1
                if (not names or column.name in names) and column.cell(line, palette) != before:
                    end = at
            if end:  # Textual writes a line from its beginning to where a change ends
                regions.append(Region(0, y - top, end, 1))
        if regions:
            self.refresh(*regions)

    def rebuild(self, *, else_first: bool = False) -> None:
        """Build the view anew; the selection stays on its resource, else on its line or goes to the first one."""
        current, heading = self.current(), self.heading()
        self.view.rebuild()
        place = self.view.place.get(current.ref) if current is not None else None
        if heading is not None:
            place = next(
                (
                    y
                    for y, line in enumerate(self.view.lines)
                    if isinstance(line, Heading) and line.name == heading.name
                ),
                None,
            )
        if place is None and (self.cursor == 0 or else_first) and len(self.view.lines) > 1:
            place = 1 if isinstance(self.view.lines[0], Heading) and not self.view.lines[0].folded else 0
        self.reset(place)

    def mark(self, refs: Collection[Ref], on: bool) -> None:
        self.marked = self.marked | set(refs) if on else self.marked - set(refs)
        self.changed([self.view.place[ref] for ref in refs if ref in self.view.place])

    def on_resize(self) -> None:
        super().on_resize()
        for head in self.screen.query(ResourceHead):
            head.refresh()


class ResourceHead(Bar):
    """The titles of the columns; a click sorts by one."""

    def __init__(self, listing: ResourceList) -> None:
        super().__init__(id="head")
        self._listing = listing

    def ground(self) -> Style:
        return self.palette.head

    def segments(self, width: int) -> list[Segment]:  # noqa: ARG002
        view = self._listing.view
        glyphs = self.palette.glyphs
        arrow = glyphs.up if view.descending else glyphs.down
        drawn = [Segment(" ")]
        for column, cells in self._listing.columns():
            title = column.title.rstrip() + (arrow if column.name == view.sort else "")
            drawn.append(Segment(columns.fit(title, cells, glyphs.more) + " "))
        return drawn

    def on_click(self, event: events.Click) -> None:
        at = 1
        for column, cells in self._listing.columns():
            if at <= event.x <= at + cells:
                from vmtui.tui.screens.resources import ResourcesScreen

                assert isinstance(self.screen, ResourcesScreen)
                self.screen.sort_by(column.name)
                return
            at += cells + 1
