"""The server's ends of a session: its terminal or its pipes, and the socket over which both speak."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
import tty

from vmtui.core.errors import OperationFailed
from vmtui.host.files import in_words
from vmtui.ssh.pump import Sink, Source

LARGEST = 1000  # rows or columns of a terminal
USUAL = (24, 80)
END_OF_INPUT = b"\x04"  # VEOF of a terminal that collects lines


class Ends:
    """Owns what `close` closes. `sources` are the terminal, or stdout and stderr; `stdin` is what the session reads."""

    def __init__(self, size: tuple[int, int] | None, *, raw: bool, limit_bytes: int) -> None:
        """A terminal of this many rows and columns; `raw` echoes nothing. Raises OperationFailed: none is left open."""
        self._master = -1
        self._theirs: list[int] = []
        with contextlib.ExitStack() as undo:
            undo.callback(self.close_theirs)
            try:
                if size is None:
                    sources, stdin = self._pipes(undo)
                else:
                    sources, stdin = self._terminal(undo, size, raw=raw)
                self.control, end = socket.socketpair()
                self._theirs.append(end.detach())
            except OSError as error:
                raise OperationFailed(
                    f"no terminal or pipe can be made for the session: {in_words(error)}",
                    hint="sysctl kernel.pty.max fs.file-max",
                ) from None
            undo.pop_all()
        self.control.setblocking(False)
        self.sources = [Source(fd) for fd in sources]
        self.stdin = Sink(stdin, limit_bytes)

    def _terminal(self, undo: contextlib.ExitStack, size: tuple[int, int], *, raw: bool) -> tuple[list[int], int]:
        self._master, slave = os.openpty()
        undo.callback(os.close, self._master)
        self._theirs.append(slave)
        if raw:
            tty.setraw(slave)
        self.set_size(*size)
        writing = os.dup(self._master)
        undo.callback(os.close, writing)
        return [self._master], writing

    def _pipes(self, undo: contextlib.ExitStack) -> tuple[list[int], int]:
        reading, writing = os.pipe()
        self._theirs.append(reading)
        undo.callback(os.close, writing)
        ours = []
        for _ in ("stdout", "stderr"):
            reading, theirs = os.pipe()
            self._theirs.append(theirs)
            undo.callback(os.close, reading)
            ours.append(reading)
        return ours, writing

    @property
    def theirs(self) -> tuple[int, ...]:
        """What the session gets: its terminal, or three pipes; then the control socket."""
        return tuple(self._theirs)

    def close_theirs(self) -> None:
        """Once the session has them: as long as we did, no end would be seen."""
        while self._theirs:
            os.close(self._theirs.pop())

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the terminal as it is now."""
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(self._master, termios.TIOCGWINSZ, b"\0" * 8))
        return rows, columns

    def set_size(self, rows: int, columns: int) -> None:
        """The kernel tells who is in front of it. A client that knows no size gives 0, and gets the usual one."""
        rows = min(rows, LARGEST) if rows > 0 else USUAL[0]
        columns = min(columns, LARGEST) if columns > 0 else USUAL[1]
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def in_front(self) -> int:
        """The process group in front of the terminal; 0 without one."""
        with contextlib.suppress(OSError):
            if self._master >= 0:
                return os.tcgetpgrp(self._master)
        return 0

    @property
    def terminal(self) -> bool:
        """Whether there is one, and it is open yet."""
        return self._master >= 0

    def end_input(self) -> None:
        """What waits is written first. A terminal is told only while it collects lines: else a key would be made up."""
        if self._master < 0:
            self.stdin.end()
            return
        with contextlib.suppress(termios.error):
            if termios.tcgetattr(self._master)[3] & termios.ICANON:
                self.stdin.feed(END_OF_INPUT)

    def close(self) -> None:
        self._master = -1  # its descriptor is the source's
        self.close_theirs()
        for source in self.sources:
            source.close()
        self.stdin.close()
        self.control.close()
