"""The home screen over simulated resources, driven by keys."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from textual.widgets import Button, Input

from tests.support.fakes import open_fakes
from tests.support.panel import SPECS, panel_of, shown, until, workspace_of
from vmtui.backends.fake.options import FakeOptions
from vmtui.backends.fake.script import Effect, Script
from vmtui.core.errors import OperationFailed
from vmtui.core.lifecycle import Action, Phase
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import ContainerSpec
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.tui.app import Panel
from vmtui.tui.screens.dialogs import Confirm, ErrorDialog, TypeName
from vmtui.tui.view import Heading

WEB = Ref("dev", Kind.CONTAINER, "web")
GUEST = Ref("dev", Kind.VM, "guest")
DATA = Ref("dev", Kind.DISK, "data")
HELLO = Ref("dev", Kind.SANDBOX, "hello")


@pytest.fixture
async def workspace(paths: Paths) -> AsyncIterator[Workspace]:
    opened = await workspace_of(paths)
    yield opened
    await opened.aclose()


def footer(app: Panel) -> str:
    return shown(app).splitlines()[-1]


def phase(app: Panel, ref: Ref) -> Phase:
    item = app.feed.model.items.get(ref)
    return item.status.phase if item is not None else Phase.ABSENT


async def test_everything_is_listed_with_sign_and_word(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        text = shown(app)
        assert "dev  5, 5 up" in text
        for name in ("web", "data", "lab", "hello", "guest"):
            assert f" {name} " in text
        assert "● running" in text
        assert "◆ available" in text
        assert "http://127.0.0.1:8088/" in text
        await until(pilot, lambda: "Stop" in footer(app))
        assert "Start" not in footer(app).replace("Restart", "")


async def test_stop_asks_with_the_focus_on_cancel_and_undo_starts_again(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        app.home.select(WEB)
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        focused = app.focused
        assert isinstance(focused, Button)
        assert str(focused.label) == "Cancel"
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.home)
        assert phase(app, WEB) is Phase.RUNNING
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: phase(app, WEB) is Phase.STOPPED)
        await until(pilot, lambda: any("u takes it back" in notice.text for notice in app.notices))
        await pilot.press("u")
        await until(pilot, lambda: phase(app, WEB) is Phase.RUNNING)


async def test_pause_acts_at_once_and_its_key_resumes(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        app.home.select(GUEST)
        await pilot.press("p")
        await until(pilot, lambda: phase(app, GUEST) is Phase.PAUSED)
        await until(pilot, lambda: "p Resume" in footer(app))
        await pilot.press("p")
        await until(pilot, lambda: phase(app, GUEST) is Phase.RUNNING)


async def test_a_verb_that_is_not_permitted_says_why(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        app.home.select(DATA)
        await pilot.press("x")
        await until(pilot, lambda: any("its backend has no stop" in notice.text for notice in app.notices))
        app.home.select(WEB)
        await pilot.press("r")
        await until(pilot, lambda: any("it is running" in notice.text for notice in app.notices))
        app.home.select(DATA)
        await pilot.press("c")
        await until(pilot, lambda: any("its backend has no console" in notice.text for notice in app.notices))
        app.home.select(HELLO)
        await pilot.press("c")
        await until(pilot, lambda: "hello from hello" in shown(app))


async def test_data_is_lost_only_when_its_name_is_typed(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        app.home.select(HELLO)
        await pilot.press("ctrl+d")
        await until(pilot, lambda: isinstance(app.screen, TypeName))
        assert "dev/sandbox/hello" in shown(app)
        await pilot.press(*"hell", "enter")
        await pilot.pause(0.2)
        assert isinstance(app.screen, TypeName)
        await pilot.press("o", "enter")
        await until(pilot, lambda: phase(app, HELLO) is Phase.ABSENT)


async def test_a_disk_is_named_with_its_bytes_and_refused_while_used(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        app.home.select(DATA)
        await pilot.press("ctrl+d")
        await until(pilot, lambda: isinstance(app.screen, TypeName))
        assert "1073741824 bytes of data are lost" in shown(app)
        await pilot.press(*"data", "enter")
        await until(pilot, lambda: isinstance(app.screen, ErrorDialog))
        assert "used by dev/vm/guest" in shown(app)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.home)
        assert phase(app, DATA) is Phase.AVAILABLE


async def test_marked_rows_are_acted_on_together(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        app.home.select(WEB)
        await pilot.press("space")
        app.home.select(GUEST)
        await pilot.press("space")
        await until(pilot, lambda: app.home.listing.marked == {WEB, GUEST})
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        assert "dev/vm/guest" in shown(app)
        assert "dev/container/web" in shown(app)
        await pilot.press("y")
        await until(pilot, lambda: phase(app, WEB) is phase(app, GUEST) is Phase.STOPPED)
        await pilot.press("u")
        await until(pilot, lambda: phase(app, WEB) is phase(app, GUEST) is Phase.RUNNING)
        await pilot.press("escape", "escape")
        await until(pilot, lambda: not app.home.listing.marked)


async def test_a_range_is_marked_from_the_last_mark(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        await pilot.press("g", "j", "space", "G", "ctrl+@")
        await until(pilot, lambda: len(app.home.listing.marked) == 5)


async def test_the_filter_is_live_and_escape_takes_it_back(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        await pilot.press("slash", *"kind:vm")
        await until(pilot, lambda: app.home.listing.view.total == 1)
        assert "1 of 5" in shown(app)
        await pilot.press("enter")
        await until(pilot, lambda: app.focused is app.home.listing)
        await pilot.press("escape")
        await until(pilot, lambda: app.home.listing.view.total == 5)
        await pilot.press("slash", *"kidn:vm")
        await until(pilot, lambda: "did you mean kind:vm" in shown(app).splitlines()[-2])
        await pilot.press("escape")
        await until(pilot, lambda: app.home.listing.view.total == 5)
        await pilot.press("slash", *"label:tier=app", "enter")
        await until(pilot, lambda: app.home.listing.view.total == 1)
        await pilot.press("slash")
        await until(pilot, lambda: isinstance(app.focused, Input))
        assert app.focused is not None
        assert isinstance(app.focused, Input)
        assert app.focused.value == "label:tier=app"


async def test_a_filter_that_matches_nothing_says_so(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        await pilot.press("slash", *"nosuchthing", "enter")
        await until(pilot, lambda: "nothing matches /nosuchthing: esc clears it" in shown(app))


async def test_groups_fold_and_the_order_changes(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        listing = app.home.listing
        await pilot.press("g", "enter")
        await until(pilot, lambda: len(listing.view.lines) == 1)
        await pilot.press("enter", "v")
        await until(pilot, lambda: sum(isinstance(line, Heading) for line in listing.view.lines) == 5)
        await pilot.press("v")
        await until(pilot, lambda: len(listing.view.lines) == 5)
        app.home.sort_by("kind")
        kinds = [line.ref.kind for line in listing.view.lines if not isinstance(line, Heading)]
        assert kinds == sorted(kinds)
        await pilot.press("O")
        kinds = [line.ref.kind for line in listing.view.lines if not isinstance(line, Heading)]
        assert kinds == sorted(kinds, reverse=True)


async def test_read_only_shows_and_does_nothing(workspace: Workspace) -> None:
    async with panel_of(workspace, read_only=True) as (app, pilot):
        assert "read-only" in shown(app)
        app.home.select(WEB)
        assert "Stop" not in footer(app)
        for key in ("x", "ctrl+d", "p", "e", "n", "s"):
            await pilot.press(key)
        await pilot.pause(0.2)
        assert app.screen is app.home
        assert phase(app, WEB) is Phase.RUNNING
        assert any("read-only" in notice.text for notice in app.notices)


async def test_a_failure_is_a_dialog_with_the_next_step(paths: Paths) -> None:
    script = Script()
    workspace = await workspace_of(paths, script=script)
    async with panel_of(workspace) as (app, pilot):
        script.on(Action.PAUSE, Effect(error=OperationFailed("the guest does not answer", hint="try again")), ref=GUEST)
        app.home.select(GUEST)
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, ErrorDialog))
        assert "the guest does not answer" in shown(app)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.home)
    await workspace.aclose()


async def test_an_empty_workspace_says_which_key_helps(paths: Paths) -> None:
    workspace = open_fakes(paths)
    async with panel_of(workspace) as (app, pilot):
        assert "enter  bring up the demo profile" in shown(app)
        await until(pilot, lambda: "D Demo" in footer(app))
    await workspace.aclose()


async def test_what_changes_elsewhere_is_seen(workspace: Workspace, paths: Paths) -> None:
    other = open_fakes(paths)
    async with panel_of(workspace) as (app, pilot):
        await other.act(WEB, Action.STOP, emit=lambda _: None)
        await until(pilot, lambda: phase(app, WEB) is Phase.STOPPED)
    await other.aclose()


async def test_commands(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        await pilot.press("colon", *"sort kind", "enter")
        await until(pilot, lambda: app.home.listing.view.sort == "kind")
        await pilot.press("colon", *"stop web", "enter")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: phase(app, WEB) is Phase.STOPPED)
        await pilot.press("colon", *"nonsense", "enter")
        await until(pilot, lambda: any("there is no command 'nonsense'" in notice.text for notice in app.notices))
        await pilot.press("colon", *"messages", "enter")
        await until(pilot, lambda: "Messages" in shown(app))
        assert "nonsense" in shown(app)
        await pilot.press("minus")
        await until(pilot, lambda: app.screen is app.home)
        await pilot.press("right_square_bracket", "left_square_bracket")
        await pilot.press("colon", *"go hello", "enter")
        await until(pilot, lambda: (item := app.home.listing.current()) is not None and item.ref == HELLO)


async def test_the_detail_pane_shows_all_that_is_known(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        app.home.select(GUEST)
        await pilot.press("d")
        await until(pilot, lambda: "dev/network/lab" in shown(app))
        text = shown(app)
        assert "dev/disk/data" in text
        assert "tier=app" in text
        assert "start done" in text
        assert 'kernel = "/boot/vmlinuz"' in text
        app.home.select(DATA)
        await until(pilot, lambda: "used by" in shown(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.home.detail is None)


async def test_loads_are_measured_of_what_is_in_sight(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        app.feed._interval_s = 0.05
        item = app.feed.model.items[GUEST]
        await until(pilot, lambda: item.load is not None and len(item.load.cpu) > 2)
        await until(pilot, lambda: "%" in shown(app))


HOSTILE = "[@click=app.quit]x[/] \x1b]52;c;AAAA\x07 \x1b[2J \u202e done"


@pytest.mark.parametrize("width", [20, 40, 80, 300])
async def test_any_width_is_usable(paths: Paths, width: int) -> None:
    workspace = await workspace_of(
        paths, {**SPECS, "container/" + "x" * 40: ContainerSpec(backend="fake", image="x")},
        options={"container/" + "x" * 40: FakeOptions(log=(HOSTILE,))},
    )  # fmt: skip
    async with panel_of(workspace, size=(width, 6 if width < 80 else 24)) as (app, pilot):
        assert "running" in shown(app)
        assert all(len(line) <= width for line in shown(app).splitlines())
        await pilot.press("d", "G", "g", "pagedown", "J")
        await pilot.pause(0.2)
    await workspace.aclose()
