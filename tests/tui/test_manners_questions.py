"""Questions, messages and pages above a view: what is typed ahead of them, and what they must leave in sight."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from textual import events
from textual.pilot import Pilot

from tests.support.panel import SPECS, panel_of, shown, until, workspace_of
from vmtui.backends.fake.script import Effect, Script
from vmtui.core.errors import OperationFailed
from vmtui.core.lifecycle import Action, Phase
from vmtui.core.resource import Kind, Ref
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.profile.settings import Settings
from vmtui.tui.app import Panel
from vmtui.tui.commands import execute
from vmtui.tui.screens.dialogs import Ask, Confirm, ErrorDialog, TypeName
from vmtui.tui.screens.sheet import Sheet

WEB = Ref("dev", Kind.CONTAINER, "web")
GUEST = Ref("dev", Kind.VM, "guest")
HELLO = Ref("dev", Kind.SANDBOX, "hello")


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def workspace(paths: Paths, script: Script) -> AsyncIterator[Workspace]:
    opened = await workspace_of(paths, script=script)
    yield opened
    await opened.aclose()


def phase(app: Panel, ref: Ref) -> Phase:
    item = app.feed.model.items.get(ref)
    return item.status.phase if item is not None else Phase.ABSENT


def said(app: Panel, text: str) -> bool:
    return any(text in notice.text for notice in app.notices)


# Typing ahead


async def burst(app: Panel, pilot: Pilot[None], *keys: str) -> None:
    """Keys as a terminal sends them: none waits for the one before."""
    for key in keys:
        app.post_message(events.Key(key, key if len(key) == 1 else {"enter": "\r", "colon": ":"}.get(key)))
    await pilot.pause()


async def test_what_is_typed_ahead_answers_the_question(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        app.home.select(WEB)
        await burst(app, pilot, "x", "y")
        await until(pilot, lambda: phase(app, WEB) is Phase.STOPPED)
        assert app.home.detail is None
        await burst(app, pilot, "colon", *"stop hello", "enter", "y")
        await until(pilot, lambda: phase(app, HELLO) is Phase.STOPPED)
        app.home.select(HELLO)
        await burst(app, pilot, "ctrl+d", *"hello", "enter")
        await until(pilot, lambda: HELLO not in app.feed.model.items)
        assert app.home.detail is None
        await burst(app, pilot, "colon", *"delete web", "enter", *"web", "enter")
        await until(pilot, lambda: WEB not in app.feed.model.items)
        assert app.screen is app.home


async def test_a_path_that_is_typed_ahead_is_no_verb(workspace: Workspace, tmp_path: Path) -> None:
    async with panel_of(workspace) as (app, pilot):
        app.home.select(WEB)
        await burst(app, pilot, "W", *"pxrd")
        await until(pilot, lambda: isinstance(app.screen, Ask))
        await until(pilot, lambda: "pxrd" in shown(app))
        assert phase(app, WEB) is Phase.RUNNING
        assert app.home.detail is None


async def test_ctrl_c_says_what_leaves(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        await pilot.press("ctrl+c")
        await until(pilot, lambda: said(app, "q leaves vmtui; what runs goes on"))
        await pilot.press("colon", *"nothing", "ctrl+c", "escape")
        assert app.is_running


# What was said


async def test_messages_come_in_while_they_are_looked_at(workspace: Workspace) -> None:
    async with panel_of(workspace, size=(60, 20)) as (app, pilot):
        for number in range(50):
            app.say(f"message {number}")
        execute(app, "messages")
        await until(pilot, lambda: "message 49" in shown(app))
        app.say("one more")
        await until(pilot, lambda: "51" in shown(app).splitlines()[0])
        assert "one more" in shown(app)
        await pilot.press("g")
        await until(pilot, lambda: "message 0" in shown(app))
        app.say("and one more")
        await pilot.pause()
        assert "message 0" in shown(app)
        app.say("a long one " * 20 + "with an end")
        await pilot.press("G", "enter")
        await until(pilot, lambda: "with an end" in shown(app))


async def test_a_toast_hides_neither_jobs_nor_prompts(workspace: Workspace, script: Script) -> None:
    app = Panel(workspace, settings=Settings(theme="vmtui-dark", ascii=False))
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: app.feed.model.loaded)
        script.on(Action.PAUSE, Effect(error=OperationFailed("it said a lot of things about why it cannot")), times=2)
        app.home.select(WEB)
        await pilot.press("space")
        app.home.select(GUEST)
        await pilot.press("space", "p")
        await until(pilot, lambda: "pause 2 resources: 2 failed" in shown(app))
        assert "▌" in shown(app)
        assert shown(app).count("it said a lot of things about why it cannot") == 2  # and wrapped in the toast
        await pilot.press("slash", *"kind:nonsense")
        await until(pilot, lambda: "kind" in shown(app).splitlines()[-2])
        assert "▌" not in "".join(shown(app).splitlines()[-4:])


# Dialogs


async def test_all_that_is_lost_can_be_read(paths: Paths) -> None:
    many = {f"sandbox/box-{number:03}": SPECS["sandbox/hello"] for number in range(300)}
    workspace = await workspace_of(paths, many)
    async with panel_of(workspace, size=(80, 24)) as (app, pilot):
        await pilot.press("asterisk", "ctrl+d")
        await until(pilot, lambda: isinstance(app.screen, TypeName))
        await until(pilot, lambda: "type delete 300 to go on" in shown(app))
        assert "box-000" in shown(app)
        for _ in range(3):
            await pilot.press("pagedown")
        assert "box-000" not in shown(app)
        await pilot.press("ctrl+end")
        await until(pilot, lambda: "box-299" in shown(app))
        assert "type delete 300 to go on" in shown(app)
    await workspace.aclose()


@pytest.mark.parametrize("size", [(40, 10), (20, 5)])
async def test_dialogs_can_be_answered_on_small_terminals(workspace: Workspace, size: tuple[int, int]) -> None:
    async with panel_of(workspace, size=size) as (app, pilot):
        app.home.select(WEB)
        await pilot.pause()
        assert "web" in shown(app)
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.pause()
        assert "Cancel" in shown(app)
        assert "Stop" in shown(app)
        await pilot.press("escape")
        app.fail(OperationFailed("first line " * 30, hint="try again", details="some detail\n" * 20), "doing it")
        await until(pilot, lambda: isinstance(app.screen, ErrorDialog))
        await pilot.pause()
        assert "Close" in shown(app)
        await pilot.press("c")
        assert said(app, "copied try again")


async def test_odd_text_can_be_copied(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        app.copy("a lone \ud800 surrogate")
        app.copy("two lines\n\ud800")
        await pilot.pause()
        assert said(app, "copied a lone")


# Questions and what is beneath them


async def test_a_question_is_answered_once(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        await pilot.press("6")
        beneath = app.screen
        assert beneath is not app.home
        app.push_screen(Confirm("sure?", ["of it"], "Do"))
        await until(pilot, lambda: isinstance(app.screen, Confirm) and app.focused is not None)
        await burst(app, pilot, "enter", "enter", "enter", "escape")
        await pilot.pause(0.2)
        assert app.is_running
        assert beneath in app.screen_stack or app.screen is app.home  # the last escape may have left the map
        assert app.home in app.screen_stack


async def test_a_console_that_opens_late_takes_no_question_away(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        answers: list[bool] = []
        app.open_console(GUEST)
        app.push_screen(Confirm("sure?", ["of it"], "Do"), lambda answer: answers.append(bool(answer)))
        await until(pilot, lambda: said(app, "the console of dev/vm/guest is open: 3 shows it"))
        assert isinstance(app.screen, Confirm)
        await pilot.press("y")
        await until(pilot, lambda: answers == [True])
        await pilot.press("3")
        await until(pilot, lambda: "ctrl+] detaches" in shown(app))


async def test_who_asked_is_told_when_a_view_takes_the_place_of_a_question(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        answers: list[bool] = []
        app.push_screen(Confirm("sure?", ["of it"], "Do"), lambda answer: answers.append(bool(answer)))
        app.show(app.view_named("map"))
        await until(pilot, lambda: answers == [False])
        assert app.screen is app.view_named("map")


async def test_no_scrollbar_covers_text(workspace: Workspace) -> None:
    async with panel_of(workspace, size=(80, 12)) as (app, pilot):
        app.push_screen(Sheet("long", [("0123456789" * 30, "text")] * 20))
        await until(pilot, lambda: "0123" in shown(app))
        rows = [line.split("│")[1].strip(" ▁▂▃▄▅▆▇█") for line in shown(app).splitlines() if "0123456789" in line]
        joined = "".join(rows)
        assert joined in "0123456789" * 60
