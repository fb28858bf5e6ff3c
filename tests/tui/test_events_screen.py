"""The history as a view: live, filtered, and on the way to what it is about."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.panel import panel_of, shown, until, workspace_of
from vmtui.core.lifecycle import Action
from vmtui.core.resource import Kind, Ref
from vmtui.engine.store import Store
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.tui.screens.events import EventsScreen

WEB = Ref("dev", Kind.CONTAINER, "web")
GUEST = Ref("dev", Kind.VM, "guest")
HOSTILE = "[@click=app.quit]x[/] \x1b]52;c;AAAA\x07 \u202e [/"


@pytest.fixture
async def workspace(paths: Paths) -> AsyncIterator[Workspace]:
    opened = await workspace_of(paths)
    yield opened
    await opened.aclose()


async def test_it_shows_what_happened_and_by_whom_and_goes_on(workspace: Workspace, paths: Paths) -> None:
    async with panel_of(workspace, home="events") as (app, pilot):
        screen = app.screen
        assert isinstance(screen, EventsScreen)
        await until(pilot, lambda: "dev/container/web" in shown(app))
        assert "following" in shown(app)
        assert "start" in shown(app)
        before = len(screen.listing.rows)
        await workspace.act(WEB, Action.STOP, emit=lambda _: None)
        await until(pilot, lambda: len(screen.listing.rows) == before + 1)
        other = Store(paths.state / "state.db", by="ann via vmtui rm")
        other.record(GUEST, "exit", "exited", "code 3 panic")
        other.close()
        await until(pilot, lambda: "ann via vmtui rm" in shown(app))
        assert "code 3 panic" in shown(app)
        assert screen.listing.cursor == before + 1


async def test_the_selected_one_stays_selected_while_more_come(workspace: Workspace) -> None:
    async with panel_of(workspace, home="events", size=(80, 24)) as (app, pilot):
        screen = app.screen
        assert isinstance(screen, EventsScreen)
        await until(pilot, lambda: bool(screen.listing.rows))
        await pilot.press("g", "j")
        selected = screen.listing.current()
        assert selected is screen.listing.rows[1]
        assert "following" not in shown(app)
        for _ in range(50):
            workspace.store.record(WEB, "restart", "done")
        await workspace.act(WEB, Action.STOP, emit=lambda _: None)
        await until(pilot, lambda: len(screen.listing.rows) > 50)
        assert screen.listing.current() is selected
        await pilot.press("G")
        await pilot.pause()
        assert "following" in shown(app)
        assert screen.listing.current() is screen.listing.rows[-1]


async def test_enter_goes_to_the_resource(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        await pilot.press("7", "7")
        screen = app.view_named("events")
        assert isinstance(screen, EventsScreen)
        await until(pilot, lambda: bool(screen.listing.rows))
        screen.filter_changed("kind:container")
        assert {record.ref for record in screen.listing.shown} == {str(WEB)}
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.home)
        assert app.home.listing.current() is not None
        assert app.home.listing.current().ref == WEB  # type: ignore[union-attr]


async def test_the_filter_is_the_one_language_and_escape_clears_it(workspace: Workspace) -> None:
    async with panel_of(workspace, home="events") as (app, pilot):
        screen = app.screen
        assert isinstance(screen, EventsScreen)
        await until(pilot, lambda: bool(screen.listing.rows))
        total = len(screen.listing.rows)
        await pilot.press("slash", *"no-such-thing")
        await until(pilot, lambda: "nothing matches the filter" in shown(app))
        assert f"0 of {total}" in shown(app)
        await pilot.press("enter", "escape")
        await until(pilot, lambda: len(screen.listing.shown) == total)


async def test_an_event_of_what_is_gone_leads_nowhere_and_says_so(workspace: Workspace) -> None:
    workspace.store.record(Ref("old", Kind.VM, "gone"), "delete", "done")
    async with panel_of(workspace, home="events") as (app, pilot):
        await until(pilot, lambda: "old/vm/gone" in shown(app))
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.screen, EventsScreen)
        assert app.notices[-1].text == "old/vm/gone is not there any more"


async def test_hostile_text_stays_text(workspace: Workspace) -> None:
    db = workspace.store._db
    db.execute(
        "insert into event (at, ref, verb, result, message, by_whom) values (?,?,?,?,?,?)", (1.0, *([HOSTILE] * 5))
    )
    async with panel_of(workspace, home="events", size=(240, 30)) as (app, pilot):
        await until(pilot, lambda: "[@click=app.quit]x[/]" in shown(app))
        assert "\x1b" not in shown(app)
        assert "\u202e" not in shown(app)
        await pilot.press("enter", "l")
        await pilot.pause()
        assert app.is_running


async def test_an_empty_history_says_what_to_do_and_hidden_it_costs_nothing(paths: Paths) -> None:
    opened = await workspace_of(paths, {})
    async with panel_of(opened, home="events", size=(80, 24)) as (app, pilot):
        await until(pilot, lambda: "nothing has happened yet: 4 opens a profile" in shown(app))
        screen = app.screen
        assert isinstance(screen, EventsScreen)
        await pilot.press("1")
        await until(pilot, lambda: app.screen is app.home)
        await until(pilot, lambda: screen._ends == [])
        await until(pilot, lambda: screen._timer is None)
    await opened.aclose()
