"""Verbs that the server runs itself, since only it knows: who one is, who else is here, and what they see."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import msgspec

from vmtui.core.errors import Fault, NotFound
from vmtui.core.policy import EVERY, Verb
from vmtui.core.resource import Ref
from vmtui.engine.authority import Authority
from vmtui.headless import exit_codes
from vmtui.headless.exit_codes import Usage
from vmtui.headless.output import record
from vmtui.headless.text import clean
from vmtui.ssh.idle import IdleClock
from vmtui.ssh.session import Audit, Limits, Outlet, Request, Session, Stream, Watcher

NAMES = ("whoami", "sessions", "observe", "drive")
LEAVE = (b"\x1d", b"\x1b[93;5u")  # ctrl+], as `console` has it; the second as kitty's keyboard says it
HUNG_UP = 129
LAST_S = 1.0  # for a client to take the last line


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A record of `sessions --json`. `command` is empty for the panel."""

    id: str
    person: str
    role: str
    key: str
    origin: str
    via: str
    command: tuple[str, ...]
    started_at: float
    watchers: tuple[str, ...]


class Myself(msgspec.Struct, frozen=True, kw_only=True):
    """The record of `whoami --json`."""

    person: str
    role: str
    about: str
    key: str
    origin: str
    may: tuple[str, ...]


