"""Removes trees that a container may have filled."""

from __future__ import annotations

from pathlib import Path

from vmtui.core.errors import Fault, OperationFailed
from vmtui.host.process import run

TIMEOUT_S = 600.0


async def remove_tree(directory: Path) -> None:
    """Remove it, however deep it is. Absent is success. Raises OperationFailed."""
    if directory.exists():
        try:
            await run(["rm", "-rf", "--one-file-system", "--", directory], timeout=TIMEOUT_S)
        except Fault as fault:
            raise OperationFailed(f"{directory} cannot be removed", details=fault.details) from fault
