"""One layer through the unpacker's own process: what it makes of sound ones, and that hostile ones change nothing."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.support.oci import Item, Layer, compress, make_tar
from tests.support.trees import snapshot
from vmtui.core.errors import InvalidInput, OperationFailed
from vmtui.runtime.extract import OPAQUE, Limits
from vmtui.runtime.layers import LayerStore
from vmtui.runtime.manifest import Blob, sha256

pytestmark = pytest.mark.real


class Bench:
    """A layer store in a folder of its own, beside files that nothing may touch."""

    def __init__(self, root: Path, limits: Limits | None = None) -> None:
        self.root = root
        self.cache = root / "cache"
        self.store = LayerStore(self.cache, limits)
        (root / "canary").mkdir(exist_ok=True)
        (root / "canary" / "file").write_text("as it was")

    def blob(self, layer: Layer, compression: str = "none", **changes: object) -> Blob:
        data = make_tar(layer)
        packed = compress(data, compression)
        path = self.root / "blob"
        path.write_bytes(packed)
        facts = {"path": str(path), "digest": sha256(packed), "size": len(packed), "diff_id": sha256(data), **changes}
        return Blob(**facts)  # type: ignore[arg-type]

    def add(self, blob: Blob) -> Path:
        return asyncio.run(self.store.add(blob, lambda fraction: None))

    def unpack(self, layer: Layer, compression: str = "none") -> Path:
        return self.add(self.blob(layer, compression))

    def refuse(self, layer: Layer, message: str) -> None:
        blob = self.blob(layer)
        self.cache.mkdir(exist_ok=True)
        before = self.outside()
        with pytest.raises(InvalidInput, match=message):
            self.add(blob)
        assert self.outside() == before
        self.assert_empty()

    def outside(self) -> object:
        return snapshot(self.root / "canary"), sorted(os.listdir(self.root)), sorted(os.listdir("/"))

    def assert_empty(self) -> None:
        assert [str(path) for path in self.cache.glob("layers/*/*")] == []


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_everything_a_layer_can_hold(bench: Bench, compression: str) -> None:
    tree = bench.unpack(
        [
            ("./", Item(kind=tarfile.DIRTYPE, mode=0o755)),
            ("bin/", Item(kind=tarfile.DIRTYPE, mode=0o555, uid=7, gid=8)),
            ("bin/su", Item(data=b"suid", mode=0o4755, uid=0, gid=42)),
            ("bin/ping", Item(data=b"cap", mode=0o755, pax={"SCHILY.xattr.user.note": "n"})),
            ("tmp/", Item(kind=tarfile.DIRTYPE, mode=0o1777)),
            ("bin/su2", ("hardlink", "bin/su")),
            ("absolute", ("symlink", "/bin/su")),
            ("dangling", ("symlink", "../../nowhere")),
            ("dangling2", ("hardlink", "./dangling")),
            ("dev/null", Item(kind=tarfile.CHRTYPE, device=(1, 3), mode=0o666)),
            ("dev/disk", Item(kind=tarfile.BLKTYPE, device=(8, 300), mode=0o660, gid=6)),
            ("pipe", Item(kind=tarfile.FIFOTYPE, mode=0o620)),
            ("/rooted/./x/../y", b"clean"),
            ("old", Item(data=b"o", mtime=-5.5)),
            ("n" * 255, b"long"),
            ("gone", ("whiteout",)),
            ("dev/gone", ("whiteout",)),
            ("bin", ("opaque",)),
        ],
        compression,
    )
    found = snapshot(tree)
    assert (found["bin"].mode, found["bin"].uid, found["bin"].gid) == (0o555, 7, 8)
    assert (found["bin/su"].mode, found["bin/su"].gid) == (0o4755, 42)
    assert found["bin/su"].links == ("bin/su", "bin/su2")
    assert found["bin/ping"].xattrs == (("user.note", b"n"),)
    assert found["tmp"].mode == 0o1777
    assert found["absolute"].content == "/bin/su"
    assert found["dangling2"].content == "../../nowhere"
    assert (found["dev/null"].kind, found["dev/null"].device) == ("c", os.makedev(1, 3))
    assert (found["dev/disk"].kind, found["dev/disk"].device) == ("b", os.makedev(8, 300))
    assert (found["pipe"].kind, found["pipe"].mode) == ("p", 0o620)
    assert "rooted/y" in found
    assert found["old"].mtime == 0
    assert found["n" * 255].kind == "-"
    for name in ("gone", "dev/gone"):
        assert (found[name].kind, found[name].device) == ("c", 0)
    assert os.getxattr(tree / "bin", OPAQUE) == b"y"
    assert {path.stat().st_mode & 0o777 for path in (tree.parent, tree.parent.parent)} == {0o700}


def test_a_capability_survives_the_change_of_owner(bench: Bench) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")  # VFS_CAP_REVISION_2, cap_net_raw=ep
    value = capability.decode("latin-1")
    assert value.encode() == capability  # ASCII only, so that pax carries it as it is
    tree = bench.unpack(
        [
            (
                "ping",
                Item(
                    data=b"x",
                    uid=5,
                    mode=0o755,
                    pax={
                        "SCHILY.xattr.security.capability": value,
                        "SCHILY.xattr.trusted.overlay.opaque": "y",
                        "SCHILY.xattr.user.overlay.opaque": "y",
                        "SCHILY.xattr.security.selinux": "z",
                        "SCHILY.xattr.user.kept": "k",
                    },
                ),
            )
        ]
    )
    assert sorted(os.listxattr(tree / "ping")) == ["security.capability", "user.kept"]
    assert os.getxattr(tree / "ping", "security.capability") == capability


def test_later_entries_win(bench: Bench) -> None:
    tree = bench.unpack(
        [
            ("a", b"1"),
            ("a", b"2"),
            ("b/c", b"1"),
            ("b", b"file now"),
            ("d", b"file"),
            ("d/", Item(kind=tarfile.DIRTYPE, mode=0o700)),
            ("d/e", b"1"),
            ("l", ("symlink", "a")),
            ("l", b"not through the link"),
            ("k/x", b"kept"),
            ("k/", Item(kind=tarfile.DIRTYPE, mode=0o711)),
            ("h", b"0"),
            ("h", ("hardlink", "a")),
            ("a", ("hardlink", "a")),
        ]
    )
    assert (tree / "a").read_bytes() == b"2"
    assert (tree / "b").read_bytes() == b"file now"
    assert (tree / "d/e").read_bytes() == b"1"
    assert (tree / "l").read_bytes() == b"not through the link"
    assert (tree / "k/x").read_bytes() == b"kept"
    assert stat.S_IMODE((tree / "k").stat().st_mode) == 0o711
    assert (tree / "h").samefile(tree / "a")


def test_a_layers_own_entry_wins_over_its_whiteout(bench: Bench) -> None:
    tree = bench.unpack(
        [
            ("before", ("whiteout",)),
            ("before", b"x"),
            ("after", b"x"),
            ("after", ("whiteout",)),
            ("folder", ("whiteout",)),
            ("folder/deep/file", b"x"),
            ("folder2/file", b"x"),
            ("folder2", ("whiteout",)),
            ("folder3", ("whiteout",)),
            ("folder3/", None),
            (".wh..wh.plnk/1.2", b"aufs"),
            ("x/.wh..wh.aufs", b"aufs"),
        ]
    )
    for name in ("before", "after", "folder/deep/file", "folder2/file"):
        assert (tree / name).read_bytes() == b"x"
    for name in ("folder", "folder2", "folder3"):
        assert os.getxattr(tree / name, OPAQUE) == b"y"
    assert not (tree / "x/.wh..wh.aufs").exists()


def test_links_lead_where_they_would_in_the_image(bench: Bench) -> None:
    """The classic escapes: written through an absolute link, a link up, a folder that became a link."""
    bench.blob({})
    bench.cache.mkdir()
    before = bench.outside()
    up = "../" * 30
    target = f"{bench.root}/canary"
    tree = bench.unpack(
        [
            ("abs", ("symlink", target)),
            ("abs/file", b"overwritten?"),
            ("up", ("symlink", f"{up}{target}")),
            ("up/file2", b"made?"),
            ("d/x", b"1"),
            ("d", ("symlink", "/etc")),
            ("d/vmtui-canary", b"made?"),
            ("hard", ("hardlink", "abs/file")),
            ("p", ("symlink", "/proc/self/root")),
            ("p/vmtui-canary", b"made?"),
        ]
    )
    assert bench.outside() == before
    assert not Path("/etc/vmtui-canary").exists()
    assert (tree / target.lstrip("/") / "file").read_bytes() == b"overwritten?"
    assert (tree / target.lstrip("/") / "file2").read_bytes() == b"made?"
    assert (tree / "etc/vmtui-canary").read_bytes() == b"made?"
    assert (tree / "hard").samefile(tree / target.lstrip("/") / "file")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ([("../x", b"")], "points outside"),
        ([("a/../../x", b"")], "points outside"),
        ([("..", None)], "points outside"),
        ([("h", ("hardlink", "../../etc/passwd"))], "points outside"),
        ([("h", ("hardlink", "/etc/passwd"))], "no file of this layer"),
        ([("l", ("symlink", "/etc")), ("h", ("hardlink", "l/passwd"))], "no file of this layer"),
        ([("d/", None), ("h", ("hardlink", "d"))], "no file of this layer"),
        ([("w", ("whiteout",)), ("h", ("hardlink", "w"))], "no file of this layer"),
        ([("h", ("hardlink", ""))], "points outside"),
        ([("a", b""), ("a/b", b"")], "is below 'a', which is not a folder"),
        ([("l", ("symlink", "l")), ("l/a", b"")], "which is not a folder"),
        ([("s", ("symlink", ""))], "link to nothing"),
        ([("x", Item(kind=tarfile.CHRTYPE))], "overlayfs' own mark"),
        ([("x", Item(kind=tarfile.CHRTYPE, device=(1, 1 << 20)))], "number is out of range"),
        ([(".", b"file")], "replaces the root"),
        ([("/", ("symlink", "/etc"))], "replaces the root"),
        ([("..", ("whiteout",))], "whiteout of nothing"),
        ([("a/" * 129 + "b", b"")], "folders deep"),
        ([("n" * 256, b"")], "name that is too long"),
        ([("x", Item(uid=(1 << 32) - 1))], "owner that is out of range"),
        (b"not a tar at all", "truncated"),
        (b"\x1f\x8b not gzip", "gzip stream is damaged"),
        (compress(make_tar({"a": b"x" * 9999}), "gzip")[:-9], "truncated"),
        (b"\x28\xb5\x2f\xfd not zstd", "zstd stream is damaged"),
    ],
)
def test_hostile_layers_are_refused(bench: Bench, layer: Layer, message: str) -> None:
    bench.refuse(layer, message)


@pytest.mark.parametrize(
    ("limits", "layer", "message"),
    [
        (Limits(entries=3), [(str(number), b"") for number in range(4)], "more than 3 entries"),
        (Limits(total_bytes=1 << 20), [("a", bytes(1 << 20))], "unpacks to more than"),
        (Limits(file_bytes=1000), [("a", bytes(1001))], "larger than 1000 bytes"),
    ],
)
def test_limits(tmp_path: Path, limits: Limits, layer: Layer, message: str) -> None:
    Bench(tmp_path, limits).refuse(layer, message)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_bomb_is_stopped(tmp_path: Path, compression: str) -> None:
    bench = Bench(tmp_path, Limits(ratio_grace_bytes=1 << 20, ratio=20))
    with pytest.raises(InvalidInput, match="out of proportion"):
        bench.unpack({"a": bytes(64 << 20)}, compression)
    bench.assert_empty()


def test_time_and_memory_are_limited(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Limits(cpu_s=1))
    many = make_tar([(f"{number % 100}/{number}", b"") for number in range(60_000)])
    with pytest.raises(OperationFailed, match="unpacking was stopped"):
        bench.unpack(many)
    bench.assert_empty()


def test_wrong_digests(bench: Bench) -> None:
    other = f"sha256:{hashlib.sha256(b'other').hexdigest()}"
    for changes, message in (
        ({"diff_id": other}, "uncompressed digest is not"),
        ({"digest": other}, "blob is damaged"),
        ({"size": 99999}, "truncated: it has 10240 of 99999 bytes"),
    ):
        with pytest.raises(InvalidInput, match=message):
            bench.add(bench.blob({"a": b"x"}, **changes))
        bench.assert_empty()


def test_bytes_behind_the_archive_count(bench: Bench) -> None:
    data = make_tar({"a": b"x"}) + b"junk" * 1000
    assert (bench.unpack(data) / "a").read_bytes() == b"x"


def test_the_same_layer_is_the_same_tree(tmp_path: Path) -> None:
    layer: Layer = [("a/b/c", b"x"), ("d/", None)]
    trees = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        trees.append(snapshot(Bench(tmp_path / name).unpack(layer)))
        time.sleep(1.1)
    assert trees[0] == trees[1]


def test_the_child_keeps_little(bench: Bench) -> None:
    """Caught in the act: its root is the layer, it has seven capabilities, and no new privileges."""
    data = make_tar({"a": b"x"})
    program = (
        "import os, sys\n"
        "from vmtui.runtime import unpack\n"
        "real = unpack.confine\n"
        "def confine(job):\n"
        "    proc = os.open('/proc/self', os.O_RDONLY)\n"
        "    real(job)\n"
        "    os.write(2, os.read(os.open('status', os.O_RDONLY, dir_fd=proc), 9999))\n"
        "    os.write(2, b'Root:' + repr(os.listdir('/')).encode())\n"
        "unpack.confine = confine\n"
        "sys.exit(unpack.main())\n"
    )
    (bench.root / "blob").write_bytes(data)
    (bench.root / "into").mkdir()
    job = (
        f'{{"blob":"{bench.root}/blob","digest":"{sha256(data)}","diff_id":"{sha256(data)}",'
        f'"into":"{bench.root}/into","parent_pid":{os.getpid()}}}'
    )
    done = subprocess.run([sys.executable, "-c", program], input=job.encode(), capture_output=True, timeout=180)
    assert done.returncode == 0
    said = done.stderr.decode()
    assert "Root:[]" in said
    assert "NoNewPrivs:\t1" in said
    kept = sum(1 << number for number in (0, 1, 3, 4, 21, 27, 31))
    assert f"CapEff:\t{kept:016x}" in said
    assert f"CapPrm:\t{kept:016x}" in said
    assert b'"error":""' in done.stdout


PIECES = st.sampled_from(["a", "b", "c", "..", ".", "", ".wh.a", ".wh.b", ".wh..wh..opq", "l"])
PATHS = st.lists(PIECES, min_size=1, max_size=4).map("/".join)


@st.composite
def items(draw: st.DrawFn, escape: str) -> Item:
    targets = PATHS | st.sampled_from(["/", "/etc", "..", "../../..", escape, f"{'../' * 20}{escape}", "/proc/1/root"])
    return Item(
        kind=draw(
            st.sampled_from(
                [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
            )
        ),
        data=draw(st.binary(max_size=20)),
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(st.integers(0, 3)),
        link=draw(targets),
        device=(1, 3),
    )


@pytest.fixture(scope="module")
def arena() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="vt-arena-"))
    yield root
    shutil.rmtree(root)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_nothing_outside_changes_whatever_the_layer(arena: Path, data: st.DataObject) -> None:
    """Ends with a refusal and nothing left, or with a tree; the world around it is as it was."""
    bench = Bench(arena)
    bench.blob({})
    bench.cache.mkdir(exist_ok=True)
    escape = f"{arena}/canary"
    # The leading ".." are cut, so that entries get past the first check and their links are what is tried.
    names = (PATHS | st.just(f"a/{escape}/file")).map(lambda name: name.removeprefix("../") or "a")
    layer = data.draw(st.lists(st.tuples(names, items(escape)), min_size=1, max_size=25))
    before = bench.outside(), snapshot(Path("/etc"))
    try:
        tree = bench.unpack(layer)
    except InvalidInput as fault:
        event(str(fault).split("'")[-1])
        bench.assert_empty()
    else:
        event("a tree")
        assert "." in snapshot(tree)
        shutil.rmtree(bench.cache / "layers")
    assert (bench.outside(), snapshot(Path("/etc"))) == before
