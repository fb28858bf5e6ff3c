"""How the VMM is called, as a program of its own: nothing of it is imported here."""

from __future__ import annotations

import sys
from pathlib import Path

PACKAGES = Path(__file__).parents[3]  # the folder that `vmtui` is in


def argv(*more: str) -> list[str]:
    """Without site and the current folder: it needs the standard library and this package alone."""
    return [sys.executable, "-S", "-P", "-m", "vmtui.vmm", *more]


def environment() -> dict[str, str]:
    """Beside what every program gets."""
    return {"PYTHONPATH": str(PACKAGES)}
