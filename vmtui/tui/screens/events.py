"""What happened, when, and by whom."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from rich.cells import set_cell_size
from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.timer import Timer

from vmtui.core.errors import Fault
from vmtui.core.policy import Verb
from vmtui.core.resource import Ref
from vmtui.engine.store import Recorded
from vmtui.tui.model import Changes
from vmtui.tui.rights import FILES, Need, of
from vmtui.tui.screens.records import RecordScreen
from vmtui.tui.text import plain
from vmtui.tui.widgets.lines import LineView
from vmtui.tui.widgets.records import MOST, RecordList

FIRST = 1000  # as many at the start
READ_S = 1.0  # no two reads within
IDLE_S = 5.0  # other processes write into the history too, and not all that they write changes a resource
NARROW = 76
BAD = frozenset({"failed", "broken"})
GOOD = frozenset({"done", "running"})


def moment(at: float, now: float) -> str:
    """The time of day, and the date if it was another day."""
    then = time.localtime(at)
    return time.strftime("%H:%M:%S" if then[:3] == time.localtime(now)[:3] else "%m-%d %H:%M", then)


class EventList(RecordList[Recorded]):
    def draw_record(self, record: Recorded, width: int) -> Sequence[Segment]:
        palette = self.palette
        bad = record.result in BAD or (record.verb == "exit" and not record.message.startswith("code 0"))
        good = record.result in GOOD and not bad
        sign = palette.glyphs.failed if bad else palette.glyphs.dot
        style = palette.bad if bad else palette.good if good else palette.warn
        by = [] if width < NARROW else [Segment(f"{set_cell_size(plain(record.by), 26)} ", palette.secondary)]
        name = set_cell_size(plain(record.ref), 18 if width < NARROW else 26)
        return [
            Segment(f" {moment(record.at, time.time()):<12}", palette.dim),
            Segment(f"{sign} {set_cell_size(plain(record.result), 9)} ", style),
            Segment(f"{set_cell_size(plain(record.verb), 10)} ", palette.text),
            Segment(f"{name} ", palette.accent),
            *by,
            Segment(plain(record.message, 1000), palette.bad if bad else palette.dim),
        ]


class EventsScreen(RecordScreen[Recorded]):
    NAME = "Events"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "go", "Go to it", id="events-go"),
        Binding("l", "logs", "Logs", id="events-logs"),
        Binding("y", "copy", "Copy", id="events-copy"),
    ]

    NEEDS: ClassVar[Mapping[str, Need]] = {"logs": of(Verb.LOGS)}

    def __init__(self) -> None:
        super().__init__()
        self._last = 0
        self._read_at = 0.0
        self._timer: Timer | None = None
        self._ends: list[Callable[[], None]] = []

    def make_list(self) -> EventList:
        return EventList("events")

    def ref_of(self, record: Recorded) -> Ref | None:
        try:
            return Ref.parse(record.ref)
        except ValueError:
            return None

    def text_of(self, record: Recorded) -> str:
        return f"{record.ref} {record.verb} {record.result} {record.by} {record.message}"

    # Kept current while it can be seen

    def shown(self) -> None:
        self.hidden()
        if not self.panel.ready:
            self.say_title("reading what happened")
            return
        idle = self.set_interval(IDLE_S, self._due)
        self._ends = [self.panel.feed.subscribe(self._on_change), idle.stop]
        self._read()

    def hidden(self) -> None:
        for end in self._ends:
            end()
        self._ends = []
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    def _on_change(self, changes: Changes) -> None:
        if not changes.measured:
            self._due()

    def _due(self) -> None:
        """Read what is new, at once or when the last time is long enough ago."""
        if self._timer is None and self._ends:
            wait_s = max(0.05, self._read_at + READ_S - time.monotonic())
            self._timer = self.set_timer(wait_s, self._read)

    def _read(self) -> None:
        self._timer = None
        self._read_at = time.monotonic()
        try:
            found = self.workspace.events(limit=None if self._last else FIRST, after=self._last)
        except (Fault, sqlite3.Error) as error:
            self.say_title(str(error))
            return
        if found:
            self._last = found[-1].id
            self._due()  # what happens often is written in several steps
        self.listing.add(found[-MOST:])
        self.say()

    def say(self) -> None:
        listing = self.listing
        total, count = len(listing.rows), len(listing.shown)
        helps = HELPS if self.panel.rights.has(FILES) else ""
        listing.say_empty("nothing matches the filter: escape clears it" if total else f"{WHY_EMPTY}{helps}")
        said = f"{count}" if count == total else f"{count} of {total}"
        self.say_title(f"{said}{f'  /{self._filter}' if self._filter else ''}{'  following' if listing.follow else ''}")

    # Keys

    def offers(self, action: str, parameters: tuple[object, ...]) -> bool:
        """Whether the footer shows a binding."""
        if action in ("go", "logs", "copy"):
            return self.listing.current() is not None
        return super().offers(action, parameters)

    def on_line_view_chosen(self, event: LineView.Chosen) -> None:
        event.stop()
        self.action_go()

    def on_line_view_cursor_moved(self, event: LineView.CursorMoved) -> None:
        super().on_line_view_cursor_moved(event)
        self.say()

    def _current(self) -> Ref | None:
        record = self.listing.current()
        return None if record is None else self.ref_of(record)

    def action_go(self) -> None:
        if (ref := self._current()) is not None:
            self.go_to(ref)

    def action_logs(self) -> None:
        ref = self._current()
        if ref is None:
            return
        if (why := self.panel.why_not(Verb.LOGS, ref)) is not None:
            self.panel.say(f"no logs of {ref.short}: {why}", "warning")
        elif ref in self.panel.feed.model.items and ref.kind.runs:
            self.panel.open_logs([ref])
        else:
            self.panel.say(f"{ref} has no log{'' if not ref.kind.runs else ': it is not there any more'}", "warning")

    def action_copy(self) -> None:
        record = self.listing.current()
        if record is not None:
            self.panel.copy(f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(record.at))} {self.text_of(record)}")


WHY_EMPTY = "nothing has happened yet"
HELPS = ": 4 opens a profile to bring up"
