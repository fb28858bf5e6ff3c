"""All sessions that are open: how one is begun, found, and ended with the rest."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path

from vmtui.core.errors import OperationFailed
from vmtui.ssh import own_verbs
from vmtui.ssh.forks import ForkServer
from vmtui.ssh.own_verbs import OwnVerb
from vmtui.ssh.process import Process
from vmtui.ssh.session import Audit, Limits, Outlet, Request, Session, Watcher

__all__ = ["Audit", "Limits", "Outlet", "Request", "Session", "Sessions", "Watcher"]
ID_BYTES = 3


class Sessions:
    """Over one fork server, which it does not own. `audit` gets a line for each act and each begin and end.

    `keep_room` raises Fault when it could get none: then nothing is begun.
    """

    def __init__(
        self,
        zygote: ForkServer,
        *,
        audit: Audit,
        keep_room: Callable[[], None] = lambda: None,
        limits: Limits | None = None,
        recordings: Path | None = None,
    ) -> None:
        self.sessions: dict[str, Session] = {}
        self.limits = limits or Limits()
        self._zygote = zygote
        self._audit = audit
        self._keep_room = keep_room
        self._recordings = recordings
        self._beginning: list[str] = []  # whose
        self._ends: set[asyncio.Task[None]] = set()
        self._closed = False

    async def open(self, request: Request, outlet: Outlet) -> Session:
        """Begin one; whoever opens it hangs it up when the client is gone. Raises Fault: nothing was begun."""
        if self._closed:
            raise OperationFailed("the server ends")
        who = request.person.name
        open_now = [*self._beginning, *(session.request.person.name for session in self.sessions.values())]
        if len(open_now) >= self.limits.sessions:
            raise OperationFailed(f"{self.limits.sessions} sessions are open, and no more are allowed")
        if open_now.count(who) >= self.limits.sessions_per_person:
            raise OperationFailed(f"{who} has {self.limits.sessions_per_person} sessions open, and may have no more")
        self._keep_room()
        self._beginning.append(who)
        try:
            session = await self._begun(request, outlet)
        finally:
            self._beginning.remove(who)
        self.sessions[session.id] = session
        end = asyncio.create_task(self._forget(session))
        self._ends.add(end)
        end.add_done_callback(self._ends.discard)
        return session

    async def _begun(self, request: Request, outlet: Outlet) -> Session:
        while (name := secrets.token_hex(ID_BYTES)) in self.sessions:
            pass
        if request.argv and request.argv[0] in own_verbs.NAMES:
            return OwnVerb(name, request, outlet, sessions=self.sessions, limits=self.limits, audit=self._audit)
        process = Process(name, request, outlet, self.limits, self._audit)
        await process.begin(self._zygote, self._recordings)
        return process

    async def _forget(self, session: Session) -> None:
        try:
            await session.wait()
        finally:
            self.sessions.pop(session.id, None)

    async def aclose(self, reason: str = "the server ends") -> None:
        """Hang all up, and wait until they are gone."""
        self._closed = True
        self.hang_up(reason)
        if self._ends:
            await asyncio.wait(self._ends)

    def hang_up(self, reason: str) -> None:
        """End all that are open."""
        for session in list(self.sessions.values()):
            session.hang_up(reason)
