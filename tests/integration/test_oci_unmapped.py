"""Containers on file systems that cannot map ids, as none of tmpfs could before Linux 6.3."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.containers import Yard
from vmtui.core.lifecycle import Phase
from vmtui.host.process import run

pytestmark = pytest.mark.real


@pytest.fixture
async def ramfs(tmp_path: Path) -> AsyncIterator[Path]:
    """fs/ramfs lacks FS_ALLOW_IDMAP."""
    folder = tmp_path / "ram"
    folder.mkdir()
    await run(["mount", "-t", "ramfs", "ramfs", folder])
    yield folder
    await run(["umount", folder])


async def test_changes_survive_a_restart(yard: Yard, ramfs: Path) -> None:
    other = Yard(yard.root, yard.image, ramfs / "cache")
    try:
        ref = await other.up("cat /kept; echo changed >/kept")
        await other.comes_to(ref, Phase.EXITED)
        await other.start(ref)
        await other.says(ref, "changed")
        (problem,) = (await other.backend.inspect(ref)).problems
        assert problem.code == "no-user-namespace"
    finally:
        await other.clear()
