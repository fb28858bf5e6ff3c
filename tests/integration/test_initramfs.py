"""An image as an initramfs: read back by cpio, which the kernel's own format notes take as the reference."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.support.oci import Item, make_layout
from vmtui.core.backend import Progress, silent
from vmtui.core.errors import InvalidInput
from vmtui.runtime.images import Image, ImageStore
from vmtui.runtime.rootfs import initramfs

pytestmark = pytest.mark.real


async def image_of(root: Path, *layers: dict[str, object]) -> Image:
    return await ImageStore(root / "cache").ensure(make_layout(root / "oci", layers), silent)  # type: ignore[arg-type]


def listed(archive: Path) -> dict[str, str]:
    """`cpio -tv`: path → mode, links, owner, size."""
    with archive.open("rb") as stdin:
        lines = subprocess.run(
            ["cpio", "-tvn", "--quiet"], stdin=stdin, capture_output=True, text=True, check=True
        ).stdout.splitlines()
    return {re.split(r" +(?:\d{4}|\d\d:\d\d) ", line, maxsplit=1)[1]: line for line in lines}


async def test_cpio_reads_it(tmp_path: Path) -> None:
    image = await image_of(
        tmp_path,
        {
            "bin/": Item(kind=tarfile.DIRTYPE, mode=0o711, uid=3, gid=4),
            "bin/a": Item(data=b"12345", mode=0o4755, uid=70_000),
            "bin/b": ("hardlink", "bin/a"),
            "lib": ("symlink", "usr/lib"),
            "null": Item(kind=tarfile.CHRTYPE, device=(1, 3), mode=0o666),
            "gone": b"1",
        },
        {"gone": ("whiteout",), "bin/c": b"c"},
    )
    said: list[Progress] = []
    archive = await initramfs(image, tmp_path / "cache", said.append)
    assert said
    found = listed(archive)
    assert sorted(path.split(" -> ")[0] for path in found) == [".", "bin", "bin/a", "bin/b", "bin/c", "lib", "null"]
    assert found["bin"].split()[:4] == ["drwx--x--x", "1", "3", "4"]
    assert found["bin/b"].split()[:5] == ["-rwsr-xr-x", "2", "70000", "0", "5"]
    assert found["null"].startswith("crw-rw-rw-")
    assert "lib -> usr/lib" in found
    assert archive.stat().st_size % 512 == 0


async def test_it_is_made_once_and_always_the_same(tmp_path: Path) -> None:
    image = await image_of(tmp_path, {"a/b": b"1", "c": ("hardlink", "a/b")}, {"a/d": b"2"})
    first, *others = await asyncio.gather(*(initramfs(image, tmp_path / "cache", silent) for _ in range(5)))
    assert set(others) == {first}
    assert os.listdir(first.parent) == [first.name]
    before = first.stat().st_mtime_ns
    assert await initramfs(image, tmp_path / "cache", silent) == first
    assert first.stat().st_mtime_ns == before
    second = await initramfs(image, tmp_path / "elsewhere", silent)
    assert second.read_bytes() == first.read_bytes()


async def test_a_file_of_four_gib_is_refused(tmp_path: Path) -> None:
    image = await image_of(tmp_path, {"a": b"1"})
    (tmp_path / "layer").mkdir()
    with (tmp_path / "layer" / "huge").open("wb") as file:
        file.truncate(1 << 32)  # a hole: takes no space
    with pytest.raises(InvalidInput, match="/huge is too large"):
        await initramfs(replace(image, layers=(*image.layers, str(tmp_path / "layer"))), tmp_path / "cache", silent)
    assert os.listdir(tmp_path / "cache" / "initramfs") == []
