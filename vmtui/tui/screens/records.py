"""What the views of records have in common: moving, following, and one filter language."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Generic, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from vmtui.core.lifecycle import Phase
from vmtui.core.query import Query, parse
from vmtui.core.resource import Ref, Status
from vmtui.core.searchable import Entry
from vmtui.tui.screens.base import PanelScreen
from vmtui.tui.widgets.lines import LineView
from vmtui.tui.widgets.records import RecordList

T = TypeVar("T")


class RecordScreen(PanelScreen, Generic[T]):
    """A subclass makes the list, and says of a record what it is about and what it says."""

    FILTERS = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "move(1)", "Down", show=False, id="records-down"),
        Binding("k,up", "move(-1)", "Up", show=False, id="records-up"),
        Binding("g,home", "to(0)", "First", show=False, id="records-first"),
        Binding("G,end", "to(1000000000)", "Follow", id="records-last"),
        Binding("ctrl+f,pagedown", "page(1)", "Page down", show=False, id="records-page-down"),
        Binding("ctrl+b,pageup", "page(-1)", "Page up", show=False, id="records-page-up"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._filter = ""
        self._query: Query | None = None
        self.listing = self.make_list()

    def make_list(self) -> RecordList[T]:
        raise TypeError(f"{type(self).__name__} has no list")

    def ref_of(self, record: T) -> Ref | None:  # noqa: ARG002
        """The resource that a record is about."""
        return None

    def text_of(self, record: T) -> str:
        """What the filter's words are looked for in."""
        return str(record)

    def wants(self, record: T) -> bool:  # noqa: ARG002
        """Whether it is shown when nothing is typed after "/"."""
        return True

    def say(self) -> None:
        """The title line, after what is shown has changed."""

    def body(self) -> ComposeResult:
        yield self.listing

    def on_mount(self) -> None:
        self.listing.focus()

    # Filter

    def filter_text(self) -> str:
        return self._filter

    def filter_changed(self, text: str) -> None:
        query = parse(text)
        self._filter, self._query = text, query if query else None
        self.refilter()

    def refilter(self) -> None:
        self.listing.filter(self._match())
        self.say()

    def filter_done(self) -> None:
        self.listing.focus()

    def back(self) -> bool:
        if not self._filter:
            return False
        self.filter_changed("")
        return True

    def _match(self) -> Callable[[T], bool]:
        query = self._query
        if query is None:
            return self.wants
        tests: dict[Ref | None, Callable[[str], bool]] = {}

        def match(record: T) -> bool:
            ref = self.ref_of(record)
            if ref not in tests:
                tests[ref] = query.lines(self._searchable(ref))
            return self.wants(record) and tests[ref](self.text_of(record))

        return match

    def _searchable(self, ref: Ref | None) -> Entry | None:
        if ref is None:
            return None
        item = self.panel.feed.model.items.get(ref) if self.panel.ready else None
        return Entry(Status(ref=ref, backend="", phase=Phase.ABSENT) if item is None else item.status)

    # Keys

    def offers(self, action: str, parameters: tuple[object, ...]) -> bool:  # noqa: ARG002
        """Whether the footer shows a binding."""
        return action != "to" or not self.listing.follow

    def action_move(self, by: int) -> None:
        self.listing.move(by)

    def action_page(self, by: int) -> None:
        self.listing.page(by)

    def action_to(self, line: int) -> None:
        self.listing.move_to(line)

    def on_line_view_cursor_moved(self, event: LineView.CursorMoved) -> None:
        event.stop()
        self.refresh_bindings()

    def go_to(self, ref: Ref) -> None:
        """To the resource of a record, if it is still there."""
        if ref in self.panel.feed.model.items:
            self.panel.go_to(ref)
        else:
            self.panel.say(f"{ref} is not there any more", "warning")
