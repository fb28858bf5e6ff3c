"""What a role permits is asked in the engine: no front end reaches past it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.golden import ROOT

# The store knows everything, and the backends do everything: only the place of the one and the names of the others
# are for front ends.
PAST_IT = re.compile(
    r"\.store\.(?!path\b)\w+|\bopen_context\(|\bStore\(|\bregistry\.get\(|\.operations\b(?! import)|\boutcome\.undo\b"
)
FRONT_ENDS = ("headless", "tui")


def files() -> list[Path]:
    return sorted(path for name in FRONT_ENDS for path in (ROOT / "vmtui" / name).rglob("*.py"))


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT / "vmtui")))
def test_it_asks_the_workspace(path: Path) -> None:
    lines = path.read_text().splitlines()
    found = [f"{number}: {line.strip()}" for number, line in enumerate(lines, 1) if PAST_IT.search(line)]
    assert not found, found
