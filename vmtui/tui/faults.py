"""Any error in words for people: nothing reaches the screen as a traceback."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from vmtui.core.errors import Fault, OperationFailed
from vmtui.engine.store import damaged
from vmtui.host.files import in_words, remedy


def told(error: BaseException, database: Path | None) -> Fault:
    """The same as a Fault with a hint; of several errors the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, Fault):
        return error
    if isinstance(error, sqlite3.Error) and database is not None:
        return damaged(database, error)
    if isinstance(error, OSError):
        path = f"{error.filename}: " if error.filename else ""
        return OperationFailed(f"{path}{in_words(error)}", hint=remedy(error))
    return OperationFailed(f"{type(error).__name__}: {error}", hint="vmtui doctor")
