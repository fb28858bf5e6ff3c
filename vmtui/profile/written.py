"""A spec as a profile says it: only what differs from the defaults, units as people write them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any

import msgspec

from vmtui.core.specs import Spec, Workload, encode_unit
from vmtui.core.units import Duration, Mount, Publish, ReadOnlyMount, Size

Path = tuple[str, ...]  # the keys below [KIND.NAME]
Values = dict[Path, Any]  # plain TOML values; None: the key goes
Options = tuple[tuple[str, Any], ...]  # as in Declared: the name of a backend and its struct


def given(struct: msgspec.Struct) -> dict[str, Any]:
    """The fields that are not their defaults as plain TOML values, in the order in which they are best read."""
    plain: dict[str, Any] = {}
    config = struct.__struct_config__
    if config.tag is not None and config.tag_field is not None:
        plain[config.tag_field] = config.tag
    for field in in_order(type(struct)):
        value = getattr(struct, field.name)
        if field.required or value != default(field):
            plain[field.encode_name] = toml(value)
    return plain


@cache
def in_order(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """The fields of a type: of a spec its own first, then what all workloads have, labels and ready last."""
    fields = msgspec.structs.fields(kind)
    if not issubclass(kind, Spec):
        return fields
    workload, shared = Workload.__struct_fields__, Spec.__struct_fields__

    def place(field: msgspec.structs.FieldInfo) -> int:
        if field.name == "backend":
            return 0
        return 3 if field.name in shared else 2 if field.name in workload else 1

    return tuple(sorted(fields, key=place))


def default(field: msgspec.structs.FieldInfo) -> Any:
    """What a field is when nothing is written; msgspec.NODEFAULT for a required one."""
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def toml(value: Any) -> Any:
    """One value as a plain TOML value. Decoded it is equal to `value`."""
    if isinstance(value, msgspec.Struct):
        return given(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): toml(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [toml(item) for item in value]
    if isinstance(value, Duration):
        text = str(value)
        return text if Duration.parse(text) == value else float(value)
    if isinstance(value, Publish):
        return str(value).removesuffix("/tcp")
    if isinstance(value, Mount):
        return str(value).removesuffix(":ro" if isinstance(value, ReadOnlyMount) else ":rw")
    return encode_unit(value) if isinstance(value, Size) else value


def changes(before: msgspec.Struct, after: msgspec.Struct, path: Path = ()) -> Values:
    """What must be written so that what says `before` says `after`."""
    found: Values = {}
    for field in in_order(type(after)):
        here = (*path, field.encode_name)
        old, new = getattr(before, field.name, msgspec.UNSET), getattr(after, field.name)
        if old == new:
            continue
        if not field.required and new == default(field):
            found[here] = None
        elif isinstance(old, msgspec.Struct) and isinstance(new, msgspec.Struct) and type(old) is type(new):
            found |= changes(old, new, here)
        elif isinstance(new, Mapping) and isinstance(old, Mapping) and old:
            found |= {(*here, key): None for key in old if key not in new}
            found |= {(*here, key): toml(item) for key, item in new.items() if key not in old or old[key] != item}
        else:
            found[here] = toml(new)
    return found


def option_changes(before: Options, after: Options) -> Values:
    """The same for the sub-tables of backends."""
    old, new = dict(before), dict(after)
    found: Values = {(name,): None for name in old if name not in new}
    for name, struct in new.items():
        was, plain = old.get(name), given(struct)
        if isinstance(was, msgspec.Struct) and type(was) is type(struct):
            found |= changes(was, struct, (name,)) if plain or was == struct else {(name,): None}
        elif plain:
            found[name,] = plain
    return found
