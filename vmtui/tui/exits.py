"""What a VM left its guest for, as lines: counts, their rates since the look before, and bars. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment

from vmtui.tui.palette import Palette
from vmtui.tui.text import plain

SHOWN = 8  # causes; the others are one line
RATE = 9


class Exits:
    """Of one VM. `counted` is in the order of CountsExits."""

    def __init__(self) -> None:
        self.counted: Sequence[tuple[str, int]] = ()
        self.per_s: dict[str, float] = {}
        self._at = 0.0

    def look(self, counted: Sequence[tuple[str, int]], at: float) -> None:
        """One more look. A count that fell belongs to another run: its rate is not known."""
        before, passed = dict(self.counted), at - self._at
        self.per_s = {
            cause: (count - before.get(cause, 0)) / passed
            for cause, count in counted
            if before and passed > 0 and count >= before.get(cause, 0)
        }
        self.counted, self._at = counted, at

    def lines(self, palette: Palette, width: int) -> list[list[Segment]]:
        """Nothing before the first look."""
        if not self.counted:
            return []
        shown = [(cause, count, self.per_s.get(cause)) for cause, count in self.counted[:SHOWN]]
        rest = self.counted[SHOWN:]
        if rest:
            rates = [self.per_s[cause] for cause, _ in rest if cause in self.per_s]
            shown.append((f"{len(rest)} others", sum(count for _, count in rest), sum(rates) if rates else None))
        most = max(count for _, count, _ in shown)
        number = max(len(str(count)) for _, count, _ in shown) + 2
        name = min(28, max(len(cause) for cause, _, _ in shown))
        cells = max(0, width - name - number - RATE - 2)
        made = []
        for cause, count, rate in shown:
            bar = palette.glyphs.spark[-1] * max(1 if count else 0, round(cells * count / max(most, 1)))
            speed = "" if rate is None else f"{rate:.0f}/s"
            made.append(
                [
                    Segment(f"{plain(cause, name):<{name}}", palette.dim),
                    Segment(f"{count:>{number}}", palette.text),
                    Segment(f"{speed:>{RATE}}  ", palette.dim),
                    Segment(bar[:cells], palette.secondary),
                ]
            )
        return made
