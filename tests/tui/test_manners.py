"""What people do to a panel: they type ahead, act twice, take back, mark and lose what they marked."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator

import pytest

from tests.support.panel import panel_of, shown, until, workspace_of
from vmtui.backends.fake.script import Effect, Script
from vmtui.core.lifecycle import Action, Phase
from vmtui.core.resource import Kind, Ref
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.tui.app import Panel
from vmtui.tui.screens.dialogs import Confirm, ErrorDialog, TypeName

WEB = Ref("dev", Kind.CONTAINER, "web")
GUEST = Ref("dev", Kind.VM, "guest")
DATA = Ref("dev", Kind.DISK, "data")
LAB = Ref("dev", Kind.NETWORK, "lab")
HELLO = Ref("dev", Kind.SANDBOX, "hello")


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def workspace(paths: Paths, script: Script) -> AsyncIterator[Workspace]:
    opened = await workspace_of(paths, script=script)
    yield opened
    await opened.aclose()


def footer(app: Panel) -> str:
    return shown(app).splitlines()[-1]


def phase(app: Panel, ref: Ref) -> Phase:
    item = app.feed.model.items.get(ref)
    return item.status.phase if item is not None else Phase.ABSENT


def said(app: Panel, text: str) -> bool:
    return any(text in notice.text for notice in app.notices)


# Taking back


async def test_undo_goes_back_act_by_act_and_ends(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        for ref in (GUEST, WEB):
            app.home.select(ref)
            await pilot.press("p")
            await until(pilot, lambda ref=ref: phase(app, ref) is Phase.PAUSED)  # type: ignore[misc]
        await pilot.press("u", "u")
        await until(pilot, lambda: phase(app, WEB) is phase(app, GUEST) is Phase.RUNNING)
        await pilot.press("u")
        await until(pilot, lambda: said(app, "there is nothing to take back"))
        assert phase(app, WEB) is phase(app, GUEST) is Phase.RUNNING
        assert "Undo" not in footer(app)


async def test_an_undo_that_fails_takes_no_other_with_it(workspace: Workspace, script: Script) -> None:
    async with panel_of(workspace) as (app, pilot):
        for ref in (GUEST, WEB):
            app.home.select(ref)
            await pilot.press("p")
            await until(pilot, lambda ref=ref: phase(app, ref) is Phase.PAUSED)  # type: ignore[misc]
        await workspace.act(WEB, Action.DELETE, emit=lambda _: None)
        await until(pilot, lambda: WEB not in app.feed.model.items)
        await pilot.press("u")
        await until(pilot, lambda: isinstance(app.screen, ErrorDialog))
        assert "there is no dev/container/web" in shown(app)
        await pilot.press("escape", "u")
        await until(pilot, lambda: phase(app, GUEST) is Phase.RUNNING)


async def test_undo_waits_until_what_is_done_is_done(workspace: Workspace, script: Script) -> None:
    async with panel_of(workspace) as (app, pilot):
        app.home.select(WEB)
        await pilot.press("p")
        await until(pilot, lambda: phase(app, WEB) is Phase.PAUSED)
        script.on(Action.PAUSE, Effect(hang_s=1.0), ref=GUEST)
        app.home.select(GUEST)
        await pilot.press("p")
        await until(pilot, lambda: any(not job.ended for job in app.acts.jobs))
        await pilot.press("u")
        await until(pilot, lambda: said(app, "pause vm/guest is still going on"))
        assert phase(app, WEB) is Phase.PAUSED


# Acts on many


async def test_a_slow_act_does_not_fail_those_beside_it(workspace: Workspace, script: Script) -> None:
    async with panel_of(workspace) as (app, pilot):
        script.on(Action.STOP, Effect(hang_s=4.0), ref=GUEST)
        await pilot.press("asterisk", "x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: phase(app, WEB) is phase(app, HELLO) is Phase.STOPPED)  # beside it, not after
        assert phase(app, GUEST) is Phase.RUNNING
        app.home.select(DATA)
        await pilot.press("escape", "ctrl+d")
        await until(pilot, lambda: isinstance(app.screen, TypeName))
        await pilot.press("escape")
        await until(pilot, lambda: phase(app, GUEST) is Phase.STOPPED)
        await until(pilot, lambda: said(app, "stop 3 resources: done"))


async def test_what_uses_a_thing_goes_before_it(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        await pilot.press("asterisk", "ctrl+d")
        await until(pilot, lambda: isinstance(app.screen, TypeName))
        await pilot.press(*"delete 5", "enter")
        await until(pilot, lambda: not app.feed.model.items)
        assert not app.home.listing.marked


async def test_all_refusals_are_told(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        for _ in range(2):
            await pilot.press("asterisk", "r", "asterisk")
        await until(pilot, lambda: said(app, "and 2 more"))


async def test_an_error_that_nobody_foresaw_ends_the_job(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    async def carry_out(*args: object, **named: object) -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(workspace, "carry_out", carry_out)
    async with panel_of(workspace) as (app, pilot):
        app.home.select(WEB)
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, ErrorDialog))
        assert "database is locked" in shown(app)
        assert "next: " in shown(app)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.home)
        await pilot.press("escape")
        assert not app.acts.jobs


# Marks


async def test_marks_that_are_out_of_sight_hold_and_those_of_what_is_gone_do_not(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        app.home.select(WEB)
        await pilot.press("space")
        await pilot.press("slash", *"guest", "enter")
        await until(pilot, lambda: app.home.listing.view.total == 1)
        await pilot.press("p")
        await until(pilot, lambda: phase(app, WEB) is Phase.PAUSED)
        assert phase(app, GUEST) is Phase.RUNNING
        await workspace.act(WEB, Action.DELETE, emit=lambda _: None)
        await until(pilot, lambda: WEB not in app.feed.model.items)
        assert not app.home.listing.marked
        assert "marked" not in shown(app)
