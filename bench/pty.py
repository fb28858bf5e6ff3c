"""A program on a pseudo terminal of its own, as a person's terminal would run it: for measurements and for tests."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ESCAPES = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[ -/]*[0-~])|[\x00-\x09\x0b-\x1f]"
)
FRAME_END = b"\x1b[?2026l"  # synchronized output (contour's spec): what comes before it is shown at once
# What is asked of a terminal and what this one answers: it knows synchronized output, and nothing else.
ANSWERS = {b"\x1b[?2026$p": b"\x1b[?2026;2$y", b"\x1b[c": b"\x1b[?62c", b"\x1b[6n": b"\x1b[1;1R"}
QUESTION = re.compile(b"|".join(map(re.escape, ANSWERS)))
LONGEST = max(map(len, ANSWERS)) - 1  # of a question whose end has not come
CHUNK = 1 << 16
TICKS_PER_S: int = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: int = os.sysconf("SC_PAGESIZE")


class Gone(Exception):
    """The program has ended, or closed its terminal."""


class Pty:
    """Use it in `with`. `raw` is all that was written to the terminal so far."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        rows: int = 40,
        columns: int = 120,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        answering: bool = True,
    ) -> None:
        self.raw = bytearray()
        self.began = time.perf_counter()
        self._answering = answering
        self._answered = 0
        self._master, slave = os.openpty()
        self.resize(rows, columns)
        self.process = subprocess.Popen(
            argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**terminal_environment(), **(environment or {})},
            cwd=folder,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.hang_up()

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, data: bytes) -> float:
        """The time at which it was written."""
        os.write(self._master, data)
        return time.perf_counter()

    def hang_up(self) -> None:
        """The terminal goes away."""
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def read(self, timeout_s: float = 0.0) -> bytes:
        """What comes within that time, b"" if nothing does. Raises Gone."""
        if not select.select([self._master], [], [], max(0.0, timeout_s))[0]:
            return b""
        try:
            data = os.read(self._master, CHUNK)
        except OSError:  # EIO: nobody has the other end open
            data = b""
        if not data:
            raise Gone(f"it ended with {self.process.wait(60)}; it showed {plain(bytes(self.raw[-4000:]))!r}")
        self.raw += data
        if self._answering:
            self._answer()
        return data

    def until(self, true: Callable[[bytes], bool], *, since: int = 0, timeout_s: float = 90.0) -> float:
        """Read until it holds of what was written after `since`; the time then. Raises Gone, TimeoutError."""
        deadline = time.perf_counter() + timeout_s
        while not true(bytes(self.raw[since:])):
            left = deadline - time.perf_counter()
            if left <= 0:
                raise TimeoutError(f"it did not come; it showed {plain(bytes(self.raw[since:]))[-4000:]!r}")
            self.read(left)
        return time.perf_counter()

    def shows(self, text: str, *, since: int = 0, timeout_s: float = 90.0) -> float:
        """Read until `text` was written, escapes aside; the time then."""
        return self.until(lambda raw: text in plain(raw), since=since, timeout_s=timeout_s)

    def settle(self, quiet_s: float = 0.3, timeout_s: float = 10.0) -> None:
        """Read until nothing comes for that long, or the time is over."""
        deadline = time.perf_counter() + timeout_s
        while time.perf_counter() < deadline and self.read(quiet_s):
            pass

    def read_for(self, seconds: float) -> int:
        """Read for that long; how many bytes came."""
        before = len(self.raw)
        deadline = time.perf_counter() + seconds
        while (left := deadline - time.perf_counter()) > 0:
            self.read(left)
        return len(self.raw) - before

    def cpu_s(self) -> float:
        """What it has used so far, in user and kernel mode (proc(5), fields 14 and 15 of stat)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def rss_bytes(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE_BYTES

    def end(self, timeout_s: float = 60.0) -> int:
        """Read to its end; the exit code."""
        deadline = time.perf_counter() + timeout_s
        while self.process.poll() is None:
            if time.perf_counter() > deadline:
                self.process.send_signal(signal.SIGKILL)
                raise TimeoutError("it goes on")
            try:
                self.read(0.05)
            except Gone:
                break
        with contextlib.suppress(Gone):  # it may have written more before it ended
            while time.perf_counter() < deadline and self.read(0.0):
                pass
        return self.process.wait(timeout_s)

    def _answer(self) -> None:
        """Give what a terminal gives to the questions that came, in their order."""
        for found in QUESTION.finditer(self.raw, self._answered):
            os.write(self._master, ANSWERS[found[0]])
            self._answered = found.end()
        self._answered = max(self._answered, len(self.raw) - LONGEST)


def terminal_environment() -> dict[str, str]:
    """A terminal with all colours that tells its own size, and nothing of the person's own settings."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("XDG_", "VMTUI_", "TEXTUAL", "NO_COLOR", "LC_", "COLUMNS", "LINES"))
    }
    return {**kept, "TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"}


def plain(raw: bytes) -> str:
    """Without escapes and control characters."""
    return ESCAPES.sub(b"", raw).decode("utf-8", "replace")
