"""What was done and what is selected, as TOML."""

from __future__ import annotations

from pathlib import Path

from textual.widgets import Input

from tests.support.panel import panel_of, shown, until, workspace_of
from vmtui.core.resource import Kind, Ref
from vmtui.engine import registry
from vmtui.host.paths import Paths
from vmtui.profile import load
from vmtui.tui.screens.dialogs import Ask, Confirm, TypeName
from vmtui.tui.screens.sheet import Sheet

HELLO = Ref("dev", Kind.SANDBOX, "hello")
GUEST = Ref("dev", Kind.VM, "guest")
DATA = Ref("dev", Kind.DISK, "data")


async def test_what_is_selected_becomes_a_profile(paths: Paths, tmp_path: Path) -> None:
    workspace = await workspace_of(paths)
    async with panel_of(workspace) as (app, pilot):
        app.home.listing.mark([GUEST, DATA], on=True)
        await pilot.press("W")
        await until(pilot, lambda: isinstance(app.screen, Ask))
        app.screen.query_one(Input).value = str(tmp_path / "saved.toml")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        assert "left out: vm.guest.networks[0] refers to dev/network/lab" in shown(app)
        await pilot.press("y")
        await until(pilot, lambda: app.screen is app.home)
    saved = load.load(tmp_path / "saved.toml", registry.option_types)
    assert [item.ref.short for item in saved.resources] == ["disk/data", "vm/guest"]
    assert saved.resources[1].spec.disks == ("data",)  # type: ignore[attr-defined]
    await workspace.aclose()


async def test_a_wrong_path_is_said_while_it_is_typed(paths: Paths, tmp_path: Path) -> None:
    workspace = await workspace_of(paths)
    async with panel_of(workspace) as (app, pilot):
        app.home.select(GUEST)
        await pilot.press("W")
        await until(pilot, lambda: isinstance(app.screen, Ask))
        app.screen.query_one(Input).value = str(tmp_path / "no" / "saved.toml")
        await pilot.press("enter")
        await until(pilot, lambda: "there is no folder" in shown(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.home)
    await workspace.aclose()


async def test_an_act_shows_the_toml_that_it_amounts_to(paths: Paths, tmp_path: Path) -> None:
    workspace = await workspace_of(paths)
    file = tmp_path / "dev.toml"
    file.write_text('name = "dev"\n\n# says hello\n[sandbox.hello]\nbackend = "fake"\nmodule = "/hello.wat"\n')
    workspace.store.put_profile("dev", str(file))
    async with panel_of(workspace) as (app, pilot):
        app.home.select(HELLO)
        await pilot.press("ctrl+d")
        await until(pilot, lambda: isinstance(app.screen, TypeName))
        await pilot.press(*"hello", "enter")
        await until(pilot, lambda: HELLO not in app.feed.model.items)
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, Sheet))
        assert "-[sandbox.hello]" in shown(app)
    await workspace.aclose()
