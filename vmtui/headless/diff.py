"""A plan on a terminal, and as a record. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from vmtui.core.events import FieldDifference, Planned, PlannedChange
from vmtui.engine import plan_text
from vmtui.engine.plan import Change, Plan
from vmtui.engine.plan_text import Part, Role
from vmtui.headless import text

STYLES = {Role.NEW: text.GREEN, Role.OLD: text.RED, Role.EDIT: text.YELLOW, Role.LOSS: text.RED, Role.REASON: text.DIM}
UNIFIED = {"+": text.GREEN, "-": text.RED, "@": text.BLUE}


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
    """One block per change, and the totals."""
    for line in plan_text.lines(plan):
        runs = itertools.groupby(line.parts, key=lambda part: part.role)
        yield "".join(paint("".join(map(_said, parts)), STYLES.get(role, "")) for role, parts in runs)
    yield plan_text.totals(plan)


def _said(part: Part) -> str:
    return shown(part.text) if part.is_value else text.clean(part.text)


def shown(value: object) -> str:
    """A value of a spec on one line; of a table only what is set."""
    return text.cut(text.clean(plan_text.shown(value)), plan_text.MAX_VALUE) or plan_text.EMPTY


def unified(difference: str, paint: text.Paint = text.plain) -> Iterator[str]:
    """The lines of a unified diff."""
    for line in difference.splitlines():
        yield paint(text.clean(line), UNIFIED.get(line[:1], ""))
