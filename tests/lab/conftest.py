"""Everything here runs inside the lab alone: `make lab` boots it, tests/lab/host is what boots it."""

from __future__ import annotations

import os

import pytest

INSIDE = "VMTUI_LAB" in os.environ
OUTSIDE = "runs in the lab alone: make lab"

collect_ignore_glob = [] if INSIDE else ["test_*.py"]


def pytest_report_header() -> str | None:
    return None if INSIDE else f"tests/lab {OUTSIDE}"


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.path.is_relative_to(os.path.dirname(__file__)):
        item.add_marker("lab")
        if not INSIDE:
            item.add_marker(pytest.mark.skip(OUTSIDE))
