"""Every screen as a picture, on the demo with its clock stopped. `make snapshots` draws them anew: look at them."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from textual.pilot import Pilot

from tests.support import golden
from tests.support.panel import until
from vmtui.backends.fake import world
from vmtui.core.resource import Kind, Ref
from vmtui.engine import demo, moving
from vmtui.engine.demo import Demo
from vmtui.host import trace
from vmtui.host.paths import Paths
from vmtui.profile.settings import Settings
from vmtui.tui.app import Panel

NOW = 1_800_000_000.0
PLACE = Path("/tmp/ada")  # the pictures have it in them
SIZES = ((80, 24), (120, 40))
SHOP = Ref("shop", Kind.CONTAINER, "api")
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)

Steps = Callable[[Panel, Pilot[None]], Awaitable[None]]


@dataclass
class Stopped:
    """A clock that moves when it is told to."""

    value: float = NOW

    def now(self) -> float:
        return self.value


@pytest.fixture
def place() -> Iterator[Path]:
    """Ours alone, whoever else draws on this host."""
    with PLACE.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        PLACE.mkdir(exist_ok=True)
        yield PLACE
        shutil.rmtree(PLACE)


@pytest.fixture
async def still(place: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Demo, Stopped]]:
    """The demo with the same names, addresses and times each time."""
    clock = Stopped()
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/ada/.config")
    time.tzset()
    monkeypatch.setattr(time, "time", clock.now)
    monkeypatch.setattr(secrets, "token_hex", lambda _: "00c0ffee")
    for made in (world.Clock, moving.Clock):
        monkeypatch.setattr(made.__init__, "__defaults__", (clock.now, asyncio.sleep))
    opened = await demo.open_demo(paths, 40, moving=False, by="ada via vmtui")
    for name, path in opened.store.profile_paths().items():
        file = PLACE / f"{name}.toml"
        file.write_text(Path(path).read_text())
        opened.store.put_profile(name, str(file))
    yield opened, clock
    await opened.aclose()
    monkeypatch.undo()
    time.tzset()


async def nothing(app: Panel, pilot: Pilot[None]) -> None:
    pass


def keys(*presses: str) -> Steps:
    async def steps(app: Panel, pilot: Pilot[None]) -> None:
        for press in presses:
            await pilot.press(press)

    return steps


async def events(app: Panel, pilot: Pilot[None]) -> None:
    for verb, result, message in (
        ("start", "done", ""),
        ("exit", "exited", "code 137 out of memory"),
        ("restart", "failed", "shop/container/api: its image is not there"),
        ("restart", "done", "attempt 2"),
    ):
        if all(event.message != message or event.verb != verb for event in app.workspace.events(limit=100)):
            app.workspace.store.record(SHOP, verb, result, message)
    app.show(app.view_named("events"))


async def actions(app: Panel, pilot: Pilot[None]) -> None:
    """A few acts as a start makes them."""
    app.show(app.view_named("actions"))
    trace._changes.clear()
    for way, words, code, stderr in (
        (
            trace.Way.NETLINK,
            ("ip", "link", "add", "name", "vtp3c0ffee", "type", "veth", "peer", "name", "vtq3c0ffee"),
            0,
            b"",
        ),
        (trace.Way.NETLINK, ("ip", "link", "set", "dev", "vtp3c0ffee", "master", "vmb00c0ffee"), 0, b""),
        (trace.Way.COMMAND, ("nft", "-j", "-f", "-"), 0, b""),
        (trace.Way.MOUNT, ("mount", "-t", "overlay", "-o", "lowerdir=1:0,upperdir=w/upper", "overlay", "/mnt"), 0, b""),
        (trace.Way.COMMAND, ("runc", "start", "vmtui-00c0ffee"), 1, b"exec: no such file"),
    ):
        with trace.doing(f"start {SHOP}"):
            act = trace.begin(way, words, stdin=b"{}" if words[0] == "nft" else None, show_stdin=True)
        act.code, act.elapsed_s, act.stderr = code, 0.012, stderr


async def console(app: Panel, pilot: Pilot[None]) -> None:
    await pilot.press("c")
    await until(pilot, lambda: app.screen.NAME == "Console")  # type: ignore[attr-defined]
    await pilot.press(*"uptime", "enter")


async def profile(app: Panel, pilot: Pilot[None]) -> None:
    """One that differs from what is there."""
    file = PLACE / "shop.toml"
    text = file.read_text().partition("\n[disk.spare]")[0]
    file.write_text(text.replace('memory = "1GiB"', 'memory = "2GiB"', 1) + '\n[disk.spare]\nsize = "10GiB"\n')
    app.open_profile(file)


PICTURES: dict[str, Steps] = {
    "home": nothing,
    "detail": keys("d"),
    "filter": keys("slash", *"state:problem"),
    "delete": keys("ctrl+d"),
    "help": keys("question_mark"),
    "themes": keys("ctrl+t"),
    "map": keys("6", "j", "j"),
    "doctor": keys("7"),
    "events": events,
    "actions": actions,
    "logs": keys("l"),
    "console": console,
    "profile": profile,
    "edit": keys("e"),
}
SETTLED_S = 5.0 if os.environ.get(golden.REGENERATE) else 30.0


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", PICTURES)
async def test_picture(name: str, size: tuple[int, int], still: tuple[Demo, Stopped]) -> None:
    workspace, clock = still
    path, began = golden.SNAPSHOTS / "panel" / f"{name}-{size[0]}x{size[1]}.svg", clock.value
    for _ in range(3):  # a busy machine may measure once more than we asked, which moves a curve
        clock.value = began
        app = Panel(workspace, demo=True, settings=Settings(theme="vmtui-dark", ascii=False))
        app.feed._interval_s = 3600.0  # measured as often as we say, however long that takes
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda app=app: app.feed.model.loaded)  # type: ignore[misc]
            app.home.select(SHOP)
            for _ in range(12):
                await app.feed.measure()
                clock.value += 2.0
            await PICTURES[name](app, pilot)
            picture = await settled(app, pilot, path, f"vmtui: {name}")
        if path.exists() and picture == path.read_text():
            return
    golden.check(path, picture)


async def settled(app: Panel, pilot: Pilot[None], path: Path, title: str) -> str:
    """The picture once it stays as the file has it; else what it is after some seconds."""
    wanted = path.read_text() if path.exists() and not os.environ.get(golden.REGENERATE) else None
    deadline, last = time.monotonic() + SETTLED_S, ""
    while True:
        await pilot.pause(0.1)
        drawn = app.export_screenshot(title=title)
        picture = FONTS.sub("", drawn).replace("Fira Code, monospace", "DejaVu Sans Mono, monospace")
        if picture == last == wanted or time.monotonic() > deadline:
            return picture
        last = picture
