"""The image store: from references through skopeo to merged trees, and every way in which that fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.oci import Item, Layer, Layout, Value, make_layout
from tests.support.trees import Facts, overlay, snapshot
from vmtui.core.backend import Progress, silent
from vmtui.core.errors import Fault, InvalidInput, MissingCapability, NotFound, OperationFailed
from vmtui.runtime.images import Image, ImageStore
from vmtui.runtime.manifest import host_architecture
from vmtui.runtime.rootfs import initramfs

pytestmark = pytest.mark.real
FOLDER = tarfile.DIRTYPE


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "cache")


def command(*argv: str | Path, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run a tool that must succeed. It may block: nothing else goes on in these tests."""
    return subprocess.run(argv, check=True, text=True, timeout=180, **how)


def left(cache: Path) -> list[str]:
    """What a failed fetch must not leave."""
    patterns = ("images/work/*", "images/references/*", "layers/*/*", "initramfs/*")
    return [str(path) for pattern in patterns for path in cache.glob(pattern)]


async def test_an_image_is_fetched_once(tmp_path: Path, store: ImageStore) -> None:
    reference = make_layout(tmp_path / "oci", [{"a": b"1"}, {"b": b"2"}], {"Cmd": ["/a"], "User": "5"})
    assert await store.lookup(reference) is None
    said: list[Progress] = []
    image = await store.ensure(reference, said.append)
    assert [Path(layer).is_dir() for layer in image.layers] == [True, True]
    assert (image.config.cmd, image.config.user) == (("/a",), "5")
    assert image.reference == reference
    index = json.loads((tmp_path / "oci" / "index.json").read_text())
    assert image.digest == index["manifests"][0]["digest"]
    assert said[-1].fraction == 0.5
    assert all("fetching" in progress.message or "unpacking" in progress.message for progress in said)
    shutil.rmtree(tmp_path / "oci")
    assert await store.ensure(reference, silent) == image
    assert await store.lookup(reference) == image
    with pytest.raises(NotFound):
        await store.pull(reference, silent)
    assert await store.lookup(reference) == image
    assert os.listdir(tmp_path / "cache/images/work") == []


async def test_a_lost_layer_is_fetched_again(tmp_path: Path, store: ImageStore) -> None:
    reference = make_layout(tmp_path / "oci", [{"a": b"1"}])
    image = await store.ensure(reference, silent)
    shutil.rmtree(Path(image.layers[0]).parent)
    assert await store.lookup(reference) is None
    assert await store.ensure(reference, silent) == image
    assert Path(image.layers[0]).is_dir()


async def test_pull_follows_a_moved_tag(tmp_path: Path, store: ImageStore) -> None:
    reference = make_layout(tmp_path / "oci", [{"a": b"1"}])
    first = await store.ensure(reference, silent)
    assert make_layout(tmp_path / "oci", [{"a": b"2"}]) == reference
    assert await store.ensure(reference, silent) == first
    second = await store.pull(reference, silent)
    assert second.digest != first.digest
    assert await store.lookup(reference) == second
    assert (Path(first.layers[0]) / "a").read_bytes() == b"1"


async def test_many_at_once_unpack_once(tmp_path: Path, store: ImageStore) -> None:
    reference = make_layout(tmp_path / "oci", [{"a": b"1" * 100_000}])
    other = make_layout(tmp_path / "oci2", [{"a": b"1" * 100_000}], {"Cmd": ["/other"]})
    said: list[Progress] = []
    images = await asyncio.gather(
        *(store.ensure(reference, said.append) for _ in range(20)), *(store.ensure(other, silent) for _ in range(5))
    )
    assert len({image.digest for image in images}) == 2
    assert len({image.layers for image in images}) == 1
    assert sum(progress.message.startswith("fetching") for progress in said) == 2  # one start, one layer
    assert len(list((tmp_path / "cache/layers/sha256").iterdir())) == 1


