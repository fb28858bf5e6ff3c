"""The line below a log: what of it is in sight, how it is shown, and what the search has found."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style

from vmtui.tui.text import plain
from vmtui.tui.widgets.bars import Bar

QUERY_CELLS = 30


@dataclass(frozen=True)
class Hits:
    """`total` so far; `rank` of the current match, 0 if there is none or it is not known yet."""

    query: str
    total: int
    share: float  # searched
    rank: int = 0
    only: bool = False  # nothing but matches is shown

    def __str__(self) -> str:
        known = self.share >= 1
        count = f"{self.total:,}" if known else f"{self.total:,}+"
        what = f"{self.rank:,} of {count}" if self.rank else f"{count} found"
        going = "" if known else f", {self.share:.0%} searched"
        only = ", matches only" if self.only else ""
        return f"/{plain(self.query, QUERY_CELLS)}  {what}{going}{only}"


@dataclass(frozen=True)
class Standing:
    """What the line says."""

    follow: bool = True
    ended: bool = False  # nothing more will come
    modes: tuple[str, ...] = ()
    place: str = ""
    hits: Hits | None = None

    @property
    def state(self) -> str:
        if not self.follow:
            return "paused"
        return "ended" if self.ended else "following"


class StatusBar(Bar):
    """State and modes at the left, the search in the middle, the place at the right; what does not fit goes first."""

    def __init__(self) -> None:
        super().__init__(id="log-status")
        self.standing = Standing()

    def say(self, standing: Standing) -> None:
        if standing != self.standing:
            self.standing = standing
            self.refresh()

    def ground(self) -> Style:
        return self.palette.head

    def segments(self, width: int) -> list[Segment]:
        says = self.standing
        colour = self.palette.warn if not says.follow else self.palette.dim if says.ended else self.palette.good
        state = Segment(f" {says.state}", colour)
        parts = [(str(says.hits), self.palette.accent)] if says.hits else []
        parts += [(says.place, self.palette.dim)] if says.place else []
        left = [state]
        room = width - cell_len(state.text)
        for mode in says.modes:
            if cell_len(mode) + 2 <= room - sum(cell_len(text) + 2 for text, _ in parts):
                left.append(Segment(f"  {mode}"))
                room -= cell_len(mode) + 2
        while parts and sum(cell_len(text) + 2 for text, _ in parts) > room:
            if len(parts) == 1:
                parts = [(f"{parts[0][0][: max(0, room - 3)]}{self.palette.glyphs.more}", parts[0][1])]
                break
            parts.pop()
        right = [Segment(f"  {text}", style) for text, style in parts]
        gap = width - 1 - sum(cell_len(segment.text) for segment in (*left, *right))
        return [*left, Segment(" " * max(0, gap)), *right, Segment(" ")]
