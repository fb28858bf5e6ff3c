"""The acts of this process as a view: what was really run, to be read and copied."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.panel import panel_of, shown, until, workspace_of
from vmtui.core.resource import Kind, Ref
from vmtui.engine.workspace import Workspace
from vmtui.host import trace
from vmtui.host.paths import Paths
from vmtui.host.process import run
from vmtui.tui.screens.actions import ActionsScreen, details
from vmtui.tui.screens.sheet import Sheet

WEB = Ref("dev", Kind.CONTAINER, "web")
HOSTILE = "[@click=app.quit]x[/] \x1b]52;c;AAAA\x07 \u202e [/"


@pytest.fixture(autouse=True)
def forgotten() -> None:
    """What other tests have done is not of interest here."""
    trace._changes.clear()
    trace._reads.clear()


@pytest.fixture
async def workspace(paths: Paths) -> AsyncIterator[Workspace]:
    opened = await workspace_of(paths)
    yield opened
    await opened.aclose()


async def test_it_shows_what_was_run_as_it_happens_and_hides_what_only_read(
    workspace: Workspace, tmp_path: Path
) -> None:
    with trace.doing(f"create {WEB}"):
        await run(["sh", "-c", "exit 3"], check=False)
    await run(["true", "only-a-look"], reads=True)
    async with panel_of(workspace, home="actions", size=(120, 24)) as (app, pilot):
        await until(pilot, lambda: "sh -c 'exit 3'" in shown(app))
        assert "code 3" in shown(app)
        assert f"create {WEB}" in shown(app)
        assert "only-a-look" not in shown(app)
        task = asyncio.create_task(run(["sh", "-c", "until [ -e seen ]; do sleep 0.05; done"], cwd=tmp_path))
        await until(pilot, lambda: "running" in shown(app))
        (tmp_path / "seen").touch()
        await task
        await until(pilot, lambda: "running" not in shown(app))
        assert "until [ -e seen ]" in shown(app)
        await pilot.press("R")
        await until(pilot, lambda: "only-a-look" in shown(app))


async def test_enter_shows_all_of_it_and_y_copies_it_for_a_shell(workspace: Workspace, tmp_path: Path) -> None:
    script = b'{"nftables": [{"flush": {"table": {"name": "x"}}}]}'
    await run(["sh", "-c", "cat >&2; exit 1", "two words"], stdin=script, show_stdin=True, check=False, env={"A": "b"})
    async with panel_of(workspace, home="actions", size=(120, 40)) as (app, pilot):
        await until(pilot, lambda: "two words" in shown(app))
        await pilot.press("y")
        assert app.clipboard == "env A=b sh -c 'cat >&2; exit 1' 'two words'"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Sheet))
        await pilot.pause()
        text = shown(app)
        for said in ("cat >&2; exit 1", "stdin, 51 bytes", '"nftables": [', "stderr, its end", "code 1", "A=b"):
            assert said in text
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, ActionsScreen))


async def test_an_equivalent_says_that_it_is_one(workspace: Workspace) -> None:
    trace.begin(trace.Way.NETLINK, ("ip", "link", "add", "name", "b0", "type", "bridge")).ended()
    (act,) = trace.acts()
    assert details(act)[0][0].startswith("equivalent of a netlink call, ok")
    async with panel_of(workspace, home="actions") as (app, pilot):
        await until(pilot, lambda: "netlink   ip link add name b0 type bridge" in shown(app))


async def test_the_filter_knows_the_resource_and_o_goes_there(workspace: Workspace) -> None:
    with trace.doing(f"start {WEB}"):
        await run(["true", "one"])
    await run(["true", "two"])
    async with panel_of(workspace) as (app, pilot):
        screen = app.view_named("actions")
        assert isinstance(screen, ActionsScreen)
        app.show(screen)
        await until(pilot, lambda: len(screen.listing.shown) == 2)
        screen.filter_changed("kind:container")
        assert [act.argv[1] for act in screen.listing.shown] == ["one"]
        screen.filter_changed("tw[o]")
        assert [act.argv[1] for act in screen.listing.shown] == ["two"]
        await pilot.press("escape", "g", "o")
        await until(pilot, lambda: app.screen is app.home)


async def test_nothing_done_says_so_and_a_hidden_view_hears_nothing(workspace: Workspace) -> None:
    async with panel_of(workspace, home="actions", size=(80, 24)) as (app, pilot):
        await until(pilot, lambda: "vmtui has changed nothing since it was opened" in shown(app))
        await pilot.press("enter", "y", "o")
        listeners = len(trace._listeners)
        await pilot.press("1")
        await until(pilot, lambda: app.screen is app.home)
        await until(pilot, lambda: len(trace._listeners) == listeners - 1)


async def test_hostile_text_stays_text(workspace: Workspace) -> None:
    with trace.doing(HOSTILE):
        await run(
            ["sh", "-c", f"echo '{HOSTILE}' >&2; exit 1", HOSTILE], check=False, stdin=HOSTILE.encode(), show_stdin=True
        )
        await run(["sh", "-c", "true", "x" * 100_000])
    async with panel_of(workspace, home="actions", size=(200, 30)) as (app, pilot):
        await until(pilot, lambda: "[@click=app.quit]x[/]" in shown(app))
        for key in ("g", "enter", "j", "G", "y", "escape", "G", "enter"):
            await pilot.press(key)
            await pilot.pause()
            assert "\x1b" not in shown(app)
            assert "\u202e" not in shown(app)
        assert app.is_running


async def test_what_happens_in_bursts_is_drawn_together(workspace: Workspace) -> None:
    async with panel_of(workspace, home="actions", size=(80, 24)) as (app, pilot):
        screen = app.screen
        assert isinstance(screen, ActionsScreen)
        taken = 0
        take = screen._take

        def counted() -> None:
            nonlocal taken
            taken += 1
            take()

        screen._take = counted  # type: ignore[method-assign]
        for number in range(1000):
            trace.begin(trace.Way.COMMAND, ("true", number)).ended(0)
        await until(pilot, lambda: len(screen.listing.shown) == 1000)
        assert taken <= 3
