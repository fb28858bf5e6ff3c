"""Forms in the panel: create, edit, errors beside the field, the plan on save, and unsaved edits."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Input, Static

from tests.support.fakes import open_fakes
from tests.support.panel import file_of, panel_of, shown, until
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Kind, Ref
from vmtui.engine.registry import option_types
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.profile import load
from vmtui.tui.app import Panel
from vmtui.tui.forms.editors import ChoiceEditor, LineEditor, LinesEditor
from vmtui.tui.profiles.dialogs import AskPath, Review
from vmtui.tui.profiles.views import Preview
from vmtui.tui.screens.dialogs import Ask, Choose, Confirm, ErrorDialog, TypeName
from vmtui.tui.screens.edit import EditScreen
from vmtui.tui.screens.profile import ProfileScreen

TEXT = """
# ours
[network.lab]
backend = "fake"

[disk.data]
backend = "fake"
size = "1MiB"

# the web
[container.web]
backend = "fake"
image = "oci:web"
networks = ["lab"] # one
"""
WEB = Ref("dev", Kind.CONTAINER, "web")
DATA = Ref("dev", Kind.DISK, "data")


@pytest.fixture
def file(paths: Paths) -> Path:
    """Its path is short, as messages have it in them, and are looked for in the lines of the screen."""
    return file_of(paths.state.parents[1], TEXT)


@pytest.fixture
async def workspace(paths: Paths, file: Path) -> AsyncIterator[Workspace]:
    async with open_fakes(paths) as opened:
        plan = await opened.plan(load.load(file, option_types))
        await opened.apply(plan, emit=lambda _: None)
        yield opened


async def see(pilot: Pilot[None], app: Panel, text: str) -> None:
    """Until it is shown, on however many lines."""

    def there() -> bool:
        return text in " ".join(re.sub(r"[│╭╮╰╯─]", " ", shown(app)).split())

    await until(pilot, there, f"{text!r} did not come")


async def dialog(pilot: Pilot[None], app: Panel, kind: type[Screen[Any]]) -> None:
    """Until a dialog is there and takes keys."""
    await until(
        pilot, lambda: type(app.screen) is kind and app.focused is not None and app.focused.screen is app.screen
    )


async def see_wrong(pilot: Pilot[None], screen: EditScreen, text: str) -> None:
    """Until it is said below a field."""

    def said() -> list[str]:
        return [str(each.render()) for each in screen.query(".wrong").results(Static)]

    await until(pilot, lambda: any(text in each for each in said()), f"{text!r} was not said")


async def editing(pilot: Pilot[None], app: Panel, what: Ref | Kind | None = WEB) -> EditScreen:
    app.open_edit(what)
    await until(pilot, lambda: any(isinstance(screen, EditScreen) for screen in app.screen_stack))
    screen = next(screen for screen in app.screen_stack if isinstance(screen, EditScreen))
    if isinstance(what, Ref):
        await formed(pilot, screen)
    return screen


async def formed(pilot: Pilot[None], screen: EditScreen) -> None:
    """Until the form is there and has been checked once."""
    await until(pilot, lambda: bool(screen.query("Form")) and screen.query_one(Preview).line_count() > 0)
    await pilot.pause()


def line(screen: EditScreen, *path: str) -> LineEditor:
    editor = screen.form.editor(path)
    assert isinstance(editor, LineEditor)
    return editor


async def test_the_form_shows_what_the_file_says(workspace: Workspace) -> None:
    async with panel_of(workspace, size=(120, 50)) as (app, pilot):
        screen = await editing(pilot, app)
        assert line(screen, "image").value == "oci:web"
        assert line(screen, "networks").value == "lab"
        await see(pilot, app, "# the web")
        text = shown(app)
        assert "dev/container/web  saved" in text
        assert "*image" in text
        assert "only for backend fake" in text
        assert "only for backend oci" not in text
        assert "2048" in text
        line(screen, "image").focus()
        await see(pilot, app, "image: docker://…, oci:…")


async def test_an_edit_is_previewed_saved_and_applied(workspace: Workspace, file: Path) -> None:
    async with panel_of(workspace, size=(120, 50)) as (app, pilot):
        screen = await editing(pilot, app)
        line(screen, "memory").focus()
        await pilot.press(*"64MiB")
        await see(pilot, app, '+ memory = "64MiB"')
        assert "not saved" in shown(app)
        await pilot.press("ctrl+s")
        await dialog(pilot, app, Review)
        text = shown(app)
        assert '+memory = "64MiB"' in text
        assert "± container/web (fake)  recreate: changed: memory" in text
        assert file.read_text() == TEXT
        await pilot.press("tab", "tab", "enter")
        await until(pilot, lambda: isinstance(app.screen, ProfileScreen))
        await see(pilot, app, "all ready")
        assert file.read_text() == TEXT.replace("# one\n", '# one\nmemory = "64MiB"\n')
        applied = workspace.applied(WEB)
        assert applied is not None
        assert str(applied.spec.memory) == "64MiB"


async def test_saved_only(workspace: Workspace, file: Path) -> None:
    async with panel_of(workspace) as (app, pilot):
        screen = await editing(pilot, app)
        line(screen, "hostname").focus()
        await pilot.press(*"w", "ctrl+s")
        await dialog(pilot, app, Review)
        await pilot.press("tab", "enter")
        await until(pilot, lambda: 'hostname = "w"' in file.read_text())
        await see(pilot, app, "dev/container/web saved")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: any("nothing to save" in notice.text for notice in app.notices))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.home)


async def test_what_is_wrong_is_said_beside_the_field(workspace: Workspace, file: Path) -> None:
    async with panel_of(workspace, size=(120, 50)) as (app, pilot):
        screen = await editing(pilot, app)
        line(screen, "pids_limit").focus()
        await pilot.press(*"many")
        await see_wrong(pilot, screen, "'many' is not a number")
        line(screen, "networks").value = "lab, lob"
        await pilot.pause(0.5)
        line(screen, "pids_limit").value = ""
        await see_wrong(pilot, screen, "there is no network 'lob' in this profile: did you mean 'lab'?")
        line(screen, "image").focus()
        await pilot.press("ctrl+s")
        await until(pilot, lambda: screen.field_path() == ("networks",))
        assert app.screen is screen
        assert any("not saved: 1 wrong" in notice.text for notice in app.notices)
        line(screen, "networks").value = "lab"
        await until(pilot, lambda: not screen.query(".wrong"))
        assert file.read_text() == TEXT


async def test_what_is_wrong_with_the_whole_is_said_too(workspace: Workspace, file: Path) -> None:
    async with panel_of(workspace, size=(120, 50)) as (app, pilot):
        screen = await editing(pilot, app)
        line(screen, "networks").value = ""
        line(screen, "ports").value = "80:80"
        await see_wrong(pilot, screen, "a container without a network cannot publish ports")
        line(screen, "networks").value = "lab"
        await until(pilot, lambda: not screen.query(".wrong"))


async def test_a_new_resource_is_asked_for_and_made(workspace: Workspace, file: Path) -> None:
    async with panel_of(workspace, size=(120, 50)) as (app, pilot):
        screen = await editing(pilot, app, None)
        await dialog(pilot, app, Choose)
        await pilot.press("down", "enter")  # a sandbox
        await see(pilot, app, "in which profile?")
        await pilot.press("enter")
        await dialog(pilot, app, Ask)
        await pilot.press(*"No")
        await see(pilot, app, "a name is 1 to 40 of a-z")
        app.screen.query_one(Input).value = "calc"
        await pilot.press("enter")
        await formed(pilot, screen)
        await see(pilot, app, "nothing typed yet")
        assert "this is needed" not in shown(app)
        await pilot.press("ctrl+s")
        await see_wrong(pilot, screen, "this is needed")
        assert screen.field_path() == ("module",)
        await pilot.press(*"calc.wat")
        backend = screen.form.editor(("backend",))
        backend.focus()
        await pilot.press("f")
        assert isinstance(backend, ChoiceEditor)
        assert backend.value == "fake"
        await see(pilot, app, "only for backend fake")
        await pilot.press("ctrl+s")
        await dialog(pilot, app, Review)
        assert "+ sandbox/calc (fake)  create: it is new" in shown(app)
        await pilot.press("tab", "tab", "enter")
        await see(pilot, app, "all ready")
        assert '[sandbox.calc]\nbackend = "fake"\nmodule = "calc.wat"\n' in file.read_text()
        assert (await workspace.inspect(Ref("dev", Kind.SANDBOX, "calc"))).phase is Phase.RUNNING


async def test_a_new_profile_begins_with_its_first_resource(paths: Paths, tmp_path: Path) -> None:
    async with open_fakes(paths) as workspace, panel_of(workspace) as (app, pilot):
        screen = await editing(pilot, app, Kind.NETWORK)
        await dialog(pilot, app, AskPath)
        app.screen.query_one(Input).value = str(tmp_path / "Fresh one.toml")
        await pilot.press("enter")
        await dialog(pilot, app, Ask)
        await pilot.press(*"lab", "enter")
        await formed(pilot, screen)
        line(screen, "subnet").focus()
        await pilot.press(*"10.9.0.0/24", "ctrl+s")
        await dialog(pilot, app, Review)
        await pilot.press("tab", "enter")
        await until(pilot, lambda: (tmp_path / "Fresh one.toml").exists())
        assert (tmp_path / "Fresh one.toml").read_text() == 'name = "new"\n\n[network.lab]\nsubnet = "10.9.0.0/24"\n'


async def test_what_is_not_in_its_file_begins_as_it_was_applied(workspace: Workspace, file: Path) -> None:
    file.write_text(TEXT.replace("[container.web]", "[container.other]"))
    async with panel_of(workspace) as (app, pilot):
        screen = await editing(pilot, app)
        assert line(screen, "image").value == "oci:web"
        await see(pilot, app, "dev/container/web new")
        await pilot.press("ctrl+s")
        await dialog(pilot, app, Review)
        assert "+[container.web]" in shown(app)


async def test_a_file_that_is_gone_is_asked_for(workspace: Workspace, file: Path, tmp_path: Path) -> None:
    file.unlink()
    async with panel_of(workspace) as (app, pilot):
        app.open_edit(DATA)
        await dialog(pilot, app, AskPath)
        await see(pilot, app, "that of dev is gone")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.home)


async def test_a_profile_that_cannot_be_read_is_an_error(workspace: Workspace, file: Path) -> None:
    file.write_text("[container.web]\nimage = 5\n")
    async with panel_of(workspace) as (app, pilot):
        app.open_edit(WEB)
        await dialog(pilot, app, ErrorDialog)
        await see(pilot, app, "dev.toml:2: container.web.image: expected a text")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.home)


async def test_a_file_that_changed_meanwhile_is_not_overwritten(workspace: Workspace, file: Path) -> None:
    async with panel_of(workspace) as (app, pilot):
        screen = await editing(pilot, app)
        line(screen, "user").focus()
        await pilot.press(*"me", "ctrl+s")
        await dialog(pilot, app, Review)
        file.write_text(TEXT + "# more\n")
        await pilot.press("y")
        await dialog(pilot, app, ErrorDialog)
        await see(pilot, app, "has changed since it")
        assert file.read_text() == TEXT + "# more\n"


async def test_unsaved_edits_are_guarded(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        screen = await editing(pilot, app)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.home)
        screen = await editing(pilot, app)
        line(screen, "user").focus()
        await pilot.press(*"me", "escape")
        await dialog(pilot, app, Confirm)
        assert "user" in shown(app)
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is screen)
        assert line(screen, "user").value == "me"
        await pilot.press("escape")
        await dialog(pilot, app, Confirm)
        await pilot.press("y")
        await until(pilot, lambda: app.screen is app.home)


async def test_text_fields_own_the_keyboard(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        screen = await editing(pilot, app)
        line(screen, "user").focus()
        await pilot.press(*"q1", "question_mark", "colon", "slash", "minus")
        await until(pilot, lambda: line(screen, "user").value == "q1?:/-")
        screen.form.editor(("backend",)).focus()
        await pilot.press(*"q14")
        assert app.screen is screen
        command = screen.form.editor(("command",))
        command.focus()
        assert isinstance(command, LinesEditor)
        await pilot.press(*"sh", "enter", *"-c", "enter", *"q")
        await until(pilot, lambda: command.text == "sh\n-c\nq")
        await until(pilot, lambda: command.size.height == 3)
        await pilot.press("up", "up", "up")
        await until(pilot, lambda: screen.field_path() == ("image",))
        await pilot.press("down", "down", "down", "down")
        await until(pilot, lambda: screen.field_path() == ("entrypoint",))
        await pilot.press("shift+tab")
        await until(pilot, lambda: screen.field_path() == ("command",))
        await see(pilot, app, 'command = ["sh", "-c", "q"]')


async def test_choices_and_references(workspace: Workspace) -> None:
    async with panel_of(workspace, size=(120, 50)) as (app, pilot):
        screen = await editing(pilot, app)
        restart = screen.form.editor(("restart",))
        restart.focus()
        assert isinstance(restart, ChoiceEditor)
        await pilot.press("a")
        assert restart.value == "always"
        await pilot.press("right", "right")
        assert restart.value == ""
        await pilot.press("left", "backspace", "space")
        assert restart.value == "no"
        await pilot.press("enter")
        await dialog(pilot, app, Choose)
        await pilot.press("down", "enter")
        await until(pilot, lambda: restart.value == "on-failure")
        networks = line(screen, "networks")
        networks.value = ""
        networks.focus()
        await see(pilot, app, "known: lab (ctrl+n picks)")
        await pilot.press(*"l", "right")
        await until(pilot, lambda: networks.value in ("lab", "l"))
        networks.value = ""
        await pilot.press("ctrl+n")
        await dialog(pilot, app, Choose)
        await pilot.press("enter")
        await until(pilot, lambda: networks.value == "lab")


async def test_data_that_would_be_lost_wants_the_name(workspace: Workspace, file: Path) -> None:
    async with panel_of(workspace, size=(120, 50)) as (app, pilot):
        screen = await editing(pilot, app, DATA)
        backend = screen.form.editor(("backend",))
        backend.focus()
        await pilot.press("q", "ctrl+s")
        await dialog(pilot, app, Review)
        assert "its data is lost" in " ".join(shown(app).split())
        await pilot.press("tab", "tab", "enter")
        await dialog(pilot, app, TypeName)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen)
        assert 'backend = "qcow2"' in file.read_text()
        assert (await workspace.inspect(DATA)).backend == "fake"


HOSTILE = "[@click=app.quit]x[/] \x1b]52;c;AAAA\x07 \x1b[2J \u202e done"


async def test_hostile_text_is_shown_as_it_is_written_in_toml(paths: Paths, tmp_path: Path) -> None:
    escaped = HOSTILE.encode("unicode_escape").decode().replace("\\x", "\\u00")
    file = file_of(tmp_path, f'[container.web]\nbackend = "fake"\nimage = "deb:x"\nlabels = {{ a = "{escaped}" }}\n')
    async with open_fakes(paths) as workspace, panel_of(workspace, size=(120, 50)) as (app, pilot):
        await workspace.apply(await workspace.plan(load.load(file, option_types)), emit=lambda _: None)
        screen = await editing(pilot, app)
        labels = screen.form.editor(("labels",))
        labels.focus()
        assert isinstance(labels, LinesEditor)
        assert labels.text.isprintable()
        assert "\\u001b]52" in labels.text
        labels.post_message(events.Paste(f"\nb={HOSTILE}"))
        line(screen, "user").post_message(events.Paste(HOSTILE))
        await pilot.pause(0.2)
        assert line(screen, "user").value.isprintable()
        assert not {"\x1b", "\x07", "\u202e"} & set(shown(app))


@pytest.mark.parametrize("size", [(80, 24), (40, 10), (20, 6)])
async def test_any_size_is_usable(workspace: Workspace, size: tuple[int, int]) -> None:
    async with panel_of(workspace, size=size) as (app, pilot):
        screen = await editing(pilot, app)
        await pilot.press("tab", "tab", "pagedown", "pageup", "down")
        line(screen, "user").focus()
        await pilot.press(*"me", "ctrl+s")
        await dialog(pilot, app, Review)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen)


async def test_read_only_saves_nothing(workspace: Workspace, file: Path) -> None:
    async with panel_of(workspace, read_only=True) as (app, pilot):
        app.open_edit(WEB)
        assert not isinstance(app.screen, EditScreen)
        screen = EditScreen(WEB)
        app.show(screen)
        await formed(pilot, screen)
        line(screen, "user").focus()
        await pilot.press(*"me", "ctrl+s")
        await until(pilot, lambda: any("read-only" in notice.text for notice in app.notices))
        assert file.read_text() == TEXT


async def test_the_panel_is_not_left_with_unsaved_edits(workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        screen = await editing(pilot, app)
        line(screen, "user").focus()
        await pilot.press(*"me", "ctrl+q")
        await dialog(pilot, app, Confirm)
        await see(pilot, app, "what was typed for dev/container/web is not saved")
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is screen)
        await pilot.press("ctrl+q")
        await dialog(pilot, app, Confirm)
        await pilot.press("y")
        await until(pilot, lambda: not app.is_running)
