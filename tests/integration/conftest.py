"""Fixtures of the tests that drive real things."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.containers import Yard, busybox_image


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A reference to an image of busybox."""
    return busybox_image(tmp_path_factory.mktemp("busybox") / "image")


@pytest.fixture(scope="session")
def layer_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers are unpacked once for the whole session."""
    return tmp_path_factory.mktemp("containers") / "cache"


@pytest.fixture
async def yard(busybox: str, layer_cache: Path) -> AsyncIterator[Yard]:
    """Containers in a workspace of their own, of which nothing may be left."""
    root = Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp"))  # short: unix socket paths
    yard = Yard(root, busybox, layer_cache)
    try:
        yield yard
        await yard.clear()
    finally:
        for status in await yard.backend.scan():
            await yard.backend.delete(status.ref, purge=True)
        shutil.rmtree(root, ignore_errors=True)