async def test_processes_at_once_unpack_once(tmp_path: Path, store: ImageStore) -> None:
    layers: list[Layer] = [[(str(number), b"x") for number in range(2000)], {"a/b": b"1"}]
    references = [make_layout(tmp_path / f"oci{number}", layers, {"Cmd": [f"/{number}"]}) for number in range(4)]
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from vmtui.runtime.images import ImageStore\n"
        f"asyncio.run(ImageStore(Path({str(tmp_path / 'cache')!r})).ensure(sys.argv[1], lambda progress: None))\n"
    )
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", program, reference) for reference in references * 2
    ]
    assert [await process.wait() for process in processes] == [0] * 8
    images = [await store.lookup(reference) for reference in references]
    assert len({image.layers for image in images if image}) == 1
    assert None not in images
    assert len(list((tmp_path / "cache/layers/sha256").iterdir())) == 2
    assert os.listdir(tmp_path / "cache/images/work") == []


@pytest.mark.parametrize(
    ("transport", "compression"),
    [("oci-archive", "zstd"), ("docker-archive", "gzip"), ("dir", "none"), ("dir", "gzip"), ("dir", "zstd")],
)
async def test_other_transports(tmp_path: Path, store: ImageStore, transport: str, compression: str) -> None:
    source = make_layout(tmp_path / "oci", [{"a/b": b"1"}], {"Cmd": ["/a"]}, compression=compression)
    target = f"{transport}:{tmp_path}/target{':app:1' if transport == 'docker-archive' else ''}"
    command("skopeo", "copy", "-q", source, target)
    image = await store.ensure(target, silent)
    assert (Path(image.layers[0]) / "a/b").read_bytes() == b"1"
    assert image.config.cmd == ("/a",)
    assert image.layers == (await store.ensure(source, silent)).layers


async def test_an_index_gives_this_machines_image(tmp_path: Path, store: ImageStore) -> None:
    layout = Layout(tmp_path / "oci")
    ours = layout.manifest([{"a": b"ours"}])
    theirs = layout.manifest([{"a": b"theirs"}], architecture="s390x")
    both = layout.tag("both", layout.index({"s390x": theirs, host_architecture(): ours}))
    image = await store.ensure(both, silent)
    assert (Path(image.layers[0]) / "a").read_bytes() == b"ours"
    assert image.digest == ours["digest"]
    with pytest.raises(InvalidInput, match="is not made for linux/"):
        await store.ensure(layout.tag("only", layout.index({"s390x": theirs})), silent)
    with pytest.raises(InvalidInput, match="made for linux/s390x"):
        await store.ensure(layout.tag("plain", theirs), silent)


