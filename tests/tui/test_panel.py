"""The panel on simulated backends, driven by keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Log, Static

from tests.support.fakes import open_fakes, profile
from vmtui.backends.fake.options import FakeOptions
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import ContainerSpec, NetworkSpec, Spec
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.tui.app import Panel
from vmtui.tui.text import safe
from vmtui.tui.themes import available, read

WEB = Ref("t", Kind.CONTAINER, "web")
HOSTILE = "[@click=app.quit]x[/] \x1b]52;c;AAAA\x07 \x1b[2J \u202e done"
SPECS: dict[str, Spec] = {
    "network/lab": NetworkSpec(backend="fake", subnet="10.77.0.0/24"),
    "container/web": ContainerSpec(backend="fake", image="x", networks=("lab",)),
}


@pytest.fixture
async def workspace(paths: Paths) -> AsyncIterator[Workspace]:
    opened = open_fakes(paths)
    options = {"container/web": FakeOptions(log=(HOSTILE,))}
    plan = await opened.plan(profile("t", SPECS, options))
    await opened.apply(plan, emit=lambda _: None)
    yield opened
    await opened.aclose()


async def until(pilot: Pilot[None], true: Callable[[], bool]) -> None:
    for _ in range(100):
        await pilot.pause(0.05)
        if true():
            return
    raise AssertionError("the panel did not get there")


async def test_it_lists_everything_and_acts_on_the_selected_row(workspace: Workspace) -> None:
    app = Panel(workspace)
    async with app.run_test(size=(120, 30)) as pilot:
        await until(pilot, lambda: len(app.screen.query(DataTable)) == 1)
        table = app.screen.query_one(DataTable)
        await until(pilot, lambda: table.row_count == 2)
        assert str(table.get_row_at(0)[2]) == "web"
        shown = {binding.binding.description for binding in app.screen.active_bindings.values()}
        assert "Stop" in shown
        assert "Start" not in shown
        await pilot.press("x")
        await until(pilot, lambda: "stopped" in str(table.get_row_at(0)[0]))
        assert (await workspace.inspect(WEB)).phase is Phase.STOPPED
        await pilot.press("s")
        await until(pilot, lambda: "running" in str(table.get_row_at(0)[0]))


async def test_a_hostile_log_stays_text(workspace: Workspace) -> None:
    app = Panel(workspace)
    async with app.run_test(size=(120, 30)) as pilot:
        await until(pilot, lambda: len(app.screen.query(DataTable)) == 1)
        await until(pilot, lambda: app.screen.query_one(DataTable).row_count == 2)
        await pilot.press("l")
        await until(pilot, lambda: len(app.screen.query(Log)) == 1 and app.screen.query_one(Log).line_count > 0)
        (line,) = [line for line in app.screen.query_one(Log).lines if "done" in line]
        assert "\x1b" not in line
        assert "\u202e" not in line
        assert "[@click=app.quit]x[/]" in line
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen.query(DataTable)) == 1)


async def test_an_empty_workspace_says_what_to_do(paths: Paths) -> None:
    opened = open_fakes(paths)
    app = Panel(opened)
    async with app.run_test(size=(120, 30)) as pilot:
        await until(pilot, lambda: len(app.screen.query("#message")) == 1)
        message = app.screen.query_one("#message", Static)
        await until(pilot, lambda: "profiles/dev.toml" in str(message.render()))
    await opened.aclose()


def test_safe_text_has_no_control_characters() -> None:
    assert str(safe("a\x00\x1b[31m\x9b\u202eb\n", longest=10)) == "a  [31m  b"


def test_themes_are_read_and_wrong_ones_are_reported(tmp_path: Path) -> None:
    themes, wrong = available()
    assert {"vmtui-dark", "vmtui-light"} <= {theme.name for theme in themes}
    assert wrong == []
    broken = tmp_path / "broken.toml"
    broken.write_text('name = "x"\nprimary = "no colour"\n')
    with pytest.raises(ValueError, match=r"broken\.toml"):
        read(broken)
