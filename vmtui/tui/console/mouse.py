"""Mouse events as xterm reports them (ctlseqs, "Mouse Tracking")."""

from __future__ import annotations

from enum import Enum

from vmtui.tui.console.engine import Modes, Mouse, MouseCoding

WHEEL_UP, WHEEL_DOWN, WHEEL_LEFT, WHEEL_RIGHT = 64, 65, 66, 67
NO_BUTTON = 3
MOVED = 32
SHIFT, ALT, CTRL = 4, 8, 16
OFFSET = 32  # of every value in the codings of one character
LARGEST_LEGACY, LARGEST_UTF8 = 223, 2015


class Act(Enum):
    PRESS = "press"
    RELEASE = "release"
    MOVE = "move"


def report(act: Act, button: int, column: int, row: int, held: int, modes: Modes) -> bytes:
    """The report of an event at a cell counted from 0, none if the guest did not ask for it.

    `button` is 0 to 2 from the left, 3 for none, or a wheel's; `held` the sum of SHIFT, ALT and CTRL.
    """
    if not _wanted(act, button, modes.mouse):
        return b""
    code = button | (MOVED if act is Act.MOVE else 0) | (0 if modes.mouse is Mouse.PRESSES else held)
    x, y = column + 1, row + 1
    if modes.mouse_coding is MouseCoding.SGR:
        return f"\x1b[<{code};{x};{y}{'m' if act is Act.RELEASE else 'M'}".encode()
    if act is Act.RELEASE:
        code = code & ~NO_BUTTON | NO_BUTTON  # which one is not said
    if modes.mouse_coding is MouseCoding.URXVT:
        return f"\x1b[{code + OFFSET};{x};{y}M".encode()
    if modes.mouse_coding is MouseCoding.UTF8:
        return f"\x1b[M{''.join(chr(min(value, LARGEST_UTF8) + OFFSET) for value in (code, x, y))}".encode()
    if max(x, y) > LARGEST_LEGACY:
        return b""
    return b"\x1b[M" + bytes(value + OFFSET for value in (code, x, y))


def _wanted(act: Act, button: int, mouse: Mouse) -> bool:
    match mouse:
        case Mouse.OFF:
            return False
        case Mouse.PRESSES:
            return act is Act.PRESS and button < NO_BUTTON
        case Mouse.CLICKS:
            return act is not Act.MOVE
        case Mouse.DRAGS:
            return act is not Act.MOVE or button != NO_BUTTON
        case Mouse.MOTION:
            return True
