"""One key of one TOML table changed by tomlkit, which is imported for that alone."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vmtui.profile import toml_text

if TYPE_CHECKING:
    from tomlkit.items import Array, Item

Path = tuple[str, ...]
LONE = re.compile(r"(?<!\r)\n")


def change_body(body: str, path: Path, full: Path, value: Any, *, multiline: bool = True) -> str:
    """`body` is a table of a file, its header [PATH] included; `full` begins with `path`. None takes the key away.

    Not `multiline`: the lines of the file end with CRLF, which texts of several lines must not take on.
    """
    if value is None and not has(body, full):
        return body
    import tomlkit

    if body and not body.endswith("\n"):
        body += "\n"
    document = tomlkit.parse(body)
    table: Any = document
    for step in path:
        table = table[step]
    _change(table, full[len(path) :], value, multiline=multiline)
    made = tomlkit.dumps(document)
    return made if multiline or LONE.search(body) else LONE.sub("\r\n", made)


def has(body: str, full: Path) -> bool:
    """Whether the key is written in this table."""
    here: Any = tomllib.loads(body)
    for step in full:
        if not isinstance(here, dict) or step not in here:
            return False
        here = here[step]
    return True


def _change(table: Any, keys: Path, value: Any, *, multiline: bool) -> None:
    from tomlkit.items import Array, InlineTable

    name, *rest = keys
    old = table.get(name)
    if rest and isinstance(old, Mapping) and not isinstance(old, InlineTable):  # dotted keys
        _change(old, tuple(rest), value, multiline=multiline)
        if value is None and not old:
            del table[name]
    elif rest or isinstance(old, InlineTable):
        plain = old.unwrap() if old is not None else {}
        merged = _merged(plain, rest, value)
        if merged is None:
            del table[name]
        elif merged != plain:
            table[name] = _item(name, merged, multiline=False)
    elif value is None:
        del table[name]
    elif isinstance(old, Array) and isinstance(value, Sequence) and not isinstance(value, str) and old:
        if not _change_array(old, value, multiline=multiline):
            table[name] = _item(name, value, multiline=multiline)
    elif old is None or old != value or isinstance(old, bool) is not isinstance(value, bool):
        table[name] = _item(name, value, multiline=multiline)


def _merged(plain: dict[str, Any], keys: Sequence[str], value: Any) -> Any:
    """`plain` with one key changed, however deep; None if the key is itself."""
    if not keys:
        return value
    name, *rest = keys
    inner = plain.get(name)
    changed = _merged(inner if isinstance(inner, dict) else {}, rest, value)
    left = {key: item for key, item in plain.items() if key != name or changed is not None}
    return left if changed is None else left | {name: changed}


def _change_array(array: Array, value: Sequence[Any], *, multiline: bool) -> bool:
    """Change the items that differ, so that the comments between the others stay. Whether that worked."""
    old = array.unwrap()
    before, after = ([toml_text.value(item) for item in items] for items in (old, value))
    parts = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    for what, first, last, start, end in reversed(parts):
        if what == "equal":
            continue
        for place in range(last - 1, first - 1, -1):
            del array[place]
        for offset, item in enumerate(value[start:end]):
            array.insert(first + offset, _item("", item, multiline=multiline))
    try:
        return bool(tomllib.loads(f"x = {array.as_string()}")["x"] == list(value))
    except tomllib.TOMLDecodeError:
        return False


def _item(name: str, plain: Any, *, multiline: bool) -> Item:
    import tomlkit

    room = toml_text.MAX_WIDTH - len(toml_text.key(name)) - len(" = ")
    return tomlkit.value(toml_text.value(plain, room=room, multiline=multiline))