class OwnVerb(Session):
    """One of NAMES as a session, without a process."""

    def __init__(
        self,
        id: str,  # noqa: A002
        request: Request,
        outlet: Outlet,
        *,
        sessions: Mapping[str, Session],
        limits: Limits,
        audit: Audit,
    ) -> None:
        super().__init__(id, request)
        self._outlet = outlet
        self._sessions = sessions
        self._limits = limits
        self._audit = audit
        self._watched: Session | None = None
        self._watcher: Watcher | None = None
        self._hung_up = asyncio.Event()
        self._idle: IdleClock | None = None
        self._life = asyncio.create_task(self._run())

    def feed(self, data: bytes) -> None:
        if self._idle is not None:
            self._idle.touch()
        if self._watcher is None:
            return
        leaving = [at for key in LEAVE if (at := data.find(key)) >= 0]
        self._watcher.feed(data[: min(leaving)] if leaving else data)
        if leaving:
            self._watcher.leave()

    async def drained(self) -> None:
        if self._watched is not None and self._watcher is not None and self._watcher.drives:
            await self._watched.drained()

    def eof(self) -> None:
        """Nothing is read to its end."""

    def resize(self, rows: int, columns: int) -> None:
        """A watched session keeps its size."""

    def signal(self, name: str) -> None:
        if name.removeprefix("SIG") in ("HUP", "INT", "TERM"):
            self.hang_up()

    def hang_up(self, reason: str = "") -> None:
        self.reason = self.reason or reason
        self._hung_up.set()
        if self._watcher is not None:
            self._watcher.leave()

    async def wait(self) -> int:
        return await asyncio.shield(self._life)

    async def _run(self) -> int:
        verb, *words = self.request.argv
        gone = asyncio.create_task(self._hung_up.wait())
        work = asyncio.create_task(self._command(verb, words))
        try:
            await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
                await asyncio.wait([work])
                if self.reason:
                    async with asyncio.timeout(LAST_S):
                        await self._say(f"vmtui: {self.reason}")
                return HUNG_UP
            work.result()
        except Fault as fault:
            await self._say(f"error: {clean(str(fault))}")
            if fault.hint:
                await self._say(f"hint: {clean(fault.hint)}")
            return exit_codes.of(fault)
        except (OSError, TimeoutError):
            return HUNG_UP
        finally:
            gone.cancel()
        return 0

    async def _command(self, verb: str, words: list[str]) -> None:
        json = "--json" in words
        words = [word for word in words if word != "--json"]
        authority = Authority(person=self.request.person, role=self.request.role, note=self._note)
        if verb in ("whoami", "sessions") and not words:
            if verb == "whoami":
                await self._whoami(json=json)
            else:
                authority.require(Verb.SESSIONS)
                await self._list(json=json)
        elif verb in ("observe", "drive") and len(words) == 1 and not json and not words[0].startswith("-"):
            drives = verb == "drive"
            authority.require(Verb.DRIVE if drives else Verb.OBSERVE)
            await self._watch(self._find(words[0]), authority, drives=drives)
        else:
            uses = {"whoami": "whoami [--json]", "sessions": "sessions [--json]"}
            use = uses.get(verb, f"{verb} SESSION")
            raise Usage(f"{verb} is used otherwise", hint=f"ssh HOST {use}")

    async def _whoami(self, *, json: bool) -> None:
        person, role = self.request.person, self.request.role
        authority = Authority(person=person, role=role)
        me = Myself(
            person=person.name, role=role.name, about=role.about, key=person.key, origin=person.origin,
            may=tuple(verb for verb in Verb if authority.anywhere(verb)),
        )  # fmt: skip
        if json:
            await self._print(record(me))
            return
        about = f": {me.about}" if me.about else ""
        for line in (
            f"{me.person}, role {me.role}{about}", f"key   {me.key}", f"from  {me.origin}", f"may   {' '.join(me.may)}",
        ):  # fmt: skip
            await self._print(clean(line))

    async def _list(self, *, json: bool) -> None:
        for session in list(self._sessions.values()):
            asked = session.request
            names = tuple(f"{each.person.name} {'drives' if each.drives else 'observes'}" for each in session.watchers)
            if json:
                listed = Listed(
                    id=session.id, person=asked.person.name, role=asked.role.name, key=asked.person.key,
                    origin=asked.person.origin, via=asked.via, command=asked.argv, started_at=session.started_at,
                    watchers=names,
                )  # fmt: skip
                await self._print(record(listed))
                continue
            minutes, seconds = divmod(int(time.time() - session.started_at), 60)
            what = " ".join(asked.argv) or "panel"
            mine = "  (this one)" if session is self else ""
            row = (
                f"{session.id}  {asked.person.name}  {asked.role.name}  {minutes}m{seconds:02}s  {asked.person.origin}"
            )
            await self._print(clean(f"{row}  {what}{mine}{''.join(f'  [{name}]' for name in names)}"))

    def _find(self, word: str) -> Session:
        fits = [session for session in self._sessions.values() if session.id.startswith(word) and session is not self]
        if len(fits) != 1:
            raise NotFound(f"{len(fits) or 'no'} sessions are named {word!r}", hint="ssh HOST sessions")
        return fits[0]

    async def _watch(self, session: Session, authority: Authority, *, drives: bool) -> None:
        if self.request.size is None:
            raise Usage("this needs a terminal", hint=f"ssh -t HOST {' '.join(self.request.argv)}")
        if drives and not _may_drive(self.request, session.request):
            of = session.request
            raise authority.denied(Verb.DRIVE, to=f"drive a session of {of.person.name}, whose role is {of.role.name}")
        await self._say(f"vmtui: session {session.id} of {clean(session.request.person.name)}; ctrl+] leaves it")
        begin = session.drive if drives else session.observe
        watcher = begin(self._outlet, self.request.person)
        self._watched, self._watcher = session, watcher
        if (limit := self.request.role.idle) is not None:
            self._idle = IdleClock(float(limit), self._limits.idle_warning_s, lambda _: None, watcher.leave)
        try:
            why = await watcher.wait()
        finally:
            watcher.leave()
            if self._idle is not None:
                self._idle.stop()
        await self._say(f"vmtui: {why or 'left it'}")

    async def _print(self, line: str) -> None:
        await self._line("stdout", line)

    async def _say(self, line: str) -> None:
        await self._line("stderr", line)

    async def _line(self, stream: Stream, line: str) -> None:
        end = "\n" if self.request.size is None else "\r\n"
        await self._outlet.write(stream, f"{line}{end}".encode())

    def _note(self, verb: str, refs: tuple[Ref, ...], result: str, message: str) -> None:
        self._audit(self.request.person, self.id, verb, tuple(map(str, refs)), result, message)


def _may_drive(mine: Request, of: Request) -> bool:
    """Whoever drives a session has its rights and its name: the rights must be no more than their own.

    And nobody who needs a second person for anything may be that one, too, in the name of another.
    """
    if (mine.person.name, mine.person.key, mine.role) == (of.person.name, of.person.key, of.role):
        return True
    everything = any(allow.whole and EVERY in allow.verbs for allow in mine.role.allow)
    same = mine.role == of.role and not any(allow.own for allow in mine.role.allow)
    return not mine.role.approval and (same or everything)
