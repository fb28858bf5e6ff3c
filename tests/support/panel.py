"""The panel over simulated resources, driven by keys."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from textual.pilot import Pilot

from tests.support.fakes import open_fakes, profile
from vmtui.backends.fake.options import FakeOptions
from vmtui.backends.fake.script import Script
from vmtui.backends.fake.world import Clock
from vmtui.core.specs import ContainerSpec, DiskSpec, NetworkSpec, SandboxSpec, Spec, VmSpec
from vmtui.core.units import Publish, Size
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.profile.settings import Settings
from vmtui.tui.app import Panel

SPECS: dict[str, Spec] = {
    "network/lab": NetworkSpec(backend="fake", subnet="10.77.0.0/24"),
    "disk/data": DiskSpec(backend="fake", size=Size(1 << 30)),
    "vm/guest": VmSpec(
        backend="fake", kernel="/boot/vmlinuz", disks=("data",), networks=("lab",), labels={"tier": "app"}
    ),
    "container/web": ContainerSpec(
        backend="fake", image="oci:web", networks=("lab",), ports=(Publish.parse("127.0.0.1:8088:80"),)
    ),
    "sandbox/hello": SandboxSpec(backend="fake", module="/hello.wat"),
}


async def workspace_of(
    paths: Paths,
    specs: Mapping[str, Spec] = SPECS,
    *,
    name: str = "dev",
    options: Mapping[str, FakeOptions] | None = None,
    script: Script | None = None,
    clock: Clock | None = None,
) -> Workspace:
    """A workspace in which one profile has been applied; the caller closes it."""
    workspace = open_fakes(paths, script, clock)
    wanted = profile(name, dict(specs), dict(options or {}))
    await workspace.apply(await workspace.plan(wanted), emit=lambda _: None)
    return workspace


@contextlib.asynccontextmanager
async def panel_of(
    workspace: Workspace,
    *,
    size: tuple[int, int] = (120, 40),
    read_only: bool = False,
    home: str = "resources",
    settings: Settings | None = None,
) -> AsyncIterator[tuple[Panel, Pilot[None]]]:
    """A running panel whose model has been filled."""
    app = Panel(
        workspace, read_only=read_only, home=home, settings=settings or Settings(theme="vmtui-dark", ascii=False)
    )
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.feed.model.loaded)
        await pilot.pause()
        yield app, pilot


async def until(pilot: Pilot[None], true: Callable[[], bool], what: str = "the panel did not get there") -> None:
    """Wait until something holds, at most a minute or two, and until a screen that came with it has been laid out."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        await pilot.pause(0.02)
        if true():
            await pilot.pause()  # through the queue of whatever screen is on top now
            return
    raise AssertionError(what)


def shown(app: Panel) -> str:
    """What the screen shows, as text."""
    lines = ["".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()]
    return "\n".join(line.rstrip() for line in lines)


def file_of(folder: Path, text: str, name: str = "dev.toml") -> Path:
    """A profile's file."""
    path = folder / name
    path.write_text(text)
    return path
