"""What is edited: a resource of a profile, or a new one. Asks for what is not known. In a worker."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vmtui.core.resource import NAME, NAME_RULE, Kind, Ref
from vmtui.engine import registry
from vmtui.profile import edit, load, toml_text, write
from vmtui.profile.schema import Profile
from vmtui.profile.write import Opened
from vmtui.tui.forms.draft import Draft, table_in
from vmtui.tui.profiles import known
from vmtui.tui.profiles.dialogs import AskPath
from vmtui.tui.profiles.known import Known, Origin
from vmtui.tui.rights import FILES
from vmtui.tui.screens.dialogs import Ask, Choose

if TYPE_CHECKING:
    from vmtui.tui.app import Panel

NEW_FILE = "a new file"


@dataclass(slots=True)
class Subject:
    """A draft, and the profile that it goes into. `text` is what its file has, or will begin with."""

    draft: Draft
    opened: Opened
    text: str
    profile: Profile

    @property
    def path(self) -> Path:
        return self.opened.path


async def existing(panel: Panel, ref: Ref) -> Subject | None:
    """A resource that is there: as its profile's file says it, else as it was applied. None when cancelled.

    Raises Fault: the file cannot be used.
    """
    panel.rights.require(FILES)
    paths = panel.workspace.profile_paths()
    path = Path(paths[ref.profile]) if ref.profile in paths else None
    if path is None or not path.is_file():
        title = f"into which file? that of {ref.profile} is {'not known' if path is None else 'gone'}"
        answer = await panel.ask(AskPath(title, str(path or Path.cwd() / f"{ref.profile}.toml"), _toml_file))
        if answer is None:
            return None
        path = Path(answer).expanduser()
    return subject_of(panel, path, ref)


async def new(panel: Panel, kind: Kind | None) -> Subject | None:
    """A new resource: its kind, its profile and its name are asked for. None when cancelled. Raises Fault."""
    panel.rights.require(FILES)
    if kind is None:
        at = await panel.ask(Choose("make what?", [str(each) for each in Kind], list(Kind).index(Kind.CONTAINER)))
        if at is None:
            return None
        kind = list(Kind)[at]
    path = await _file(panel)
    if path is None:
        return None
    opened, text = _read(path, path.stem)
    profile = load.loads(text, opened.path, registry.option_types)
    taken = {item.ref.name for item in profile.resources if item.ref.kind is kind}

    def wrong(name: str) -> str:
        if not NAME.fullmatch(name):
            return NAME_RULE
        return f"there is a {kind} {name!r} in {profile.name} already" if name in taken else ""

    name = await panel.ask(Ask(f"its name? a {kind} in profile {profile.name}", check=wrong))
    return None if name is None else subject_of(panel, path, Ref(profile.name, kind, name))


async def _file(panel: Panel) -> Path | None:
    """The file of a profile: a known one, or a new one."""
    workspace = panel.workspace
    opened = known.Opened(workspace.registry.context.paths.state).paths()
    every = known.known(workspace.profiles(), workspace.profile_paths(), opened)
    files = [entry for entry in every if entry.origin is not Origin.SHIPPED and _is_there(entry)]
    at = 0
    if files:
        at_or_none = await panel.ask(
            Choose("in which profile?", [*(f"{entry.name}  {entry.path}" for entry in files), NEW_FILE])
        )
        if at_or_none is None:
            return None
        at = at_or_none
    if at < len(files):
        return files[at].path
    answer = await panel.ask(AskPath("the new profile's file?", f"{Path.cwd()}/new.toml", _toml_file))
    return None if answer is None else Path(answer).expanduser()


def _is_there(entry: Known) -> bool:
    return entry.path is not None and entry.path.is_file()


def _toml_file(text: str) -> str:
    path = Path(text).expanduser()
    if path.suffix != ".toml":
        return "write a path that ends with .toml"
    return "" if path.parent.is_dir() else "there is no such folder"


def _read(path: Path, name: str) -> tuple[Opened, str]:
    """The file, and the text that it has or begins with: a name of its own if its stem cannot be one."""
    opened = write.open_(path)
    if opened.text is not None:
        return opened, opened.text
    if NAME.fullmatch(path.stem) and path.stem == name:
        return opened, ""
    fit = name if NAME.fullmatch(name) else "new"
    return opened, f"name = {toml_text.value(fit)}\n"


def subject_of(panel: Panel, path: Path, ref: Ref) -> Subject:
    """A resource in the file at `path`, in it or not. Raises Fault."""
    opened, text = _read(Path(os.path.abspath(path)), ref.profile)
    profile = load.loads(text, opened.path, registry.option_types)
    declared = Ref(profile.name, ref.kind, ref.name)
    given = table_in(text, ref.kind, ref.name)
    applied = panel.workspace.applied(ref) if given is None else None
    begin = None
    if applied is not None:
        begin = edit.table_of(applied.spec, edit.options_of(applied), opened.path.parent)
    draft = Draft(declared, given, registry.option_types, begin)
    return Subject(draft, opened, text, profile)
