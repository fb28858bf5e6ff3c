"""What waits until a second person agrees. In the database, where those who ask and those who answer both see it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from enum import StrEnum

import msgspec

from vmtui.core.errors import Denied
from vmtui.core.policy import Target
from vmtui.core.resource import Ref
from vmtui.engine.store import Store
from vmtui.host.process import ProcessId

LAPSES_S = 600.0
KEPT_S = 86400.0
MOST_OPEN = 20  # of one person


class State(StrEnum):
    ASKED = "asked"
    APPROVED = "approved"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"  # whoever asked has left
    LAPSED = "lapsed"  # nobody answered in time
    USED = "used"  # what was approved has been begun


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants to do. `about` says it in lines; `digest` stands for it with all its details.

    `targets` are the resources as they are and as they would be. `id` is 0 until it is asked.
    """

    who: str
    key: str
    origin: str
    verb: str
    refs: tuple[Ref, ...]
    targets: tuple[Target, ...]
    about: tuple[str, ...]
    digest: str
    at: float = 0.0
    expires_at: float = 0.0
    id: int = 0


class Approvals:
    """The requests of a workspace. Each method is one transaction; an answer is the first one, or none."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self._db = store.connection
        self._clock = clock

    def ask(self, request: Request) -> Request:
        """Raises Denied if too many of this person wait already."""
        now = self._clock()
        self._db.execute("delete from approval where expires_at < ?", (now - KEPT_S,))
        if sum(other.key == request.key and other.who == request.who for other in self.waiting()) >= MOST_OPEN:
            raise Denied(
                f"{MOST_OPEN} requests of {request.who} wait for a second person already", hint="vmtui approvals"
            )
        asked = msgspec.structs.replace(request, at=now, expires_at=now + LAPSES_S)
        cursor = self._db.execute(
            "insert into approval (state, expires_at, asker_pid, asked) values (?,?,?,?)",
            (State.ASKED, asked.expires_at, _me(), msgspec.json.encode(asked)),
        )
        assert cursor.lastrowid is not None
        return msgspec.structs.replace(asked, id=cursor.lastrowid)

    def waiting(self) -> tuple[Request, ...]:
        """Those that can be answered, the oldest first. A request goes with the process that asked."""
        rows = self._db.execute(
            "select id, asked, asker_pid, state from approval where state = ? order by id", ("asked",)
        )
        found = []
        for number, asked, pid, _ in rows.fetchall():
            request = msgspec.structs.replace(msgspec.json.decode(asked, type=Request), id=number)
            if request.expires_at > self._clock() and _lives(pid):
                found.append(request)
        return tuple(found)

    def state(self, number: int) -> tuple[State, str]:
        """How it stands, and who answered."""
        row = self._db.execute("select state, expires_at, answered_by from approval where id = ?", (number,)).fetchone()
        if row is None:
            return State.LAPSED, ""
        state = State(row[0])
        lapsed = state in (State.ASKED, State.APPROVED) and row[1] <= self._clock()
        return (State.LAPSED if lapsed else state), row[2]

    def answer(self, number: int, by: str, *, granted: bool) -> bool:
        """False if it does not wait any more."""
        return self._moves(number, State.ASKED, State.APPROVED if granted else State.DENIED, by)

    def use(self, number: int) -> bool:
        """Begin what was approved, once."""
        return self._moves(number, State.APPROVED, State.USED)

    def withdraw(self, number: int) -> None:
        """It is not wanted any more, answered or not."""
        self._moves(number, State.ASKED, State.WITHDRAWN)
        self._moves(number, State.APPROVED, State.WITHDRAWN)

    def _moves(self, number: int, before: State, after: State, by: str | None = None) -> bool:
        done = self._db.execute(
            "update approval set state = ?, answered_by = coalesce(?, answered_by)"
            " where id = ? and state = ? and expires_at > ?",
            (after, by, number, before, self._clock()),
        )
        return done.rowcount == 1


def _me() -> str:
    me = ProcessId.of(os.getpid())
    assert me is not None
    return f"{me.pid} {me.start_ticks} {me.boot}"


def _lives(text: str) -> bool:
    pid, ticks, boot = text.split(" ")
    return ProcessId(int(pid), int(ticks), boot).alive
