"""The doctor: each trial as it ends, and a command run from there after it was shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.fakes import FakeRegistry
from tests.support.panel import panel_of, shown, until, workspace_of
from vmtui.backends.fake.backend import FakeVmBackend
from vmtui.core.backend import Probe
from vmtui.core.resource import Kind, Problem
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.tui.screens.dialogs import Confirm
from vmtui.tui.screens.doctor import DoctorScreen
from vmtui.tui.screens.mend import MendSheet
from vmtui.tui.screens.sheet import Sheet

HOSTILE = "[@click=app.quit]x[/] \x1b]52;c;AAAA\x07 \u202e [/"


class Ailing(FakeVmBackend):
    """Usable once `cure` exists."""

    cure: Path
    hint = ""
    gate: asyncio.Event | None = None

    async def probe(self) -> Probe:
        if self.gate is not None:
            await self.gate.wait()
        if self.cure.exists():
            return Probe(backend="fake", kind=Kind.VM, usable=True, summary="it boots", facts=(("accelerator", "kvm"),))
        problem = Problem(code="no-kvm", message=f"there is no cure {HOSTILE}", hint=self.hint)
        return Probe(backend="fake", kind=Kind.VM, usable=False, summary=f"ailing {HOSTILE}", problems=(problem,))


@pytest.fixture
async def workspace(paths: Paths) -> AsyncIterator[Workspace]:
    opened = await workspace_of(paths)
    yield opened
    await opened.aclose()


@pytest.fixture
def ailing(workspace: Workspace, tmp_path: Path) -> Ailing:
    registry = cast("FakeRegistry", workspace.registry)
    made = Ailing(registry.context, script=registry.script)
    made.cure = tmp_path / "cure"
    made.hint = f"mkdir {made.cure}"
    registry._made[Kind.VM, "fake"] = cast("Any", made)
    return made


def trial(app: Any) -> Probe | None:
    screen = app.view_named("doctor")
    assert isinstance(screen, DoctorScreen)
    found = screen._trials.get((Kind.VM, "fake"))
    return None if found is None or found.began is not None else found.probe


async def test_each_backend_shows_as_soon_as_it_is_known(workspace: Workspace, ailing: Ailing) -> None:
    ailing.gate = asyncio.Event()
    async with panel_of(workspace, home="doctor") as (app, pilot):
        await until(pilot, lambda: "4 of 5" in shown(app))
        assert "trying" in shown(app)
        assert "usable" in shown(app)
        assert "nothing is real" in shown(app)
        ailing.gate.set()
        await until(pilot, lambda: "4 of 5 usable" in shown(app))
        assert "not usable" in shown(app)
        assert f"next: mkdir {ailing.cure}" in shown(app)


async def test_a_command_is_run_after_it_was_shown_and_the_backend_is_tried_again(
    workspace: Workspace, ailing: Ailing
) -> None:
    async with panel_of(workspace, home="doctor", size=(160, 40)) as (app, pilot):
        await until(pilot, lambda: trial(app) is not None)
        screen = app.screen
        assert isinstance(screen, DoctorScreen)
        await pilot.press(*["j"] * 20)
        while (row := screen.listing.current()) is None or row.problem is None:
            await pilot.press("k")
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.pause()
        assert f"mkdir {ailing.cure}" in shown(app)
        await pilot.press("escape")
        await pilot.pause()
        assert not ailing.cure.exists()
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: isinstance(app.screen, MendSheet))
        await until(pilot, lambda: "it ended well" in shown(app))
        assert ailing.cure.exists()
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, DoctorScreen))
        await until(pilot, lambda: (probe := trial(app)) is not None and probe.usable)
        assert "5 of 5 usable" in shown(app)
        assert "accelerator kvm" in shown(app)


async def test_a_command_that_goes_on_is_shown_as_it_speaks_and_can_be_ended(
    workspace: Workspace, ailing: Ailing, tmp_path: Path
) -> None:
    tool = tmp_path / "slow"
    tool.write_text("#!/bin/sh\necho 'first \033[2J word'\nsleep 300\n")
    tool.chmod(0o755)
    ailing.hint = str(tool)
    async with panel_of(workspace, home="doctor") as (app, pilot):
        await until(pilot, lambda: trial(app) is not None)
        screen = app.screen
        assert isinstance(screen, DoctorScreen)
        screen.listing.move_to(next(y for y, row in enumerate(screen.listing.rows) if row.problem is not None))
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: "first  [2J word" in shown(app))
        await pilot.press("escape")
        await pilot.pause()
        assert "it still runs: ctrl+c ends it" in shown(app)
        await pilot.press("ctrl+c")
        await until(pilot, lambda: "it was ended" in shown(app))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, DoctorScreen))


async def test_a_sentence_is_not_run_and_neither_is_anything_when_read_only(
    workspace: Workspace, ailing: Ailing
) -> None:
    async with panel_of(workspace, home="doctor", read_only=True) as (app, pilot):
        await until(pilot, lambda: trial(app) is not None)
        screen = app.screen
        assert isinstance(screen, DoctorScreen)
        problem = next(y for y, row in enumerate(screen.listing.rows) if row.problem is not None)
        screen.listing.move_to(problem)
        await pilot.press("x")
        await pilot.pause()
        assert "read-only" in app.notices[-1].text
        assert "Run the command" not in shown(app)
    ailing.hint = "write the full name of a cure"
    async with panel_of(workspace, home="doctor") as (app, pilot):
        await until(pilot, lambda: trial(app) is not None)
        app.screen.listing.move_to(problem)  # type: ignore[attr-defined]
        await pilot.press("x")
        await pilot.pause()
        assert "y copies it" in app.notices[-1].text
        await pilot.press("y")
        assert app.clipboard == "write the full name of a cure"


async def test_details_and_hostile_text(workspace: Workspace, ailing: Ailing) -> None:
    ailing.hint = HOSTILE
    async with panel_of(workspace, home="doctor", size=(200, 40)) as (app, pilot):
        await until(pilot, lambda: trial(app) is not None)
        screen = app.screen
        assert isinstance(screen, DoctorScreen)
        screen.listing.move_to(next(y for y, row in enumerate(screen.listing.rows) if row.problem is not None))
        for keys in (["enter"], ["j", "y", "escape"], ["y"], ["x"]):
            await pilot.press(*keys)
            await pilot.pause()
            assert "\x1b" not in shown(app)
            assert "\u202e" not in shown(app)
            if keys == ["enter"]:
                assert isinstance(app.screen, Sheet)
                assert "no-kvm: there is no cure" in shown(app)
        assert app.is_running


@pytest.mark.parametrize("size", [(80, 24), (40, 10)])
async def test_it_is_usable_in_a_small_terminal(workspace: Workspace, ailing: Ailing, size: tuple[int, int]) -> None:
    async with panel_of(workspace, home="doctor", size=size) as (app, pilot):
        await until(pilot, lambda: trial(app) is not None)
        await pilot.press("G", "g", "ctrl+f", "T")
        await until(pilot, lambda: "usable" in shown(app))
