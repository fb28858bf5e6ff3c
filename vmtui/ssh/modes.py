"""Which modes a session has put its terminal into, from what it writes: to take them back, and to show others the same.

DEC private modes (DECSET, DECRST: xterm's ctlseqs) and the keyboard modes of kitty. A link that drops leaves a
terminal in them, and keys would do strange things in the shell that comes after.
"""

from __future__ import annotations

import re

# After a whole sequence, or the beginning of one at the end of what is known.
SEQUENCE = re.compile(rb"\x1b\[(?:\?([0-9;]{1,64})([hl])|([<>])([0-9;]{0,16})u)")
PARTIAL = re.compile(rb"\x1b(?:\[(?:[?<>][0-9;]{0,64})?)?\Z")
NORMALLY_ON = frozenset({7, 25})  # wrapping, the cursor
SCREENS = frozenset({47, 1047, 1049})
SEEN = SCREENS | NORMALLY_ON  # what somebody who only looks needs
# Those of a keyboard and a mouse. Not those that report the size or the focus of another's terminal (2048, 1004).
DRIVEN = SEEN | {1, 66, 9, 1000, 1001, 1002, 1003, 1005, 1006, 1015, 1016, 2004}
MOST = 64
DEEPEST = 8


class Modes:
    def __init__(self) -> None:
        self._changed: dict[int, bool] = {}  # those that are not as they normally are, oldest first
        self._keyboard: list[bytes] = []
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Any bytes, cut anywhere."""
        if b"\x1b" not in data and not self._rest:
            return
        data = self._rest + data
        for match in SEQUENCE.finditer(data):
            if match[1] is not None:
                for number in match[1].split(b";"):
                    if number:
                        self._set(int(number[:8]), match[2] == b"h")
            elif match[3] == b">":
                self._keyboard = [*self._keyboard, match[4]][-DEEPEST:]
            else:
                count = min(int(match[4].split(b";")[0] or 1), DEEPEST)
                self._keyboard = self._keyboard[: len(self._keyboard) - count] if count else self._keyboard
        cut = PARTIAL.search(data, max(0, len(data) - 80))
        self._rest = cut[0] if cut else b""

    def _set(self, mode: int, on: bool) -> None:
        self._changed.pop(mode, None)
        if on != (mode in NORMALLY_ON) and len(self._changed) < MOST:
            self._changed[mode] = on

    def enter(self, *, drives: bool) -> bytes:
        """What puts another terminal into them, as far as its person looks or drives."""
        shown = DRIVEN if drives else SEEN
        return b"".join(_switch(mode, on) for mode, on in self._changed.items() if mode in shown)

    def leave(self) -> bytes:
        """What takes them all back, b"" if there is nothing to take back."""
        back = b"\x1b[<u" * len(self._keyboard)
        for mode, on in reversed([*self._changed.items()]):
            back += _switch(mode, not on)
        return back + b"\x1b[0m" if back else b""


def _switch(mode: int, on: bool) -> bytes:
    return b"\x1b[?%d%c" % (mode, b"h" if on else b"l")
