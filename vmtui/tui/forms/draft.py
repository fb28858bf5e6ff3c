"""What is filled in: the table that it is, what is wrong with it, and the profile that it makes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path as File
from typing import Any

import msgspec

from vmtui.core.errors import Fault, ProfileInvalid
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import SPECS, decode
from vmtui.profile import edit, load, rules
from vmtui.profile.blocks import split
from vmtui.profile.graph import REFERENCES
from vmtui.profile.schema import OptionTypes, Profile
from vmtui.profile.written import Values
from vmtui.tui.forms import values
from vmtui.tui.forms.fields import Field, Path, Shape, fields_of

GENERAL: Path = ()  # what is wrong and belongs to no field


class Draft:
    """One resource being filled in. `given` is its table in the file, None if it is not in it yet."""

    def __init__(
        self,
        ref: Ref,
        given: Mapping[str, Any] | None,
        option_types: OptionTypes,
        begin: Mapping[str, Any] | None = None,
    ) -> None:
        self.ref = ref
        self.is_new = given is None
        self.fields = fields_of(ref.kind, option_types)
        self._by_path = {field.path: field for field in self.fields}
        self._given = given or {}
        start = given if given is not None else begin or {}
        self._texts = {field.path: values.shown(field, _at(start, field.path)) for field in self.fields}
        self._first = dict(self._texts) if given is not None else dict.fromkeys(self._texts, "")
        self._saved = dict(self._texts)

    # What is typed

    def text(self, path: Path) -> str:
        return self._texts[path]

    def type(self, path: Path, text: str) -> str:
        """Take what was typed; what is wrong with it by itself."""
        self._texts[path] = text
        return values.wrong(self._by_path[path], text)

    @property
    def unsaved(self) -> bool:
        return self._texts != self._saved

    def changed(self) -> list[str]:
        """The fields that were typed in, by their keys."""
        return [".".join(path) for path, text in self._texts.items() if text != self._saved[path]]

    def table(self) -> dict[str, Any]:
        """What is filled in as plain TOML; what cannot be read is left out."""
        table: dict[str, Any] = {}
        for field in self.fields:
            try:
                plain = values.read(field, self._texts[field.path])
            except ValueError:
                continue
            if plain is not values.UNSET:
                here = table
                for step in field.path[:-1]:
                    here = here.setdefault(step, {})
                here[field.path[-1]] = plain
        return table

    def changes(self) -> Values:
        """What must be set in the file: only what was typed anew, key by key in tables."""
        table = self.table()
        found: Values = {}
        for field in self.fields:
            path = field.path
            if self._texts[path].strip() == self._first[path].strip():
                continue
            before, after = _at(self._given, path), _at(table, path)
            if field.shape is Shape.PAIRS and isinstance(before, Mapping) and isinstance(after, Mapping) and after:
                found |= {(*path, key): None for key in before if key not in after}
                found |= {(*path, key): item for key, item in after.items() if before.get(key) != item}
            elif after is not values.UNSET:
                found[path] = after
            elif before is not values.UNSET:
                outer = next((path[:end] for end in range(1, len(path)) if not _at(table, path[:end])), path)
                found[outer] = None
        return found

    # What is wrong

    def wrong(self) -> dict[Path, str]:
        """By field; what belongs to none of them under GENERAL."""
        found = {field.path: said for field in self.fields if (said := values.wrong(field, self._texts[field.path]))}
        if not found:
            table, spec_type = self.table(), SPECS[self.ref.kind]
            own = {name: item for name, item in table.items() if name in spec_type.__struct_fields__}
            try:
                spec = decode(own, spec_type)
            except msgspec.ValidationError as error:
                message, key = rules.explain(str(error), own)
                return {self.field_of(key): message}
            for key, message, hint in rules.faults(self.ref, spec):
                found.setdefault(self.field_of(key), f"{message}{f': {hint}' if hint else ''}")
        return found

    def field_of(self, key: Sequence[str | int]) -> Path:
        """The field that a key below [KIND.NAME] belongs to."""
        path = tuple(str(step) for step in key)
        for length in range(len(path), 0, -1):
            if path[:length] in self._by_path:
                return path[:length]
        return next((field.path for field in self.fields if path and field.path[: len(path)] == path), GENERAL)

    # In a profile

    def written(self, text: str) -> str:
        """The profile's text with this in it. Raises ProfileInvalid."""
        if self.is_new:
            return edit.add_table(text, self.ref.kind, self.ref.name, self.table())
        changes = self.changes()
        return edit.set_fields(text, self.ref.kind, self.ref.name, changes) if changes else text

    def checked(self, text: str, path: File, option_types: OptionTypes) -> tuple[Profile | None, dict[Path, str]]:
        """The profile with this in it, or what is wrong with it. `text` is that of the file at `path`."""
        found = self.wrong()
        if found:
            return None, found
        try:
            return load.loads(self.written(text), path, option_types), {}
        except ProfileInvalid as error:
            prefix = f"{self.ref.kind}.{self.ref.name}."
            own = error.key.startswith(prefix)
            key = error.key.removeprefix(prefix).replace("[", ".").replace("]", "").split(".") if own else []
            hint = f": {error.hint}" if error.hint else ""
            said = f"{error.message}{hint}" if own else f"{error}{hint}"
            return None, {self.field_of(key): said}
        except Fault as error:
            return None, {GENERAL: str(error)}

    def excerpt(self, text: str) -> str:
        """Of the profile's text what is about this resource."""
        blocks = split(text).below((str(self.ref.kind), self.ref.name))
        return "".join(block.lead.lstrip("\r\n") + block.body for block in blocks) or "\n"


def offers(field: Field, ref: Ref, others: Sequence[Ref]) -> tuple[str, ...]:
    """What a field can refer to, or choose from."""
    if not field.refers_to:
        return field.choices
    kind = REFERENCES[field.refers_to]
    if kind is None:
        return tuple(other.short for other in others if other.kind.runs and other != ref)
    return tuple(other.name for other in others if other.kind is kind)


def table_in(text: str, kind: Kind, name: str) -> dict[str, Any] | None:
    """The table of a resource in a profile that could be loaded."""
    found = edit.data_of(text).get(kind, {}).get(name)
    return found if isinstance(found, dict) else None


def _at(table: Mapping[str, Any], path: Path) -> Any:
    here: Any = table
    for step in path:
        if not isinstance(here, Mapping) or step not in here:
            return values.UNSET
        here = here[step]
    return here
