"""Keys: their names, other keys by the settings, what clashes, and the help that shows those in force."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from textual.binding import Binding

from tests.support.panel import panel_of, shown, until, workspace_of
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.profile.settings import Column, Settings
from vmtui.tui import keys
from vmtui.tui.app import Panel
from vmtui.tui.columns import COLUMNS
from vmtui.tui.screens.help import HelpScreen


@pytest.fixture
async def workspace(paths: Paths) -> AsyncIterator[Workspace]:
    opened = await workspace_of(paths)
    yield opened
    await opened.aclose()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("x", "x"),
        ("X", "X"),
        ("?", "question_mark"),
        (" / ", "slash"),
        ("+", "plus"),
        ("ctrl++", "ctrl+plus"),
        ("ctrl+]", "ctrl+right_square_bracket"),
        ("Ctrl+X", "ctrl+x"),
        ("shift+a", "A"),
        ("shift+ctrl+Left", "ctrl+shift+left"),
        ("F12", "f12"),
        ("esc", "escape"),
        ("PgDn", "pagedown"),
        ("space", "space"),
        ("comma", "comma"),
        ("question_mark", "question_mark"),
        ("é", "é"),
    ],
)
def test_the_name_of_a_key(text: str, name: str) -> None:
    assert keys.normal(text) == name


@pytest.mark.parametrize("text", ["", " ", "ctrl+", "ctl+x", "f99", "pagedwn", "\x01", "ctrl+x+y", "\x1b[A"])
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(ValueError, match="is not a key"):
        keys.normal(text)


def test_several_keys() -> None:
    assert keys.several("x, ctrl+x,x") == ["x", "ctrl+x"]
    with pytest.raises(ValueError):
        keys.several("x,,y")


def test_the_detach_key() -> None:
    assert keys.detach(Settings()) == "ctrl+right_square_bracket"
    assert keys.detach(Settings(detach_key="f12")) == "f12"
    assert keys.detach(Settings(detach_key="nothing")) == "ctrl+right_square_bracket"


def problems(**given: str) -> list[str]:
    return keys.apply(
        Panel(settings=Settings()), Settings(keys={name.replace("_", "-"): key for name, key in given.items()})
    )


def test_right_keys_are_no_problem() -> None:
    assert problems() == []
    assert problems(quit="ctrl+x", help="?,f1", resources_stop="ctrl+s") == []


def test_what_is_wrong_with_keys_is_told() -> None:
    assert problems(quitt="x") == ["keys.quitt: there is no such action (did you mean 'quit'?)"]
    assert problems(frobnicate="x") == ["keys.frobnicate: there is no such action (the help screen has all)"]
    assert problems(quit="ctl+x") == ["keys.quit: 'ctl+x' is not a key: did you mean 'ctrl'?"]
    assert keys.apply(Panel(settings=Settings()), Settings(detach_key="pgdwn")) == [
        "detach_key: 'pgdwn' is not a key: did you mean 'pagedown'?"
    ]


def test_two_actions_that_want_one_key_are_told_with_the_winner() -> None:
    (within,) = problems(resources_stop="e")
    assert within.startswith("keys: e is resources-stop and resources-edit on Resources")
    assert within.endswith("resources-stop wins")
    assert "keys: x is resources-stop and quit on Resources: resources-stop wins" in problems(quit="x")
    (both,) = problems(quit="f8", help="f8")
    assert both == "keys: f8 is help and quit: help wins"


def test_what_shares_a_key_as_it_ships_may_share_another() -> None:
    assert problems(resources_pause="P", resources_resume="P") == []


async def test_other_keys_work_and_the_old_ones_do_not(workspace: Workspace) -> None:
    settings = Settings(theme="vmtui-dark", ascii=False, keys={"help": "f1", "resources-pause": "P", "nope": "x"})
    async with panel_of(workspace, settings=settings) as (app, pilot):
        await until(pilot, lambda: any("keys.nope" in notice.text for notice in app.notices))
        await pilot.press("question_mark")
        assert not isinstance(app.screen, HelpScreen)
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, HelpScreen))
        of = {binding.binding.id: key for key, binding in app.screen.active_bindings.items()}
        assert of.get("resources-pause", "P") == "P"
        # It shared a key with pause, and keeps it.
        kept = [
            key
            for key, found in app.screen._bindings.key_to_bindings.items()
            for one in found
            if one.id == "resources-resume"
        ]
        assert kept == ["p"]


async def test_help_shows_the_bindings_in_force(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        text = shown(app)
        for said in ("on this screen", "Stop", "resources-stop", "j, ↓"):
            assert said in text, said
        await pilot.press(*"quit")
        await until(pilot, lambda: "resources-stop" not in shown(app).split("Keys")[1])
        text = shown(app).split("Keys")[1]
        assert "everywhere" in text
        assert "Quit" in text
        await pilot.press("backspace", "backspace", "backspace", "backspace", *"zzzz")
        await until(pilot, lambda: "nothing found" in shown(app))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, HelpScreen))


async def test_help_of_the_filter_and_of_what_is_not_possible_now(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await pilot.press(*"kind:")
        await until(pilot, lambda: "vm, container, sandbox" in shown(app))
        assert "after /" in shown(app)
        await pilot.press(*["backspace"] * 5, *"resources-resume")
        await until(pilot, lambda: "(not now)" in shown(app))


@pytest.mark.parametrize("size", [(80, 24), (40, 10)])
async def test_help_fits_small_terminals(workspace: Workspace, size: tuple[int, int]) -> None:
    async with panel_of(workspace, size=size) as (app, pilot):
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await pilot.press("down", "pagedown", "up")
        await pilot.pause()
        assert "on this screen" in shown(app) or "resources-start" in shown(app)
        await pilot.press("escape")


def test_every_binding_has_an_id_of_its_own() -> None:
    owners: dict[str, set[str]] = {}
    without = []
    for scope in keys._scopes(Panel):
        for binding in Binding.make_bindings(scope.of.__dict__.get("BINDINGS", ())):
            if binding.id:
                owners.setdefault(binding.id, set()).add(f"{scope.of.__name__} {binding.action}")
            else:
                without.append(f"{scope.of.__name__} {binding.key}")
    assert without == []
    assert {name: found for name, found in owners.items() if len(found) > 1} == {}


def test_the_settings_know_the_columns() -> None:
    assert set(Column) == set(COLUMNS)
