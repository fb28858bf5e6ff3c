"""Profiles in the panel: the plan, applying it, drift, and what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from textual.drivers.headless_driver import HeadlessDriver
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Input

from tests.support.fakes import UNTIL_LET_GO_S, Held, open_fakes
from tests.support.panel import file_of, panel_of, shown, until
from vmtui.backends.fake.script import Effect, Script
from vmtui.core.errors import OperationFailed
from vmtui.core.lifecycle import Action, Phase
from vmtui.core.resource import Kind, Ref
from vmtui.engine.registry import option_types
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.profile import load
from vmtui.tui.app import Panel
from vmtui.tui.profiles.dialogs import AskPath, Review
from vmtui.tui.screens.dialogs import Choose, Confirm, ErrorDialog, TypeName
from vmtui.tui.screens.profile import ProfileScreen

TEXT = """
# ours
[network.lab]
backend = "fake"

[disk.data]
backend = "fake"
size = "1MiB"

[container.web]
backend = "fake"
image = "oci:web"
networks = ["lab"]
ready = { exec = ["true"], timeout = "5s", interval = "10ms" }

[vm.guest]
backend = "fake"
kernel = "/k"
disks = ["data"]
"""
WEB = Ref("dev", Kind.CONTAINER, "web")
GUEST = Ref("dev", Kind.VM, "guest")
DATA = Ref("dev", Kind.DISK, "data")


class Stage:
    """A workspace with the profile `dev`, its file, and what its backends are told to do."""

    def __init__(self, workspace: Workspace, script: Script, held: Held, file: Path) -> None:
        self.workspace = workspace
        self.script = script
        self.held = held
        self.file = file

    async def apply(self) -> None:
        plan = await self.workspace.plan(load.load(self.file, option_types))
        await self.workspace.apply(plan, emit=lambda _: None)

    def write(self, text: str) -> None:
        self.file.write_text(text)


@pytest.fixture
async def stage(paths: Paths, tmp_path: Path) -> AsyncIterator[Stage]:
    script, held = Script(), Held()
    workspace = open_fakes(paths, script, held.clock)
    yield Stage(workspace, script, held, file_of(tmp_path, TEXT))
    await workspace.aclose()


@pytest.fixture
async def applied(stage: Stage) -> Stage:
    await stage.apply()
    return stage


def view(app: Panel) -> ProfileScreen:
    screen = app.view_named("profile")
    assert isinstance(screen, ProfileScreen)
    return screen


async def see(pilot: Pilot[None], app: Panel, text: str) -> None:
    await until(pilot, lambda: text in shown(app), f"{text!r} did not come; it showed\n{shown(app)}")


async def dialog(pilot: Pilot[None], app: Panel, kind: type[Screen[Any]]) -> None:
    """Until a dialog is there and takes keys."""
    await until(
        pilot, lambda: type(app.screen) is kind and app.focused is not None and app.focused.screen is app.screen
    )


def footer(app: Panel) -> str:
    return shown(app).splitlines()[-1]


async def opened(pilot: Pilot[None], app: Panel, stage: Stage) -> None:
    app.open_profile(stage.file)
    await see(pilot, app, "seen at")


async def test_the_plan_is_shown_as_a_difference_and_applied(stage: Stage) -> None:
    async with panel_of(stage.workspace, home="profile") as (app, pilot):
        await see(pilot, app, "enter opens the selected profile")
        assert "shipped" in shown(app)
        await opened(pilot, app, stage)
        text = shown(app)
        assert "+ network/lab (fake)  create: it is new" in text
        assert "+ image = oci:/" in text
        assert "dev: 4 to create" in text
        await until(pilot, lambda: "Apply" in footer(app))
        await pilot.press("a")
        await dialog(pilot, app, Review)
        assert "dev: 4 to create" in shown(app)
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is view(app))
        assert await stage.workspace.scan() == ()
        await pilot.press("a")
        await dialog(pilot, app, Review)
        await pilot.press("tab", "enter")
        await see(pilot, app, "dev: 4 changes")
        text = shown(app)
        assert "✓ done     create    network/lab" in text
        assert "✓ done     ready     container/web" in text
        assert "all ready" in text
        assert len(await stage.workspace.scan()) == 4
        await pilot.press("c")
        await see(pilot, app, "dev: no changes")
        assert "Apply" not in footer(app)
        await pilot.press("a")
        await until(pilot, lambda: any("everything is as the profile says" in n.text for n in app.notices))


async def test_the_only_applied_profile_is_open_at_once(applied: Stage) -> None:
    async with panel_of(applied.workspace, home="profile") as (app, pilot):
        await see(pilot, app, "dev: no changes")
        assert "applied" in shown(app)


async def test_what_is_waited_for_is_said(stage: Stage) -> None:
    stage.write(TEXT.replace('exec = ["true"]', 'log = "never"').replace('"5s"', '"1s"'))
    async with panel_of(stage.workspace, home="profile") as (app, pilot):
        await opened(pilot, app, stage)
        await pilot.press("a")
        await dialog(pilot, app, Review)
        await pilot.press("tab", "enter")
        await see(pilot, app, "waits for its log to match 'never'")
        await see(pilot, app, "applying dev failed")
        text = shown(app)
        assert "was not ready after 1 s" in text
        assert "next: vmtui logs dev/container/web" in text
        assert "↑" not in text
        assert "undone" in text
        assert "steps taken back" in text
        assert await stage.workspace.scan() == ()


async def test_a_failure_is_told_with_what_was_taken_back(stage: Stage) -> None:
    error = OperationFailed("it does not boot\x1b[31m", hint="look at it", details="line one\nline two")
    stage.script.on(Action.START, Effect(error=error), ref=GUEST)
    async with panel_of(stage.workspace, home="profile") as (app, pilot):
        await opened(pilot, app, stage)
        await pilot.press("a")
        await dialog(pilot, app, Review)
        await pilot.press("tab", "enter")
        await see(pilot, app, "steps taken back")
        text = shown(app)
        assert "it does not boot [31m" in text
        assert "│ line two" in text
        assert "next: look at it" in text
        assert await stage.workspace.scan() == ()
        await pilot.press("escape")
        await see(pilot, app, "dev: 4 to create")


async def test_a_run_is_stopped_and_taken_back(stage: Stage) -> None:
    stage.script.on(Action.START, Effect(hang_s=30.0), ref=GUEST)
    async with panel_of(stage.workspace, home="profile") as (app, pilot):
        await opened(pilot, app, stage)
        await pilot.press("a")
        await dialog(pilot, app, Review)
        await pilot.press("tab", "enter")
        await see(pilot, app, "running  start     vm/guest")
        await pilot.press("c")
        await until(pilot, lambda: any("a run is going on" in notice.text for notice in app.notices))
        await pilot.press("ctrl+c")
        await dialog(pilot, app, Confirm)
        await pilot.press("y")
        await see(pilot, app, "steps taken back")
        assert "stopped" in shown(app)
        assert await stage.workspace.scan() == ()


async def test_what_changed_meanwhile_is_shown_and_not_done(stage: Stage) -> None:
    async with panel_of(stage.workspace, home="profile") as (app, pilot):
        await opened(pilot, app, stage)
        stage.write(TEXT.replace('"/k"', '"/other"'))
        await pilot.press("a")
        await see(pilot, app, "+ kernel = /other")
        assert any("nothing was done" in notice.text for notice in app.notices)
        await pilot.press("a")
        await dialog(pilot, app, Review)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is view(app))
        assert await stage.workspace.scan() == ()


async def test_drift_is_seen_and_reverted(applied: Stage) -> None:
    async with panel_of(applied.workspace, home="profile") as (app, pilot):
        await see(pilot, app, "dev: no changes")
        await applied.workspace.act(WEB, Action.STOP, emit=lambda _: None)
        await pilot.press("c")
        await see(pilot, app, "~ container/web (fake)  start: it is stopped")
        await pilot.press("r")
        await dialog(pilot, app, Review)
        await pilot.press("tab", "enter")
        await see(pilot, app, "all ready")
        assert (await applied.workspace.inspect(WEB)).phase is Phase.RUNNING


async def test_drift_is_adopted_into_the_file(applied: Stage) -> None:
    applied.write(TEXT.replace('"/k"', '"/other" # new').replace("# ours", "# ours, still"))
    async with panel_of(applied.workspace, home="profile") as (app, pilot):
        await see(pilot, app, "~ kernel: /k → /other")
        await pilot.press("A")
        await dialog(pilot, app, Review)
        assert '-kernel = "/other" # new' in shown(app)
        assert '+kernel = "/k" # new' in shown(app)
        await pilot.press("tab", "enter")
        await see(pilot, app, "dev: no changes")
        assert applied.file.read_text() == TEXT.replace('"/k"', '"/k" # new').replace("# ours", "# ours, still")


async def test_nothing_to_adopt_is_said_with_why(applied: Stage) -> None:
    await applied.workspace.act(WEB, Action.STOP, emit=lambda _: None)
    async with panel_of(applied.workspace, home="profile") as (app, pilot):
        await see(pilot, app, "it is stopped")
        await pilot.press("A")
        await until(pilot, lambda: any("nothing to adopt" in notice.text for notice in app.notices))
        assert any("container/web: it is stopped" in notice.text for notice in app.notices)


@pytest.mark.parametrize("purge", [False, True])
async def test_down(applied: Stage, purge: bool) -> None:
    async with panel_of(applied.workspace, home="profile") as (app, pilot):
        await see(pilot, app, "dev: no changes")
        await pilot.press("D")
        await dialog(pilot, app, Choose)
        await pilot.press(*(["down"] if purge else []), "enter")
        if purge:
            await dialog(pilot, app, TypeName)
            assert "1048576 bytes of data are lost for good" in shown(app)
            await pilot.press(*"de", "enter")
            await pilot.pause(0.1)
            assert isinstance(app.screen, TypeName)
            await pilot.press("v", "enter")
        else:
            await dialog(pilot, app, Review)
            await pilot.press("tab", "enter")
        await see(pilot, app, "dev: 4 changes" if purge else "dev: 3 changes")
        assert [status.ref for status in await applied.workspace.scan()] == ([] if purge else [DATA])


async def test_data_is_lost_only_when_the_name_is_typed(applied: Stage) -> None:
    applied.write(TEXT.replace('[disk.data]\nbackend = "fake"', '[disk.data]\nbackend = "qcow2"'))
    async with panel_of(applied.workspace, home="profile") as (app, pilot):
        await see(pilot, app, "recreate: it moves to backend qcow2")
        await pilot.press("a")
        await dialog(pilot, app, TypeName)
        assert "dev/disk/data  1048576 bytes" in shown(app)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is view(app))


async def test_a_fault_of_the_file_is_shown_with_its_lines(stage: Stage) -> None:
    stage.write(TEXT.replace('size = "1MiB"', 'size = "[/]1XiB\u202e"'))
    async with panel_of(stage.workspace, home="profile") as (app, pilot):
        app.open_profile(stage.file)
        await see(pilot, app, "is not a size")
        text = shown(app)
        assert f"{stage.file.name}:8" in text
        assert "disk.data.size" in text
        assert '▸     8 │ size = "[/]1XiB ' in text
        assert "      6 │ [disk.data]" in text
        assert "Traceback" not in text
        stage.write(TEXT)
        await pilot.press("c")
        await see(pilot, app, "dev: 4 to create")


async def test_a_file_that_is_gone(applied: Stage) -> None:
    applied.file.unlink()
    async with panel_of(applied.workspace, home="profile") as (app, pilot):
        await see(pilot, app, "no such file or directory")
        await pilot.press("D")
        await dialog(pilot, app, Choose)
        await pilot.press("enter")
        await dialog(pilot, app, Review)
        await pilot.press("tab", "enter")
        await see(pilot, app, "dev: 3 changes")


async def test_another_file_is_opened_by_its_completed_path(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    file_of(tmp_path / "other", TEXT, "second.toml")
    async with panel_of(stage.workspace, home="profile") as (app, pilot):
        await see(pilot, app, "enter opens")
        await pilot.press("o")
        await dialog(pilot, app, AskPath)
        field = app.screen.query_one(Input)
        field.value = f"{tmp_path}/oth"
        field.cursor_position = len(field.value)
        await pilot.press("tab", "tab")
        assert field.value == f"{tmp_path}/other/second.toml"
        await pilot.press("enter")
        await see(pilot, app, "second: 4 to create")
    async with panel_of(stage.workspace, home="profile") as (app, pilot):
        await see(pilot, app, "enter opens")
        assert "opened" in shown(app)


async def test_the_editor_gets_the_terminal_and_the_plan_is_made_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "editor.sh"
    script.write_text(f'#!/bin/sh\nsed -i \'s|/k|/edited|\' "$2"\necho "$1" > {tmp_path}/said\n')
    script.chmod(0o755)
    monkeypatch.setenv("EDITOR", f"{script} --wait")
    monkeypatch.delenv("VISUAL", raising=False)
    async with panel_of(stage.workspace, home="profile") as (app, pilot):
        await opened(pilot, app, stage)
        await pilot.press("e")
        await dialog(pilot, app, ErrorDialog)
        assert "this terminal cannot be handed over" in shown(app)
        assert "--wait" in shown(app)
        await pilot.press("escape")
        monkeypatch.setattr(HeadlessDriver, "can_suspend", property(lambda self: True))
        await pilot.press("e")
        await see(pilot, app, "+ kernel = /edited")
        assert (tmp_path / "said").read_text() == "--wait\n"
        script.write_text("#!/bin/sh\nexit 3\n")
        await pilot.press("e")
        await dialog(pilot, app, ErrorDialog)
        assert "ended with 3" in shown(app)


async def test_read_only_shows_and_does_nothing(applied: Stage) -> None:
    await applied.workspace.act(WEB, Action.STOP, emit=lambda _: None)
    async with panel_of(applied.workspace, home="profile", read_only=True) as (app, pilot):
        await see(pilot, app, "it is stopped")
        assert "Apply" not in footer(app)
        for key in "arADe":
            await pilot.press(key)
        await pilot.pause(0.2)
        assert app.screen is view(app)
        assert sum("read-only" in notice.text for notice in app.notices) == 5


async def test_enter_on_a_change_goes_to_the_resource(applied: Stage) -> None:
    await applied.workspace.act(WEB, Action.STOP, emit=lambda _: None)
    async with panel_of(applied.workspace, home="profile") as (app, pilot):
        await see(pilot, app, "it is stopped")
        await pilot.press("tab", "enter")
        await until(pilot, lambda: app.screen is app.home)
        await until(pilot, lambda: (item := app.home.listing.current()) is not None and item.ref == WEB)


@pytest.mark.parametrize("size", [(80, 24), (40, 10), (20, 6)])
async def test_any_size_is_usable(stage: Stage, size: tuple[int, int]) -> None:
    async with panel_of(stage.workspace, home="profile", size=size) as (app, pilot):
        app.open_profile(stage.file)
        await until(pilot, lambda: view(app).plan is not None)
        await pilot.press("tab", "j", "G", "g", "pagedown", "a")
        await dialog(pilot, app, Review)
        await pilot.press("j", "k", "pagedown", "tab", "enter")
        await until(pilot, lambda: (run := view(app).run) is not None and run.ended)
        assert len(await stage.workspace.scan()) == 4


async def test_while_it_runs_the_view_goes_on(stage: Stage) -> None:
    stage.script.on(Action.CREATE, Effect(hang_s=UNTIL_LET_GO_S), ref=GUEST)
    async with panel_of(stage.workspace, home="profile") as (app, pilot):
        await opened(pilot, app, stage)
        await pilot.press("a")
        await dialog(pilot, app, Review)
        await pilot.press("tab", "enter")
        await see(pilot, app, "running  create    vm/guest")
        await pilot.press("1")
        await until(pilot, lambda: app.screen is app.home)
        stage.held.let_go()
        await pilot.press("4")
        await asyncio.sleep(0)
        await see(pilot, app, "all ready")


async def test_the_panel_is_left_when_a_run_has_been_taken_back(stage: Stage) -> None:
    stage.script.on(Action.START, Effect(hang_s=30.0), ref=GUEST)
    async with panel_of(stage.workspace, home="profile") as (app, pilot):
        await opened(pilot, app, stage)
        await pilot.press("a")
        await dialog(pilot, app, Review)
        await pilot.press("tab", "enter")
        await see(pilot, app, "running  start     vm/guest")
        await pilot.press("q")
        await dialog(pilot, app, Confirm)
        await pilot.press("y")
        await until(pilot, lambda: not app.is_running)
    assert await stage.workspace.scan() == ()
