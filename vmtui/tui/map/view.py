"""Draws the lines of the map. What a line is about is looked up here, as it is now."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style

from vmtui.core.lifecycle import UP, Phase
from vmtui.core.resource import Kind, Port, Ref, Status
from vmtui.tui.columns import size
from vmtui.tui.map.layout import BEGIN, DOWN, GAP, LAST, LEAF, LINE, TEE, MapLine, What
from vmtui.tui.model import Item
from vmtui.tui.palette import Glyphs
from vmtui.tui.text import plain
from vmtui.tui.widgets.lines import LineView

WIDE = 100
Ports = dict[tuple[Ref, int], Port]


class MapView(LineView):
    """While there are no lines it says why."""

    def __init__(self, items: Mapping[Ref, Item]) -> None:
        super().__init__(id="map")
        self.items = items
        self.lines: list[MapLine] = []
        self._place: dict[Ref, list[int]] = {}
        self._ports: dict[Ref, tuple[Status, Ports]] = {}
        self._empty = ""
        self._longest = 0  # of the names, with their stems

    def show(self, lines: list[MapLine]) -> None:
        """Other lines; the selected one stays so, wherever it is now."""
        before = self.current()
        self.lines = lines
        self._place = {}
        for number, line in enumerate(lines):
            for ref in {line.ref, line.network} - {None}:
                assert ref is not None
                self._place.setdefault(ref, []).append(number)
        self._ports.clear()
        self._longest = max((len(line.ref.name) + len(line.stem) for line in lines if line.ref is not None), default=0)
        self.reset(None if before is None else self._find(before))

    def _find(self, line: MapLine) -> int | None:
        """The line that stands for the same: the same port, else the same resource, else the same group."""
        if line.ref is None:
            return next((y for y, now in enumerate(self.lines) if line.fold and now.fold == line.fold), None)
        places = [y for y in self._place.get(line.ref, ()) if self.lines[y].ref == line.ref]
        same = [y for y in places if (self.lines[y].network, self.lines[y].index) == (line.network, line.index)]
        return next(iter(same or places), None)

    def say_empty(self, text: str) -> None:
        if text != self._empty:
            self._empty = text
            if not self.lines:
                self.reset()

    def current(self) -> MapLine | None:
        return self.lines[self.cursor] if self.cursor < len(self.lines) else None

    def touched(self, refs: Collection[Ref]) -> None:
        """These are different now: draw what shows them."""
        sight = self.in_sight()
        self.changed([y for ref in refs for y in self._place.get(ref, ()) if y in sight])

    def next_of(self, what: Collection[What], direction: int) -> int | None:
        """The nearest line above or below that is one of these."""
        y = self.cursor + direction
        while 0 <= y < len(self.lines):
            if self.lines[y].what in what:
                return y
            y += direction
        return None

    # LineView

    def line_count(self) -> int:
        return len(self.lines) or bool(self._empty)

    def selectable(self, y: int) -> bool:
        return y < len(self.lines) and self.lines[y].selectable

    def shows_cursor(self) -> bool:
        return bool(self.lines)

    def draw(self, y: int, width: int, selected: bool) -> Sequence[Segment]:  # noqa: ARG002
        palette = self.palette
        if y >= len(self.lines):
            return [Segment(f" {self._empty}", palette.dim)]
        line = self.lines[y]
        stem = Segment(f" {self._stem(line)}", palette.dim)
        if line.what is What.PROFILE:
            sign = palette.glyphs.right if line.count else palette.glyphs.down
            return [Segment(f"{sign} {plain(line.text, 60)}", palette.accent), Segment(f"  {line.about}", palette.dim)]
        if line.what is What.NETWORK:
            return self._ruled([stem, *self._network(line, width)], width)
        if line.what is What.GROUP:
            return self._ruled([stem, Segment(line.text, palette.secondary), Segment(f"  {line.count}")], width)
        if line.what is What.FOLD:
            return [stem, Segment(f"{palette.glyphs.more} {line.count} more: Enter shows them", palette.secondary)]
        if line.what is What.DISK:
            return [stem, *self._head(line, width), *self._disk(line)]
        if line.what is What.MEMBER:
            return [stem, *self._head(line, width), *self._member(line, width)]
        return []

    def _stem(self, line: MapLine) -> str:
        glyphs = self.palette.glyphs
        drawn = line.stem.translate(_table(glyphs))
        if line.what is What.MEMBER and line.network is not None and not self._linked(line):
            return f"{drawn[0]}{glyphs.dot * 2}{drawn[3:]}"
        return drawn

    def _ruled(self, segments: list[Segment], width: int) -> list[Segment]:
        """With a line to the right edge, so that one sees where the next network begins."""
        rest = width - sum(cell_len(segment.text) for segment in segments) - 2
        rule = Segment(f" {self.palette.glyphs.horizontal * rest}", self.palette.dim)
        return [*segments, rule] if rest > 0 else segments

    def _status(self, ref: Ref | None) -> Status | None:
        item = self.items.get(ref) if ref is not None else None
        return None if item is None else item.status

    def _head(self, line: MapLine, width: int) -> list[Segment]:
        """State, kind and name, at the same place in every line."""
        assert line.ref is not None
        palette, status = self.palette, self._status(line.ref)
        phase = Phase.ABSENT if status is None else status.phase
        code = status.exit.code if status is not None and status.exit is not None and phase is Phase.EXITED else 0
        word = f"{phase} {code}" if phase is Phase.EXITED else str(phase)
        longest = min(self._longest, 30 if width >= WIDE else 22) - len(line.stem)
        return [
            Segment(f"{palette.sign(phase, code)} {word:<10}", palette.of_phase(phase, code)),
            Segment(f"{line.ref.kind:<10}", palette.secondary),
            Segment(f"{set_cell_size(plain(line.ref.name, 60), longest)} ", palette.text),
        ]

    def _network(self, line: MapLine, width: int) -> list[Segment]:
        palette, status = self.palette, self._status(line.ref)
        head = self._head(line, width)
        if status is None:
            return [*head, Segment("members name it, and it is not there", palette.bad)]
        address = ", ".join(address.address for address in status.addresses)
        words = [address, status.fact("subnet")]
        if width >= WIDE:
            words += [", ".join(address.interface for address in status.addresses)]
            words += [{"no": "internal", "yes": "NAT"}.get(status.fact("nat"), "")]
        words.append(f"{line.count} member{'' if line.count == 1 else 's'}")
        said = "  ".join(plain(word, 100) for word in words if word)
        return [*head, Segment(said, palette.dim), *self._problem(status)]

    def _disk(self, line: MapLine) -> list[Segment]:
        status = self._status(line.ref)
        if status is None:
            return [Segment("it is not there", self.palette.bad)]
        words = [size(status.size_bytes), plain(status.fact("format"), 20)]
        return [Segment("  ".join(filter(None, words)), self.palette.dim), *self._problem(status)]

    def _member(self, line: MapLine, width: int) -> list[Segment]:
        palette, status = self.palette, self._status(line.ref)
        port = self._port(line)
        address, interface = "", ""
        if port is not None:
            address, interface = port.address, port.interface
        elif status is not None and line.network is None:
            address = ", ".join(address.address for address in status.addresses)
        link, style = self._link(line, status)
        segments = [Segment(f"{set_cell_size(plain(address, 60), 15)} ", palette.text)]
        if width >= WIDE:
            segments.append(Segment(f"{set_cell_size(plain(interface, 20), 15)} ", palette.dim))
        segments.append(Segment(f"{link:<5}", style))
        segments += self._published(line, status)
        if line.about:
            segments.append(Segment(f" {line.about}", palette.dim))
        return [*segments, *(self._problem(status) if status is not None else ())]

    def _published(self, line: MapLine, status: Status | None) -> list[Segment]:
        urls = [endpoint.url for endpoint in status.endpoints] if status is not None and status.phase in UP else []
        said = "  ".join(plain(each, 100) for each in urls or line.published)
        if not said:
            return []
        style = self.palette.accent if urls else self.palette.dim
        return [Segment(f" {self.palette.glyphs.right} {said}", style)]

    def _problem(self, status: Status) -> list[Segment]:
        if not status.problems:
            return []
        return [Segment(f"  {self.palette.glyphs.failed} {plain(status.problems[0].message, 200)}", self.palette.bad)]

    def _port(self, line: MapLine) -> Port | None:
        status = self._status(line.network)
        if status is None or line.network is None or line.ref is None:
            return None
        known = self._ports.get(line.network)
        if known is None or known[0] is not status:
            known = (status, {(port.consumer, port.index): port for port in status.ports})
            self._ports[line.network] = known
        return known[1].get((line.ref, line.index))

    def _linked(self, line: MapLine) -> bool:
        port = self._port(line)
        return port is not None and port.present and port.live

    def _link(self, line: MapLine, status: Status | None) -> tuple[str, Style]:
        """The word for the link of a member, and its style."""
        if line.network is None or (line.ref is not None and line.ref.kind is Kind.DISK):
            return "", self.palette.dim
        if self._linked(line):
            return "up", self.palette.good
        wanted = status is not None and status.phase in UP
        return "down", self.palette.bad if wanted else self.palette.dim


def _table(glyphs: Glyphs) -> dict[int, str]:
    return str.maketrans(
        {
            BEGIN: glyphs.top_left,
            TEE: glyphs.tee,
            LAST: glyphs.bottom_left,
            LEAF: glyphs.corner,
            DOWN: glyphs.vertical,
            LINE: glyphs.horizontal,
            GAP: " ",
        }
    )
