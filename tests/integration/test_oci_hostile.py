"""Images and containers that mean harm: they hurt themselves alone, and are removed like any other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from pathlib import Path

import pytest

from tests.support.containers import Yard, busybox_image
from tests.support.oci import Value
from vmtui.backends.oci.places import Places
from vmtui.core.backend import ExecRequest
from vmtui.core.errors import Fault, InvalidInput
from vmtui.core.lifecycle import Phase
from vmtui.core.units import Mount

pytestmark = pytest.mark.real


@pytest.mark.parametrize("name", ["etc/hosts", "etc/resolv.conf", "data", "run/state", "work"])
async def test_links_in_the_image_do_not_lead_out(yard: Yard, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("untouched")
    target = str(victim / "file") if name.startswith("etc") else str(victim)
    layer: dict[str, Value] = {name: ("symlink", target), "up": ("symlink", "/".join([".."] * 30) + target)}
    yard.image = busybox_image(tmp_path / "image", (layer,), WorkingDir="/work", User="root")
    folder = tmp_path / "given"
    folder.mkdir()
    script = "echo x > /data/made; echo y > /run/state/made; echo z > /etc/hosts; echo w > /up/made; echo v > made"
    ref = await yard.create(
        yard.want(f"{script}; exit 0", volumes=(Mount(str(folder), "/data"),), tmpfs=("/run/state",))
    )
    with contextlib.suppress(Fault):
        await yard.start(ref)
        await yard.comes_to(ref, Phase.EXITED)
    assert (victim / "file").read_text() == "untouched"
    assert os.listdir(victim) == ["file"]


@pytest.mark.parametrize("name", ["proc", "sys", "dev", "dev/pts"])
async def test_links_in_place_of_system_folders(yard: Yard, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    yard.image = busybox_image(tmp_path / "image", ({name: ("symlink", str(victim))},))
    ref = await yard.create(yard.want("cat /proc/self/status || exit 9"))
    with contextlib.suppress(Fault):
        await yard.start(ref)
        await yard.comes_to(ref, Phase.EXITED)
    assert list(victim.iterdir()) == []


async def test_accounts_that_point_at_the_host(yard: Yard, tmp_path: Path) -> None:
    own = tmp_path / "passwd"
    own.write_text("evil:x:4242:4242::/:/bin/sh\n")
    layer: dict[str, Value] = {"etc/passwd": ("symlink", str(own)), "etc/group": ("symlink", "../" * 30 + str(own))}
    yard.image = busybox_image(tmp_path / "image", (layer,), User="evil")
    ref = await yard.create(yard.want("id"))
    with pytest.raises(InvalidInput, match="evil"):
        await yard.start(ref)


async def test_an_exec_that_the_container_holds_up_can_be_left(yard: Yard) -> None:
    """The runtime itself reads /etc/passwd inside, where it may be a FIFO."""
    ref = await yard.up(
        "rm /etc/passwd; ln -s /made /etc/passwd; /bin/busybox mkfifo /made; echo ready; exec sleep 600"
    )
    await yard.says(ref, "ready")
    session = await yard.backend.exec(ref, ExecRequest(argv=("echo", "done")))
    async with asyncio.timeout(90):
        await session.aclose()
        while len(Places(yard.context, ref).cgroup.pids()) > 1:  # noqa: ASYNC110 - processes
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "config",
    [
        {"Env": ["A=" + "x" * 200_000]},
        {"Env": [f"A{number}={'x' * 100_000}" for number in range(20)]},
        {"WorkingDir": "../../.."},
        {"User": "4294967295"},
        {"Cmd": []},
    ],
)
async def test_configurations_that_cannot_be(yard: Yard, tmp_path: Path, config: dict[str, object]) -> None:
    yard.image = busybox_image(tmp_path / "image", (), **config)
    ref = await yard.create(yard.want(None if "Cmd" in config else "true"))
    with pytest.raises(InvalidInput):
        await yard.start(ref)
    for status in await yard.backend.scan():
        assert status.phase is Phase.STOPPED
        assert not yard.context.runtime_dir(status.ref).exists()


async def test_odd_names_and_values(yard: Yard, tmp_path: Path) -> None:
    layer: dict[str, Value] = {"odd\nname": b"1", "-rf": b"2", "\x1b[2J": b"3"}
    yard.image = busybox_image(tmp_path / "image", (layer,), Env=["PATH=/bin", "odd name\n=\x1b[2J", "=C:=x"[1:]])
    code, _ = await yard.run("cat /odd*; test -e /-rf; env")
    assert code == 0


async def test_a_tree_deeper_than_a_path_can_name_is_removed(yard: Yard) -> None:
    dig = "i=0; while [ $i -lt 1900 ]; do mkdir d && cd d || exit 1; i=$((i+1)); done"
    ref = await yard.up(f"cd /tmp && {dig}; cd /v && {dig}; echo dug", volumes=(Mount("deep", "/v"),))
    await yard.says(ref, "dug")
    await yard.backend.delete(ref, purge=True)


async def test_what_it_makes_cannot_be_used_on_the_host(yard: Yard) -> None:
    """A set-uid file in a volume belongs to the mapped user; devices cannot be made at all."""
    script = "cp /bin/busybox /v/sh; chmod 4755 /v/sh; mknod /v/disk b 8 0; ls /v"
    ref = await yard.up(f"{script.replace('cp ', '/bin/busybox cp ')}; exec sleep 600", volumes=(Mount("kept", "/v"),))
    await yard.says(ref, "sh")
    made = yard.context.paths.state / "volumes" / "yard" / "kept" / "data"
    assert not (made / "disk").exists()
    assert stat.S_IMODE(yard.context.paths.state.stat().st_mode) == 0o700, "nobody else on the host gets there"
    options = (await yard.exec(ref, "grep", " /v ", "/proc/self/mounts"))[1].decode().split()[3].split(",")
    assert {"nosuid", "nodev"} <= set(options)


async def test_a_bomb_of_processes_ends_with_it(yard: Yard) -> None:
    ref = await yard.up("bomb() { bomb | bomb & }; bomb; exec sleep 600", pids_limit=64)
    await yard.backend.kill(ref)
    assert (await yard.backend.inspect(ref)).phase is Phase.EXITED
    await yard.backend.delete(ref, purge=True)
