"""The line above and the line below every screen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.actions import parse
from textual.binding import ActiveBinding, Binding
from textual.strip import Strip
from textual.widget import Widget

from vmtui.tui.palette import Palette
from vmtui.tui.rights import Rights, need_of
from vmtui.tui.text import plain

HELP = "help"  # the action
NARROW = 60  # cells
Part = tuple[Binding, str, int]


class Bar(Widget):
    """One line of segments over the whole width."""

    DEFAULT_CSS = "Bar { height: 1; }"

    def segments(self, width: int) -> list[Segment]:  # noqa: ARG002
        return []

    @property
    def palette(self) -> Palette:
        palette: Palette = self.app.palette  # type: ignore[attr-defined]
        return palette

    def ground(self) -> Style:
        """The style under what is drawn and beyond it."""
        return self.rich_style

    def render_line(self, y: int) -> Strip:  # noqa: ARG002
        width = self.size.width
        ground = self.ground()
        strip = Strip(self.segments(width)).adjust_cell_length(width, Style.null())
        return strip.apply_style(ground)


class TitleBar(Bar):
    """`name` of the screen, and what it says of itself; at the right what holds for the whole panel."""

    def __init__(self, name: str) -> None:
        super().__init__(id="title")
        self._screen_name = name
        self._about = ""
        self._right = ""

    @property
    def about(self) -> str:
        return self._about

    def say(self, about: str | None = None, right: str | None = None) -> None:
        """Outside text is cleaned here."""
        said = (
            self._about if about is None else plain(about, 400),
            self._right if right is None else plain(right, 160),
        )
        if said != (self._about, self._right):
            self._about, self._right = said
            self.refresh()

    def ground(self) -> Style:
        return self.palette.title

    def segments(self, width: int) -> list[Segment]:
        left = f" vmtui {self.palette.glyphs.right} {self._screen_name}{'  ' if self._about else ''}{self._about}"
        right = self._right
        if width < NARROW:  # each without its explanation
            right = ", ".join(part.partition(":")[0] for part in right.split(", "))
        room = width - len(right) - 2
        if len(left) > room:
            left = f"{left[: max(0, room - 1)]}{self.palette.glyphs.more}"
        return [Segment(left.ljust(max(0, room))), Segment(f" {right} ")]


class FooterBar(Bar):
    """The keys that do something now, with what they do; a click is the key."""

    def __init__(self) -> None:
        super().__init__(id="footer")
        self._places: list[tuple[int, int, str]] = []

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.refresh())

    def ground(self) -> Style:
        return self.palette.head

    def segments(self, width: int) -> list[Segment]:
        """All that fits. What does not is behind the help, which is always there."""
        self._places = []
        parts, last = list(self._parts()), []
        cut = sum(length for *_, length in parts) > width
        if cut:
            last = [part for part in parts if part[0].action == HELP]
            room = width - 2 - sum(length for *_, length in last)
            fitting = []
            for part in parts:
                room -= 0 if part in last else part[-1]
                if room < 0:
                    break
                if part not in last:
                    fitting.append(part)
            parts = fitting
        shown = self._drawn(parts, 0)
        if cut:
            shown.append(Segment(f" {self.palette.glyphs.more}", self.palette.dim))
        return shown + self._drawn(last, sum(length for *_, length in parts) + 2)

    def _drawn(self, parts: Iterable[Part], at: int) -> list[Segment]:
        shown = []
        for binding, key, length in parts:
            name = self.app.get_key_display(binding)
            shown += [Segment(f" {name}", self.palette.key), Segment(f" {binding.description} ")]
            self._places.append((at, at + length, key))
            at += length
        return shown

    def _parts(self) -> Iterator[Part]:
        """Bindings to show, the key of each, and how many cells it takes."""
        seen = set()
        for key, active in self.screen.active_bindings.items():
            binding = active.binding
            if binding.show and active.enabled and binding.action not in seen and self._is_offered(active):
                seen.add(binding.action)
                yield binding, key, len(self.app.get_key_display(binding)) + len(binding.description) + 3

    def _is_offered(self, active: ActiveBinding) -> bool:
        """A screen may answer to a key only to say why nothing is done: such a key is not shown."""
        _, action, parameters = parse(active.binding.action)
        rights: Rights = self.app.rights  # type: ignore[attr-defined]
        if not rights.has(need_of(active.node, action, parameters)):
            return False
        offers = getattr(active.node, "offers", None)
        return offers is None or bool(offers(action, parameters))

    def on_click(self, event: events.Click) -> None:
        for start, end, key in self._places:
            if start <= event.x < end:
                self.app.simulate_key(key)
                return
