"""What the console asks of a terminal emulator, and the types that cross that line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from vmtui.tui.console.history import History

Colour = int | tuple[int, int, int] | None  # a palette index, red green blue, or the default


class Look(NamedTuple):
    """How characters are drawn."""

    fg: Colour = None
    bg: Colour = None
    bold: bool = False
    dim: bool = False
    italic: bool = False
    underline: bool = False
    reverse: bool = False
    strike: bool = False


PLAIN = Look()


class Run(NamedTuple):
    """Neighbouring cells of one look. The text holds no control characters; a wide character counts two cells."""

    text: str
    cells: int
    look: Look = PLAIN


Row = tuple[Run, ...]


class Mouse(Enum):
    """Which mouse events the guest asked for."""

    OFF = "off"
    PRESSES = "9"
    CLICKS = "1000"
    DRAGS = "1002"
    MOTION = "1003"


class MouseCoding(Enum):
    """How it wants them written."""

    LEGACY = "1000"
    UTF8 = "1005"
    SGR = "1006"
    URXVT = "1015"


@dataclass(frozen=True, slots=True)
class Modes:
    """What the guest has set that changes how input is written, or when the screen is shown."""

    application_cursor: bool = False
    application_keypad: bool = False
    bracketed_paste: bool = False
    focus: bool = False
    alternate: bool = False
    newline: bool = False
    backspace_is_bs: bool = False
    synchronized: bool = False
    mouse: Mouse = Mouse.OFF
    mouse_coding: MouseCoding = MouseCoding.LEGACY


class Engine(Protocol):
    """A terminal emulator. No byte makes it raise, and nothing that the guest writes leaves it but through these."""

    history: History

    @property
    def rows(self) -> int: ...

    @property
    def columns(self) -> int: ...

    @property
    def modes(self) -> Modes: ...

    @property
    def cursor(self) -> tuple[int, int] | None:
        """Column and row; None when the guest hides it."""
        ...

    def feed(self, data: bytes) -> None:
        """Interpret what the guest wrote; any split of a stream gives the same screen."""
        ...

    def row(self, y: int, marked: int | None = None) -> Row:
        """A row of the screen, exactly `columns` cells; the character at column `marked` is drawn in reverse."""
        ...

    def take_dirty(self) -> Sequence[int]:
        """The rows that changed since this was last asked."""
        ...

    def take_replies(self) -> bytes:
        """The answers to the guest's queries since this was last asked."""
        ...

    def take_bell(self) -> bool:
        """Whether the bell rang since this was last asked."""
        ...

    def resize(self, rows: int, columns: int) -> None: ...

    def reset(self) -> None:
        """As after power on, but for the history."""
        ...
