"""Everything here runs inside the lab alone: `make lab` boots it, tests/lab/host is what boots it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.lab.progress import Progress

INSIDE = "VMTUI_LAB" in os.environ
OUTSIDE = "runs in the lab alone: make lab"

NOTES = Path("/run/lab/out")
collect_ignore_glob = [] if INSIDE else ["test_*.py"]


def pytest_configure(config: pytest.Config) -> None:
    if INSIDE and not config.pluginmanager.has_plugin("progress"):
        config.pluginmanager.register(Progress(NOTES, notes=not hasattr(config, "workerinput")), "progress")


def pytest_report_header() -> str | None:
    return None if INSIDE else f"tests/lab {OUTSIDE}"


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.path.is_relative_to(Path(__file__).parent):
        item.add_marker("lab")
        if not INSIDE:
            item.add_marker(pytest.mark.skip(OUTSIDE))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a contract with a selection (test_contracts.py), what is selected."""
    left = [item for item in items if not _selected(item)]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if _selected(item)]


def _selected(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function):
        return True
    kept = getattr(item.cls, "kept", None)
    if kept is None or item.originalname in kept or item.originalname in vars(item.cls):
        return True
    return item.cls.shares and "running" in item.fixturenames
