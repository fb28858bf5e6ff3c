"""A plan as text that people read before they say yes. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import msgspec

from vmtui.core.events import FieldDifference, Planned, PlannedChange
from vmtui.core.lifecycle import Action
from vmtui.core.specs import Spec, encode
from vmtui.engine.plan import RECREATE, Change, Plan
from vmtui.headless import text

CREATE_MARK, DELETE_MARK, CHANGE_MARK, AGAIN_MARK = "+", "-", "~", "±"
STYLES = {CREATE_MARK: text.GREEN, DELETE_MARK: text.RED, CHANGE_MARK: text.YELLOW, AGAIN_MARK: text.RED}
MARKS: dict[str, str] = {Action.CREATE: CREATE_MARK, Action.DELETE: DELETE_MARK, RECREATE: AGAIN_MARK}
MAX_VALUE = 200


def planned(plan: Plan, at: float) -> Planned:
    """A plan as the record of machine-readable output."""
    return Planned(
        at=at, profile=plan.profile, changes=tuple(map(_record, plan.changes)), unchanged=len(plan.unchanged)
    )


def _record(change: Change) -> PlannedChange:
    return PlannedChange(
        ref=change.ref,
        action=str(change.action),
        reason=change.reason,
        backend=change.backend,
        fields=tuple(field.name for field in change.fields),
        differences=tuple(
            FieldDifference(name=field.name, before=field.before, after=field.after) for field in change.fields
        ),
        data_loss=change.data_loss,
    )


def render(plan: Plan, paint: text.Paint = text.plain) -> Iterator[str]:
    """One block per change: what, why, and each field before → after."""
    for change in plan.changes:
        mark = MARKS.get(change.action, CHANGE_MARK)
        loss = paint("  its data is lost", text.RED) if change.data_loss else ""
        backend = f" ({change.backend})" if change.backend else ""
        reason = paint(f"  {change.action}: {text.clean(change.reason)}", text.DIM)
        yield f"{paint(f'{mark} {change.ref.short}', STYLES[mark])}{backend}{reason}{loss}"
        if change.action == Action.CREATE and change.desired is not None:
            for name, value in _given(change.desired.spec):
                yield paint(f"    + {name} = {value}", text.GREEN)
        else:
            for field in change.fields:
                before, after = paint(shown(field.before), text.RED), paint(shown(field.after), text.GREEN)
                yield f"    {paint('~', text.YELLOW)} {field.name}: {before} → {after}"
    yield totals(plan)


def totals(plan: Plan) -> str:
    """The last line: how many of each."""
    counts = dict.fromkeys(STYLES, 0)
    for change in plan.changes:
        counts[MARKS.get(change.action, CHANGE_MARK)] += 1
    words = {CREATE_MARK: "to create", CHANGE_MARK: "to change", AGAIN_MARK: "to recreate", DELETE_MARK: "to delete"}
    parts = [f"{counts[mark]} {word}" for mark, word in words.items() if counts[mark]]
    return f"{plan.profile}: {', '.join([*parts, f'{len(plan.unchanged)} unchanged'] if parts else ['no changes'])}"


def _given(spec: Spec) -> Iterator[tuple[str, str]]:
    """The fields that are not their defaults."""
    plain = encode(spec)
    for field in msgspec.structs.fields(spec):
        if field.required:
            default = msgspec.UNSET
        elif field.default_factory is not msgspec.NODEFAULT:
            default = encode(field.default_factory())
        else:
            default = encode(field.default)
        if plain[field.name] != default and field.name != "backend":
            yield field.name, shown(plain[field.name])


def shown(value: object) -> str:
    """A value of a spec on one line; of a table only what is set."""
    shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if shown.startswith("{"):
        with contextlib.suppress(msgspec.DecodeError):
            given = {key: value for key, value in msgspec.json.decode(shown).items() if value is not None}
            shown = msgspec.json.encode(given).decode()
    return text.cut(text.clean(shown), MAX_VALUE) or '""'
