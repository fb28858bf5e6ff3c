"""`recordings`: what was shown in sessions over SSH, listed, played and removed."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import termios
from collections.abc import Iterator

import msgspec

from vmtui.core.errors import Fault
from vmtui.engine import recordings
from vmtui.engine.authority import current
from vmtui.engine.recordings import Event, Recording
from vmtui.engine.workspace import Workspace
from vmtui.headless import exit_codes, session, stdin, tables, text
from vmtui.headless.attach import raw_mode, terminal_size
from vmtui.headless.drawing import AFTERWARDS, Drawing
from vmtui.headless.exit_codes import ExitCode
from vmtui.headless.output import document
from vmtui.headless.session import Failed, Session

GONE = b""  # the terminal itself
QUIT = frozenset({b"q", b"Q", b"\x03", b"\x1d", GONE})  # ctrl+C, and ctrl+] as for consoles
PAUSE = b" "


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """An element of `recordings ls --json`. `at` is Unix time."""

    session: str
    name: str
    at: int
    person: str
    role: str
    key: str
    origin: str
    size_bytes: int
    length_s: float | None
    columns: int
    rows: int

    @classmethod
    def of(cls, found: Recording) -> Listed:
        header, told = found.header, found.header.env
        return cls(
            session=found.session,
            name=found.name,
            at=header.timestamp,
            person=found.person,
            role=told.get(recordings.ROLE, ""),
            key=told.get(recordings.KEY, ""),
            origin=told.get(recordings.ORIGIN, ""),
            size_bytes=found.size_bytes,
            length_s=found.length_s,
            columns=header.width,
            rows=header.height,
        )


def ls(args: argparse.Namespace) -> int:
    async def command(here: Session, workspace: Workspace) -> int:
        found, refused = recordings.scan(recordings.folder(workspace.registry.context.paths))
        for why in refused:
            here.screen.say(f"passed over: {text.clean(why)}")
        listed = [Listed.of(each) for each in found]
        if here.json:
            document(here.screen, listed)
            return ExitCode.OK
        if not listed:
            here.screen.say("nothing is recorded")
            return ExitCode.OK
        head = ("SESSION", "BEGAN", "PERSON", "ROLE", "LENGTH", "SIZE", "FROM")
        rows = [
            (
                each.session,
                tables.moment(each.at),
                each.person,
                each.role,
                "" if each.length_s is None else text.span(each.length_s),
                text.size(each.size_bytes),
                each.origin,
            )
            for each in listed
        ]
        for line in text.table(head, rows, width=here.screen.width):
            here.screen.data(line)
        return ExitCode.OK

    return session.run(command, json=args.json)


def play(args: argparse.Namespace) -> int:
    """In real time on a terminal, with shorter pauses; all at once where there is none."""

    async def command(here: Session, workspace: Workspace) -> int:
        path = recordings.find(recordings.folder(workspace.registry.context.paths), args.id)
        found = recordings.describe(path)
        current().note("recordings", (), "done", f"played {found.name}")
        if here.json:
            for line in recordings.lines(path):
                here.screen.raw(line)
        elif here.screen.data_is_tty and sys.stdin.isatty():
            _announce(here, found)
            await _played(here, recordings.events(path), speed=args.speed, longest_s=args.idle)
        else:
            drawing = Drawing()
            for event in recordings.events(path):
                if event.code == recordings.OUTPUT:
                    here.screen.raw(drawing.feed(event.data).encode("utf-8", "replace"))
                if here.screen.closed:
                    break
        return ExitCode.OK

    return session.run(command, json=args.json)


def _announce(here: Session, found: Recording) -> None:
    rows, columns = terminal_size()
    header = found.header
    who = f"{text.clean(found.person)} at {tables.moment(header.timestamp)}"
    here.screen.say(f"{who}, {header.width} by {header.height}; space pauses, q ends")
    if columns < header.width or rows < header.height:
        here.screen.say(f"this terminal has {columns} by {rows}: what does not fit looks torn")


async def _played(here: Session, events: Iterator[Event], *, speed: float, longest_s: float) -> None:
    """Until its end, or a key ends it. The terminal is as before, and what it answers is typed nowhere."""
    drawing = Drawing()
    keys: asyncio.Queue[bytes] = asyncio.Queue(maxsize=16)
    with _raw(here):
        typing = asyncio.create_task(_type(keys))
        try:
            last_s = 0.0
            for event in events:
                pause_s = min(max(event.at_s - last_s, 0.0), longest_s) / speed
                last_s = max(last_s, event.at_s)
                if not await passes(keys, pause_s) or here.screen.closed:
                    return
                if event.code == recordings.OUTPUT:
                    here.screen.raw(drawing.feed(event.data).encode("utf-8", "replace"))
        finally:
            typing.cancel()
            await asyncio.wait([typing])


@contextlib.contextmanager
def _raw(here: Session) -> Iterator[None]:
    with raw_mode():
        try:
            yield
        finally:
            here.screen.raw(AFTERWARDS.encode())
            with contextlib.suppress(termios.error):
                termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)


async def _type(keys: asyncio.Queue[bytes]) -> None:
    async for data in stdin.chunks():
        await keys.put(data)
    await keys.put(GONE)


async def passes(keys: asyncio.Queue[bytes], seconds: float) -> bool:
    """Wait so long, without the time that a key stops it; False if one ends it."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        try:
            async with asyncio.timeout_at(end):
                key = await keys.get()
        except TimeoutError:
            return True
        if key == PAUSE:
            left_s = end - loop.time()
            while (key := await keys.get()) not in (PAUSE, *QUIT):
                continue
            end = loop.time() + left_s
        if key in QUIT:
            return False


def rm(args: argparse.Namespace) -> int:
    """Each by itself; one that cannot be removed does not keep the others from it."""

    async def command(here: Session, workspace: Workspace) -> int:
        folder = recordings.folder(workspace.registry.context.paths)
        paths = list(dict.fromkeys(recordings.find(folder, each) for each in args.ids))
        names = ", ".join(path.name for path in paths)
        await here.confirm(f"this removes what shows who did what: {names}", yes=args.yes)
        removed: list[str] = []
        failed: Fault | None = None
        for path in paths:
            try:
                recordings.remove(path)
                removed.append(path.name)
            except Fault as fault:
                here.error(fault)
                failed = fault
        if here.json:
            document(here.screen, removed)
        else:
            here.screen.say(f"{len(removed)} removed")
        if failed is not None:
            raise Failed(exit_codes.of(failed))
        return ExitCode.OK

    return session.run(command, json=args.json)
