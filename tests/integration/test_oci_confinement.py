"""What a container sees of itself and of its host, compared with what it was promised."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.support.containers import Yard
from vmtui.backends.oci.places import Places
from vmtui.core.lifecycle import Phase
from vmtui.core.units import Size
from vmtui.runtime import capabilities
from vmtui.runtime.bundle import MASKED, READ_ONLY

pytestmark = pytest.mark.real


def mask(names: tuple[str, ...]) -> str:
    """As /proc/PID/status writes a set of capabilities."""
    return f"{sum(1 << capabilities.KNOWN.index(name) for name in names):016x}"


async def status(yard: Yard, **spec: Any) -> dict[str, str]:
    """/proc/self/status of a container's first process."""
    code, said = await yard.run("exec cat /proc/self/status", **spec)
    assert code == 0
    return {name: value.strip() for name, _, value in (line.partition(":") for line in said.splitlines())}


async def test_privileges_of_root(yard: Yard) -> None:
    seen = await status(yard)
    assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("1", "2")
    assert {seen[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {mask(capabilities.DEFAULT)}
    assert {seen[name] for name in ("CapInh", "CapAmb")} == {mask(())}


async def test_privileges_of_others(yard: Yard) -> None:
    seen = await status(yard, user="1000:1000", cap_add=("NET_RAW",))
    assert {seen[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {mask(())}
    assert seen["CapBnd"] == mask((*capabilities.DEFAULT, "CAP_NET_RAW"))


async def test_capabilities_that_are_added_and_dropped(yard: Yard) -> None:
    seen = await status(yard, cap_drop=("ALL",), cap_add=("net_bind_service",))
    assert {seen[name] for name in ("CapEff", "CapBnd")} == {mask(("CAP_NET_BIND_SERVICE",))}


async def test_an_exec_has_no_more_than_the_container(yard: Yard) -> None:
    ref = await yard.up("exec sleep 600", cap_drop=("CHOWN",))
    _, said = await yard.exec(ref, "grep", "-E", "^(Cap|NoNew|Seccomp:)", "/proc/self/status")
    lines = dict(line.split(":\t") for line in said.decode().splitlines())
    held = mask(tuple(name for name in capabilities.DEFAULT if name != "CAP_CHOWN"))
    assert (lines["NoNewPrivs"], lines["Seccomp"], lines["CapEff"], lines["CapBnd"]) == ("1", "2", held, held)
    assert lines["CapInh"] == lines["CapAmb"] == mask(())


async def test_user_ids_are_mapped(yard: Yard) -> None:
    ref = await yard.up("echo mine > /made; chown web:www /made; echo made; exec sleep 600")
    await yard.says(ref, "made")
    pid = (await yard.backend.inspect(ref)).pid
    base = int(Path(f"/proc/{pid}/uid_map").read_text().split()[1])
    assert base >= 1 << 24
    assert Path(f"/proc/{pid}").stat().st_uid == base
    assert await yard.exec(ref, "stat", "-c", "%u %g", "/bin/busybox", "/srv/web", "/made") == (
        0,
        b"0 0\n33 44\n33 44\n",
    )
    made = yard.context.resource_dir(ref) / "changes" / "upper" / "made"
    assert (made.stat().st_uid, made.stat().st_gid) == (base + 33, base + 44)


async def test_namespaces_are_its_own(yard: Yard) -> None:
    ref = await yard.up("exec sleep 600")
    pid = (await yard.backend.inspect(ref)).pid
    for name in ("pid", "net", "ipc", "uts", "mnt", "cgroup", "user"):
        assert os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"), name
    assert str(yard.root) not in Path("/proc/self/mounts").read_text(), "nothing is mounted on the host"
    mounts = (await yard.exec(ref, "cat", "/proc/self/mounts"))[1].decode()
    assert str(yard.root) not in mounts


async def test_masked_and_read_only_paths(yard: Yard) -> None:
    ref = await yard.up("exec sleep 600")
    root = f"/proc/{(await yard.backend.inspect(ref)).pid}/root"
    for path in MASKED:
        if os.path.exists(root + path):
            content = (await yard.exec(ref, "sh", "-c", f"cat {path} 2>/dev/null || ls {path}"))[1]
            assert content == b"", path
    for path in (path for path in READ_ONLY if os.path.exists(root + path)):
        assert os.statvfs(root + path).f_flag & os.ST_RDONLY, path
    for line in (await yard.exec(ref, "cat", "/proc/self/mounts"))[1].decode().splitlines():
        _, path, kind, options, *_ = line.split()
        assert kind not in ("sysfs", "cgroup", "cgroup2") or "ro" in options.split(","), path
    for attempt in (
        "echo 1 > /proc/sys/kernel/panic",
        "mount -t tmpfs none /tmp",
        "mknod /tmp/sda b 8 0",
        "unshare -U true",
    ):
        code, said = await yard.exec(ref, "sh", "-c", attempt)
        if attempt != "unshare -U true":
            assert code != 0, (attempt, said)


async def test_devices(yard: Yard) -> None:
    code, said = await yard.run(
        "cd /dev; find . -type b; find . -type c | sort; echo x > null; head -c 4 zero | od -An -tx1"
    )
    assert code == 0
    names = {line.removeprefix("./") for line in said.splitlines() if line.startswith("./")}
    assert names <= {"full", "null", "random", "tty", "urandom", "zero", "ptmx", "pts/ptmx", "console"}
    assert "00 00 00 00" in said


async def test_a_low_port_needs_no_privilege(yard: Yard) -> None:
    script = "nc -l -p 80 -e /bin/true & until nc -w 60 127.0.0.1 80 </dev/null 2>/dev/null; do sleep 0.1; done; "
    script += "cat /proc/sys/net/ipv4/ping_group_range"
    assert await yard.run(script, user="web", cap_drop=("ALL",)) == (0, "0\t65535\n")


async def test_memory_is_limited(yard: Yard) -> None:
    ref = await yard.up("tail /dev/zero", memory=Size(16 << 20))
    ended = (await yard.comes_to(ref, Phase.EXITED)).exit
    assert ended is not None
    assert (ended.code, ended.reason) == (137, "killed: it used more memory than its limit")
    ref = await yard.up("exec sleep 600", name="two", memory=Size(32 << 20))
    sample = await yard.backend.stats(ref)
    assert sample.memory_limit_bytes == 32 << 20
    assert sample.memory_bytes is not None
    assert 0 < sample.memory_bytes < 32 << 20


async def test_processes_are_limited(yard: Yard) -> None:
    code, said = await yard.run("for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; echo unreached", pids_limit=5)
    assert code != 0
    assert "unreached" not in said
    ref = await yard.up("sleep 600 & sleep 600 & wait", name="two")
    async with asyncio.timeout(90):
        while (await yard.backend.stats(ref)).processes in (1, 2):  # noqa: ASYNC110 - processes
            await asyncio.sleep(0.02)
    assert (await yard.backend.stats(ref)).processes == 3


async def test_the_processor_is_limited(yard: Yard) -> None:
    ref = await yard.up("exec sleep 600", cpus=0.5)
    directory = Places(yard.context, ref).cgroup.directory("cpu")
    assert directory is not None
    if (directory / "cpu.max").exists():
        assert (directory / "cpu.max").read_text().split() == ["50000", "100000"]
    else:
        assert (directory / "cpu.cfs_quota_us").read_text().strip() == "50000"
        assert (directory / "cpu.cfs_period_us").read_text().strip() == "100000"


async def test_what_it_uses_is_counted(yard: Yard) -> None:
    ref = await yard.up("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done; exec sleep 600")
    await yard.says(ref, "done")
    sample = await yard.backend.stats(ref)
    assert sample.cpu_s is not None
    assert 0.01 < sample.cpu_s < 60
    assert sample.net_rx_bytes == sample.net_tx_bytes == 0
    assert sample.block_read_bytes is not None


async def test_files_of_ours_are_private(yard: Yard) -> None:
    ref = await yard.up("exec sleep 600")
    for directory in (yard.context.resource_dir(ref), yard.context.runtime_dir(ref)):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    config = json.loads((yard.context.runtime_dir(ref) / "config.json").read_bytes())
    assert config["linux"]["cgroupsPath"] == f"/{Places(yard.context, ref).name}"
