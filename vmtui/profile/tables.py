"""A TOML file of tables that structs describe: each fault names file, line and key, and what was meant."""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import EnumType
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from vmtui.core.errors import FileInvalid
from vmtui.core.specs import decode
from vmtui.profile import document, rules

UNKNOWN = re.compile(r"unknown key '(.*)'", re.DOTALL)
MISSING = re.compile(r"required key '(\w+)' is missing")
T = TypeVar("T")
Key = tuple[str | int, ...]


class TomlFile:
    """The text of a file and what it says. Faults are of the type `fault`."""

    def __init__(self, path: Path, text: str, table: dict[str, Any], fault: type[FileInvalid]) -> None:
        self.path = path
        self.table = table
        self._text = text
        self._fault = fault

    @classmethod
    def read(cls, path: Path, fault: type[FileInvalid], *, known: Collection[str], form: str) -> TomlFile:
        """`known` are the names of its tables; `form` says how such a file looks. Raises `fault`."""
        text = document.read(path, fault)
        file = cls(path, text, document.parse(text, path, fault, form=form), fault)
        for name in file.table:
            if name not in known:
                file.refuse((name,), "unknown table", document.meant(name, known) or form)
        return file

    def decode(self, kind: type[T], *key: str, also: dict[str, Any] | None = None) -> T:
        """The table `key` as a struct; one that is not there has the defaults. `also` are fields it must not name."""
        given: Any = self.table
        for step in key:
            given = given.get(step, {}) if isinstance(given, dict) else given
        if not isinstance(given, dict):
            self.refuse(key, f"expected a table, as in [{rules.dotted(key)}]")
        for name in also or ():
            if name in given:
                self._unknown(kind, (*key, name), also or ())
        try:
            return decode({**given, **(also or {})}, kind)
        except msgspec.ValidationError as error:
            message, steps = rules.explain(str(error), given)
            where, full = _at(kind, steps), (*key, *steps)
            if unknown := UNKNOWN.fullmatch(message):
                self._unknown(where, (*full, unknown[1]), also or ())
            if isinstance(where, EnumType) and isinstance(word := _value(given, steps), str):
                words: list[Any] = list(where)
                self.refuse(full, f"{word[:80]!r} is not known here", among(word, [str(item) for item in words]))
            missing = MISSING.fullmatch(message)
            self.refuse(full, message, f"add {missing[1]} = …" if missing else "")

    def refuse(self, key: Key, message: str, hint: str = "") -> NoReturn:
        """Raises the fault of one key of the file."""
        raise document.located(self._fault, self.path, self._text, key, message, hint)

    def _unknown(self, kind: Any, key: Key, hidden: Collection[str]) -> NoReturn:
        names = [name for name in getattr(kind, "__struct_fields__", ()) if name not in hidden]
        self.refuse(key, "unknown key", among(str(key[-1]), names))


def among(word: str, known: Collection[str]) -> str:
    """The hint for a word that is none of `known`."""
    return document.meant(word, known) or (f"known here: {', '.join(sorted(known))}" if known else "")


def _value(data: Any, steps: Key) -> Any:
    try:
        for step in steps:
            data = data[step]
    except (TypeError, KeyError, IndexError):
        return None
    return data


def _at(kind: Any, steps: Key) -> Any:
    """The type of what `steps` lead to in a struct, None if they lead nowhere."""
    found: Any = msgspec.inspect.type_info(kind)
    for step in steps:
        if isinstance(found, msgspec.inspect.UnionType):
            found = next((one for one in found.types if not isinstance(one, msgspec.inspect.NoneType)), None)
        match found:
            case msgspec.inspect.StructType():
                found = next((field.type for field in found.fields if field.encode_name == step), None)
            case msgspec.inspect.DictType():
                found = found.value_type
            case msgspec.inspect.VarTupleType() | msgspec.inspect.ListType():
                found = found.item_type
            case _:
                return None
    return getattr(found, "cls", None)
