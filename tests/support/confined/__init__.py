"""Processes that are confined as a machine is, or behind one of its walls, and what they can still do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


def enquire(job: str, user: int | None = None) -> Any:
    """What it returned, run as root or another user. Fails if its process did not end well."""
    argv = [sys.executable, "-m", "tests.support.confined", job, *(() if user is None else (str(user),))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["status"] == 0, answer
    return answer["said"]
