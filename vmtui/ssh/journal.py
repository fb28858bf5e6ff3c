"""What the server says: a line on stderr for who runs it, and a record in the audit log for who asks later."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from vmtui.core.errors import Fault
from vmtui.core.policy import Person
from vmtui.engine.audit import Entry, Log

LOGIN, LOGOUT, CONNECT, FILES, RELOAD, SERVE = "login", "logout", "connect", "files", "reload", "serve"
REFUSALS_AT_ONCE = 30.0  # of one person, or of strangers; then one a second
LONGEST_LINE = 500
NOBODY = Person(name="")


def plain(text: str) -> str:
    """Hostile text on one line: what a terminal would act upon is shown as an escape."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return shown if len(shown) <= LONGEST_LINE else shown[:LONGEST_LINE] + "…"


def unheard(why: str) -> None:
    """The alarm that nobody set."""


def _takes(out: TextIO) -> bool:
    """Whether a line can be written without waiting: a pipe that is full and a terminal that was stopped take none."""
    try:
        waiting = select.poll()
        waiting.register(out.fileno(), select.POLLOUT)
    except (OSError, ValueError):  # no file, or none any more
        return True
    return bool(waiting.poll(0))


@dataclass(slots=True)
class _Tellings:
    """How many refusals may be told just now, and how many were not."""

    since: float
    credit: float = REFUSALS_AT_ONCE
    left_out: int = 0

    def one_more(self, now: float) -> bool:
        self.credit = min(REFUSALS_AT_ONCE, self.credit + now - self.since)
        self.since = now
        if self.credit < 1.0:
            self.left_out += 1
            return False
        self.credit -= 1.0
        return True


class Journal:
    """`out` is for people; a failing audit log is said there, and raised where it must stop what it should note."""

    def __init__(
        self, log: Log | None, *, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._out = out or sys.stderr
        self._clock = clock
        self.alarm: Callable[[str], None] = unheard  # is told why what goes on cannot be noted any more
        self._tellings: dict[str, _Tellings] = {}  # of each person, and of strangers together
        self._unsaid = 0

    def say(self, text: str) -> None:
        """Nobody waits for who reads it: what there is no room for is counted, and left out."""
        if not _takes(self._out):
            self._unsaid += 1
            return
        more = f" ({self._unsaid} lines before it had no room)" if self._unsaid else ""
        self._unsaid = 0
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        try:
            self._out.write(f"{stamp} {plain(text)}{more}\n")
            self._out.flush()
        except (OSError, ValueError):  # nobody reads it any more
            pass

    def note(self, person: Person, session: str, verb: str, refs: tuple[str, ...], result: str, message: str) -> None:
        """What is about to happen, to the audit log alone. Raises OperationFailed: then it must not."""
        self.keep_room()
        self._append(person, session, verb, refs, result, message)

    def keep_room(self) -> None:
        """Before a session begins. Raises OperationFailed if what it does could not be noted."""
        if self._log is not None:
            self._log.keep_room()

    def _append(
        self, person: Person, session: str, verb: str, refs: tuple[str, ...], result: str, message: str
    ) -> None:
        if self._log is not None:
            self._log.append(Entry(
                who=person.name, key=person.key, origin=person.origin, session=session, verb=verb, refs=refs,
                result=result, message=message,
            ))  # fmt: skip
            if not self._log.has_room:
                self.alarm("the disk is full")

    def try_note(
        self, person: Person, session: str, verb: str, refs: tuple[str, ...], result: str, message: str
    ) -> None:
        """The same of what has happened already: a failure is said, and the alarm rung."""
        try:
            self._append(person, session, verb, refs, result, message)
        except Fault as fault:
            self.say(f"the audit log lacks {verb} of {person.name}: {fault}")
            self.alarm(str(fault))

    def told(
        self, person: Person, verb: str, result: str, message: str, *, session: str = "", refs: tuple[str, ...] = ()
    ) -> None:
        """Both."""
        self.say(f"{person.name or 'somebody'} from {person.origin or 'here'}: {verb} {result}: {message}")
        self.try_note(person, session, verb, refs, result, message)

    def refused(
        self, person: Person, message: str, *, verb: str = LOGIN, result: str = "denied", refs: tuple[str, ...] = ()
    ) -> None:
        """What somebody did not get. Of very much only some is told, and how much was not: it would fill the disk."""
        tellings = self._tellings.setdefault(person.name, _Tellings(since=self._clock()))
        if tellings.one_more(self._clock()):
            more = f" (and {tellings.left_out} more before, of which nothing was noted)" if tellings.left_out else ""
            tellings.left_out = 0
            self.told(person, verb, result, message + more, refs=refs)

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None
