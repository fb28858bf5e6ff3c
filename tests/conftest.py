"""Fixtures that every tier shares."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Cli
from vmtui.core.backend import Context
from vmtui.host.paths import Paths


@pytest.fixture
def paths() -> Iterator[Paths]:
    """A workspace of its own. Not tmp_path: unix socket paths must stay below 108 bytes."""
    root = Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp"))
    made = Paths(root / "s" / "vmtui", root / "c" / "vmtui", root / "r" / "vmtui")
    made.make()
    yield made
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def context(paths: Paths) -> Context:
    return Context(paths=paths, workspace=secrets.token_hex(4))


@pytest.fixture
def cli(paths: Paths, tmp_path: Path) -> Cli:
    """`vmtui` as a program, in a workspace of its own."""
    return Cli(paths, tmp_path)
