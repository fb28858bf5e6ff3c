"""Signal names as images and profiles write them."""

from __future__ import annotations

import re
import signal

from vmtui.core.errors import InvalidInput

REAL_TIME = re.compile(r"RT(MIN|MAX)(?:([+-])(\d{1,2}))?")


def number(text: str) -> int:
    """SIGTERM, term, 15 or SIGRTMIN+3 to a number. Raises InvalidInput."""
    name = text.upper().removeprefix("SIG")
    value = 0
    if name.isdecimal() and len(name) <= 2:
        value = int(name)
    elif match := REAL_TIME.fullmatch(name):
        base = signal.SIGRTMIN if match[1] == "MIN" else signal.SIGRTMAX
        value = int(base) + int(f"{match[2] or '+'}{match[3] or 0}")
    elif f"SIG{name}" in signal.Signals.__members__:
        value = signal.Signals[f"SIG{name}"].value
    if not 0 < value <= signal.SIGRTMAX:
        raise InvalidInput(f"{text!r} is not a signal", hint="kill -l")
    return value
