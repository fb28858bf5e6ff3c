"""Which characters make one cell, and how wide it is: as a guest's C library and tmux count, not as fonts draw."""

from __future__ import annotations

import re

from bittty import WidthPolicy
from wcwidth import wcwidth

JOINER = "\u200d"
FLAG_LETTERS = range(0x1F1E6, 0x1F200)
MOST_MARKS = 8  # on one character; the rest of a stack is not drawn
# What is a cell or two of its own wherever it stands, but after a joiner. Only the rest is looked at one by one.
_ALONE = (
    " -~\u00a0-\u02ff\u0370-\u0482\u048a-\u0590\u05d0-\u05ea\u2010-\u20cf\u2100-\u3029\u3030-\u3098\u309b-\ua66e"
    "\uac00-\ud7a3\ue000-\ufb1d\ufe30-\ufeff\uff00-\uffef\U0001f300-\U0001faff"
)
ALONE = re.compile(f"[{_ALONE}]*")
UNDRAWN = re.compile(f"[\ufe00-\ufe0f]|{JOINER}.*", re.DOTALL)


class GuestWidths(WidthPolicy):  # type: ignore[misc]  # bittty has no types
    """A flag is two letters of one cell each, as for the C library; two cells in any case."""

    def width(self, char: str) -> int:
        return 1 if ord(char) in FLAG_LETTERS else int(super().width(char))


def joins(before: str, char: str) -> bool:
    """Whether a character belongs to the cell on its left."""
    return wcwidth(char) == 0 or before.endswith(JOINER)


def drawable(cluster: str) -> str:
    """The part of a cell that every terminal draws in the same width."""
    return UNDRAWN.sub("", cluster)
