"""A plan as lines that people read before they say yes, for every front end. Pure; the texts may be hostile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from typing import NamedTuple

import msgspec

from vmtui.core.lifecycle import Action
from vmtui.core.resource import Ref
from vmtui.core.specs import Spec, encode
from vmtui.engine.plan import RECREATE, Change, Plan

CREATE_MARK, DELETE_MARK, CHANGE_MARK, AGAIN_MARK = "+", "-", "~", "±"
MARKS: dict[str, str] = {Action.CREATE: CREATE_MARK, Action.DELETE: DELETE_MARK, RECREATE: AGAIN_MARK}
WORDS = {CREATE_MARK: "to create", CHANGE_MARK: "to change", AGAIN_MARK: "to recreate", DELETE_MARK: "to delete"}
MAX_VALUE = 200
EMPTY = '""'


class Role(StrEnum):
    """What a part of a line is, so that a front end can colour it."""

    PLAIN = ""
    REASON = "reason"
    NEW = "new"
    OLD = "old"
    EDIT = "edit"
    LOSS = "loss"


ROLES = {CREATE_MARK: Role.NEW, DELETE_MARK: Role.OLD, CHANGE_MARK: Role.EDIT, AGAIN_MARK: Role.LOSS}


class Part(NamedTuple):
    """A value is cleaned and cut to MAX_VALUE by whoever shows it, and shown as EMPTY if nothing is left."""

    text: str
    role: Role = Role.PLAIN
    is_value: bool = False


class Line(NamedTuple):
    """One line; `ref` is the resource that it is about, `first` whether its block begins here."""

    ref: Ref
    first: bool
    parts: tuple[Part, ...]


def lines(plan: Plan) -> Iterator[Line]:
    """One block per change: what, why, and each field before → after."""
    for change in plan.changes:
        yield Line(change.ref, True, _head(change))
        if change.action == Action.CREATE and change.desired is not None:
            for name, value in _given(change.desired.spec):
                parts = (Part(f"    + {name} = ", Role.NEW), Part(value, Role.NEW, True))
                yield Line(change.ref, False, parts)
        else:
            for field in change.fields:
                before = Part(shown(field.before), Role.OLD, True)
                after = Part(shown(field.after), Role.NEW, True)
                sign = (Part("    "), Part(CHANGE_MARK, Role.EDIT), Part(f" {field.name}: "))
                yield Line(change.ref, False, (*sign, before, Part(" → "), after))


def _head(change: Change) -> tuple[Part, ...]:
    mark = MARKS.get(change.action, CHANGE_MARK)
    parts = [Part(f"{mark} {change.ref.short}", ROLES[mark])]
    if change.backend:
        parts.append(Part(f" ({change.backend})"))
    parts.append(Part(f"  {change.action}: {change.reason}", Role.REASON))
    if change.data_loss:
        parts.append(Part("  its data is lost", Role.LOSS))
    return tuple(parts)


def totals(plan: Plan) -> str:
    """The last line: how many of each."""
    counts = dict.fromkeys(WORDS, 0)
    for change in plan.changes:
        counts[MARKS.get(change.action, CHANGE_MARK)] += 1
    parts = [f"{counts[mark]} {word}" for mark, word in WORDS.items() if counts[mark]]
    return f"{plan.profile}: {', '.join([*parts, f'{len(plan.unchanged)} unchanged'] if parts else ['no changes'])}"


def _given(spec: Spec) -> Iterator[tuple[str, str]]:
    """The fields that are not their defaults."""
    for name, default in _defaults(type(spec)):
        value = getattr(spec, name)
        if value != default and name != "backend":
            yield name, shown(encode(value))


@cache
def _defaults(kind: type[Spec]) -> tuple[tuple[str, object], ...]:
    return tuple(
        (field.name, field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory())
        for field in msgspec.structs.fields(kind)
    )


def shown(value: object) -> str:
    """A value of a spec as text; of a table only what is set."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if text.startswith("{"):
        with contextlib.suppress(msgspec.DecodeError):
            given = {key: value for key, value in msgspec.json.decode(text).items() if value is not None}
            text = msgspec.json.encode(given).decode()
    return text