GOLDEN: list[Layer] = [
    [
        ("./", Item(kind=FOLDER, mode=0o755)),
        ("tmp/", Item(kind=FOLDER, mode=0o1777)),
        ("etc/", Item(kind=FOLDER, mode=0o750, uid=1, gid=2)),
        ("etc/passwd", b"root"),
        ("etc/gone", b"1"),
        ("bin/", None),
        ("bin/busybox", Item(data=b"elf", mode=0o4755)),
        ("bin/sh", ("symlink", "busybox")),
        ("bin/ln", ("hardlink", "bin/busybox")),
        ("opaque/", Item(kind=FOLDER, mode=0o700, uid=9)),
        ("opaque/old", b"old"),
        ("replaced/", None),
        ("replaced/x", b"x"),
        ("file", b"becomes a folder"),
        ("whole/", None),
        ("whole/sub/", None),
        ("whole/sub/x", b"x"),
        ("dev/", None),
        ("dev/null", Item(kind=tarfile.CHRTYPE, device=(1, 3), mode=0o666)),
        ("pipe", Item(kind=tarfile.FIFOTYPE, mode=0o600)),
        ("deep/", Item(kind=FOLDER, mode=0o711)),
        ("deep/er/", Item(kind=FOLDER, mode=0o722, gid=7)),
        ("deep/er/still/", Item(kind=FOLDER, mode=0o733)),
        ("deep/er/still/x", Item(data=b"1", pax={"SCHILY.xattr.user.note": "n"})),
    ],
    [  # no entry for the folders: their description must stay that of the layer below
        ("tmp/new", b"1"),
        ("etc/passwd", b"root2"),
        ("etc/gone", ("whiteout",)),
        ("opaque/", Item(kind=FOLDER, mode=0o711, uid=8)),
        ("opaque", ("opaque",)),
        ("opaque/new", b"new"),
        ("replaced", ("whiteout",)),
        ("replaced", b"now a file"),
        ("file", ("whiteout",)),
        ("file/", Item(kind=FOLDER, mode=0o701)),
        ("file/inside", b"1"),
        ("whole", ("whiteout",)),
        ("deep/er/still/y", b"2"),
    ],
    [
        ("whole/", Item(kind=FOLDER, mode=0o705)),
        ("whole/again", b"1"),
        ("deep/er/z", b"3"),
        ("link", ("symlink", "/etc/passwd")),
        ("etc/passwd", ("whiteout",)),
        ("implicit/only/here", b"1"),
    ],
    [("implicit/", Item(kind=FOLDER, mode=0o705)), ("tmp/third", b"1")],
]


def umoci(reference: str, target: Path) -> dict[str, Facts]:
    """The merged tree as umoci makes it: the oracle."""
    layout = reference.removeprefix("oci:")
    command("umoci", "raw", "unpack", "--image", layout, target, capture_output=True)
    found = snapshot(target)
    shutil.rmtree(target)
    return found


async def shown(image: Image, place: Path) -> tuple[dict[str, Facts], dict[str, Facts]]:
    """The image as overlayfs shows it, and as its initramfs unpacks."""
    with overlay(image.layers, place) as mounted:
        overlaid = snapshot(mounted)
    archive = await initramfs(image, place.parent / "cache", silent)
    place.mkdir()
    with archive.open("rb") as stdin:
        command("cpio", "-idm", "--quiet", "--no-absolute-filenames", stdin=stdin, cwd=place)
    unpacked = snapshot(place)
    shutil.rmtree(place)
    return overlaid, unpacked


def same(ours: dict[str, Facts], theirs: dict[str, Facts], *, but: set[str], xattrs: bool = True) -> None:
    """Compare all facts; `but` are folders, whose times umoci and cpio take from their own work."""

    def comparable(tree: dict[str, Facts]) -> dict[str, Facts]:
        return {
            path: facts._replace(
                mtime=0 if path in but or (facts.kind == "l" and not xattrs) else facts.mtime,
                xattrs=facts.xattrs if xattrs else (),
            )
            for path, facts in tree.items()
        }

    assert comparable(ours) == comparable(theirs)


async def test_the_merged_tree_is_umocis(tmp_path: Path, store: ImageStore) -> None:
    reference = make_layout(tmp_path / "oci", GOLDEN)
    image = await store.ensure(reference, silent)
    overlaid, unpacked = await shown(image, tmp_path / "merged")
    assert (overlaid["tmp"].mode, overlaid["etc"].uid, overlaid["deep/er"].mode) == (0o1777, 1, 0o722)
    oracle = umoci(reference, tmp_path / "umoci")
    folders = {path for path, facts in oracle.items() if facts.kind == "d"}
    same(overlaid, oracle, but=folders)
    same(unpacked, overlaid, but=folders, xattrs=False)


NAMES = st.sampled_from(["a", "b", "c"])
DEEP = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
VALUES: st.SearchStrategy[Value] = st.one_of(
    st.binary(max_size=3),
    st.builds(Item, kind=st.just(FOLDER), mode=st.sampled_from([0o700, 0o755, 0o1777]), uid=st.integers(0, 2)),
    st.tuples(st.just("symlink"), NAMES),
    st.just(("whiteout",)),
)


