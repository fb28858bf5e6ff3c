"""A filled-in form into its file: what is written and what would follow from it is shown first. In a worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vmtui.core.errors import Fault
from vmtui.engine import registry
from vmtui.engine.plan import Plan
from vmtui.profile import edit, write
from vmtui.profile.schema import Profile
from vmtui.tui.forms.begin import Subject
from vmtui.tui.profiles import acts, known, lines
from vmtui.tui.profiles.dialogs import Review
from vmtui.tui.profiles.lines import Said
from vmtui.tui.rights import EDIT

if TYPE_CHECKING:
    from vmtui.tui.app import Panel

SAVE, APPLY = "save", "apply"


@dataclass(frozen=True, slots=True)
class Saved:
    """The file was written; `plan` is what the user agreed to apply then."""

    plan: Plan | None


async def save(panel: Panel, subject: Subject, profile: Profile, text: str) -> Saved | None:
    """Ask and write; None when nothing was written. Raises Fault: Denied among them.

    `text` is that of the file and `profile` what it says, both with what is filled in.
    """
    panel.rights.require(EDIT)
    if text == subject.opened.text:
        panel.say(f"{subject.path.name}: nothing to save")
        return None
    said: list[Said] = list(lines.of_difference(edit.difference(subject.opened.text or "", text, subject.path.name)))
    plan: Plan | None = None
    try:
        plan = await panel.workspace.plan(profile)
        said += [("", "text"), ("what applying it would do:", "accent")]
        said += [(line, "text") for line in lines.summary(plan)]
    except Fault as error:
        said += [("", "text"), *lines.of_fault(error, "planning")]
    verbs = [(SAVE, "Save"), *([(APPLY, "Save and apply")] if plan is not None and not plan.empty else [])]
    answer = await panel.ask(Review(f"write {subject.path}?", said, verbs))
    if answer is None:
        return None
    write.save(subject.opened, text, registry.option_types)
    known.Opened(panel.workspace.registry.context.paths.state).add(subject.path)
    panel.say(f"{subject.path.name}: written")
    if answer != APPLY or plan is None:
        return Saved(None)
    loses = any(change.data_loss for change in plan.changes)
    return Saved(plan if not loses or await acts.agreed(panel, plan, "apply") else None)


def apply(panel: Panel, path: Path, plan: Plan) -> None:
    """Go to the view of profiles, which carries out what was agreed to, if it still is what there is to do."""
    from vmtui.tui.screens.profile import ProfileScreen

    view = panel.view_named("profile")
    assert isinstance(view, ProfileScreen)
    panel.show(view)
    view.open(path, plan)
