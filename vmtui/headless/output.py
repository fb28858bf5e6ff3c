"""What the engine tells, to people on stderr or to programs on stdout."""

from __future__ import annotations

import re
import time
from typing import Any, Protocol

from vmtui.core.events import (
    Diagnostic,
    Event,
    LogEmitted,
    Planned,
    ReadyReached,
    StepEnded,
    StepProgressed,
    StepStarted,
    Summary,
)
from vmtui.core.resource import Ref
from vmtui.core.specs import to_json
from vmtui.headless import text
from vmtui.headless.screen import Screen

PROGRESS_INTERVAL_S = 2.0
OBEYED = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # below that JSON has escapes anyway
LEVELS = {"error": text.RED, "warning": text.YELLOW, "info": text.BLUE}
RESULTS = {"done": text.GREEN, "failed": text.RED, "undone": text.YELLOW, "cancelled": text.YELLOW}


class Output(Protocol):
    """Takes the events of one command."""

    def emit(self, event: Event) -> None: ...

    def waiting(self, refs: dict[Ref, str], elapsed_s: float) -> None:
        """What is still waited for, and for what; called again and again."""
        ...


class Records:
    """One JSON record a line on stdout."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def emit(self, event: Event) -> None:
        self._screen.data(record(event))

    def waiting(self, refs: dict[Ref, str], elapsed_s: float) -> None:
        """Records are made when something happens."""


class Talk:
    """Lines on stderr: on a terminal what runs now in one live line, elsewhere what began as well."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._paint = screen.paint_talk
        self._active: dict[tuple[Ref, str], str] = {}
        self._told: dict[tuple[Ref, str], float] = {}
        self._steps = 0
        self._done = 0

    def emit(self, event: Event) -> None:
        if isinstance(event, StepStarted):
            self._steps = event.steps
            self._active[event.ref, event.action] = ""
            self._told[event.ref, event.action] = time.monotonic()
            self._live()
        elif isinstance(event, StepProgressed):
            self._progress(event)
        elif isinstance(event, StepEnded):
            self._active.pop((event.ref, event.action), None)
            self._done += event.result == "done"
            self._step_end(event)
            self._live()
        elif isinstance(event, ReadyReached):
            self._line("ready", text.GREEN, event.ref.short, text.span(event.elapsed_s))
        elif isinstance(event, Diagnostic):
            self._diagnostic(event)
        elif isinstance(event, LogEmitted):
            name = self._paint(event.ref.short, text.BLUE)
            self._screen.data(f"{name if self._screen.data_is_tty else event.ref.short} | {text.clean(event.text)}")
        elif isinstance(event, Summary | Planned):
            self._screen.live("")

    def waiting(self, refs: dict[Ref, str], elapsed_s: float) -> None:
        if self._screen.talk_is_tty:
            for ref, condition in list(refs.items())[:1]:
                more = f" and {len(refs) - 1} more" if len(refs) > 1 else ""
                line = f"waiting for {ref.short}{more}: {text.clean(condition)}"
                self._screen.live(f"{line} ({text.span(int(elapsed_s))})")
        else:
            for ref, condition in refs.items():
                if (ref, "wait") not in self._told:
                    self._told[ref, "wait"] = 0.0
                    self._screen.say(f"waiting {ref.short}: {text.clean(condition)}")

    def _line(self, word: str, style: str, what: str, more: str) -> None:
        self._screen.say(f"{self._paint(word.ljust(9), style)} {what}  {self._paint(more, text.DIM)}".rstrip())

    def _step_end(self, event: StepEnded) -> None:
        more = text.span(event.elapsed_s)
        what = f"{event.action} {event.ref.short}"
        # The error itself follows as a diagnostic.
        message = f": {text.clean(event.message)}" if event.message and event.result == "failed" else ""
        self._line(event.result, RESULTS.get(event.result, ""), what + message, more)

    def _progress(self, event: StepProgressed) -> None:
        key = (event.ref, event.action)
        done = "" if event.fraction is None else f" {event.fraction * 100:.0f} %"
        self._active[key] = said = text.clean(event.message) + done
        now = time.monotonic()
        if self._screen.talk_is_tty:
            self._live()
        elif now - self._told.get(key, 0.0) >= PROGRESS_INTERVAL_S:
            self._told[key] = now
            self._screen.say(f"{event.action} {event.ref.short}: {said}")

    def _live(self) -> None:
        if not self._active:
            self._screen.live("")
            return
        # The one that says something is the one worth the only line.
        (ref, action), said = max(self._active.items(), key=lambda item: bool(item[1]))
        more = f" (and {len(self._active) - 1} more)" if len(self._active) > 1 else ""
        message = f": {said}" if said else ""
        count = f"[{self._done + 1}/{self._steps}] " if self._steps else ""
        self._screen.live(f"{count}{action} {ref.short}{message}{more}")

    def _diagnostic(self, event: Diagnostic) -> None:
        where = f"{event.where}: " if event.where else ""
        word = "note" if event.level == "info" else event.level
        lines = text.clean_lines(where + event.message)
        self._screen.say(f"{self._paint(word, LEVELS.get(event.level, ''))}: {' '.join(lines)}")
        for line in text.clean_lines(event.details) if event.details else ():
            self._screen.say(self._paint(f"  | {line}", text.DIM))
        if event.hint:
            self._screen.say(f"{self._paint('hint', text.BLUE)}: {text.clean(event.hint)}")


def document(screen: Screen, value: Any) -> None:
    """One JSON document on one line of stdout, units as text."""
    screen.data(record(value))


def record(value: Any) -> str:
    """JSON on one line, units as text. What a terminal would obey is an escape, which means the same in JSON."""
    return OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", to_json(value).decode())
