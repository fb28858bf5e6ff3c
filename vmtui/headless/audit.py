"""`audit`: what was done over SSH, and whether the log of it is as it was written."""

from __future__ import annotations

import argparse
from collections import deque

import msgspec

from vmtui.core.errors import InvalidInput
from vmtui.core.policy import Verb
from vmtui.engine import audit
from vmtui.engine.audit import Broken, Record
from vmtui.engine.authority import current
from vmtui.engine.workspace import Workspace
from vmtui.headless import session, text
from vmtui.headless.exit_codes import ExitCode
from vmtui.headless.output import document
from vmtui.headless.session import Session


class Whole(msgspec.Struct, frozen=True, kw_only=True):
    """What `audit verify --json` prints if nothing is wrong. `head` is what a later `--head` takes."""

    records: int
    head: str
    torn_bytes: int


def ls(args: argparse.Namespace) -> int:
    """As far as the chain holds; where it does not is an error, after what came before it."""

    async def command(here: Session, workspace: Workspace) -> int:
        current().require(Verb.AUDIT)
        path = workspace.registry.context.paths.state / audit.FILE
        last: deque[Record] = deque(maxlen=args.lines)
        broken: InvalidInput | None = None
        try:
            last.extend(record for record in audit.read(path) if args.who in (None, record.who))
        except InvalidInput as fault:
            broken = fault
        for record in last:
            if here.json:
                document(here.screen, record)
            else:
                here.screen.data(shown(record))
        if broken is not None:
            raise broken
        if not last:
            here.screen.say("nothing is in the audit log")
        return ExitCode.OK

    return session.run(command, json=args.json)


def shown(record: Record) -> str:
    """One line: when, who, what on what, how it went, and from where."""
    what = " ".join([record.verb, *record.refs])
    message = f": {record.message}" if record.message else ""
    whence = ", ".join(part for part in (record.origin, record.key, record.session) if part)
    who = record.who or ("somebody unknown" if record.origin else "the console itself")
    return text.clean(f"{record.time}  {who}  {what}  {record.result}{message}{f'  ({whence})' if whence else ''}")


def verify(args: argparse.Namespace) -> int:
    """71 and the first wrong line if it is not whole."""

    async def command(here: Session, workspace: Workspace) -> int:
        current().require(Verb.AUDIT)
        path = workspace.registry.context.paths.state / audit.FILE
        found = audit.verify(path, noted=args.head)
        if isinstance(found, Broken):
            where = f"{path}:{found.line}" if found.line else str(path)
            raise InvalidInput(
                f"{where}: {found.why}", hint="keep both files as they are, and ask who could write them"
            )
        if here.json:
            document(here.screen, Whole(records=found.head.number, head=str(found.head), torn_bytes=found.torn_bytes))
            return ExitCode.OK
        here.screen.data(str(found.head))
        here.screen.say(f"{found.head.number} records, none changed, moved or missing")
        if found.torn_bytes:
            here.screen.say(f"and {found.torn_bytes} bytes of one that is being written, or was cut short")
        here.screen.say(f"keep that line elsewhere: vmtui audit verify --head {found.head}")
        return ExitCode.OK

    return session.run(command, json=args.json)
