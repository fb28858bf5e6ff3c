"""What people do to a panel: they act twice, take back, mark and lose what they marked, and look where nothing is."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rich.segment import Segment
from textual.events import MouseDown

from tests.support.fakes import UNTIL_LET_GO_S, Held, open_fakes
from tests.support.panel import panel_of, shown, until, workspace_of
from vmtui.backends.fake.script import Effect, Script
from vmtui.core.errors import NotPermitted
from vmtui.core.lifecycle import Action, Phase
from vmtui.core.resource import Kind, Ref
from vmtui.engine import registry
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.profile import load
from vmtui.profile.settings import Settings
from vmtui.tui.app import Panel
from vmtui.tui.commands import COMMANDS, EARLY, execute
from vmtui.tui.detail_text import wrapped
from vmtui.tui.screens.dialogs import Choose, Confirm, ErrorDialog, TypeName
from vmtui.tui.screens.edit import EditScreen

WEB = Ref("dev", Kind.CONTAINER, "web")
GUEST = Ref("dev", Kind.VM, "guest")
DATA = Ref("dev", Kind.DISK, "data")
HELLO = Ref("dev", Kind.SANDBOX, "hello")


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
async def workspace(paths: Paths, script: Script, held: Held) -> AsyncIterator[Workspace]:
    opened = await workspace_of(paths, script=script, clock=held.clock)
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
        script.on(Action.PAUSE, Effect(hang_s=UNTIL_LET_GO_S), ref=GUEST)
        app.home.select(GUEST)
        await pilot.press("p")
        await until(pilot, lambda: any(not job.ended for job in app.acts.jobs))
        await pilot.press("u")
        await until(pilot, lambda: said(app, "pause vm/guest is still going on"))
        assert phase(app, WEB) is Phase.PAUSED


# Acts on many


async def test_a_slow_act_does_not_fail_those_beside_it(workspace: Workspace, script: Script, held: Held) -> None:
    async with panel_of(workspace) as (app, pilot):
        script.on(Action.STOP, Effect(hang_s=UNTIL_LET_GO_S), ref=GUEST)
        await pilot.press("asterisk", "x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        assert "cannot stop disk/data: its backend has no stop" in shown(app)
        await pilot.press("y")
        await until(pilot, lambda: phase(app, WEB) is phase(app, HELLO) is Phase.STOPPED)  # beside it, not after
        assert phase(app, GUEST) is Phase.RUNNING
        app.home.select(DATA)
        await pilot.press("escape", "ctrl+d")
        await until(pilot, lambda: isinstance(app.screen, TypeName))
        await pilot.press("escape")
        held.let_go()
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


# Before anything is there, and when nothing is


async def test_keys_before_the_workspace_is_open_do_no_harm(paths: Paths) -> None:
    go_on = asyncio.Event()

    async def opener() -> Workspace:
        await go_on.wait()
        return open_fakes(paths)

    app = Panel(opener=opener, settings=Settings(theme="vmtui-dark", ascii=False))
    async with app.run_test(size=(100, 30)) as pilot:
        for key in (
            "1",
            "2",
            "3",
            "4",
            "5",
            "6",
            "7",
            "7",
            "7",
            "1",
            *"jGxrRpucslyeWtovO*",
            "enter",
            "space",
            "ctrl+d",
        ):
            await pilot.press(key)
        await pilot.press("ctrl+@", "minus", "left_square_bracket", "ctrl+k", "question_mark", "escape", "escape")
        for command in COMMANDS.keys() - EARLY:
            with pytest.raises(NotPermitted, match="still being read"):
                execute(app, command)
        await pilot.press("colon", *"stop web", "enter")
        await until(pilot, lambda: said(app, "still being read"))
        await pilot.press("1", "slash", *"web", "enter", "escape")
        await pilot.pause()
        assert not [each for each in app.screen_stack if isinstance(each, ErrorDialog)], shown(app)
        go_on.set()
        await until(pilot, lambda: app.feed.model.loaded)
        await pilot.press("1")
        await until(pilot, lambda: "Nothing is here yet" in shown(app))


async def test_an_empty_workspace_is_kept_current_and_can_be_read(paths: Paths) -> None:
    workspace = open_fakes(paths)
    async with panel_of(workspace, size=(80, 24)) as (app, pilot):
        await app.feed.measure()
        assert "…" not in shown(app)
        await until(pilot, lambda: "⏎ Demo profile" in footer(app))
        assert "Edit" not in footer(app)
        await workspace_of(paths)
        app.feed.rescan()
        await until(pilot, lambda: WEB in app.feed.model.items)
        await until(pilot, lambda: " web " in shown(app))
    await workspace.aclose()


async def test_a_filter_that_matches_nothing_says_so_in_the_list(workspace: Workspace) -> None:
    async with panel_of(workspace, size=(40, 10)) as (app, pilot):
        await pilot.press("slash", *"zzz", "enter")
        await until(pilot, lambda: app.home.listing.view.total == 0)
        await until(pilot, lambda: "nothing matches /zzz: esc clears it" in shown(app))
        await until(pilot, lambda: "Detail" not in footer(app))
        await pilot.press("r", "e", "l", "enter", "y", "space")
        assert app.screen is app.home
        assert said(app, "nothing is selected")


async def test_a_heading_says_that_it_is_none(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        await pilot.press("g")
        await until(pilot, lambda: "Detail" not in footer(app))
        await until(pilot, lambda: "⏎ Fold" in footer(app))
        for key in ("r", "x", "l", "c", "s", "y", "e", "ctrl+d"):
            app.notices.clear()
            await pilot.press(key)
            await until(pilot, lambda: said(app, "nothing is selected"), key)
        assert app.screen is app.home


async def test_what_is_filtered_for_is_what_is_selected(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        await pilot.press("G")
        await pilot.press("colon", *"filter web|hello", "enter", "p")
        await until(pilot, lambda: phase(app, WEB) is Phase.PAUSED)
        assert phase(app, HELLO) is Phase.RUNNING


# The footer


async def test_help_is_always_in_the_footer(workspace: Workspace) -> None:
    for width in (120, 80, 60, 40):
        async with panel_of(workspace, size=(width, 24)) as (app, pilot):
            app.home.select(WEB)
            await pilot.pause()
            line = footer(app)
            assert "? Help" in line, line
            assert ("…" in line) == ("q Quit" not in line)


async def test_a_narrow_title_says_where_one_is_and_what_holds(workspace: Workspace) -> None:
    app = Panel(workspace, demo=True, read_only=True, settings=Settings(theme="vmtui-dark", ascii=False))
    async with app.run_test(size=(40, 10)) as pilot:
        await until(pilot, lambda: app.feed.model.loaded)
        await pilot.pause()
        title = shown(app).splitlines()[0]
        assert "Resources" in title
        assert title.endswith("demo, read-only")


# Read-only


async def test_read_only_has_no_verb_by_any_way(workspace: Workspace, tmp_path: Path) -> None:
    async with panel_of(workspace, read_only=True) as (app, pilot):
        app.home.select(WEB)
        for command in ("console web", "exec web sh", "new vm", "new", "edit", "stop web", "delete web", "undo"):
            app.notices.clear()
            execute(app, command)
            await until(pilot, lambda: said(app, "read-only"), command)
            assert app.screen is app.home, command
        for key in ("c", "s", "x", "ctrl+d", "ctrl+k", "R", "p", "e", "n", "u", "W", "3", "5"):
            app.notices.clear()
            await pilot.press(key)
            await until(pilot, lambda: said(app, "read-only"), key)
            assert app.screen is app.home, key
        assert phase(app, WEB) is Phase.RUNNING
        assert app.sessions.last() is None


# Leaving


async def test_leaving_asks_while_something_is_done(workspace: Workspace, script: Script) -> None:
    async with panel_of(workspace) as (app, pilot):
        script.on(Action.PAUSE, Effect(hang_s=3600.0), ref=WEB)
        app.home.select(WEB)
        await pilot.press("p")
        await until(pilot, lambda: bool(app.acts.jobs))
        for leave in (("q",), ("colon", *"quit", "enter"), ("colon", *"demo", "enter")):
            await pilot.press(*leave)
            await until(pilot, lambda: isinstance(app.screen, Confirm))
            assert "pause container/web is still going on" in shown(app)
            await pilot.press("n")
            await until(pilot, lambda: app.screen is app.home)
        assert app.next_demo is None


# From view to view


async def test_a_view_with_unsaved_edits_is_not_forgotten(paths: Paths, tmp_path: Path) -> None:
    file = tmp_path / "dev.toml"
    file.write_text('[container.web]\nbackend = "fake"\nimage = "docker://docker.io/library/nginx:1"\n')
    workspace = open_fakes(paths)
    await workspace.apply(await workspace.plan(load.load(file, registry.option_types)), emit=lambda _: None)
    async with panel_of(workspace) as (app, pilot):
        app.open_edit(WEB)
        await until(pilot, lambda: isinstance(app.screen, EditScreen))
        edit = app.screen
        assert isinstance(edit, EditScreen)
        await until(pilot, lambda: edit.subject is not None)
        assert edit.subject is not None
        edit.subject.draft.type(("image",), "oci:other")
        app.action_history(-1)
        app.action_view("map")
        for _ in range(30):
            app.action_view("events" if app.screen is app.home else "resources")
        await pilot.pause()
        assert edit.unfinished()
        for _ in range(20):
            app.action_history(-1)
            if app.screen is edit:
                break
        assert app.screen is edit
    await workspace.aclose()


async def test_a_view_that_was_left_for_good_is_not_in_the_history(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.home)
        for key in ("left_square_bracket", "minus"):
            await pilot.press(key)
            assert app.screen is app.home, key


# Filters and settings


async def test_a_filter_that_cannot_be_read_stays_open(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        await pilot.press("slash", *"state:foo", "enter")
        await until(pilot, lambda: "there is no state 'foo'" in shown(app))
        await pilot.press(*["backspace"] * 3, *"running", "enter")
        await until(pilot, lambda: app.focused is app.home.listing)
        assert app.home.listing.view.total == 3


async def test_many_wrong_settings_are_one_toast(workspace: Workspace) -> None:
    wrong = Settings(theme="vmtui-dark", ascii=False, keys={f"no-such-{number}": "x" for number in range(9)})
    app = Panel(workspace, settings=wrong)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: "9 things are wrong" in shown(app))
        assert shown(app).count("▌") <= 2
        execute(app, "messages")
        await until(pilot, lambda: "no-such-8" in shown(app))
        assert "▌" not in shown(app)


# What breaks below


async def test_the_list_lives_on_when_the_host_or_the_database_fails(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with panel_of(workspace) as (app, pilot):
        errors: list[Exception] = [
            sqlite3.OperationalError("database is locked"),
            PermissionError(13, "not allowed", "/x"),
        ]

        async def scan() -> None:
            raise errors[0]

        with monkeypatch.context() as patch:
            patch.setattr(workspace, "scan", scan)
            for expected in ("database is locked", "not allowed"):
                app.feed.rescan()
                await until(pilot, lambda expected=expected: expected in shown(app))  # type: ignore[misc]
                errors.pop(0) if len(errors) > 1 else None
            assert app.screen is app.home
            assert " web " in shown(app)
        app.feed.rescan()
        await until(pilot, lambda: "not allowed" not in shown(app))
        with monkeypatch.context() as patch:
            patch.setattr(workspace, "applied", fails)
            patch.setattr(workspace, "references", fails)
            app.home.select(WEB)
            await pilot.press("d", "j", "k")
            await until(pilot, lambda: "database is locked" in detail(app))
            await pilot.press("escape", "slash", *"tier", "enter")
            await pilot.pause(0.3)
            assert app.is_running


def detail(app: Panel) -> str:
    """What is right of the list, its wrapped lines as one."""
    return "".join(line.partition("│")[2].strip() for line in shown(app).splitlines())


def fails(*args: object) -> None:
    raise sqlite3.OperationalError("database is locked")


def test_long_lines_of_the_detail_go_on_below() -> None:
    line = [Segment("next: "), Segment("vmtui disk check --all " * 4)]
    parts = ["".join(segment.text for segment in part) for part in wrapped(line, 40)]
    assert [len(part) for part in parts] == [40, 40, 26]
    assert "".join([parts[0], *(part[4:] for part in parts[1:])]) == "".join(segment.text for segment in line)
    assert wrapped(line, 200) == [line]


async def test_a_click_on_what_has_just_been_closed_does_no_harm(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        app.home.select(WEB)
        await pilot.press("d")
        await until(pilot, lambda: app.home.detail is not None and app.home.detail.region.width > 0)
        assert app.home.detail is not None
        x, y = app.home.detail.region.center
        app.home.action_detail()
        for _ in range(200):
            app.screen._forward_event(MouseDown(None, int(x), int(y), 0, 0, 1, False, False, False))
            await asyncio.sleep(0)
        assert app.is_running
