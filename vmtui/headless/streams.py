"""Verbs that go on: logs, measurements, events."""

from __future__ import annotations

import argparse
import asyncio
from contextlib import aclosing

import msgspec

from vmtui.core.errors import Fault
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Ref, Sample
from vmtui.engine.store import Recorded
from vmtui.engine.workspace import Workspace
from vmtui.headless import session, tables, text
from vmtui.headless.exit_codes import ExitCode
from vmtui.headless.output import document
from vmtui.headless.session import Session
from vmtui.headless.verbs import find

EVENT_POLL_S = 0.25  # the history is a table of the database, which tells nobody when it grows
FIRST_SAMPLE_S = 0.3  # between the two measurements from which a single `stats` makes a load
CLEAR = "\x1b[H\x1b[J"


class LogRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A line of `logs --json`."""

    ref: Ref
    text: str
    stream: str
    at: float | None


class SampleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A line of `stats --json`."""

    ref: Ref
    sample: Sample


def logs(args: argparse.Namespace) -> int:
    async def command(here: Session, workspace: Workspace) -> int:
        ref = await find(workspace, args.ref)
        screen = here.screen
        async with aclosing(workspace.logs(ref, tail=args.lines, follow=args.follow)) as lines:  # type: ignore[type-var]
            async for line in lines:
                if here.json:
                    document(screen, LogRecord(ref=ref, text=line.text, stream=line.stream, at=line.at))
                else:
                    stamp = f"{tables.moment(line.at)} " if args.timestamps and line.at is not None else ""
                    # A file or a pipe gets the log as it is, a terminal never gets what it would obey.
                    obeys = screen.data_is_tty or here.served
                    screen.data(stamp + (text.clean(line.text) if obeys else line.text))
                if screen.closed:
                    break
        return ExitCode.OK

    return session.run(command, json=args.json)


def stats(args: argparse.Namespace) -> int:
    async def command(here: Session, workspace: Workspace) -> int:
        named = [await find(workspace, name) for name in args.refs]
        before: dict[Ref, Sample] = {}
        if not args.watch:
            before = await _measure(workspace, named)
            await asyncio.sleep(0 if here.json or not before else FIRST_SAMPLE_S)
        while True:
            now = await _measure(workspace, named)
            if here.json:
                for ref, sample in now.items():
                    document(here.screen, SampleRecord(ref=ref, sample=sample))
            else:
                rows = [(ref, before.get(ref), sample) for ref, sample in now.items()]
                lines = tables.samples(rows, width=here.screen.width, paint=here.screen.paint)
                clear = CLEAR if args.watch and here.screen.data_is_tty else ""
                here.screen.data(clear + "\n".join(lines))
            if not args.watch or here.screen.closed:
                return ExitCode.OK
            before = now
            await asyncio.sleep(args.interval)

    return session.run(command, json=args.json)


async def _measure(workspace: Workspace, named: list[Ref]) -> dict[Ref, Sample]:
    """Those that were named, and what cannot be measured is an error; else all that run and can be."""
    if named:
        return {ref: await workspace.stats(ref) for ref in named}

    async def one(ref: Ref) -> tuple[Ref, Sample] | None:
        try:
            return ref, await workspace.stats(ref)
        except Fault:  # it cannot be measured, or ended just now
            return None

    running = sorted(status.ref for status in await workspace.scan() if _runs(status.ref, status.phase))
    return dict(filter(None, await asyncio.gather(*map(one, running))))


def _runs(ref: Ref, phase: Phase) -> bool:
    return ref.kind.runs and phase is Phase.RUNNING


def events(args: argparse.Namespace) -> int:
    async def command(here: Session, workspace: Workspace) -> int:
        found = workspace.events(limit=args.lines)
        last = found[-1].id if found else max((event.id for event in workspace.events(limit=1)), default=0)
        _tell(here, found)
        while args.follow and not here.screen.closed:
            await asyncio.sleep(EVENT_POLL_S)
            found = workspace.events(after=last)
            last = found[-1].id if found else last
            _tell(here, found)
        return ExitCode.OK

    return session.run(command, json=args.json)


def _tell(here: Session, found: list[Recorded]) -> None:
    for event in found:
        if here.json:
            document(here.screen, event)
        else:
            message = f": {text.clean(event.message)}" if event.message else ""
            by = f"  ({text.clean(event.by)})" if event.by else ""
            here.screen.data(f"{tables.moment(event.at)}  {event.ref}  {event.verb} {event.result}{message}{by}")
