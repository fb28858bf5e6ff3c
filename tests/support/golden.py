"""Golden text: compared with the files under snapshots/, which VMTUI_REGENERATE=1 writes anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOTS = ROOT / "snapshots"
REGENERATE = "VMTUI_REGENERATE"


def check(path: Path, text: str) -> None:
    """Fail, saying how to accept it, if `text` is not what the file has."""
    if os.environ.get(REGENERATE):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return
    if not path.exists() or path.read_text() != text:
        before = path.read_text() if path.exists() else ""
        name = path.relative_to(ROOT)
        assert text == before, f"{name} differs; {REGENERATE}=1 pytest writes it anew: look at the difference"
        pytest.fail(f"{name} is missing; {REGENERATE}=1 pytest writes it")
