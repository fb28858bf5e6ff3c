"""What is asked before a profile is acted on, so that what was shown is what is done."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import SuspendNotSupported

from vmtui.core.errors import MissingCapability, OperationFailed
from vmtui.core.resource import Kind, Ref
from vmtui.engine.plan import Change, Plan
from vmtui.profile import write
from vmtui.tui.profiles import lines
from vmtui.tui.profiles.dialogs import Review
from vmtui.tui.rights import EDITOR, HOST
from vmtui.tui.screens.dialogs import Choose, TypeName

if TYPE_CHECKING:
    from vmtui.tui.app import Panel

EDITORS = ("VISUAL", "EDITOR")
DEFAULT_EDITOR = "vi"


def same(one: Plan, other: Plan) -> bool:
    """Whether two plans do the same, whatever the database remembers of what was before."""
    return one.needs == other.needs and [_act(change) for change in one.changes] == [_act(c) for c in other.changes]


def _act(change: Change) -> tuple[object, ...]:
    return change.ref, change.action, change.reason, change.desired, change.backend, change.fields, change.data_loss


async def agreed(panel: Panel, plan: Plan, verb: str) -> bool:
    """Ask; where data is lost with the objects, their bytes, and the profile's name to type. In a worker."""
    title = f"{verb} {plan.profile}?"
    lost = lines.losses(plan, await sizes(panel, plan))
    if lost:
        return await panel.ask(TypeName(title, [*lost, "", *lines.summary(plan)], plan.profile)) is not None
    said = [(line, "text") for line in lines.summary(plan)]
    return await panel.ask(Review(title, said, [("yes", verb.capitalize())])) is not None


async def sizes(panel: Panel, plan: Plan) -> list[tuple[Ref, int | None]]:
    """Of what is lost."""
    found: list[tuple[Ref, int | None]] = []
    for change in plan.changes:
        if change.data_loss:
            status = await panel.workspace.inspect_or_none(change.ref)
            found.append((change.ref, None if status is None else status.size_bytes))
    return found


async def agreed_down(panel: Panel, name: str) -> Plan | None:
    """Ask whether and how to take a profile down; the plan that was agreed to. Raises Fault. In a worker."""
    workspace = panel.workspace
    keeping = await workspace.plan_down(name, purge=False)
    purging = await workspace.plan_down(name, purge=True)
    disks = sum(change.ref.kind is Kind.DISK for change in purging.changes)
    what = f"{disks} disk{'' if disks == 1 else 's'}, named volumes"
    ways = [f"take {name} down, keep its disks and volumes", f"take it down with all its data: {what}"]
    way = await panel.ask(Choose(f"take {name} down?", ways))
    if way is None:
        return None
    plan = purging if way else keeping
    if not way:
        return plan if await agreed(panel, plan, "take down") else None
    lost = lines.losses(plan, await sizes(panel, plan))
    volumes = "what is in its named volumes is lost too"
    sure = TypeName(f"take {name} down with all its data?", [*lost, volumes, "", *lines.summary(plan)], name)
    return plan if await panel.ask(sure) is not None else None


async def adopt(panel: Panel, path: Path, plan: Plan) -> bool:
    """Show what would be written into the file, ask, write it. Whether it was. Raises Fault. In a worker."""
    from vmtui.engine.adopt import adopt as adopted

    panel.rights.require(HOST)
    adoption = await adopted(panel.workspace, write.open_(path), plan)
    left = [(f"cannot be adopted: {change.ref.short}: {change.reason}", "warn") for change in adoption.left.changes]
    if not adoption.difference:
        why = "" if not left else f", {left[0][0]}"
        panel.say(f"{path.name}: nothing to adopt{why}", "warning")
        return False
    said = [*lines.of_difference(adoption.difference), *left]
    if await panel.ask(Review(f"write this into {path}?", said, [("write", "Write")])) is None:
        return False
    adoption.save()
    panel.say(f"{path.name}: written")
    return True


def edit_file(panel: Panel, path: Path) -> None:
    """Give the terminal to the user's editor until it ends. Raises Denied, MissingCapability, OperationFailed."""
    panel.rights.require(EDITOR)
    command = next((os.environ[name] for name in EDITORS if os.environ.get(name)), DEFAULT_EDITOR)
    try:
        argv = [*shlex.split(command), str(path)]
        with panel.suspend():
            code = subprocess.run(argv, check=False).returncode  # the view must not be drawn meanwhile
    except SuspendNotSupported:
        raise MissingCapability(
            "this terminal cannot be handed over", hint=f"{command} {shlex.quote(str(path))}"
        ) from None
    except (OSError, ValueError) as error:
        raise OperationFailed(f"the editor {command!r} does not start: {error}", hint="export EDITOR=vi") from None
    if code:
        raise OperationFailed(f"the editor {command!r} ended with {code}")
