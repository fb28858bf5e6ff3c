"""A front end that is killed at any step leaves what shows itself, can be taken up, and can be removed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.netns import fresh_namespace

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.real
@pytest.mark.timeout(900)
def test_no_kill_leaves_anything(tmp_path: Path) -> None:
    with fresh_namespace():
        argv = [sys.executable, "-m", "tests.support.tap_kills", str(tmp_path)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=800, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 60
