"""The panel of somebody with a role: what is not permitted is not offered, and every key and command is harmless."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import pkgutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from textual.actions import parse
from textual.binding import Binding
from textual.pilot import Pilot
from textual.screen import ModalScreen, Screen
from textual.widgets import Input

from tests.support.acting import Notes, acting, role
from tests.support.fakes import open_fakes, picture
from tests.support.panel import panel_of, shown, until, workspace_of
from vmtui.core.lifecycle import Action, Phase
from vmtui.core.policy import BUILTIN, LOOKING, Allow, Role, Verb
from vmtui.core.resource import Kind, Ref
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths, config_dir
from vmtui.tui import commands, screens
from vmtui.tui.app import Panel
from vmtui.tui.commands import COMMANDS, Completion, execute, offered_by
from vmtui.tui.rights import NOT_HERE, NOTHING, need_of
from vmtui.tui.screens.base import PanelScreen
from vmtui.tui.screens.dialogs import ErrorDialog, TypeName
from vmtui.tui.screens.help import HelpScreen, groups
from vmtui.tui.screens.theme import ThemeScreen

WEB = Ref("dev", Kind.CONTAINER, "web")
GUEST = Ref("dev", Kind.VM, "guest")
DATA = Ref("dev", Kind.DISK, "data")
LEAVE = frozenset({"quit", "help_quit"})
ANSWERS = 4  # to the questions that one key can lead to
VIEWER = BUILTIN["viewer"]
OPERATOR = BUILTIN["operator"]
ADMIN = BUILTIN["admin"]
ACTS = ("Start", "Stop", "Pause", "Restart", "Kill", "Delete", "Edit", "New", "Console", "Shell", "Undo", "Demo")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the process is, and where its person's settings would be."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return here


@pytest.fixture
async def workspace(paths: Paths) -> AsyncIterator[Workspace]:
    opened = await workspace_of(paths)
    yield opened
    await opened.aclose()


class Whole:
    """All that a viewer must leave as it is: the host, the database, the history, and every file around them."""

    def __init__(self, workspace: Workspace, folder: Path) -> None:
        self._workspace = workspace
        self._folders = (folder, config_dir(), workspace.registry.context.paths.state)

    async def now(self) -> tuple[object, ...]:
        store = self._workspace.store
        files = {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for top in self._folders
            for path in sorted(top.rglob("*"))
            if path.is_file() and not path.name.startswith("state.db")
        }
        return await picture(self._workspace), store.history(limit=None, after=0), store.profile_paths(), files


def footer(app: Panel) -> str:
    return shown(app).splitlines()[-1]


def phase(app: Panel, ref: Ref) -> Phase:
    item = app.feed.model.items.get(ref)
    return item.status.phase if item is not None else Phase.ABSENT


def said(app: Panel, text: str) -> bool:
    return any(text in notice.text for notice in app.notices)


def keys_of(screen: Screen[Any]) -> list[str]:
    """Every key that is bound where one is, whether it does something now or not, but those that leave."""
    found = {
        key: binding.action
        for _, bindings in screen._modal_binding_chain
        for key, several in bindings.key_to_bindings.items()
        for binding in several
    }
    return [key for key, action in found.items() if action.rpartition(".")[2] not in LEAVE]


async def agree(pilot: Pilot[None], app: Panel) -> None:
    """Say yes to whatever is asked, as well as one can."""
    for _ in range(ANSWERS):
        if not isinstance(app.screen, ModalScreen):
            return
        if isinstance(app.screen, TypeName):
            await pilot.press(*app.screen.query_one(Input).placeholder)
        await pilot.press(*(() if isinstance(app.focused, Input) else "y"), "enter")
        await pilot.pause()


async def settle(pilot: Pilot[None], app: Panel, view: PanelScreen) -> None:
    """Back to a view, with nothing above it."""
    await agree(pilot, app)
    for _ in range(ANSWERS):
        if isinstance(app.screen, ModalScreen) or app.screen.query("#prompt"):
            await pilot.press("escape")
            await pilot.pause()
    app.show(view)
    await pilot.pause()


@pytest.mark.parametrize("home", ["resources", "map", "doctor", "events", "profile", "actions", "notices", "approvals"])
async def test_no_key_of_any_view_changes_anything_for_a_viewer(
    workspace: Workspace, folder: Path, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[object] = []
    monkeypatch.setattr("subprocess.run", lambda *words, **_: ran.append(words))
    whole = Whole(workspace, folder)
    before = await whole.now()
    async with panel_of(acting(workspace, VIEWER), home=home) as (app, pilot):
        app.home.select(WEB)
        view = app.view_named(home)
        keys = keys_of(app.screen)
        assert len(keys) > 10
        for key in keys:
            await pilot.press(key)
            await pilot.pause()
            await settle(pilot, app, view)
        assert not app.acts.jobs
        assert not app.acts.taken
        assert app.sessions.last() is None
        assert app.is_running
    assert await whole.now() == before
    assert ran == []


async def test_the_same_keys_change_much_for_who_may(workspace: Workspace, folder: Path) -> None:
    """What the tests here press and answer is worth something."""
    whole = Whole(workspace, folder)
    before = await whole.now()
    async with panel_of(workspace) as (app, pilot):
        for ref, key in ((DATA, "W"), (WEB, "x"), (WEB, "ctrl+d")):
            app.home.select(ref)
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, ModalScreen))
            await settle(pilot, app, app.home)
        await until(pilot, lambda: not any(not job.ended for job in app.acts.jobs))
    after = await whole.now()
    assert all(one != other for one, other in zip(before[:2], after[:2], strict=True))
    assert (folder / "new.toml").exists()


async def test_no_key_of_the_logs_changes_anything_for_a_viewer(workspace: Workspace, folder: Path) -> None:
    whole = Whole(workspace, folder)
    before = await whole.now()
    async with panel_of(acting(workspace, VIEWER)) as (app, pilot):
        app.open_logs([WEB])
        await until(pilot, lambda: "Logs" in shown(app))
        view = app.screen
        assert isinstance(view, PanelScreen)
        for key in keys_of(view):
            await pilot.press(key)
            await pilot.pause()
            await settle(pilot, app, view)
        assert said(app, "may not touch files of the host")
    assert await whole.now() == before


async def test_no_command_changes_anything_for_a_viewer(workspace: Workspace, folder: Path) -> None:
    whole = Whole(workspace, folder)
    before = await whole.now()
    async with panel_of(acting(workspace, VIEWER)) as (app, pilot):
        for name in (*COMMANDS, *commands.ALIASES):
            if commands.ALIASES.get(name, name) == "quit":
                continue
            for words in ("", " dev/container/web", " dev/disk/data", f" {folder}", " vm"):
                with contextlib.suppress(Exception):
                    execute(app, name + words)
                await pilot.pause()
                await settle(pilot, app, app.home)
        assert not app.acts.taken
        assert app.sessions.last() is None
    assert await whole.now() == before


async def test_nothing_that_a_viewer_lacks_is_offered(workspace: Workspace) -> None:
    async with panel_of(acting(workspace, VIEWER)) as (app, pilot):
        app.home.select(WEB)
        await pilot.pause()
        assert "role viewer" in shown(app).splitlines()[0]
        assert "Logs" in footer(app)
        lines = [entry for _, entries in groups(app.screen) for entry in entries]
        for word in ACTS:
            assert word not in footer(app), word
            assert not [entry for entry in lines if entry.about == word], word
        assert not {"view-profile", "view-edit", "view-console", "view-approvals"} & {entry.id for entry in lines}
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        assert str(config_dir()) not in shown(app)
        await pilot.press("escape")
        offered = set(offered_by(app))
        assert {"logs", "map", "events", "doctor", "theme", "quit"} <= offered
        hidden = {"stop", "delete", "exec", "console", "new", "edit", "profile", "demo", "undo", "actions", "approvals"}
        assert not hidden & offered
        completion = Completion(app)
        for start in ("sto", "del", "prof", "ex"):
            assert await completion.get_suggestion(start) is None, start
        assert await completion.get_suggestion("stop dev/c") is None
        assert await completion.get_suggestion("profile /") is None


async def test_a_key_that_is_not_offered_says_why_in_a_line(workspace: Workspace) -> None:
    async with panel_of(acting(workspace, VIEWER)) as (app, pilot):
        app.home.select(WEB)
        for key, why in (
            ("x", "the role viewer may not stop"),
            ("s", "the role viewer may not exec"),
            ("ctrl+d", "the role viewer may not delete"),
            ("e", "the role viewer may not touch files of the host"),
            ("W", "the role viewer may not touch files of the host"),
            ("4", "the role viewer may not touch files of the host"),
            ("8", "the role viewer may not approve"),
        ):
            app.notices.clear()
            await pilot.press(key)
            await pilot.pause()
            assert [notice.text for notice in app.notices] == [why], key
            assert app.screen is app.home


async def test_what_may_not_be_seen_is_not_there(workspace: Workspace) -> None:
    narrow = role(Allow(verbs=("view", "logs"), names=("dev/container/*",)), name="narrow")
    async with panel_of(acting(workspace, narrow)) as (app, pilot):
        assert [str(ref) for ref in app.feed.model.items] == [str(WEB)]
        for key in ("6", "7", "7"):
            await pilot.press(key)
            await pilot.pause(0.3)
            assert "guest" not in shown(app)
    nothing = role(Allow(verbs=("view",), names=("prod/*",)), name="elsewhere")
    async with panel_of(acting(workspace, nothing)) as (app, pilot):
        assert "Nothing is here that the role elsewhere may see." in shown(app)
        assert "demo" not in shown(app)


async def test_a_role_can_act_on_some_and_not_on_others(workspace: Workspace) -> None:
    some = role(Allow(verbs=("view",)), Allow(verbs=("stop",), kinds=(Kind.CONTAINER,)), name="some")
    async with panel_of(acting(workspace, some)) as (app, pilot):
        app.home.select(GUEST)
        await pilot.pause()
        assert "Stop" not in footer(app)
        await pilot.press("x")
        await until(pilot, lambda: said(app, "the role some may not stop dev/vm/guest"))
        await pilot.press("asterisk")
        await pilot.pause()
        assert "x Stop" in footer(app)
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, ModalScreen))
        assert "cannot stop vm/guest: the role some may not stop dev/vm/guest" in shown(app)
        await pilot.press("y")
        await until(pilot, lambda: phase(app, WEB) is Phase.STOPPED)
        assert phase(app, GUEST) is Phase.RUNNING


async def test_an_operator_runs_things_and_leaves_data_and_files(workspace: Workspace, folder: Path) -> None:
    async with panel_of(acting(workspace, OPERATOR)) as (app, pilot):
        app.home.select(GUEST)
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, ModalScreen))
        await pilot.press("y")
        await until(pilot, lambda: phase(app, GUEST) is Phase.STOPPED)
        app.home.select(DATA)
        await pilot.pause()
        assert "Delete" not in footer(app)
        await pilot.press("ctrl+d")
        await until(pilot, lambda: said(app, "the role operator may not purge dev/disk/data"))
        for key in ("e", "n", "4", "W"):
            app.notices.clear()
            await pilot.press(key)
            await until(pilot, lambda: said(app, "may not touch files of the host"), key)
            assert app.screen is app.home
    assert list(folder.iterdir()) == []


async def test_over_a_connection_there_is_no_editor_and_no_demo_whatever_the_role(workspace: Workspace) -> None:
    async with panel_of(acting(workspace, ADMIN)) as (app, pilot):
        assert not app.suspends
        assert "demo" not in offered_by(app)
        execute(app, "demo")
        await pilot.pause()
        assert said(app, NOT_HERE)
        assert app.next_demo is None
        app.notices.clear()
        await pilot.press("4")
        await until(pilot, lambda: app.screen is app.view_named("profile"))
        await pilot.press("e")
        await until(pilot, lambda: said(app, NOT_HERE))
        assert "Edit" not in footer(app)
    empty = open_fakes(Paths(folder_of(workspace, "s"), folder_of(workspace, "c"), folder_of(workspace, "r")))
    async with panel_of(acting(empty, ADMIN)) as (app, _):
        assert "bring up the demo profile" in shown(app)
        assert "look around in a demo" not in shown(app)
    await empty.aclose()


def folder_of(workspace: Workspace, name: str) -> Path:
    return workspace.registry.context.paths.state.parent / f"other-{name}"


@pytest.mark.parametrize(("who", "kept"), [(VIEWER, False), (OPERATOR, False), (ADMIN, True)])
async def test_a_theme_is_the_sessions_own_unless_the_settings_are(workspace: Workspace, who: Role, kept: bool) -> None:
    async with panel_of(acting(workspace, who)) as (app, pilot):
        await until(pilot, lambda: len(app.available_themes) > 20)
        await pilot.press("ctrl+t")
        await until(pilot, lambda: isinstance(app.screen, ThemeScreen))
        await pilot.press("j", "enter")
        await until(pilot, lambda: app.screen is app.home)
        assert app.theme != "vmtui-dark"
        assert said(app, "is worn until you leave") is not kept
    assert (config_dir() / "config.toml").exists() is kept


async def test_reading_alone_narrows_every_role(workspace: Workspace) -> None:
    for who in (None, VIEWER, OPERATOR, ADMIN):
        there = workspace if who is None else acting(workspace, who)
        async with panel_of(there, read_only=True) as (app, pilot):
            assert "read-only" in shown(app).splitlines()[0]
            assert {verb for verb in Verb if app.rights.authority.anywhere(verb)} <= LOOKING
            app.home.select(WEB)
            await pilot.press("x", "ctrl+d", "c", "u")
            await pilot.pause()
            assert app.screen is app.home
            assert said(app, "read-only")
    assert (await workspace.inspect(WEB)).phase is Phase.RUNNING


async def test_what_the_engine_denies_is_told_like_any_fault(workspace: Workspace) -> None:
    """Rights that went meanwhile: the panel offered it, and the engine asks again."""
    notes = Notes()
    there = acting(workspace, VIEWER, notes=notes)
    async with panel_of(there) as (app, pilot):
        worker = app.home.run_worker(app.acts.carry_out(Action.STOP, [WEB]), exit_on_error=False)
        await until(pilot, lambda: worker.is_finished and isinstance(app.screen, ErrorDialog))
        await pilot.pause()
        assert "the role viewer may not stop dev/container/web" in shown(app)
        assert ("stop", "denied") in notes.results
        assert phase(app, WEB) is Phase.RUNNING


# What is new has to say what it needs

LOOKS = frozenset(
    {
        "move", "to", "page", "head", "detail", "fold", "mark", "mark_range", "mark_all", "spec", "sort", "reverse",
        "group", "detail_move", "follow", "find", "only", "wrap", "times", "more", "line", "start", "end", "sideways",
        "details", "go", "copy", "reads", "read", "again", "all_again", "refer", "stop", "withdraw", "help",
        "command", "filter", "leave_view", "last_view", "history", "theme", "mouse", "quit",
    }
)  # fmt: skip
VIEWS = frozenset({"resources", "map", "health"})
COMMANDS_THAT_LOOK = frozenset(
    {"resources", "go", "map", "doctor", "messages", "filter", "sort", "group", "theme", "mouse", "help", "quit"}
)


def test_every_key_of_every_view_says_what_it_needs() -> None:
    """`stop` ends a run of the panel's own, `withdraw` a request of one's own; `again` asks the engine to look."""
    for module in pkgutil.iter_modules(screens.__path__):
        importlib.import_module(f"{screens.__name__}.{module.name}")
    pending: list[type[Panel] | type[PanelScreen]] = [Panel, PanelScreen]
    unsaid = []
    while pending:
        of = pending.pop()
        pending += of.__subclasses__()
        for binding in Binding.make_bindings(of.__dict__.get("BINDINGS", ())):
            _, action, parameters = parse(binding.action)
            looks = action in LOOKS or (action == "view" and parameters[0] in VIEWS)
            if not looks and need_of(of, action, parameters) is NOTHING:
                unsaid.append(f"{of.__name__}: {binding.action}")
    assert unsaid == []


def test_every_command_says_what_it_needs() -> None:
    assert {name for name, command in COMMANDS.items() if command.needs is NOTHING} == COMMANDS_THAT_LOOK
