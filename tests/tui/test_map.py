"""The map over simulated resources: what is drawn, what is live, and where the keys lead."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from textual.pilot import Pilot

from tests.support.cpu import cpu_s
from tests.support.panel import SPECS, panel_of, shown, until, workspace_of
from vmtui.core.lifecycle import Action, Phase
from vmtui.core.resource import Address, Endpoint, Kind, Port, Problem, Ref, Status
from vmtui.core.specs import ContainerSpec, NetworkSpec, Spec, VmSpec
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.tui.app import Panel
from vmtui.tui.map.layout import What
from vmtui.tui.screens.map import MapScreen

WEB, GUEST = Ref("dev", Kind.CONTAINER, "web"), Ref("dev", Kind.VM, "guest")
HOSTILE = "[@click=app.quit]x[/] \x1b]52;c;AAAA\x07 \u202e [/"


@pytest.fixture
async def workspace(paths: Paths) -> AsyncIterator[Workspace]:
    opened = await workspace_of(paths)
    yield opened
    await opened.aclose()


async def opened_map(app: Panel, pilot: Pilot[None]) -> MapScreen:
    screen = app.view_named("map")
    assert isinstance(screen, MapScreen)
    await pilot.press("6")
    items = app.feed.model.items
    await until(pilot, lambda: screen.is_mounted and len(screen._read) == len(items) and screen._timer is None)
    return screen


def line_of(app: Panel, text: str) -> str:
    return next((line for line in shown(app).splitlines() if text in line), "")


async def test_networks_are_drawn_with_members_addresses_ports_and_disks(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        await opened_map(app, pilot)
        await until(pilot, lambda: "on no network" in shown(app))
        lines = shown(app).splitlines()
        assert "╭── ◆ available network   lab" in line_of(app, "network   lab")
        assert "10.77.0.0/24" in line_of(app, "network   lab")
        web = line_of(app, "container web")
        assert web.startswith(" ├── ● running")
        assert "10.77.0." in web
        assert " up " in web
        assert "http://127.0.0.1:8088/" in web
        guest = next(number for number, line in enumerate(lines) if "vm        guest" in line)
        assert lines[guest].startswith(" ╰── ●")
        assert "└─ ◆ available disk      data" in lines[guest + 1]
        assert "1.0G" in lines[guest + 1]
        assert "sandbox   hello" in shown(app)
        assert "Map  1 network, 3 workloads, 1 disk" in shown(app)


async def test_it_is_live(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        await opened_map(app, pilot)
        await until(pilot, lambda: "up" in line_of(app, "vm        guest").split())
        await workspace.act(GUEST, Action.STOP, emit=lambda _: None)
        await until(pilot, lambda: "○ stopped" in line_of(app, "vm        guest"))
        await until(pilot, lambda: "down" in line_of(app, "vm        guest"))
        assert line_of(app, "vm        guest").startswith(" ╰·· ")
        await workspace.act(GUEST, Action.START, emit=lambda _: None)
        await until(pilot, lambda: line_of(app, "vm        guest").startswith(" ╰── ●"))


async def test_the_keys_move_between_resources_and_lead_to_them(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        screen = await opened_map(app, pilot)
        await pilot.press("g", "j")
        seen = []
        for _ in range(8):
            line = screen.view.current()
            assert line is not None
            assert line.selectable
            seen.append(line.ref.short if line.ref else line.text)
            await pilot.press("j")
        assert list(dict.fromkeys(seen)) == [
            "network/lab", "container/web", "vm/guest", "disk/data", "sandbox/hello",
        ]  # fmt: skip
        await pilot.press("g", "J", "j")
        assert screen.view.current().ref == WEB  # type: ignore[union-attr]
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.home)
        current = app.home.listing.current()
        assert current is not None
        assert current.ref == WEB


async def test_a_verb_that_is_not_permitted_says_why(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        screen = await opened_map(app, pilot)
        screen.view.move_to(next(y for y, line in enumerate(screen.view.lines) if line.what is What.DISK))
        await pilot.press("c")
        await pilot.pause()
        assert app.notices[-1].text.startswith("no console of disk/data:")
        assert isinstance(app.screen, MapScreen)
        assert "Console" not in shown(app).splitlines()[-1]


async def test_the_filter_keeps_what_matches_in_its_place(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        screen = await opened_map(app, pilot)
        await pilot.press("slash", *"kind:disk", "enter")
        await until(
            pilot, lambda: [line.ref.name for line in screen.view.lines if line.ref] == ["lab", "guest", "data"]
        )
        await pilot.press("escape", "slash", *"zzz")
        await until(pilot, lambda: "nothing matches the filter" in shown(app))
        await pilot.press("escape")
        await until(pilot, lambda: len(screen.view.lines) > 6)


async def test_an_empty_map_says_what_to_do_and_hidden_it_costs_nothing(paths: Paths) -> None:
    opened = await workspace_of(paths, {})
    async with panel_of(opened, home="map", size=(80, 24)) as (app, pilot):
        screen = app.screen
        assert isinstance(screen, MapScreen)
        await until(pilot, lambda: "nothing is here yet: 4 opens a profile" in shown(app))
        await pilot.press("enter", "z", "l", "J", "1")
        await until(pilot, lambda: app.screen is app.home)
        await until(pilot, lambda: screen._unsubscribe is None)
        await until(pilot, lambda: screen._timer is None)
    await opened.aclose()


def see(workspace: Workspace, statuses: list[Status]) -> None:
    """The host has these from now on."""

    async def scan(kinds: Any = None) -> tuple[Status, ...]:
        return tuple(statuses)

    workspace.scan = scan  # type: ignore[method-assign]


def planted(count: int, network: Ref) -> list[Status]:
    """A network with many members, as its backend would tell it."""
    refs = [Ref("big", Kind.CONTAINER, f"c{number:05}") for number in range(count)]
    ports = tuple(
        Port(network=network, consumer=ref, index=0, medium="veth", interface=f"v{at}", address=f"10.0.0.{at}")
        for at, ref in enumerate(refs)
    )
    found = [Status(ref=network, backend="fake", phase=Phase.AVAILABLE, ports=ports)]
    return found + [Status(ref=ref, backend="fake", phase=Phase.RUNNING) for ref in refs]


async def test_ten_thousand_members_stay_usable(workspace: Workspace) -> None:
    statuses = planted(10_000, Ref("big", Kind.NETWORK, "lan"))
    async with panel_of(workspace) as (app, pilot):
        screen = await opened_map(app, pilot)

        see(workspace, statuses)
        app.feed.rescan()
        await until(pilot, lambda: any(line.what is What.FOLD for line in screen.view.lines))
        assert len(screen.view.lines) < 100
        await pilot.press("G")
        assert screen.view.current().what is What.FOLD  # type: ignore[union-attr]
        began = cpu_s()
        await pilot.press("enter")
        await until(pilot, lambda: len(screen.view.lines) > 10_000)
        for key in "GkkkgjjG":
            await pilot.press(key)
        assert cpu_s() - began < 8  # 1 to 1.5 s on a quiet machine
        assert "c09999" in shown(app)
        await pilot.press("z")
        await until(pilot, lambda: len(screen.view.lines) < 100)


async def test_hostile_text_stays_text(workspace: Workspace) -> None:
    network = Ref("dev", Kind.NETWORK, "lab")
    port = Port(network=network, consumer=WEB, index=0, medium=HOSTILE, interface=HOSTILE, address=HOSTILE)
    problem = Problem(code="x", message=HOSTILE, hint=HOSTILE)
    statuses = [
        Status(ref=network, backend="fake", phase=Phase.BROKEN, ports=(port,), problems=(problem,),
               addresses=(Address(network=HOSTILE, address=HOSTILE, interface=HOSTILE),)),
        Status(ref=WEB, backend="fake", phase=Phase.RUNNING, problems=(problem,), endpoints=(Endpoint(url=HOSTILE),)),
        Status(ref=Ref("dev", Kind.DISK, "x"), backend="fake", phase=Phase.AVAILABLE, problems=(problem,)),
    ]  # fmt: skip
    async with panel_of(workspace, size=(200, 30)) as (app, pilot):
        await opened_map(app, pilot)

        see(workspace, statuses)
        app.feed.rescan()
        await until(pilot, lambda: "[@click=app.quit]x[/]" in shown(app))
        for key in ("g", "j", "j", "G"):
            await pilot.press(key)
            assert "\x1b" not in shown(app)
            assert "\u202e" not in shown(app)
        await pilot.click(offset=(60, 3))
        await pilot.pause()
        assert app.is_running


@pytest.mark.parametrize("size", [(80, 24), (40, 10)])
async def test_it_is_usable_in_a_small_terminal(workspace: Workspace, size: tuple[int, int]) -> None:
    async with panel_of(workspace, size=size) as (app, pilot):
        await opened_map(app, pilot)
        await until(pilot, lambda: "network   lab" in shown(app))
        await pilot.press("G", "g", "ctrl+f", "ctrl+b", "J", "K")
        assert "guest" in shown(app) or size == (40, 10)


async def test_without_box_drawing_it_is_drawn_in_ascii(workspace: Workspace) -> None:
    from vmtui.profile.settings import Settings

    async with panel_of(workspace, settings=msgspec.structs.replace(Settings(), ascii=True)) as (app, pilot):
        await opened_map(app, pilot)
        await until(pilot, lambda: "on no network" in shown(app))
        body = "\n".join(shown(app).splitlines()[1:-1])
        assert body.isascii()


async def test_what_a_spec_names_and_is_gone_is_seen(paths: Paths) -> None:
    specs: dict[str, Spec] = {
        "network/a": NetworkSpec(backend="fake", subnet="10.1.0.0/24"),
        "network/b": NetworkSpec(backend="fake", subnet="10.2.0.0/24"),
        "vm/two": VmSpec(backend="fake", kernel="/k", networks=("a", "b")),
        "container/one": ContainerSpec(backend="fake", image="x", networks=("b",)),
    }
    opened = await workspace_of(paths, specs)
    async with panel_of(opened) as (app, pilot):
        await opened_map(app, pilot)
        await until(pilot, lambda: shown(app).count("vm        two") == 2)
        backend = opened.registry.get(Kind.NETWORK, "fake")
        await backend.delete(Ref("dev", Kind.NETWORK, "b"), purge=False)
        app.feed.rescan()
        await until(pilot, lambda: "it is not there" in shown(app))
        assert "absent" in line_of(app, "network   b")
        assert "down" in line_of(app, "container one")
    await opened.aclose()


def test_the_specs_of_these_tests_have_all_kinds() -> None:
    assert {short.partition("/")[0] for short in SPECS} == set(Kind)
