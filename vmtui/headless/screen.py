"""stdout is data, stderr is talk. The one owner of both."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import time
from typing import TextIO

from vmtui.headless import text

LIVE_INTERVAL_S = 0.1


class Screen:
    """Writes lines to stdout and stderr, and keeps one line on a terminal's stderr that is rewritten in place.

    A reader of stdout or a terminal that goes away is no error: what is written then is dropped and `closed` is set.
    """

    def __init__(self) -> None:
        self.closed = False
        self.data_is_tty = sys.stdout.isatty()
        self.talk_is_tty = sys.stderr.isatty()
        colours = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.paint: text.Paint = text.coloured if colours and self.data_is_tty else text.plain
        self.paint_talk: text.Paint = text.coloured if colours and self.talk_is_tty else text.plain
        self._live = ""
        self._shown_at = 0.0
        for stream in (sys.stdout, sys.stderr):
            # A name in another encoding, or a locale without UTF-8, must not end a run.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")

    @property
    def width(self) -> int | None:
        """The width of tables: that of the terminal, unlimited elsewhere."""
        return shutil.get_terminal_size().columns if self.data_is_tty else None

    def data(self, line: str) -> None:
        """One line to stdout, at once."""
        self.raw(f"{line}\n".encode(sys.stdout.encoding or "utf-8", "replace"))

    def raw(self, data: bytes) -> None:
        """Bytes to stdout, at once."""
        if self.closed:
            return
        self._unlive()
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError as error:
            if error.errno != errno.EPIPE and not (error.errno == errno.EIO and self.data_is_tty):  # a terminal hung up
                raise
            self.closed = True
            # Else the interpreter would fail at its own flush on the way out.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)

    def say(self, line: str) -> None:
        """One line to stderr, above the live one."""
        live = self._live
        self._unlive()
        _write(sys.stderr, line + "\n")
        if live:
            self.live(live, force=True)

    def live(self, line: str, *, force: bool = False) -> None:
        """Show `line` in place of the previous live line; on what is no terminal nothing happens."""
        if not self.talk_is_tty or (line == self._live and not force):
            return
        now = time.monotonic()
        if line and self._live and now - self._shown_at < LIVE_INTERVAL_S and not force:
            return
        width = shutil.get_terminal_size().columns
        _write(sys.stderr, f"\r\x1b[K{text.cut(line, width - 1)}")
        self._live, self._shown_at = line, now

    def _unlive(self) -> None:
        if self._live:
            _write(sys.stderr, "\r\x1b[K")
            self._live = ""


def _write(stream: TextIO, line: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # talk that nobody can hear
        stream.write(line)
        stream.flush()
