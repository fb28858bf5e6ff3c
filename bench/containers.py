"""Containers: from nothing to running, beside bare runc with a config of ours and podman with the same image."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median as middle

from bench.measure import Row, command, milliseconds
from bench.workspace import PATH, scratch
from vmtui.core.backend import silent
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import ContainerSpec
from vmtui.core.units import Duration
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths, program
from vmtui.profile.schema import Declared, Profile
from vmtui.runtime.bundle import Placement, config_json
from vmtui.runtime.images import Image, ImageStore
from vmtui.runtime.users import User

IMAGE = "deb:busybox-static"
SLEEP = ("sleep", "600")
TIMES = 7
TOGETHER = 50
SPEC = ContainerSpec(image=IMAGE, command=SLEEP, stop_grace_period=Duration(0))


def profile(name: str, count: int) -> Profile:
    refs = [Ref(name, Kind.CONTAINER, f"c{number}") for number in range(count)]
    return Profile(name=name, path=Path("bench.toml"), resources=tuple(Declared(ref=ref, spec=SPEC) for ref in refs))


async def up_and_down(workspace: Workspace, count: int) -> float:
    """Seconds from the plan to the last of `count` containers running."""
    began = time.perf_counter()
    plan = await workspace.plan(profile("bench", count))
    outcome = await workspace.apply(plan, emit=lambda _: None)
    elapsed = time.perf_counter() - began
    assert outcome.result == "converged", outcome.failure
    running = [status for status in await workspace.scan() if status.phase == "running"]
    assert len(running) == count, f"{len(running)} of {count} run"
    await workspace.apply(await workspace.plan_down("bench", purge=True), emit=lambda _: None)
    return elapsed


async def ours(paths: Paths) -> tuple[float, float]:
    async with await Workspace.open(paths) as workspace:
        await up_and_down(workspace, 1)
        one = middle([await up_and_down(workspace, 1) for _ in range(TIMES)])
        return one, await up_and_down(workspace, TOGETHER)


def by_command(paths: Paths, folder: Path) -> float:
    """The same through the command line: a person's view, to be held beside `podman run`."""
    file = folder / "bench.toml"
    words = ", ".join(f'"{word}"' for word in SLEEP)
    file.write_text(f'[container.c0]\nimage = "{IMAGE}"\ncommand = [{words}]\nstop_grace_period = "0s"\n')
    environment = paths.environment() | {"PATH": PATH}
    times = []
    for _ in range(TIMES):
        began = time.perf_counter()
        command([program(), "--profile", str(file)], environment)()
        times.append(time.perf_counter() - began)
        command([program(), "down", "bench"], environment)()
    return middle(times)


def bare_runc(image: Image, folder: Path) -> float:
    """`runc run --detach` of a bundle whose root file system is a plain copy."""
    bundle = folder / "bundle"
    rootfs = bundle / "rootfs"
    for layer in image.layers:
        shutil.copytree(layer, rootfs, symlinks=True, dirs_exist_ok=True)
    user = User(uid=0, gid=0, groups=(), home="/root")
    place = Placement(rootfs=str(rootfs), hostname="bench", cgroup="vmtui-bench", user=user, id_base=None)
    (bundle / "config.json").write_bytes(config_json(SPEC, image.config, place))
    root = ["runc", "--root", str(folder / "runc")]

    def delete() -> None:
        subprocess.run([*root, "delete", "--force", "bench"], check=True, capture_output=True)

    times = []
    for _ in range(TIMES):
        began = time.perf_counter()
        with (folder / "out").open("wb") as out:
            argv = [*root, "run", "--detach", "--bundle", str(bundle), "bench"]
            subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        times.append(time.perf_counter() - began)
        delete()
    return middle(times)


def podman(image: Image, folder: Path) -> float:
    """`podman run --detach` of the same tree, imported once into a store of the benchmark's own."""
    base = [
        "podman", "--root", str(folder / "store"), "--runroot", str(folder / "run"), "--runtime", "runc",
        "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--tmpdir", str(folder / "tmp"),
    ]  # fmt: skip
    archive = folder / "image.tar"
    subprocess.run(["tar", "-C", image.layers[-1], "-cf", str(archive), "."], check=True)
    subprocess.run([*base, "import", str(archive), "bench:1"], check=True, capture_output=True)
    run = [
        *base,
        "run",
        "--detach",
        "--name",
        "bench",
        "--network",
        "none",
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=1024:1024",
        "bench:1",
        *SLEEP,
    ]
    times = []
    try:
        for _ in range(TIMES):
            began = time.perf_counter()
            command(run)()
            times.append(time.perf_counter() - began)
            subprocess.run([*base, "rm", "--force", "--time", "0", "bench"], check=True, capture_output=True)
    finally:
        subprocess.run([*base, "system", "reset", "--force"], check=False, capture_output=True)
    return middle(times)


async def image_of(cache: Path) -> Image:
    return await ImageStore(cache).ensure(IMAGE, silent)


def rows() -> Iterator[Row]:
    folder = Path(tempfile.mkdtemp(prefix="vb-", dir="/var/tmp"))
    try:
        with scratch() as paths:
            image = asyncio.run(image_of(paths.cache))
            one, many = asyncio.run(ours(paths))
            cli = by_command(paths, folder)
            runc = bare_runc(image, folder)
            theirs = podman(image, folder)
        yield Row("container, create to running / runc run", milliseconds(one), milliseconds(runc), one / runc, "<= 3x")
        yield Row("the same / podman run", milliseconds(one), milliseconds(theirs), one / theirs, "< 1x")
        yield Row("vmtui --profile, all of it / podman run", milliseconds(cli), milliseconds(theirs), cli / theirs)
        yield Row(f"{TOGETHER} containers at once", f"{many:.2f} s", f"{many / TOGETHER * 1000:.0f} ms each", None, "")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
