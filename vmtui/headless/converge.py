"""`vmtui --profile FILE`, `vmtui apply`, `plan` and `down NAME`: from a plan to a host that is as it says."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
import time
from collections.abc import Iterable
from contextlib import aclosing
from pathlib import Path

from vmtui.core.errors import Fault, MissingCapability, NotFound, ReadinessTimeout
from vmtui.core.events import Diagnostic, Event, LogEmitted, ReadyReached, ResourceSummary
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Ref, Status
from vmtui.engine import registry
from vmtui.engine.operations import Outcome
from vmtui.engine.plan import Plan
from vmtui.engine.readiness import waits_for
from vmtui.engine.workspace import Workspace
from vmtui.headless import diff, exit_codes, session, stdin, tables, text
from vmtui.headless.commands import STDIN
from vmtui.headless.exit_codes import ExitCode
from vmtui.headless.session import Failed, Session
from vmtui.headless.tracing import traced
from vmtui.host.tasks import uncancelled
from vmtui.profile import load
from vmtui.profile.document import MAX_FILE_BYTES
from vmtui.profile.schema import Profile


def profile(args: argparse.Namespace) -> int:
    """The verb without a name."""

    async def command(here: Session, workspace: Workspace) -> int:
        path = Path(args.profile)
        if args.down:
            return await _down(here, workspace, load.name_of(path), args, absent_is_done=not args.only)
        if args.adopt:
            return await _adopt(here, workspace, path, args)
        wanted = load.load(path, registry.option_types)
        if args.plan or args.check:
            return await _only_plan(here, workspace, wanted, args, check=args.check)
        again = f"vmtui --profile {shlex.quote(args.profile)} --on-failure keep"
        statuses = await _converge(here, workspace, wanted, args, again)
        if args.foreground:
            await _stay(here, workspace, wanted.name, statuses)
        return ExitCode.OK

    return session.run(traced(command) if args.trace else command, json=args.json, stream=True)


def plan(args: argparse.Namespace) -> int:
    """`vmtui plan [FILE]`: `--profile FILE --plan`, and from stdin."""

    async def command(here: Session, workspace: Workspace) -> int:
        return await _only_plan(here, workspace, await _read(here, args.file), args, check=False)

    return session.run(command, json=args.json, stream=True)


def apply(args: argparse.Namespace) -> int:
    """`vmtui apply [FILE]`: `--profile FILE`, and from stdin."""

    async def command(here: Session, workspace: Workspace) -> int:
        wanted = await _read(here, args.file)
        source = "< FILE" if args.file == STDIN else shlex.quote(args.file)
        await _converge(here, workspace, wanted, args, f"vmtui apply --on-failure keep {source}")
        return ExitCode.OK

    return session.run(traced(command) if args.trace else command, json=args.json, stream=True)


async def _read(here: Session, file: str) -> Profile:
    """Raises ProfileInvalid."""
    if file != STDIN:
        return load.load(Path(file), registry.option_types)
    if sys.stdin.isatty():
        here.note("a profile is read from the keyboard; ctrl+d ends it")
    return load.read_from_stdin(await stdin.whole(MAX_FILE_BYTES), registry.option_types)


def down(args: argparse.Namespace) -> int:
    """`vmtui down NAME`."""

    async def command(here: Session, workspace: Workspace) -> int:
        return await _down(here, workspace, args.profile_name, args, absent_is_done=False)

    return session.run(command, json=args.json, stream=True)


def _show(here: Session, plan: Plan, *, full: bool) -> None:
    here.changes = len(plan.changes)
    here.emit(diff.planned(plan, time.time()))
    if full and not here.json:
        for line in diff.render(plan, here.screen.paint):
            here.screen.data(line)
    for ref, note in plan.notes:
        here.note(f"{ref.short}: {note}", ref=ref)


async def _only_plan(
    here: Session, workspace: Workspace, wanted: Profile, args: argparse.Namespace, *, check: bool
) -> int:
    plan = await _planned(here, workspace, wanted, args, full=not check)
    return _differences(here, plan, check=check)


async def _planned(
    here: Session, workspace: Workspace, wanted: Profile, args: argparse.Namespace, *, full: bool
) -> Plan:
    here.profile = wanted.name
    plan = await workspace.plan(wanted, only=args.only, recreate=args.recreate)
    _show(here, plan, full=full)
    return plan


def _differences(here: Session, plan: Plan, *, check: bool) -> int:
    if check and not here.json:
        for change in plan.changes:
            here.screen.data(f"{change.ref.short}: {text.clean(change.reason)}")
        here.screen.say(f"{plan.profile}: {len(plan.changes)} drifted, {len(plan.unchanged)} as declared")
    here.result = ("drifted" if check else "changes") if plan.changes else "unchanged"
    return ExitCode.CHANGES if plan.changes else ExitCode.OK


async def _adopt(here: Session, workspace: Workspace, path: Path, args: argparse.Namespace) -> int:
    """Change the file so that it says what was applied; with --plan only show how."""
    from vmtui.engine.adopt import adopt  # what edits TOML is loaded for this alone
    from vmtui.profile import write

    opened = write.open_(path)
    wanted = load.loads(opened.text or load.read(path), path, registry.option_types)
    plan = await workspace.plan(wanted, only=args.only, check=False)
    here.emit(diff.planned(plan, time.time()))
    adoption = await adopt(workspace, opened, plan)
    changed = adoption.difference
    here.changes = int(bool(changed))
    if here.json and changed:
        here.emit(Diagnostic(at=time.time(), level="info", message=f"{path}: changed", code="adopted", details=changed))
    for line in diff.unified(changed, here.screen.paint) if not here.json else ():
        here.screen.data(line)
    if changed and not args.plan:
        adoption.save()
    for change in adoption.left.changes:
        reason = f"{change.ref.short}: {text.clean(change.reason)}: this cannot be adopted"
        here.note(reason, ref=change.ref, hint=f"vmtui --profile {shlex.quote(args.profile)}")
    here.result = ("changes" if args.plan else "adopted") if changed else "unchanged"
    if not here.json:
        said = "written" if changed and not args.plan else "would change" if changed else "nothing to adopt"
        here.screen.say(f"{wanted.name}: {path}: {said}")
    return ExitCode.CHANGES if args.plan and changed else ExitCode.OK


async def _confirm(here: Session, plan: Plan, *, yes: bool) -> None:
    lost = [change.ref.short for change in plan.changes if change.data_loss]
    if lost:
        await here.confirm(f"this destroys the data of {', '.join(lost)}", yes=yes)


async def _apply(here: Session, workspace: Workspace, plan: Plan, on_failure: str) -> Outcome:
    """Raises Failed, with the code that belongs to how it failed and what was left."""
    keep = on_failure == "keep"
    outcome = await workspace.apply(plan, emit=here.emit, on_failure="keep" if keep else "rollback")
    here.result = outcome.result
    if outcome.failure is not None:
        code = exit_codes.of(outcome.failure)
        if outcome.result == "kept":
            code = ExitCode.KEPT
        elif not isinstance(outcome.failure, MissingCapability | ReadinessTimeout):
            code = ExitCode.ROLLED_BACK
        raise Failed(code, outcome.failure, ref=outcome.failed)
    return outcome


async def _converge(
    here: Session, workspace: Workspace, wanted: Profile, args: argparse.Namespace, again: str
) -> tuple[Status, ...]:
    """`again` is what runs it once more without taking back what fails."""
    plan = await _planned(here, workspace, wanted, args, full=False)
    await _confirm(here, plan, yes=args.yes)
    outcome = await _apply(here, workspace, plan, args.on_failure)
    refs = [item.ref for item in wanted.resources if item.ref in plan.needs]
    try:
        statuses = await _ready(here, workspace, wanted, refs, args.timeout)
    except BaseException as error:
        undoable = args.on_failure == "rollback" and outcome.changes > 0
        if isinstance(error, Fault):
            if undoable and error.hint:  # what it asks to look at is about to go
                error.hint = f"{again}; {error.hint}"
            here.error(error)
        if undoable:
            await uncancelled(workspace.roll_back(plan, outcome, emit=here.emit))
        here.result = "rolled-back" if undoable else "kept"
        if not isinstance(error, Fault):
            raise
        failed = ExitCode.ROLLED_BACK if undoable else ExitCode.KEPT
        raise Failed(ExitCode.NOT_READY if isinstance(error, ReadinessTimeout) else failed) from None
    changed = {change.ref: str(change.action) for change in plan.changes}
    here.resources = tuple(_summary(status, changed.get(status.ref, "")) for status in statuses)
    if not here.json:
        for line in tables.resources(statuses, now=time.time(), width=here.screen.width, paint=here.screen.paint):
            here.screen.data(line)
        count = f"{outcome.changes} change{'' if outcome.changes == 1 else 's'}"
        here.screen.say(f"{wanted.name}: {len(statuses)} ready, {count}, {text.span(here.elapsed_s)}")
    return statuses


async def _ready(
    here: Session, workspace: Workspace, wanted: Profile, refs: Iterable[Ref], timeout: float | None
) -> tuple[Status, ...]:
    specs = {item.ref: item.spec for item in wanted.resources}
    waiting = {ref: waits_for(specs[ref].ready) for ref in refs}
    began = time.monotonic()

    def emit(event: Event) -> None:
        if isinstance(event, ReadyReached):
            waiting.pop(event.ref, None)
            if specs[event.ref].ready is None and not here.json:
                return  # up is all it had to be, and that has been said
        here.emit(event)

    def tick() -> None:
        conditional = {ref: text for ref, text in waiting.items() if specs[ref].ready is not None}
        here.output.waiting(conditional, time.monotonic() - began)

    return await session.ticking(tick, workspace.wait_ready(list(waiting), timeout=timeout, emit=emit))


def _summary(status: Status, change: str) -> ResourceSummary:
    return ResourceSummary(
        ref=status.ref,
        backend=status.backend,
        phase=str(status.phase),
        ready=True,
        change=change,
        addresses=tuple(address.address for address in status.addresses),
        endpoints=status.endpoints,
        facts=status.facts,
        problems=status.problems,
    )


async def _down(
    here: Session, workspace: Workspace, name: str, args: argparse.Namespace, *, absent_is_done: bool
) -> int:
    try:
        plan = await workspace.plan_down(name, purge=args.purge, only=args.only)
    except NotFound:
        if not absent_is_done:
            raise
        plan = Plan(profile=name, changes=(), down=True)
    _show(here, plan, full=False)
    await _confirm(here, plan, yes=args.yes)
    # What is half taken down is not put up again: the next `down` goes on from there.
    outcome = await _apply(here, workspace, plan, "keep")
    if not here.json:
        here.screen.say(f"{name}: {outcome.changes} removed, {len(plan.unchanged)} kept, {text.span(here.elapsed_s)}")
    return ExitCode.OK


async def _stay(here: Session, workspace: Workspace, name: str, statuses: Iterable[Status]) -> None:
    """Follow the logs until a signal comes, then take the profile down; its disks stay."""

    async def follow(ref: Ref) -> None:
        async with aclosing(workspace.logs(ref, tail=0, follow=True)) as lines:  # type: ignore[type-var]
            async for line in lines:
                here.emit(LogEmitted(at=line.at or time.time(), ref=ref, text=line.text, stream=line.stream))

    async def take_down() -> None:
        await _apply(here, workspace, await workspace.plan_down(name, purge=False), "keep")

    here.note(f"{name} is up; a signal takes it down")
    followers = [
        asyncio.create_task(follow(status.ref))
        for status in statuses
        if status.ref.kind.runs and status.phase is Phase.RUNNING
    ]
    try:
        await asyncio.Event().wait()
    finally:
        for follower in followers:
            follower.cancel()
        await uncancelled(take_down())
        await asyncio.gather(*followers, return_exceptions=True)
