"""What is said in passing: a toast that goes, a list of notices that stays, and errors as dialogs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from textual.app import App

from vmtui.tui.text import plain

NOTICES_KEPT = 500
TOASTS = 2  # at once
TOAST_S = 6.0


class Notice(msgspec.Struct, frozen=True):
    """Something that was said in passing; the list of them stays."""

    at: float
    severity: str
    text: str


class Saying(App[None]):
    """An application that says things. `database` is the file that errors of the database are about."""

    def begin_saying(self) -> None:
        self.notices: list[Notice] = []
        self.noted: Callable[[], None] | None = None  # called when another was added

    @property
    def database(self) -> Path | None:
        return None

    def say(self, text: str, severity: str = "information") -> None:
        """A toast, and a line in the list of notices. Outside text is cleaned here."""
        shown = plain(text, 400)
        self.note(severity, shown)
        if self.noted is not None:
            return  # the list is being looked at
        level = severity if severity in ("warning", "error") else "information"
        self.notify(shown, severity=level, markup=False, timeout=TOAST_S)  # type: ignore[arg-type]

    def note(self, severity: str, text: str) -> None:
        """Only into the list; `text` is clean."""
        self.notices.append(Notice(time.time(), severity, text))
        del self.notices[:-NOTICES_KEPT]
        if self.noted is not None:
            self.noted()

    def fail(self, error: BaseException, doing: str = "") -> None:
        """An error as a dialog: cause, details, the next step."""
        from vmtui.tui.faults import told
        from vmtui.tui.screens.dialogs import ErrorDialog

        error = told(error, self.database)
        self.note("error", plain(f"{doing}: {error}" if doing else str(error), 400))
        self.push_screen(ErrorDialog(error, doing))

    def say_wrong(self, problems: Sequence[str]) -> None:
        """What is wrong with settings and themes. Many toasts would hide the list."""
        many = len(problems) > TOASTS
        for problem in problems:
            self.note("warning", plain(problem, 400)) if many else self.say(problem, "warning")
        if many:
            self.say(f"{len(problems)} things are wrong with settings and themes: :messages has them", "warning")
