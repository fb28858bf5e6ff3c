"""Resources and their changes as lines that are heard from left to right: the name first, then what matters most."""

from __future__ import annotations

from collections.abc import Mapping

from vmtui.core.lifecycle import UP
from vmtui.core.resource import Ref, Status
from vmtui.headless import tables, text


def of(status: Status, now: float) -> str:
    """One resource."""
    parts = [tables.state(status), tables.backend(status)]
    if status.started_at and status.phase in UP:
        parts.append(f"up {text.span(now - status.started_at)}")
    parts += [f"address {address.address}" for address in status.addresses]
    parts += [endpoint.url for endpoint in status.endpoints]
    parts += [f"problem: {problem.message}" for problem in status.problems]
    return f"{status.ref}: {', '.join(parts)}"


def changes(before: Mapping[Ref, Status], now: Mapping[Ref, Status]) -> list[str]:
    """What happened between two scans, as far as it is worth telling."""
    refs = sorted(before.keys() | now.keys())
    told = ((ref, _change(before.get(ref), now.get(ref))) for ref in refs)
    return [f"by itself: {ref} {said}" for ref, said in told if said]


def _change(old: Status | None, new: Status | None) -> str:
    if new is None:
        return "is gone"
    if old is None:
        return f"is there, {tables.state(new)}"
    if tables.state(old) != tables.state(new):
        return f"is {tables.state(new)}, it was {tables.state(old)}"
    fresh = [problem.message for problem in new.problems if problem not in old.problems]
    return f"has a problem: {fresh[0]}" if fresh else ""


def count(number: int) -> str:
    return f"{number or 'no'} resource{'' if number == 1 else 's'}"
