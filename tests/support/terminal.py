"""What may be written to a terminal, and whether a program keeps to it: the program runs on a pty of its own."""

from __future__ import annotations

import codecs
import fcntl
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.pty import Gone, Pty, plain
from tests.support.unread import unread_bytes
from vmtui.tui.console.bittty_engine import BitttyEngine

__all__ = ["Gone", "Stream", "Watched", "plain"]

# What Textual writes, and nothing else (textual/drivers/linux_driver.py, _compositor.py; ECMA-48, xterm's ctlseqs).
MODES = ("7", "25", "1000", "1003", "1004", "1006", "1015", "1016", "1049", "2004", "2026", "2048")
ALLOWED = re.compile(
    rb"\x1b\]22;[a-z-]{0,20}\x07"  # the shape of the pointer, of Textual's own names
    rb"|\x1b\[(?:"
    rb"[0-9;:]*m"  # SGR
    rb"|\d*(?:;\d*)?H"  # cursor to
    rb"|\d*[ABCD]"  # cursor by
    rb"|\?(?:" + "|".join(MODES).encode() + rb")[hl]"
    rb"|\?(?:2026|2048)\$p"  # DECRQM: whether the terminal knows it
    rb"|>\d+u|<u"  # the kitty keyboard protocol on and off
    rb")"
)
# Any escape sequence, to say whole what was not allowed; and one of which the rest is still to come.
SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
UNFINISHED = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)?$")
TIOCGPTPEER = 0x5441  # include/uapi/asm-generic/ioctls.h: opens the other end
QUIET_S = 0.07
TAKEN_S = 60.0
ESCAPE_S = 0.4  # ESC and a key right behind it are Alt and that key
LONGEST = 4096  # of a sequence whose end has not come
CONTROLS = re.compile("[\x00-\x06\x08\x09\x0b\x0c\x0e-\x1f\x7f-\x9f]")
DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Stream:
    """Reads what is written, piece by piece, and keeps what must not have been. Bells are counted."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.bells = 0
        self._rest = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")

    def feed(self, data: bytes) -> None:
        data = self._rest + data
        at = 0
        while (start := data.find(b"\x1b", at)) >= 0:
            self._text(data[at:start])
            allowed = ALLOWED.match(data, start)
            if allowed:
                at = allowed.end()
                continue
            if UNFINISHED.match(data, start) and len(data) - start < LONGEST:
                at = start
                break
            found = SEQUENCE.match(data, start)
            at = found.end() if found else start + 1
            self.wrong.append(f"sequence {data[max(0, start - 40) : start + 80]!r}")
        else:
            self._text(data[at:])
            at = len(data)
        self._rest = data[at:]

    def _text(self, data: bytes) -> None:
        try:
            text = self._decoder.decode(data)
        except UnicodeDecodeError as error:
            self.wrong.append(f"not UTF-8: {error.object[error.start : error.end]!r}")
            self._decoder.reset()
            return
        self.bells += text.count("\a")
        for what in (CONTROLS, DIRECTIONS):
            self.wrong += [f"character {found!r}" for found in what.findall(text)]


class Watched(Pty):
    """A program whose output is looked at as it comes. Use it in `with`."""

    def __init__(
        self, argv: Sequence[str], *, rows: int, columns: int, environment: Mapping[str, str], folder: Path
    ) -> None:
        self.stream = Stream()
        self.rows, self.columns = rows, columns
        self._screen = BitttyEngine(rows, columns)
        super().__init__(argv, rows=rows, columns=columns, environment=environment, folder=folder)

    def read(self, timeout_s: float = 0.0) -> bytes:
        data = super().read(timeout_s)
        self.stream.feed(data)
        self._screen.feed(data)
        return data

    def screen(self) -> str:
        """What the terminal shows, as far as it was read."""
        lines = ("".join(run.text for run in self._screen.row(y)) for y in range(self.rows))
        return "\n".join(line.rstrip() for line in lines)

    def sees(self, text: str, timeout_s: float = 120.0) -> None:
        """Read until the screen has it. Raises Gone, TimeoutError that tells what it has."""
        try:
            self.until(lambda _: text in self.screen(), since=len(self.raw), timeout_s=timeout_s)
        except TimeoutError:
            raise TimeoutError(f"waited for {text!r}; the screen is\n{self.screen()}") from None

    def press(self, *keys: bytes, for_s: float = 0.25) -> None:
        """Press keys, and see what each does until nothing more comes, for that long at most. Raises Gone."""
        for key in keys:
            self.send(key)
            self._is_taken()
            if key == b"\x1b":
                self.read_for(ESCAPE_S)
            self.settle(QUIET_S, for_s)

    def _is_taken(self) -> None:
        """Wait until the program has read what was sent: on a busy machine that may take long. Raises Gone."""
        deadline = time.monotonic() + TAKEN_S
        while self._unread():
            assert time.monotonic() < deadline, f"it reads no keys; the screen is\n{self.screen()}"
            self.read(0.01)

    def _unread(self) -> int:
        """In bytes, as the terminal counts them (tty_ioctl(4))."""
        terminal = fcntl.ioctl(self._master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
        try:
            return unread_bytes(terminal)
        finally:
            os.close(terminal)

    def resize(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        if hasattr(self, "process"):
            self._screen.resize(rows, columns)
        super().resize(rows, columns)

    def click(self, column: int, row: int) -> None:
        """Press and release the left button there (xterm's SGR mouse mode)."""
        self.press(f"\x1b[<0;{column};{row}M\x1b[<0;{column};{row}m".encode(), for_s=0.05)
