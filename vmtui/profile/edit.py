"""Changes to the text of a profile that leave all else in it as it is: comments, order, spelling. Pure."""

from __future__ import annotations

import copy
import difflib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path as File
from typing import Any

from vmtui.core.backend import Desired
from vmtui.core.errors import ProfileInvalid
from vmtui.core.resource import Kind
from vmtui.core.specs import Spec
from vmtui.profile import located, toml_text, written
from vmtui.profile.blocks import Block, Blocks, split
from vmtui.profile.inline import change_body, has
from vmtui.profile.written import Options, Path, Values

Document = dict[str, Any]


def set_fields(text: str, kind: Kind, name: str, values: Values) -> str:
    """Set keys below [KIND.NAME] to plain TOML values; None takes a key away. Raises ProfileInvalid."""
    at = (str(kind), name)

    def change(document: Document) -> None:
        for path, value in values.items():
            _put(document, (*at, *path), value)

    blocks = split(text)
    for path, value in values.items():
        _set(blocks, at, path, value, multiline="\r\n" not in text)
    return _checked(text, blocks, f"{kind}.{name}", change)


def add_resource(text: str, kind: Kind, name: str, spec: Spec, options: Options, folder: File) -> str:
    """Add a table behind the last one of its kind. `folder` is the file's. Raises ProfileInvalid."""
    return add_table(text, kind, name, table_of(spec, options, folder))


def add_table(text: str, kind: Kind, name: str, table: Document) -> str:
    """The same for what stands in the table."""

    def change(document: Document) -> None:
        tables = document.setdefault(str(kind), {})
        if not isinstance(tables, dict) or name in tables:
            raise ProfileInvalid("it is in the profile already", key=f"{kind}.{name}")
        tables[name] = table

    blocks = split(text)
    body = _in_file(toml_text.table((kind, name), table, multiline="\r\n" not in text), text)
    lead = _in_file("\n", text) if text.strip() else ""
    _complete_last_line(blocks, text)
    blocks.add(Block((str(kind), name), lead, body), after=(str(kind),))
    return _checked(text, blocks, f"{kind}.{name}", change)


def data_of(text: str) -> Document:
    """The data of a profile that could be loaded."""
    return tomllib.loads(text)


def remove_resource(text: str, kind: Kind, name: str) -> str:
    """Take a table away, with its sub-tables and the comments right above them. Raises ProfileInvalid."""
    at = (str(kind), name)
    blocks = split(text)
    blocks.remove(blocks.below(at))
    for block in blocks.found:
        if block.path in ((), at[:1]):
            block.body = change_body(block.body, block.path, at, None)

    def change(document: Document) -> None:
        _put(document, at, None)

    return _checked(text, blocks, f"{kind}.{name}", change)


def table_of(spec: Spec, options: Options, folder: File) -> dict[str, Any]:
    """What stands below [KIND.NAME]: only what is not a default, paths relative to `folder` where they are in it."""
    given = written.given(located.relative(spec, folder))
    return given | {name: plain for name, struct in options if (plain := written.given(struct))}


def options_of(desired: Desired[Any]) -> Options:
    """As in a profile: none if all of them are the defaults."""
    return (
        () if desired.options is None or not written.given(desired.options) else ((desired.backend, desired.options),)
    )


def toml_of(desired: Desired[Any], folder: File | None = None) -> str:
    """Its [KIND.NAME] table; paths are relative to `folder` where they are in it, else absolute."""
    plain = written.given(desired.spec) if folder is None else table_of(desired.spec, (), folder)
    plain |= {name: written.given(options) for name, options in options_of(desired)}
    return toml_text.table((desired.ref.kind, desired.ref.name), plain)


def changes(before: Spec, after: Spec, was: Options, becomes: Options, folder: File) -> Values:
    """What `set_fields` must set for a resource to be said anew."""
    specs = written.changes(located.relative(before, folder), located.relative(after, folder))
    return specs | written.option_changes(was, becomes)


def difference(before: str, after: str, name: str) -> str:
    """A unified diff, "" for no difference."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"{name} (now)", f"{name} (then)"
    )
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def _set(blocks: Blocks, at: Path, path: Path, value: Any, *, multiline: bool) -> None:
    full = (*at, *path)
    if value is None:
        blocks.remove(blocks.below(full))
    elif isinstance(value, Mapping) and blocks.below(full):
        for name in {**_found(blocks, full), **value}:
            _set(blocks, at, (*path, name), value.get(name), multiline=multiline)
        return
    home = _home(blocks, at, full)
    if home is not None:
        home.body = change_body(home.body, home.path, full, value, multiline=multiline)
    elif value is not None:
        body = toml_text.table(at, _nested(path, value), multiline=multiline)
        first = next((block for block in blocks.found if block.path[: len(at)] == at), None)
        place = len(blocks.found) if first is None else blocks.found.index(first)
        lead, body = ("\n", body) if first is None else (first.lead, f"{body}\n")
        if first is not None:
            first.lead = ""
        blocks.found.insert(place, Block(at, lead, body if multiline else body.replace("\n", "\r\n")))


def _home(blocks: Blocks, at: Path, full: Path) -> Block | None:
    """The table in which a key stands, or should: the innermost that has a header, or pairs that begin with `at`."""
    for length in range(len(full) - 1, -1, -1):
        block = blocks.at(full[:length])
        if block is not None and (length >= len(at) or has(block.body, at)):
            return block
    return None


def _found(blocks: Blocks, path: Path) -> dict[str, Any]:
    here: Any = tomllib.loads(blocks.text())
    for step in path:
        here = here.get(step, {})
    return here if isinstance(here, dict) else {}


def _nested(path: Path, value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    made: dict[str, Any] = value
    return made


def _put(document: Document, path: Sequence[str], value: Any) -> None:
    """The same change on plain data; tables that are left empty stay, as they do in the text."""
    *inner, last = path
    here = document
    for step in inner:
        if value is None and step not in here:
            return
        here = here.setdefault(step, {})
    if value is None:
        here.pop(last, None)
    else:
        here[last] = value


def _checked(before: str, blocks: Blocks, key: str, change: Callable[[Document], None]) -> str:
    """The new text, once it is certain that it says what it should and nothing else."""
    wanted = copy.deepcopy(tomllib.loads(before))
    change(wanted)
    text = blocks.text()
    try:
        says = _essence(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        says = None
    if says != _essence(wanted):
        raise ProfileInvalid(
            "it is written in a form that cannot be changed from here", key=key,
            hint=f"write it as a table of its own: [{key}]",
        )  # fmt: skip
    return text


def _essence(document: Document) -> Document:
    """Without empty tables, but for [KIND.NAME]: they say nothing."""
    return {
        kind: {name: _without_empty(table) for name, table in tables.items()} if isinstance(tables, dict) else tables
        for kind, tables in document.items()
        if tables != {}
    }


def _without_empty(plain: Any) -> Any:
    if not isinstance(plain, dict):
        return plain
    return {name: kept for name, item in plain.items() if (kept := _without_empty(item)) != {}}


def _complete_last_line(blocks: Blocks, text: str) -> None:
    if text and not text.endswith("\n"):
        blocks.tail += _in_file("\n", text)


def _in_file(made: str, text: str) -> str:
    return made.replace("\n", "\r\n") if "\r\n" in text else made
