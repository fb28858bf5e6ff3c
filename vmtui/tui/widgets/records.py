"""A list of records, the newest last, that can be filtered and follows while its last line is selected."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from rich.segment import Segment

from vmtui.tui.widgets.lines import LineView

T = TypeVar("T")
MOST = 5000


class RecordList(LineView, Generic[T]):
    """A subclass draws one record. While nothing is shown, it says why."""

    follow = True

    def __init__(self, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self.rows: list[T] = []
        self.shown: list[T] = []
        self._empty = ""
        self._match: Callable[[T], bool] | None = None

    @abstractmethod
    def draw_record(self, record: T, width: int) -> Sequence[Segment]:
        """One line."""

    def current(self) -> T | None:
        return self.shown[self.cursor] if self.cursor < len(self.shown) else None

    def say_empty(self, text: str) -> None:
        """Why nothing is shown, and what helps."""
        if text != self._empty:
            self._empty = text
            if not self.shown:
                self.reset()

    def add(self, records: Sequence[T]) -> None:
        """Newer ones than those that are there. The selected one stays selected, unless the end is followed."""
        if not records and self.rows:
            return
        selected = self.current()
        self.rows += records
        if len(self.rows) > MOST:
            del self.rows[: len(self.rows) - MOST]
            self._show(selected)
            return
        match = self._match
        self.shown += [record for record in records if match is None or match(record)]
        self.reset(self.cursor)

    def filter(self, match: Callable[[T], bool] | None) -> None:
        """Show only what matches."""
        selected = self.current()
        self._match = match
        self._show(selected)

    def _show(self, selected: T | None) -> None:
        match = self._match
        self.shown = [record for record in self.rows if match is None or match(record)]
        place = next((place for place, record in enumerate(self.shown) if record is selected), None)
        self.follow = self.follow or place is None
        self.reset(place)

    # LineView

    def line_count(self) -> int:
        return len(self.shown) or bool(self._empty)

    def selectable(self, y: int) -> bool:
        return y < len(self.shown)

    def shows_cursor(self) -> bool:
        return bool(self.shown)

    def draw(self, y: int, width: int, selected: bool) -> Sequence[Segment]:  # noqa: ARG002
        if y >= len(self.shown):
            return [Segment(f" {self._empty}", self.palette.dim)]
        return self.draw_record(self.shown[y], width)

    def move_to(self, line: int, direction: int = 1) -> None:
        super().move_to(line, direction)
        self.follow = self.cursor >= len(self.shown) - 1
