"""The history of views: where one has been, and where one is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmtui.tui.screens.base import PanelScreen

LONGEST = 20


class Trail:
    """`here` is the view that is shown; `views` are all that keys lead back and forth to."""

    def __init__(self) -> None:
        self.views: list[PanelScreen] = []
        self._at = -1

    @property
    def here(self) -> PanelScreen | None:
        return self.views[self._at] if self.views else None

    def go(self, view: PanelScreen) -> None:
        """On to a view. What was ahead is forgotten, and what is too long ago, but for what is unfinished."""
        ahead = self.views[self._at + 1 :]
        del self.views[self._at + 1 :]
        self.views += [each for each in ahead if each is not view and each.unfinished()]
        self.views.append(view)
        for each in self.views[: max(0, len(self.views) - LONGEST)]:
            if not each.unfinished() or each in self.views[-LONGEST:]:
                self.views.remove(each)
        self._at = len(self.views) - 1

    def forget(self, view: PanelScreen) -> None:
        """Lead there no more; one is at the end then."""
        self.views = [each for each in self.views if each is not view]
        self._at = len(self.views) - 1

    def by(self, steps: int) -> PanelScreen | None:
        """Back or forth; None beyond the ends, and nothing has changed then."""
        if not 0 <= self._at + steps < len(self.views):
            return None
        self._at += steps
        return self.here

    def last(self) -> PanelScreen | None:
        """The view before this one, or after it."""
        if len(self.views) < 2:
            return None
        return self.views[self._at - 1] if self._at else self.views[1]
