"""What was done or selected, as TOML: the change that an act amounts to, and a new profile of what is selected."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmtui.core.backend import Desired
from vmtui.core.errors import Fault
from vmtui.core.lifecycle import Action
from vmtui.core.resource import NAME, NAME_RULE, Ref
from vmtui.engine import compose, registry
from vmtui.host.files import in_words
from vmtui.profile import write
from vmtui.tui.rights import FILES, HOST
from vmtui.tui.screens.dialogs import Ask, Confirm

if TYPE_CHECKING:
    from vmtui.tui.app import Panel


def toml_of_act(panel: Panel, action: Action, before: Desired[Any] | None, ref: Ref) -> str:
    """The change of the profile's file that an act amounts to."""
    if action is not Action.DELETE or before is None:
        return f"# {action} {ref}\n# A profile says what exists and that it runs; {action} alone changes nothing in it."
    known = panel.rights.has(FILES)
    path = panel.workspace.profile_paths().get(ref.profile) if known else None
    if path is None:
        return f"# {ref.profile} has no file\n"
    try:
        text = Path(path).read_text()
        return compose.toml_change(text, before, None, folder=Path(path).parent, name=Path(path).name)
    except (OSError, UnicodeDecodeError) as error:
        return f"# {path} cannot be read: {in_words(error) if isinstance(error, OSError) else 'not UTF-8'}"
    except Fault as fault:
        return f"# {fault}"


def problem_with(text: str) -> str:
    """What is wrong with a path for a new profile, "" if nothing is."""
    path = Path(text).expanduser()
    if path.suffix != ".toml":
        return "a profile is a file NAME.toml"
    if not NAME.fullmatch(path.stem):
        return NAME_RULE
    return "" if path.parent.is_dir() else f"there is no folder {path.parent}"


async def save_as_profile(panel: Panel, refs: Sequence[Ref]) -> None:
    """Ask for a file, show what it will say, write it. Raises Denied. In a worker."""
    panel.rights.require(HOST)
    found = {ref: panel.workspace.applied(ref) for ref in refs}
    unknown = [ref for ref, desired in found.items() if desired is None]
    chosen = [desired for desired in found.values() if desired is not None]
    if not chosen:
        panel.say("nothing that was applied is selected", "warning")
        return
    title = f"save {len(chosen)} resource{'' if len(chosen) == 1 else 's'} as a profile"
    notes = [f"{ref} is not in the database: it is left out" for ref in unknown]
    answer = await panel.ask(Ask(title, str(Path.cwd() / "new.toml"), problem_with, lines=notes))
    if answer is None:
        return
    path = Path(answer).expanduser()
    try:
        made = compose.compose(path.stem, chosen, path.parent)
        lost = [f"left out: {edge.key} refers to {edge.provider}, which is not selected" for edge in made.missing]
        before = [f"{path} is there already, and is replaced"] if path.exists() else []
        lines = [*before, *lost, "", *made.text.splitlines()]
        if not await panel.ask(Confirm(f"write {path}?", lines, "Write")):
            return
        write.save(write.open_(path), made.text, registry.option_types)
    except Fault as fault:
        panel.fail(fault, title)
    else:
        panel.say(f"{path} is written; 4 opens it")