def sound(layers: list[dict[str, Value]]) -> list[Layer]:
    """Cut what image builders never write: an entry below a name that is no folder, a whiteout in no folder."""
    kept: list[Layer] = []
    folders, others = {""}, set[str]()
    for layer in layers:
        mine: dict[str, Value] = {}
        for path in sorted(layer, key=lambda path: (path.count("/"), path)):
            value = layer[path]
            parent = path.rpartition("/")[0]
            parents = {path[:index] for index, char in enumerate(path) if char == "/"}
            if parents & others or (value == ("whiteout",) and parent not in folders):
                continue
            is_folder = isinstance(value, Item)
            if is_folder and path in others:
                continue
            if is_folder:
                folders.add(path)
            else:
                others.add(path)
            folders |= parents
            mine[f"{path}/" if is_folder else path] = value
        kept.append(mine)
    return kept


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.dictionaries(DEEP, VALUES, max_size=6), min_size=2, max_size=4))
def test_random_layers_merge_as_umocis(tmp_path: Path, layers: list[dict[str, Value]]) -> None:
    place = tmp_path / "example"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    reference = make_layout(place / "oci", sound(layers))
    image = asyncio.run(ImageStore(place / "cache").ensure(reference, silent))
    overlaid, unpacked = asyncio.run(shown(image, place / "merged"))
    oracle = umoci(reference, place / "umoci")
    folders = {path for path, facts in oracle.items() if facts.kind == "d"}
    same(overlaid, oracle, but=folders)
    same(unpacked, overlaid, but=folders, xattrs=False)


@pytest.mark.parametrize(
    ("layers", "paths"),
    [
        ([{"a": b"1"}, {"b": b"1"}, {"a": b"1"}], {"a", "b"}),
        ([{"a": b"1"}, {"b": b"1"}, {"a": ("whiteout",)}, {"a": b"1"}, {"a": ("whiteout",)}], {"b"}),
        ([{"a": b"1"}, [("./", ("opaque",)), ("b", b"1")], {"c": b"1"}], {"b", "c"}),
        ([{"a": b"1"}, {"d/": None, "d/x": ("whiteout",), "d/y": b"1"}], {"a", "d", "d/y"}),
        ([{"d/x": b"1"}, [("d", ("opaque",)), ("d/z", ("whiteout",)), ("d/y", b"1")]], {"d", "d/y"}),
    ],
)
async def test_what_overlayfs_alone_would_show_wrongly(
    tmp_path: Path, store: ImageStore, layers: list[Layer], paths: set[str]
) -> None:
    image = await store.ensure(make_layout(tmp_path / "oci", layers), silent)
    assert len(image.diff_ids) == len(layers)
    overlaid, unpacked = await shown(image, tmp_path / "merged")
    assert set(overlaid) == set(unpacked) == paths | {"."}


async def expect(
    store: ImageStore, cache: Path, reference: str, kind: type[Fault], message: str, hint: str = ""
) -> Fault:
    with pytest.raises(kind, match=message) as caught:
        await store.ensure(reference, silent)
    assert left(cache) == []
    assert hint in caught.value.hint
    assert not caught.value.message.endswith(".")
    return caught.value


