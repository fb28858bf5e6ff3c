"""Style sheets that are parsed once for several panels: the next one looks the same, and parses nothing."""

from __future__ import annotations

import pytest
from textual.css.stylesheet import Stylesheet

from tests.support.panel import panel_of, workspace_of
from vmtui.host.paths import Paths
from vmtui.profile.settings import Settings
from vmtui.tui import styles


async def look(paths: Paths, theme: str) -> str:
    """A colour of the theme, as a widget has it."""
    workspace = await workspace_of(paths)
    try:
        async with panel_of(workspace, settings=Settings(theme=theme, ascii=False)) as (panel, _):
            return str(panel.screen.styles.background)
    finally:
        await workspace.aclose()


async def test_it_is_parsed_once(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {theme: await look(paths, theme) for theme in ("vmtui-dark", "vmtui-light")}
    assert len(set(before.values())) == 2
    monkeypatch.setattr(Stylesheet, "_parse_rules", Stylesheet._parse_rules)  # so that it is Textual's again afterwards
    styles.keep_parsed()
    assert {theme: await look(paths, theme) for theme in before} == before
    monkeypatch.setattr(styles, "_parse", refused)
    assert {theme: await look(paths, theme) for theme in before} == before


def refused(*_: object) -> None:
    raise AssertionError("it is parsed again")
