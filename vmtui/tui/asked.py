"""Tells who may agree to it that somebody asks for something."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING

from vmtui.core.errors import Fault

if TYPE_CHECKING:
    from vmtui.engine.approvals import Request
    from vmtui.tui.app import Panel

LOOK_S = 2.0


async def hear(panel: Panel) -> None:
    """Each request once, until cancelled; not one's own."""
    told: set[int] = set()
    person = panel.rights.authority.person
    while True:
        try:
            waiting = panel.workspace.approvals()
        except (Fault, sqlite3.Error):  # the list of them says it
            waiting = ()
        for request in waiting:
            if request.id not in told and (person is None or request.who != person.name):
                panel.say(f"{request.who} asks for a second person: {wanted(request)}; 8 shows it", "warning")
        told = {request.id for request in waiting}
        await asyncio.sleep(LOOK_S)


def wanted(request: Request) -> str:
    """What somebody wants, in a line."""
    first, more = ", ".join(map(str, request.refs[:3])), len(request.refs) - 3
    return f"{request.verb} {first}{f' and {more} more' if more > 0 else ''}"
