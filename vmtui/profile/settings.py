"""What a person prefers: $XDG_CONFIG_HOME/vmtui/config.toml. A wrong key does not take the right ones with it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from vmtui.core.errors import SettingsInvalid
from vmtui.core.units import Duration
from vmtui.host.paths import config_dir
from vmtui.profile import document

FORM = "settings are lines of the form KEY = VALUE, and the table [keys]"
SHORTEST_REFRESH = Duration(0.2)
Key = tuple[str | int, ...]


class Column(StrEnum):
    """The columns of the list of resources."""

    STATE = "state"
    KIND = "kind"
    NAME = "name"
    PROFILE = "profile"
    BACKEND = "backend"
    ADDRESS = "address"
    CPU = "cpu"
    MEMORY = "memory"
    NET = "net"
    DISK = "disk"
    AGE = "age"
    PROBLEM = "problem"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the panel looks and which keys it has."""

    theme: str = ""  # "": what fits the terminal
    ascii: bool | None = None
    mouse: bool = True
    refresh: Duration = msgspec.field(default_factory=lambda: Duration(2))
    columns: tuple[Column, ...] = ()  # (): all
    detach_key: str = "ctrl+]"
    keys: dict[str, str] = {}


def path() -> Path:
    return config_dir() / "config.toml"


def read(path: Path) -> tuple[Settings, tuple[SettingsInvalid, ...]]:
    """What can be used of the file, defaults for the rest, and what is wrong with it. Without a file: the defaults."""
    if not os.path.lexists(path):
        return Settings(), ()
    try:
        text = document.read(path, SettingsInvalid)
        table = document.parse(text, path, SettingsInvalid, form=FORM)
    except SettingsInvalid as fault:
        return Settings(), (fault,)
    good: dict[str, Any] = {}
    problems: list[SettingsInvalid] = []
    for key, value in _parts(table):
        found = _decode(key, value)
        if isinstance(found, tuple):
            problems.append(document.located(SettingsInvalid, path, text, *found))
        elif key[0] == "keys":
            good["keys"] = {**good.get("keys", {}), **found.keys}
        else:
            good[key[0]] = getattr(found, key[0])
    return Settings(**good), tuple(problems)


def load_settings(path: Path) -> Settings:
    """Raises SettingsInvalid for the first thing that is wrong."""
    settings, problems = read(path)
    if problems:
        raise problems[0]
    return settings


def write_setting(path: Path, key: tuple[str, ...], value: str | bool | list[str]) -> None:
    """Set one key, such as ("keys", "quit"); the rest of the file stays, comments too. Raises SettingsInvalid."""
    import tomlkit

    from vmtui.host.files import in_words, write_atomic

    text, mode = "", 0o644
    if os.path.lexists(path):
        text = document.read(path, SettingsInvalid)
        document.parse(text, path, SettingsInvalid, form=FORM)
    nested: Any = value
    for step in reversed(key[1:]):
        nested = {step: nested}
    if isinstance(wrong := _decode(key[:1], nested), tuple):
        raise document.located(SettingsInvalid, path, text, *wrong)
    made = tomlkit.parse(text)
    table: Any = made
    for step in key[:-1]:
        if not isinstance(table.get(step), dict):
            table[step] = tomlkit.table()
        table = table[step]
    table[key[-1]] = value
    target = path.resolve()  # the file of a link into a folder of such files is replaced, not the link
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            mode = stat.S_IMODE(target.stat().st_mode)
        write_atomic(target, tomlkit.dumps(made).encode(), mode=mode)
    except OSError as error:
        raise SettingsInvalid(f"cannot write it: {in_words(error)}", where=str(path)) from None


def _parts(table: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What is right or wrong by itself: each key, and each one of [keys]."""
    for key, value in table.items():
        if key == "keys" and isinstance(value, dict):
            for name, keys in value.items():
                yield (key, name), {name: keys}
        else:
            yield (key,), value


def _decode(key: tuple[str, ...], value: Any) -> Settings | tuple[Key, str, str]:
    """The settings with this key alone, or the key that is wrong, what is, and a hint."""
    from vmtui.core.specs import decode

    name = key[0]
    try:
        found = decode({name: value}, Settings)
    except msgspec.ValidationError as error:
        return _explained(str(error), name, value)
    if found.refresh < SHORTEST_REFRESH:
        return key, f"{found.refresh} is too often", f"write at least {SHORTEST_REFRESH}"
    if len(set(found.columns)) < len(found.columns):
        return key, "a column is named twice", ""
    if not found.detach_key.strip() or "," in found.detach_key:
        return key, "exactly one key is needed", 'write it as in "ctrl+]"'
    return found


def _explained(error: str, name: str, value: Any) -> tuple[Key, str, str]:
    from vmtui.profile import rules

    if name not in Settings.__struct_fields__:
        known = sorted(Settings.__struct_fields__)
        return (name,), "unknown key", document.meant(name, known) or f"known here: {', '.join(known)}"
    message, steps = rules.explain(error, {name: value})
    hint = ""
    if name == "columns" and len(steps) == 2 and isinstance(steps[1], int):
        word = str(value[steps[1]])
        message = f"there is no column {word!r}" if message.startswith("invalid enum") else message
        hint = document.meant(word, map(str, Column)) or f"known: {', '.join(Column)}"
    return steps, message, hint
