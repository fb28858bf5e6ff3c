"""cgroups of both versions, as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmtui.core.errors import OperationFailed
from vmtui.runtime import cgroups
from vmtui.runtime.cgroups import Cgroup, Hierarchy, hierarchies, mode

HYBRID = """\
30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
34 30 0:30 / /odd\\040place rw - cgroup cgroup rw,memory
damaged
"""


def test_what_is_mounted(tmp_path: Path) -> None:
    file = tmp_path / "mountinfo"
    file.write_text(HYBRID)
    trees = {str(tree.mountpoint): tree for tree in hierarchies(file)}
    assert mode(tuple(trees.values())) == "hybrid"
    assert trees["/sys/fs/cgroup/cpu,cpuacct"].controllers == {"cpu", "cpuacct"}
    assert trees["/sys/fs/cgroup/systemd"].controllers == frozenset()
    assert trees["/odd place"].controllers == {"memory"}
    assert trees["/sys/fs/cgroup/unified"].version == 2
    for text, expected in ((HYBRID.splitlines()[1], "v2"), (HYBRID.splitlines()[2], "v1"), ("", "none")):
        file.write_text(f"{text}\n")
        assert mode(hierarchies(file)) == expected


def tree(root: Path, version: int, controllers: str, files: dict[str, str]) -> Hierarchy:
    (root / "vmtui-x").mkdir(parents=True)
    for name, text in files.items():
        (root / "vmtui-x" / name).write_text(text)
    return Hierarchy(root, version, frozenset(controllers.split()))


def test_measurements_of_version_2(tmp_path: Path) -> None:
    files = {
        "cpu.stat": "usage_usec 1500000\nuser_usec 1\n",
        "memory.current": "3000\n",
        "memory.stat": "anon 1\ninactive_file 1000\n",
        "memory.max": "max\n",
        "pids.current": "3\n",
        "io.stat": "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n",
        "cgroup.freeze": "1\n",
        "memory.events": "low 0\noom_kill 2\n",
    }
    group = Cgroup("vmtui-x", (tree(tmp_path, 2, "", files),))
    sample = group.sample()
    assert (sample.cpu_s, sample.memory_bytes, sample.memory_limit_bytes, sample.processes) == (1.5, 2000, None, 3)
    assert (sample.block_read_bytes, sample.block_write_bytes) == (11, 22)
    assert group.frozen
    assert group.oom_kills() == 2


def test_measurements_of_version_1(tmp_path: Path) -> None:
    trees = (
        tree(tmp_path / "cpuacct", 1, "cpuacct", {"cpuacct.usage": "2500000000\n"}),
        tree(
            tmp_path / "memory",
            1,
            "memory",
            {
                "memory.usage_in_bytes": "5000\n",
                "memory.limit_in_bytes": "8192\n",
                "memory.stat": "inactive_file 1\ntotal_inactive_file 500\n",
                "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
            },
        ),
        tree(tmp_path / "pids", 1, "pids", {"pids.current": "4\n"}),
        tree(
            tmp_path / "blkio",
            1,
            "blkio",
            {"blkio.throttle.io_service_bytes_recursive": "8:0 Read 7\n8:0 Write 8\n8:0 Total 15\nTotal 15\n"},
        ),
        tree(tmp_path / "freezer", 1, "freezer", {"freezer.state": "THAWED\n"}),
        Hierarchy(tmp_path / "unified", 2, frozenset()),
    )
    group = Cgroup("vmtui-x", trees)
    sample = group.sample()
    assert (sample.cpu_s, sample.memory_bytes, sample.memory_limit_bytes, sample.processes) == (2.5, 4500, 8192, 4)
    assert (sample.block_read_bytes, sample.block_write_bytes) == (7, 8)
    assert not group.frozen
    assert group.oom_kills() == 1


def test_what_is_not_counted_is_unknown(tmp_path: Path) -> None:
    sample = Cgroup("vmtui-x", (Hierarchy(tmp_path, 2, frozenset()),)).sample()
    counted = (sample.cpu_s, sample.memory_bytes, sample.processes, sample.block_read_bytes)
    assert counted == (None, None, None, None)


async def test_what_does_not_freeze_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = Cgroup("vmtui-x", (tree(tmp_path / "freezer", 1, "freezer", {"freezer.state": "THAWED\n"}),))
    monkeypatch.setattr(cgroups, "GONE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(Cgroup, "_settled", staticmethod(lambda *_: False))
    with pytest.raises(OperationFailed, match="did not freeze"):
        await group.freeze(True)
    assert not group.frozen


async def test_removal_is_of_every_tree_and_idempotent(tmp_path: Path) -> None:
    trees = tuple(Hierarchy(tmp_path / name, 1, frozenset({name})) for name in ("cpu", "memory"))
    for each in trees:
        (each.mountpoint / "vmtui-x" / "below" / "deeper").mkdir(parents=True)
    (tmp_path / "cpu" / "other").mkdir()
    group = Cgroup("vmtui-x", trees)
    assert group.exists()
    await group.end()
    await group.end()
    assert not group.exists()
    assert (tmp_path / "cpu" / "other").is_dir()