async def test_bad_images(tmp_path: Path, store: ImageStore) -> None:
    cache = tmp_path / "cache"
    layout = Layout(tmp_path / "oci")
    await expect(store, cache, f"oci:{tmp_path}/none", NotFound, f"no such file or folder: {tmp_path}/none")
    (tmp_path / "text").write_text("not an image")
    for transport in ("oci-archive", "docker-archive"):
        fault = await expect(
            store, cache, f"{transport}:{tmp_path}/text", InvalidInput, f"{tmp_path}/text is not an image"
        )
        assert fault.details
    (tmp_path / "empty").mkdir()
    for transport in ("oci", "dir"):
        await expect(store, cache, f"{transport}:{tmp_path}/empty", InvalidInput, "is not an image")
    await expect(store, cache, f"oci:{layout.path}:nosuchtag", InvalidInput, "is not an image")
    await expect(store, cache, "docker-daemon:app:latest", OperationFailed, "cannot be fetched")

    wrong = layout.tag("wrong", layout.manifest([{"a": b"1"}], diff_ids=[f"sha256:{'0' * 64}"]))
    await expect(store, cache, wrong, InvalidInput, "uncompressed digest is not sha256:000")
    foreign = layout.manifest([{"a": b"1"}], media_type="application/vnd.oci.image.layer.nondistributable.v1.tar+gzip")
    await expect(store, cache, layout.tag("foreign", foreign), InvalidInput, "may not be distributed")
    unknown = layout.manifest([{"a": b"1"}], media_type="application/wasm")
    await expect(store, cache, layout.tag("unknown", unknown), InvalidInput, "unknown type")
    hostile = layout.tag("hostile", layout.manifest([{"ok": b"1"}, {"../../x": b"1"}]))
    with pytest.raises(InvalidInput, match="points outside"):
        await store.ensure(hostile, silent)
    assert await store.lookup(hostile) is None


