"""Rows that have left the screen at its top: the newest so many, numbered for ever."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmtui.tui.console.engine import Row

HISTORY_ROWS = 5000


class History:
    """A row keeps its number while older ones are forgotten, so that a view of it stays where it is."""

    def __init__(self, longest: int = HISTORY_ROWS) -> None:
        self._rows: deque[Row] = deque(maxlen=longest)
        self.end = 0  # the number after the newest row's

    @property
    def first(self) -> int:
        """The number of the oldest row that is kept."""
        return self.end - len(self._rows)

    def extend(self, rows: Sequence[Row]) -> None:
        self.end += len(rows)
        self._rows.extend(rows)

    def __getitem__(self, number: int) -> Row:
        """Raises IndexError for one that is not kept."""
        if not self.first <= number < self.end:
            raise IndexError(number)
        return self._rows[number - self.first]

    def clear(self) -> None:
        """Forget them; the numbers go on."""
        self._rows.clear()
