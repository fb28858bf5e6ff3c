"""A program in a terminal of tmux, driven by keys and read as its user would read it."""

from __future__ import annotations

import re
import secrets
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from tests.support.unread import unread_of

WAIT_S = 120.0
LOOK_S = 0.1
ESCAPE_S = 0.5  # ESC and a key right behind it are Alt and that key

Run = Callable[..., str]  # argv → stdout


class Tmux:
    """`run` runs a command line where the program is to live. Ended with all that runs in it when it is left."""

    def __init__(
        self, run: Run, argv: Sequence[str], environment: Mapping[str, str], *, columns: int = 120, rows: int = 36
    ) -> None:
        self._run = run
        self._name = f"vmtui-{secrets.token_hex(4)}"
        words = [f"{name}={value}" for name, value in environment.items()]
        line = shlex.join(
            [
                "env",
                "-u",
                "COLUMNS",
                "-u",
                "LINES",
                *words,
                "COLORTERM=truecolor",
                "TERM=xterm-256color",
                "LANG=C.UTF-8",
                *argv,
            ]
        )
        size = ["-x", str(columns), "-y", str(rows)]
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, f"{line}; echo ended $?; sleep 600")

    def _tmux(self, *words: str) -> str:
        return self._run("tmux", "-L", self._name, *words)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tmux("kill-server")

    def screen(self) -> str:
        return self._tmux("capture-pane", "-p")

    def keys(self, *keys: str) -> None:
        """Key names as tmux has them, or text."""
        for key in keys:
            self._tmux("send-keys", key)
            if key == "Escape":
                self._is_taken()
                time.sleep(ESCAPE_S)

    def _is_taken(self) -> None:
        """Wait until the program has read what was sent: on a busy machine that may take long."""
        tty = self._tmux("display-message", "-p", "#{pane_tty}").strip()  # it answers once the key is written
        deadline = time.monotonic() + WAIT_S
        while unread_of(tty):
            assert time.monotonic() < deadline, f"it reads no keys; it shows\n{self.screen()}"
            time.sleep(0.01)

    def type(self, text: str) -> None:
        self._tmux("send-keys", "-l", text)

    def resize(self, columns: int, rows: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def wait(self, pattern: str, timeout: float = WAIT_S) -> str:
        """The screen once it has `pattern`, a regular expression."""
        return self.until(lambda screen: re.search(pattern, screen, re.MULTILINE) is not None, pattern, timeout)

    def wait_not(self, pattern: str, timeout: float = WAIT_S) -> str:
        return self.until(lambda screen: re.search(pattern, screen, re.MULTILINE) is None, f"no {pattern}", timeout)

    def until(self, true: Callable[[str], bool], what: str, timeout: float = WAIT_S) -> str:
        deadline = time.monotonic() + timeout
        while True:
            screen = self.screen()
            if true(screen):
                return screen
            assert time.monotonic() < deadline, f"waited for {what}; it shows\n{screen}"
            time.sleep(LOOK_S)
