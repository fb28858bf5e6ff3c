"""Which logs are shown together, said in the language of the filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vmtui.core.errors import Fault
from vmtui.core.query import parse
from vmtui.core.resource import Ref, Status
from vmtui.core.searchable import Entry
from vmtui.tui.screens.dialogs import Ask

if TYPE_CHECKING:
    from vmtui.tui.app import Panel

AT_MOST = 16


async def which(panel: Panel, readable: Sequence[Status], shown: Sequence[Ref]) -> tuple[Ref, ...] | None:
    """Ask; None to leave it. Only in a worker."""
    entries = [(status.ref, Entry(status)) for status in readable]

    def found(text: str) -> list[Ref]:
        query = parse(text)
        return sorted(ref for ref, entry in entries if query.matches(entry))

    def check(text: str) -> str:
        try:
            refs = found(text)
        except Fault as fault:
            return str(fault)
        if not refs:
            return f"none of {len(entries)} matches"
        return "" if len(refs) <= AT_MOST else f"{len(refs)} match; at most {AT_MOST} fit: go on typing"

    names = ",".join(dict.fromkeys(ref.name for ref in shown))
    profiles = ",".join(dict.fromkeys(ref.profile for ref in shown))
    answer = await panel.ask(
        Ask(
            "which logs to show together",
            f"profile:{profiles} name:{names}",
            check,
            lines=["such as  profile:dev kind:container,vm  or  name:web*"],
        )
    )
    return tuple(found(answer)) if answer is not None else None
