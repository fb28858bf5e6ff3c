"""What a role may do only when a second person agrees: asked in one panel, answered in another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.acting import acting, role
from tests.support.panel import SPECS, panel_of, shown, until, workspace_of
from vmtui.core.errors import Denied
from vmtui.core.lifecycle import Phase
from vmtui.core.policy import Allow, Role, Verb
from vmtui.core.resource import Kind, Ref
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.tui.app import Panel
from vmtui.tui.console.session import State
from vmtui.tui.profiles.dialogs import Review
from vmtui.tui.screens.approvals import NOTHING, ApprovalsScreen
from vmtui.tui.screens.console import ConsoleScreen
from vmtui.tui.screens.dialogs import Confirm, ErrorDialog

WEB = Ref("dev", Kind.CONTAINER, "web")
ASKER = Role(
    name="careful",
    allow=(Allow(verbs=("*",)),),
    approval=(Verb.STOP, Verb.DELETE, Verb.CONSOLE, Verb.EXEC, Verb.CREATE),
)
SECOND = role(Allow(verbs=("view", "approve")), name="second")
HOSTILE = "\x1b]0;x\x07[@click=app.quit]\u202e"


@pytest.fixture
async def workspace(paths: Paths) -> AsyncIterator[Workspace]:
    opened = await workspace_of(paths)
    yield opened
    await opened.aclose()


def phase(app: Panel, ref: Ref) -> Phase:
    item = app.feed.model.items.get(ref)
    return item.status.phase if item is not None else Phase.ABSENT


def said(app: Panel, text: str) -> bool:
    return any(text in notice.text for notice in app.notices)


async def test_who_asks_sees_that_it_waits_and_it_is_done_once_somebody_agrees(workspace: Workspace) -> None:
    second = acting(workspace, SECOND, "bert")
    async with panel_of(acting(workspace, ASKER)) as (app, pilot):
        app.home.select(WEB)
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: "waits for a second person: request" in shown(app))
        assert "ctrl+c withdraws" in shown(app)
        await until(pilot, lambda: "^c Withdraw" in shown(app))
        assert phase(app, WEB) is Phase.RUNNING
        (request,) = second.approvals()
        second.answer(request.id, granted=True)
        await until(pilot, lambda: phase(app, WEB) is Phase.STOPPED)
        await until(pilot, lambda: "waits for a second person" not in shown(app))
        assert "Withdraw" not in shown(app)


async def test_a_refusal_is_told(workspace: Workspace) -> None:
    second = acting(workspace, SECOND, "bert")
    async with panel_of(acting(workspace, ASKER)) as (app, pilot):
        app.home.select(WEB)
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: bool(second.approvals()))
        second.answer(second.approvals()[0].id, granted=False)
        await until(pilot, lambda: isinstance(app.screen, ErrorDialog) and "bert does not agree" in shown(app))
        assert phase(app, WEB) is Phase.RUNNING


async def test_it_can_be_withdrawn_and_goes_with_who_asked(workspace: Workspace) -> None:
    second = acting(workspace, SECOND, "bert")
    async with panel_of(acting(workspace, ASKER)) as (app, pilot):
        for key in ("ctrl+c", "q"):
            app.home.select(WEB)
            await pilot.press("x")
            await until(pilot, lambda: isinstance(app.screen, Confirm))
            await pilot.press("y")
            await until(pilot, lambda: "waits for a second person" in shown(app))
            assert len(second.approvals()) == 1
            await pilot.press(key)
            if key == "q":
                await until(pilot, lambda: isinstance(app.screen, Confirm))
                assert "stop container/web is still going on" in shown(app)
                await pilot.press("y")
                await until(pilot, lambda: not app.is_running)
            else:
                await until(
                    pilot, lambda: isinstance(app.screen, ErrorDialog) and "you have withdrawn it" in shown(app)
                )
                await pilot.press("escape")
                await until(pilot, lambda: app.screen is app.home)
                assert second.approvals() == ()
    assert second.approvals() == ()
    assert (await workspace.inspect(WEB)).phase is Phase.RUNNING


async def test_a_console_waits_and_opens(workspace: Workspace) -> None:
    second = acting(workspace, SECOND, "bert")
    async with panel_of(acting(workspace, ASKER)) as (app, pilot):
        app.home.select(WEB)
        await pilot.press("s")
        await until(pilot, lambda: "shell in container/web" in shown(app) and "waits for a second" in shown(app))
        await pilot.press("ctrl+c")
        await until(pilot, lambda: isinstance(app.screen, ErrorDialog) and "you have withdrawn it" in shown(app))
        assert app.sessions.last() is None
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.home)
        await pilot.press("s")
        await until(pilot, lambda: bool(second.approvals()))
        second.answer(second.approvals()[0].id, granted=True)
        await until(pilot, lambda: isinstance(app.screen, ConsoleScreen))
        opened = app.sessions.last()
        assert opened is not None
        await opened.aclose()
        await pilot.press("r")
        await until(pilot, lambda: "waits for a second person" in shown(app).splitlines()[0])
        second.answer(second.approvals()[0].id, granted=True)
        await until(pilot, lambda: opened.state is State.CONNECTED)
        assert app.acts.jobs == []


async def test_files_of_the_host_are_left_alone_where_a_second_person_must_agree(workspace: Workspace) -> None:
    careful = Role(name="careful", allow=(Allow(verbs=("*",)),), approval=(Verb.HOST,))
    async with panel_of(acting(workspace, careful)) as (app, pilot):
        app.home.select(WEB)
        for key in ("4", "e", "n", "W"):
            app.notices.clear()
            await pilot.press(key)
            await until(pilot, lambda: said(app, "without a second person"), key)
            assert app.screen is app.home


async def test_it_is_seen_in_full_and_agreed_to_by_another(workspace: Workspace) -> None:
    asker = acting(workspace, ASKER, "anna")
    async with panel_of(acting(workspace, SECOND, "bert")) as (app, pilot):
        await pilot.press("8")
        await until(pilot, lambda: isinstance(app.screen, ApprovalsScreen))
        assert NOTHING[:40] in shown(app)
        await pilot.press("1")
        wait = asyncio.create_task(asker.consent(Verb.EXEC, [WEB], detail=f"sh -c {HOSTILE}"))
        await until(pilot, lambda: said(app, "anna asks for a second person: exec dev/container/web; 8 shows it"))
        await pilot.press("8")
        await until(pilot, lambda: "anna" in shown(app) and "exec dev/container/web" in shown(app))
        assert "1 waits" in shown(app).splitlines()[0]
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Review) and "SHA256:anna" in shown(app))
        text = shown(app)
        assert "192.0.2.7" in text
        assert "exec dev/container/web: sh -c" in text
        assert "\x1b" not in text
        assert "\u202e" not in text
        await pilot.press("enter")  # on Cancel
        await until(pilot, lambda: isinstance(app.screen, ApprovalsScreen))
        assert not wait.done()
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Review))
        await pilot.press("y")
        await until(pilot, wait.done)
        await wait
        await until(pilot, lambda: NOTHING[:40] in shown(app))
        assert said(app, "agreed to")


async def test_it_is_refused_by_another(workspace: Workspace) -> None:
    asker = acting(workspace, ASKER, "anna")
    async with panel_of(acting(workspace, SECOND, "bert"), home="approvals", size=(60, 12)) as (app, pilot):
        wait = asyncio.create_task(asker.consent(Verb.STOP, [WEB]))
        await until(pilot, lambda: "anna" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Review))
        await pilot.press("tab", "tab", "enter")
        await until(pilot, wait.done)
        with pytest.raises(Denied, match="bert does not agree"):
            await wait


async def test_ones_own_can_only_be_withdrawn(workspace: Workspace) -> None:
    asker = acting(workspace, ASKER, "anna")
    async with panel_of(acting(workspace, ASKER, "anna"), home="approvals") as (app, pilot):
        wait = asyncio.create_task(asker.consent(Verb.STOP, [WEB]))
        await until(pilot, lambda: "anna" in shown(app))
        assert not said(app, "asks for a second person")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Review) and "Withdraw" in shown(app))
        assert "Agree" not in shown(app)
        await pilot.press("y")
        await until(pilot, wait.done)
        with pytest.raises(Denied, match="withdrawn"):
            await wait


async def test_a_plan_waits_and_can_be_withdrawn(paths: Paths) -> None:
    workspace = await workspace_of(paths, {"disk/data": SPECS["disk/data"]})
    second = acting(workspace, SECOND, "bert")
    file = paths.state.parent / "dev.toml"
    file.write_text('[disk.data]\nbackend = "fake"\nsize = "1GiB"\n[disk.more]\nbackend = "fake"\nsize = "1MiB"\n')
    async with panel_of(acting(workspace, ASKER), home="profile") as (app, pilot):
        app.open_profile(file)
        await until(pilot, lambda: "create" in shown(app))
        for answer in ("withdrawn", "granted"):
            await pilot.press("a")
            await until(pilot, lambda: isinstance(app.screen, Review))
            await pilot.press("y")
            await until(pilot, lambda: "waits for a second person" in shown(app).splitlines()[0])
            assert "ctrl+c withdraws" in shown(app).splitlines()[0]
            (request,) = second.approvals()
            assert "disk/more" in "".join(request.about)
            if answer == "granted":
                second.answer(request.id, granted=True)
                await until(pilot, lambda: "all ready" in shown(app))
            else:
                await pilot.press("ctrl+c")
                await until(pilot, lambda: isinstance(app.screen, Confirm))
                await pilot.press("y")
                await until(pilot, lambda: "stopped" in shown(app).splitlines()[0])
                assert second.approvals() == ()
                await pilot.press("escape")
                await until(pilot, lambda: "create" in shown(app))
    assert Ref("dev", Kind.DISK, "more") in {status.ref for status in await workspace.scan()}
    await workspace.aclose()
