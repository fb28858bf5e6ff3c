"""`deb:PACKAGE` as an image, from Debian's own archive."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.trees import snapshot
from vmtui.core.backend import silent
from vmtui.core.errors import Fault, InvalidInput
from vmtui.runtime.images import Image, ImageStore

pytestmark = pytest.mark.real
REFERENCE = "deb:busybox-static"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deb") / "cache"


@pytest.fixture
def image(cache: Path) -> Image:
    return asyncio.run(ImageStore(cache).ensure(REFERENCE, silent))


def test_busybox_is_a_small_system(image: Image) -> None:
    assert image.reference == REFERENCE
    assert image.config.cmd == ("/bin/sh",)
    (layer,) = image.layers
    found = snapshot(Path(layer))
    assert (found["tmp"].mode, found["root"].mode) == (0o1777, 0o700)
    assert found["etc/udhcpc/default.script"].mode == 0o755
    assert all(found[f"bin/{name}"].content == "busybox" for name in ("sh", "httpd", "wget", "udhcpc", "ip"))
    assert {"proc", "sys", "dev", "run", "var/tmp", "etc/group"} <= found.keys()
    assert {(facts.uid, facts.gid) for facts in found.values()} == {(0, 0)}
    said = subprocess.run(
        ["chroot", layer, "/bin/sh", "-c", "id -un && wget --help 2>&1 | head -n1 && sh -n /etc/udhcpc/default.script"],
        env=dict(entry.split("=", 1) for entry in image.config.env),
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.startswith("root\nBusyBox")


async def test_it_is_the_same_wherever_it_is_made(image: Image, tmp_path: Path) -> None:
    again = await ImageStore(tmp_path / "cache").ensure(REFERENCE, silent)
    assert (again.digest, again.diff_ids) == (image.digest, image.diff_ids)
    assert snapshot(Path(again.layers[0])) == snapshot(Path(image.layers[0]))


async def test_a_second_time_needs_no_apt(image: Image, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ImageStore(cache)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nonexistent")
        assert await store.lookup(REFERENCE) == image
        assert await store.ensure(REFERENCE, silent) == image
    said: list[object] = []
    assert await store.pull(REFERENCE, said.append) == image
    assert said == []  # the version is still the same: nothing was downloaded


async def test_a_package_that_cannot_run(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    store = ImageStore(cache)
    with pytest.raises(InvalidInput, match="does not run by itself") as caught:
        await store.ensure("deb:busybox", silent)
    assert "deb:busybox-static" in caught.value.hint
    for name in ("vmtui-no-such-package", "../etc", "-o=Dir::Etc=/"):
        with pytest.raises(Fault, match=r"no package|not a Debian package"):
            await store.ensure(f"deb:{name}", silent)
    assert [os.listdir(path) for path in cache.glob("images/*")] == [[]]
    assert not (cache / "layers").exists()
