"""Fixtures of the tests that drive real things."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support import downloads
from tests.support.containers import Yard, busybox_image
from tests.support.machine import Machine, Site
from tests.support.refusals import Place
from tests.support.remains import remains_of
from tests.support.sandboxes import QuietContext, Sandboxes
from vmtui.core.backend import Context


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A reference to an image of busybox."""
    return busybox_image(tmp_path_factory.mktemp("busybox") / "image")


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory, busybox: str) -> Iterator[Place]:
    """A workspace for what must be refused; its cache is shared, and not looked at."""
    made = Place(tmp_path_factory.getbasetemp() / "refusals", busybox)
    yield made
    made.remove()


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


@pytest.fixture(scope="session")
def warm_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with all that is to be downloaded: a machine of its own has no way out."""
    return downloads.cache(tmp_path_factory, "warm")


@pytest.fixture
def site(warm_cache: Path) -> Iterator[Site]:
    """`vmtui` on a machine of its own."""
    with Machine() as machine, Site(machine, warm_cache) as site:
        yield site


@pytest.fixture
async def sandboxes(context: Context, tmp_path: Path) -> AsyncIterator[Sandboxes]:
    made = Sandboxes(QuietContext(paths=context.paths, workspace=context.workspace), tmp_path)
    try:
        yield made
    finally:
        refs = [status.ref for status in await made.backend.scan()]
        for ref in refs:
            await made.backend.delete(ref, purge=True)
        left = await remains_of(context, refs)
        assert left == "", left
