"""Verbs that ask or act once."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from vmtui.core.backend import Desired
from vmtui.core.errors import Fault
from vmtui.core.events import ResourceSummary, StepEnded, StepStarted
from vmtui.core.lifecycle import Action
from vmtui.core.query import Query
from vmtui.core.resource import Kind, Ref, Status
from vmtui.core.searchable import NO_LABELS, Entry
from vmtui.core.specs import encode
from vmtui.engine.workspace import Workspace
from vmtui.headless import diff, exit_codes, session, tables, text
from vmtui.headless.exit_codes import ExitCode, Usage
from vmtui.headless.output import document
from vmtui.headless.remote import told
from vmtui.headless.session import Failed, Session
from vmtui.host.paths import Paths

ACTIONS: dict[str, Action] = {
    "start": Action.START,
    "stop": Action.STOP,
    "restart": Action.RESTART,
    "pause": Action.PAUSE,
    "resume": Action.RESUME,
    "kill": Action.KILL,
    "rm": Action.DELETE,
}


class Inspected(msgspec.Struct, frozen=True, kw_only=True):
    """What `inspect --json` prints: what is there, what it was made from, and, asked for, its (cause, count) exits."""

    status: Status
    desired: Desired[Any] | None
    exits: tuple[tuple[str, int], ...] | msgspec.UnsetType = msgspec.UNSET


async def find(workspace: Workspace, text: str) -> Ref:
    """What a person means by `text`. A full name needs no scan. Raises NotFound."""
    try:
        ref = Ref.parse(text)
    except ValueError:
        return workspace.resolve(text, await workspace.scan())
    known = workspace.applied(ref) is not None
    return ref if known else workspace.resolve(text, await workspace.scan())


def ls(args: argparse.Namespace) -> int:
    async def command(here: Session, workspace: Workspace) -> int:
        def wanted(ref: Ref) -> bool:
            return args.profile_name in (None, ref.profile) and args.kind in (None, ref.kind)

        rows = workspace.everything()
        if args.plain and not args.query:
            for ref in sorted(filter(wanted, rows)):
                here.screen.data(str(ref))
            return ExitCode.OK
        statuses = await workspace.scan({Kind(args.kind)} if args.kind else None)
        among = (status for status in statuses if wanted(status.ref))
        shown = matching(args.query, among, {ref: row.desired.spec.labels for ref, row in rows.items()})
        shown = told(here.authority, shown)
        if args.plain:
            for status in shown:
                here.screen.data(str(status.ref))
        elif here.json:
            document(here.screen, shown)
        elif shown:
            look = here.screen
            for line in tables.resources(
                shown, now=time.time(), width=look.width, paint=look.paint, ranked=args.query.ranked
            ):
                look.data(line)
        elif args.query:
            here.screen.say(f"nothing matches {text.clean(args.filter)}")
        else:
            here.screen.say("nothing is here: vmtui --profile FILE makes what a profile says")
        return ExitCode.OK

    return session.run(command, json=args.json, demo=getattr(args, "demo", None))


def matching(query: Query, statuses: Iterable[Status], labels: Mapping[Ref, Mapping[str, str]]) -> list[Status]:
    """Those that a query means, by name, of a fuzzy query the best first."""
    entries = {}
    for status in sorted(statuses, key=lambda status: status.ref):
        entries[Entry(status, labels.get(status.ref, NO_LABELS))] = status
    return [entries[entry] for entry in query.select(entries)]


def inspect(args: argparse.Namespace) -> int:
    async def command(here: Session, workspace: Workspace) -> int:
        ref = await find(workspace, args.ref)
        (status,) = told(here.authority, [await workspace.inspect(ref)])
        desired = workspace.applied(ref)
        exits = tuple(await workspace.exits(ref)) if args.exits else None
        if here.json:
            asked = msgspec.UNSET if exits is None else exits
            document(here.screen, Inspected(status=status, desired=desired, exits=asked))
        else:
            plain = {} if desired is None else encode(desired.spec)
            given = [
                (name, diff.shown(value)) for name, value in plain.items() if value not in (None, "", [], (), {}, False)
            ]
            for line in (*tables.detail(status, given), *tables.exits(exits or ())):
                here.screen.data(line)
        return ExitCode.OK

    return session.run(command, json=args.json)


def act(args: argparse.Namespace) -> int:
    """One action on some resources, one after the other; a failure does not keep the others from it."""
    action = ACTIONS[args.verb]

    async def command(here: Session, workspace: Workspace) -> int:
        refs = list(dict.fromkeys([await find(workspace, text) for text in args.refs]))
        if action is Action.DELETE:
            await _confirm(here, refs, purge=args.purge, yes=args.yes)
        codes: list[ExitCode] = []
        summaries: list[ResourceSummary] = []
        for number, ref in enumerate(refs, 1):
            began = time.monotonic()
            here.emit(StepStarted(at=time.time(), ref=ref, action=action, step=number, steps=len(refs)))
            try:
                status = await workspace.act(
                    ref,
                    action,
                    emit=here.emit,
                    grace_s=getattr(args, "grace", None),
                    purge=getattr(args, "purge", False),
                )
            except Fault as fault:
                result, message = "failed", str(fault)
                here.error(fault, ref=ref)
                codes.append(exit_codes.of(fault))
            else:
                result, message = "done", ""
                here.changes += 1
                if status is not None:
                    summaries.append(_summary(status, action))
            elapsed = time.monotonic() - began
            ended = StepEnded(
                at=time.time(),
                ref=ref,
                action=action,
                result=result,
                elapsed_s=elapsed,
                message=message if here.json else "",
            )
            here.emit(ended)
        here.resources = tuple(summaries)
        if codes:
            here.result = "failed"
            raise Failed(codes[0])
        return ExitCode.OK

    return session.run(command, json=args.json, stream=True)


async def _confirm(here: Session, refs: Sequence[Ref], *, purge: bool, yes: bool) -> None:
    disks = [str(ref) for ref in refs if ref.kind is Kind.DISK]
    if disks and not purge:
        raise Usage(
            f"{', '.join(disks)}: a disk is data, and goes only with --purge", hint=f"vmtui rm --purge {disks[0]}"
        )
    if purge:
        await here.confirm(f"this destroys the data of {', '.join(map(str, refs))}", yes=yes)


def _summary(status: Status, action: Action) -> ResourceSummary:
    return ResourceSummary(
        ref=status.ref,
        backend=status.backend,
        phase=str(status.phase),
        ready=False,
        change=str(action),
        addresses=tuple(address.address for address in status.addresses),
        endpoints=status.endpoints,
        problems=status.problems,
    )


def schema(args: argparse.Namespace) -> int:
    """Needs no workspace."""
    from vmtui.engine.registry import option_types
    from vmtui.profile import jsonschema

    if args.what == "profile":
        made = jsonschema.profile(option_types)
    else:
        made = {"config": jsonschema.config, "events": jsonschema.events, "serve": jsonschema.serve}[args.what]()
    sys.stdout.write(jsonschema.text(made))
    return ExitCode.OK


def reap(args: argparse.Namespace) -> int:
    """What the parent of a workload runs when it ended. A workspace that is gone is not made again for it."""
    if not (Paths.from_environment().state / "workspace").exists():
        return ExitCode.OK

    async def command(here: Session, workspace: Workspace) -> int:  # noqa: ARG001
        try:
            ref = Ref.parse(args.ref)
        except ValueError as error:
            raise Usage(str(error)) from None
        await workspace.reap(ref)
        return ExitCode.OK

    return session.run(command, json=False, by="reap")
