"""`vmtui --plain`: a line is typed, lines answer. No screen, no colours, nothing drawn over: for screen readers."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

from vmtui.core import query
from vmtui.core.errors import Fault, QueryError
from vmtui.core.events import Diagnostic, Event, StepEnded, StepProgressed, StepStarted
from vmtui.core.lifecycle import Action
from vmtui.core.policy import Verb
from vmtui.core.resource import Kind, Ref, Status
from vmtui.engine.authority import current
from vmtui.engine.workspace import Workspace
from vmtui.headless import sentences, session, stdin, tables, text
from vmtui.headless.exit_codes import ExitCode
from vmtui.headless.remote import hint_for
from vmtui.headless.screen import Screen
from vmtui.headless.session import Session
from vmtui.headless.verbs import ACTIONS, find, matching

CALM_S = 0.4  # changes within this time are told together
TOLD_ONE_BY_ONE = 8
LOG_LINES = 20
ASKS = frozenset({Action.STOP, Action.RESTART, Action.KILL})
PROMPT = "> "


def main(args: argparse.Namespace) -> int:
    async def command(here: Session, workspace: Workspace) -> int:
        return await Plain(here.screen, workspace, read_only=args.read_only).run()

    return session.run(command, json=False, demo=args.demo)


@dataclass(frozen=True, slots=True)
class Command:
    """`needs` is what a person must be allowed somewhere; `changes`: not with --read-only."""

    takes: str
    about: str
    run: Callable[[Plain, str, list[str]], Awaitable[None]]
    needs: Verb | None = None
    changes: bool = False


class Plain:
    """One conversation on stdin and stdout, until `quit` or the end of stdin."""

    def __init__(self, screen: Screen, workspace: Workspace, *, read_only: bool) -> None:
        self._screen = screen
        self._workspace = workspace
        self._authority = current()
        self._read_only = read_only
        self._lines = stdin.Lines(screen)
        self._known: dict[Ref, Status] = {}
        self._idle = asyncio.Event()  # nothing is being answered or asked
        self._answered = 0
        self._over = False

    async def run(self) -> int:
        self._say("vmtui, line by line: help tells the commands, quit ends")
        if self._read_only:
            self._say("read-only: nothing can be changed")
        self._known = {status.ref: status for status in await self._workspace.scan()}
        self._say(sentences.count(len(self._known)))
        watch = asyncio.create_task(self._watch())
        try:
            while not self._over and not self._screen.closed:
                self._idle.set()
                line = await self._lines.next(PROMPT)
                self._idle.clear()
                if line is None:
                    break
                await self._answer(line)
                self._answered += 1
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
        return ExitCode.OK

    def _say(self, line: str) -> None:
        self._screen.data(text.clean(line))

    def _fail(self, fault: BaseException) -> None:
        place = f", at character {fault.position + 1} of the filter" if isinstance(fault, QueryError) else ""
        self._say(f"error: {fault}{place}")
        for line in text.clean_lines(getattr(fault, "details", "")):
            if line:
                self._say(f"  {line}")
        if hint := hint_for(self._authority, getattr(fault, "hint", "")):
            self._say(f"next: {hint}")

    async def _answer(self, line: str) -> None:
        name, _, rest = line.strip().partition(" ")
        if not name:
            return
        command = COMMANDS.get(name)
        if command is None:
            self._say(f"error: there is no command {name!r}; help tells them")
            return
        if command.needs is not None and not self._authority.anywhere(command.needs):
            self._fail(self._authority.denied(command.needs, to=name))
            return
        if command.changes and self._read_only:
            self._say(f"error: {name} is not possible: read-only")
            return
        try:
            words = [rest] if command.takes == "[FILTER]" else shlex.split(rest)
            least = 0 if command.takes.startswith("[") else 1 if command.takes else 0
            if len(words) < least:
                self._say(f"error: write {name} {command.takes}")
                return
            await command.run(self, name, words)
        except (Fault, OSError, ValueError) as error:
            self._fail(error)

    # Commands

    async def ls(self, _name: str, words: Sequence[str]) -> None:
        wanted = query.parse(words[0] if words else "")
        statuses = await self._workspace.scan()
        labels = {ref: row.desired.spec.labels for ref, row in self._workspace.everything().items()}
        shown = matching(wanted, statuses, labels)
        for status in shown:
            self._say(sentences.of(status, time.time()))
        self._say(sentences.count(len(shown)) + (f" of {len(statuses)}" if wanted else ""))

    async def show(self, _name: str, words: Sequence[str]) -> None:
        for line in tables.detail(await self._workspace.inspect(await self._find(words[0]))):
            self._say(line)

    async def logs(self, _name: str, words: Sequence[str]) -> None:
        """The last lines; with `follow` new ones too, until Enter."""
        ref = await self._find(words[0])
        count = int(words[1]) if len(words) > 1 and words[1].isdigit() else LOG_LINES
        await self._log(ref, count, follow=False)

    async def follow(self, _name: str, words: Sequence[str]) -> None:
        ref = await self._find(words[0])
        self._say("new lines follow; enter ends it")
        reading = asyncio.create_task(self._log(ref, LOG_LINES, follow=True))
        typing = asyncio.create_task(self._lines.next(""))
        try:
            await asyncio.wait((reading, typing), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
        finally:
            for task in (reading, typing):
                task.cancel()
                with suppress(asyncio.CancelledError, Fault):
                    await task

    async def act(self, name: str, words: Sequence[str]) -> None:
        action = ACTIONS[name]
        for ref in [await self._find(word) for word in words]:
            purge = action is Action.DELETE and ref.kind is Kind.DISK
            if not await self._agreed(action, ref):
                self._say(f"{ref}: nothing was changed")
                continue
            try:
                status = await self._workspace.act(ref, action, emit=self._event, purge=purge)
            except Fault as fault:
                self._fail(fault)
                continue
            if status is None:
                self._known.pop(ref, None)
                self._say(f"{ref} is removed")
            else:
                self._known[ref] = status
                self._say(sentences.of(status, time.time()))

    async def events(self, _name: str, words: Sequence[str]) -> None:
        count = int(words[0]) if words and words[0].isdigit() else LOG_LINES
        for event in self._workspace.events(limit=count):
            self._say(f"{tables.moment(event.at)}: {event.verb} {event.ref} {event.result} {event.message}".rstrip())

    async def help(self, _name: str, _words: Sequence[str]) -> None:
        for name, command in COMMANDS.items():
            if command.needs is None or self._authority.anywhere(command.needs):
                self._say(f"{f'{name} {command.takes}'.rstrip()}: {command.about}")
        self._say("REF is NAME, KIND/NAME or PROFILE/KIND/NAME; FILTER is kind:vm state:running and the like")

    async def quit(self, _name: str, _words: Sequence[str]) -> None:
        self._over = True

    # Parts of them

    async def _find(self, word: str) -> Ref:
        return await find(self._workspace, word)

    async def _log(self, ref: Ref, count: int, *, follow: bool) -> None:
        async with aclosing(self._workspace.logs(ref, tail=count, follow=follow)) as lines:  # type: ignore[type-var]
            async for line in lines:
                self._say(line.text)

    async def _agreed(self, action: Action, ref: Ref) -> bool:
        """Ask before something is interrupted, and for the name before something is lost."""
        if action is Action.DELETE:
            status = await self._workspace.inspect_or_none(ref)
            lost = text.size(status.size_bytes) if status and ref.kind is Kind.DISK else ""
            data = f" and its data{f', {lost}' if lost else ''}" if ref.kind is Kind.DISK else ""
            self._say(f"this removes {ref}{data}; type its name, {ref.name}, to go on")
            return await self._lines.next(PROMPT) == ref.name
        if action in ASKS:
            self._say(f"{action} {ref}? type yes to go on")
            return (await self._lines.next(PROMPT) or "").strip().lower() in ("y", "yes")
        return True

    def _event(self, event: Event) -> None:
        if isinstance(event, StepStarted):
            self._say(f"{event.action} {event.ref}")
        elif isinstance(event, StepProgressed) and event.message:
            self._say(f"{event.action} {event.ref}: {event.message}")
        elif isinstance(event, StepEnded):
            self._say(f"{event.action} {event.ref}: {event.result}, {text.span(event.elapsed_s)}")
        elif isinstance(event, Diagnostic):
            self._say(f"{event.level}: {event.message}")

    # What happens by itself

    async def _watch(self) -> None:
        changed = asyncio.Event()
        changed.set()  # something may have, between the first look and the watch

        async def hear() -> None:
            async for _ in self._workspace.watch():
                changed.set()

        hearing = asyncio.create_task(hear())
        try:
            while True:
                await changed.wait()
                changed.clear()
                await asyncio.sleep(CALM_S)
                await self._idle.wait()
                answered = self._answered
                with suppress(Fault):
                    statuses = await self._workspace.scan()
                    if self._idle.is_set() and answered == self._answered:
                        self._tell(statuses)
                    else:  # what was seen is older than an answer
                        changed.set()
        finally:
            hearing.cancel()
            with suppress(asyncio.CancelledError):
                await hearing

    def _tell(self, statuses: Sequence[Status]) -> None:
        before, self._known = self._known, {status.ref: status for status in statuses}
        told = sentences.changes(before, self._known)
        if len(told) > TOLD_ONE_BY_ONE:
            told = [f"by itself: {len(told)} resources changed; ls tells them"]
        if told:
            self._lines.interrupted()
            for line in told:
                self._say(line)
            self._lines.again()


COMMANDS: dict[str, Command] = {
    "ls": Command("[FILTER]", "the resources, one a line", Plain.ls, Verb.VIEW),
    "show": Command("REF", "all that is known of one", Plain.show, Verb.VIEW),
    "logs": Command("REF [LINES]", "the end of its log", Plain.logs, Verb.LOGS),
    "follow": Command("REF", "its log as it grows", Plain.follow, Verb.LOGS),
    "start": Command("REF…", "start what is stopped", Plain.act, Verb.START, changes=True),
    "stop": Command("REF…", "stop what runs", Plain.act, Verb.STOP, changes=True),
    "restart": Command("REF…", "stop and start again", Plain.act, Verb.RESTART, changes=True),
    "pause": Command("REF…", "freeze what runs", Plain.act, Verb.PAUSE, changes=True),
    "resume": Command("REF…", "go on with what is paused", Plain.act, Verb.RESUME, changes=True),
    "kill": Command("REF…", "end it at once", Plain.act, Verb.KILL, changes=True),
    "rm": Command(
        "REF…", "remove it, a disk with its data; its name has to be typed", Plain.act, Verb.DELETE, changes=True
    ),
    "events": Command("[LINES]", "what happened", Plain.events, Verb.VIEW),
    "help": Command("", "these lines", Plain.help),
    "quit": Command("", "leave; what runs goes on", Plain.quit),
}