@pytest.mark.parametrize("damage", ["truncate", "flip"])
@pytest.mark.parametrize("transport", ["oci", "dir"])
async def test_a_damaged_layer(tmp_path: Path, store: ImageStore, damage: str, transport: str) -> None:
    reference = make_layout(tmp_path / "oci", [{"a": os.urandom(5000)}])
    layout = Layout(tmp_path / "oci")
    folder = layout.path / "blobs" / "sha256"
    if transport == "dir":
        reference = f"dir:{tmp_path}/dir"
        command("skopeo", "copy", "-q", f"oci:{layout.path}:latest", reference)
        folder = tmp_path / "dir"
    blob = max((path for path in folder.iterdir()), key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    if damage == "truncate":
        del data[-100:]
    else:
        data[100] ^= 1
    blob.write_bytes(data)
    await expect(store, tmp_path / "cache", reference, InvalidInput, "truncated|damaged|is not an image")


async def test_what_the_host_lacks(tmp_path: Path, store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = make_layout(tmp_path / "oci", [{"a": b"1"}])
    cache = tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        await expect(store, cache, reference, MissingCapability, "skopeo is not in PATH", "apt-get install skopeo")
    with monkeypatch.context() as patch:
        patch.setattr("os.geteuid", lambda: 1000)
        await expect(store, cache, reference, MissingCapability, "needs root", "sudo")


async def test_no_policy(tmp_path: Path) -> None:
    """In a mount namespace of its own, where /etc/containers is empty."""
    reference = make_layout(tmp_path / "oci", [{"a": b"1"}])
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from vmtui.core.errors import Fault\n"
        "from vmtui.runtime.images import ImageStore\n"
        "try:\n"
        f"    asyncio.run(ImageStore(Path({str(tmp_path / 'cache')!r})).ensure({reference!r}, lambda progress: None))\n"
        "except Fault as fault:\n"
        "    print(type(fault).__name__, fault.message, fault.hint, sep='|')\n"
    )
    done = command(
        *["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /etc/containers && exec "$@"', "sh"],
        *[sys.executable, "-c", program],
        capture_output=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    kind, message, hint = done.stdout.strip().split("|")
    assert kind == "MissingCapability", done
    assert "signature policy" in message
    assert hint == "apt-get install golang-github-containers-common"
    assert left(tmp_path / "cache") == []


@contextlib.contextmanager
def small_disk(at: Path, size: str) -> Iterator[Path]:
    at.mkdir()
    command("mount", "-t", "tmpfs", "-o", f"size={size}", "vmtui-test", at)
    try:
        yield at
    finally:
        command("umount", at)
        at.rmdir()


@pytest.mark.parametrize("size", ["4k", "500k", "1500k"])
async def test_no_space_left(tmp_path: Path, size: str) -> None:
    """Too small for skopeo's copy, for the first layer, and for the second."""
    reference = make_layout(tmp_path / "oci", [{"a": os.urandom(400_000)}, {"b": bytes(2_000_000)}])
    with small_disk(tmp_path / "cache", size) as cache:
        store = ImageStore(cache)
        with pytest.raises(OperationFailed, match="no space left") as caught:
            await store.ensure(reference, silent)
        assert caught.value.hint.startswith("df -h")
        assert await store.lookup(reference) is None
        assert [path for path in left(cache) if "partial" in path or "work" in path] == []


async def test_no_space_left_for_an_initramfs(tmp_path: Path, store: ImageStore) -> None:
    image = await store.ensure(make_layout(tmp_path / "oci", [{"b": bytes(2_000_000)}]), silent)
    with small_disk(tmp_path / "small", "500k") as cache:
        with pytest.raises(OperationFailed, match="no space left"):
            await initramfs(image, cache, silent)
        assert left(cache) == []


async def test_a_cancelled_fetch_leaves_nothing(tmp_path: Path, store: ImageStore) -> None:
    reference = make_layout(tmp_path / "oci", [[(str(number), b"x") for number in range(20_000)]])
    for delay in (0.02, 0.1, 0.25, 0.4):
        task = asyncio.create_task(store.ensure(reference, silent))
        await asyncio.sleep(delay)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        if await store.lookup(reference) is None:
            assert left(tmp_path / "cache") == []


def processes_with(text: str) -> list[int]:
    """Processes whose command line speaks of `text`."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and text.encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


async def test_a_killed_fetch_is_cleaned_by_the_next(tmp_path: Path, store: ImageStore) -> None:
    reference = make_layout(tmp_path / "oci", [[(str(number), b"x") for number in range(20_000)]])
    other = make_layout(tmp_path / "oci2", [{"a": b"1"}])
    program = (
        "import asyncio\n"
        "from pathlib import Path\n"
        "from vmtui.runtime.images import ImageStore\n"
        f"asyncio.run(ImageStore(Path({str(tmp_path / 'cache')!r})).ensure({reference!r}, lambda progress: None))\n"
    )
    unpacking = "layers/sha256/*.partial"
    for started in ("images/work/*", "images/work/*/image/*", unpacking, f"{unpacking}/tree/*"):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
        async with asyncio.timeout(60):
            while not any((tmp_path / "cache").glob(started)) and process.returncode is None:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        process.kill()
        await process.wait()
        assert left(tmp_path / "cache")
        assert await store.lookup(reference) is None
    for _ in range(1200):
        if not processes_with(str(tmp_path)):
            break
        await asyncio.sleep(0.05)
    assert processes_with(str(tmp_path)) == []
    patterns = ("images/work/*", unpacking)
    deadline = time.monotonic() + 60
    while True:
        await store.pull(other, silent)  # of another image: cleans all the same
        found = [path for pattern in patterns for path in (tmp_path / "cache").glob(pattern)]
        if not found:
            break
        assert time.monotonic() < deadline, found  # who was killed may still be on its way out, and hold its lock
        await asyncio.sleep(0.1)
    image = await store.ensure(reference, silent)
    assert len(os.listdir(image.layers[0])) == 20_000


async def test_a_damaged_record_is_no_record(tmp_path: Path, store: ImageStore) -> None:
    reference = make_layout(tmp_path / "oci", [{"a": b"1"}])
    image = await store.ensure(reference, silent)
    (record,) = (tmp_path / "cache/images/references").iterdir()
    for data in (b"", b"{}", b'{"diff_ids": ["../../etc"]}', b"\xff"):
        record.write_bytes(data)
        assert await store.lookup(reference) is None
    assert await store.ensure(reference, silent) == image
