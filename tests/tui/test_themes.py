"""Theme files: what is refused where, that every one that ships can be read, and by whom."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from itertools import combinations
from pathlib import Path

import pytest
from rich.style import Style
from textual.color import Color
from textual.theme import BUILTIN_THEMES

from tests.support.golden import ROOT
from tests.support.panel import panel_of, shown, until, workspace_of
from vmtui.core.errors import FileInvalid
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.profile.settings import Settings
from vmtui.tui import themes
from vmtui.tui.palette import ASCII, palette_of
from vmtui.tui.screens.theme import ThemeScreen
from vmtui.tui.terminal import choose
from vmtui.tui.themes import COLOURS, DEFAULT, PanelTheme, available, quickly, read, unknown

STATES = ("success", "warning", "error")
GROUNDS = ("background", "surface", "panel")
GOOD = (ROOT / "themes" / f"{DEFAULT}.toml").read_text()
SHIPPED = {path.stem: read(path) for path in sorted((ROOT / "themes").glob("*.toml"))}
PAINTED = {name: theme for name, theme in SHIPPED.items() if not theme.ansi}
RGB = tuple[float, float, float]


def linear(colour: tuple[int, ...]) -> RGB:
    """sRGB, IEC 61966-2-1."""
    red, green, blue = (
        (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4) for v in (c / 255 for c in colour)
    )
    return red, green, blue


def luminance(colour: tuple[int, ...]) -> float:
    red, green, blue = linear(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """WCAG 2.2, "contrast ratio"."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def rgb(theme: PanelTheme, key: str) -> tuple[int, ...]:
    return Color.parse(getattr(theme, key)).rgb


def test_there_are_enough_of_them() -> None:
    assert len(SHIPPED) >= 8
    wanted = {"vmtui-dark", "vmtui-light", "high-contrast", "high-contrast-light", "colour-blind", "ascii", "ansi"}
    assert wanted <= set(SHIPPED)
    assert {theme.dark for theme in PAINTED.values()} == {True, False}
    assert [name for name, theme in SHIPPED.items() if theme.ascii] == ["ascii"]
    assert [name for name, theme in SHIPPED.items() if theme.ansi] == ["ansi"]
    assert all(theme.about for theme in SHIPPED.values())
    assert not set(SHIPPED) & set(BUILTIN_THEMES)


@pytest.mark.parametrize("name", PAINTED)
@pytest.mark.parametrize("ground", GROUNDS)
def test_text_and_states_can_be_read(name: str, ground: str) -> None:
    theme = PAINTED[name]
    back = rgb(theme, ground)
    for key, least in (("foreground", 4.5), ("accent", 4.5), *((state, 3.0) for state in STATES)):
        found = contrast(rgb(theme, key), back)
        assert found >= (7.0 if "contrast" in name else least), f"{key} on {ground}: {found:.2f}"


@pytest.mark.parametrize("name", PAINTED)
def test_what_is_painted_can_be_read(name: str) -> None:
    palette = palette_of(PAINTED[name])
    for role in ("title", "head", "cursor", "match"):
        style: Style = getattr(palette, role)
        assert style.color is not None
        assert style.bgcolor is not None
        found = contrast(tuple(style.color.get_truecolor()), tuple(style.bgcolor.get_truecolor()))
        assert found >= 4.5, f"{role}: {found:.2f}"
    assert palette.dim.color is not None
    for ground in GROUNDS:
        assert contrast(tuple(palette.dim.color.get_truecolor()), rgb(PAINTED[name], ground)) >= 3.0


# Viénot, Brettel and Mollon 1999: what is left of linear RGB to the two kinds of red-green blindness.
PROTAN = ((0.11238, 0.88762, 0.0), (0.11238, 0.88762, 0.0), (0.00401, -0.00401, 1.0))
DEUTAN = ((0.29275, 0.70725, 0.0), (0.29275, 0.70725, 0.0), (-0.02234, 0.02234, 1.0))


def lab(colour: RGB) -> RGB:
    """CIELAB, D65."""
    red, green, blue = colour
    xyz = (
        (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505,
        0.2126 * red + 0.7152 * green + 0.0722 * blue,
        (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089,
    )
    x, y, z = (value ** (1 / 3) if value > 0.008856 else 7.787 * value + 16 / 116 for value in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("name", ["colour-blind", "colour-blind-light"])
@pytest.mark.parametrize("sight", [PROTAN, DEUTAN], ids=["protan", "deutan"])
def test_states_are_told_apart_without_red_and_green(name: str, sight: tuple[RGB, RGB, RGB]) -> None:
    seen = {}
    for state in STATES:
        colour = linear(rgb(SHIPPED[name], state))
        red, green, blue = (sum(part * value for part, value in zip(row, colour, strict=True)) for row in sight)
        seen[state] = lab((red, green, blue))
    for one, other in combinations(STATES, 2):
        apart = sum((a - b) ** 2 for a, b in zip(seen[one], seen[other], strict=True)) ** 0.5
        assert apart >= 20, f"{one} and {other}: {apart:.0f}"


def test_the_terminals_own_colours_need_no_ground() -> None:
    theme = SHIPPED["ansi"]
    assert {getattr(theme, key) for key in (*GROUNDS, "foreground")} == {"ansi_default"}
    palette = palette_of(theme)
    for role in ("title", "head", "cursor", "match"):
        assert getattr(palette, role).reverse, role


def test_the_ascii_theme_has_signs_of_ascii() -> None:
    assert palette_of(SHIPPED["ascii"], ascii_only=SHIPPED["ascii"].ascii).glyphs is ASCII


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        (GOOD.replace("primary", "primry"), ":3: primry: unknown key", "did you mean 'primary'?"),
        (GOOD + "frob = 1\n", ":13: frob: unknown key", "known: about, dark"),
        (GOOD.replace('accent = "#ffaf5f"', 'accent = "no"'), ":5: accent: 'no' is not a colour", "#5fafd7"),
        (GOOD.replace('accent = "#ffaf5f"', 'accent = "#12345678"'), ":5: accent: '#12345678' is transparent", ""),
        (GOOD.replace('accent = "#ffaf5f"', 'accent = "ansi_red"'), ":5: accent: either all colours", ""),
        (GOOD.replace('accent = "#ffaf5f"\n', ""), ":1: required key 'accent' is missing", ""),
        (GOOD.replace("dark = true", 'dark = "yes"'), ":2: dark: expected true or false, not a text", ""),
        (GOOD.replace('"#ffaf5f"', "3"), ":5: accent: expected a text", ""),
        ("primary", ":1: not TOML", ""),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(tmp_path: Path, text: str, said: str, hint: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(FileInvalid) as raised:
        read(path)
    assert str(raised.value).startswith(f"{path}{said}")
    assert hint in raised.value.hint


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a person's own themes."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "vmtui" / "themes"
    folder.mkdir(parents=True)
    return folder


def test_wrong_files_are_reported_and_skipped(own: Path) -> None:
    (own / "good.toml").write_text(GOOD)
    (own / "bad.toml").write_text("primary = 1\n")
    (own / "vmtui-light.toml").write_text(GOOD)
    found, wrong = available()
    by_name = {theme.name: theme for theme in found}
    assert set(by_name) == {*SHIPPED, "good"}
    assert by_name["vmtui-light"].dark
    assert len(wrong) == 1
    assert f"{own / 'bad.toml'}:1: primary: expected a text" in wrong[0]


def test_the_first_frame_reads_one_file(own: Path) -> None:
    assert [theme.name for theme in quickly("vmtui-light")] == ["vmtui-light"]
    assert [theme.name for theme in quickly("", "nowhere", "../x", "ascii")] == ["ascii"]
    assert [theme.name for theme in quickly("nowhere")] == [DEFAULT]
    (own / "mine.toml").write_text("= broken")
    assert [theme.name for theme in quickly("mine")] == [DEFAULT]
    (own / f"{DEFAULT}.toml").write_text("= broken")
    assert [theme.name for theme in quickly("mine")] == [DEFAULT]


def test_a_theme_that_is_not_there_is_reported() -> None:
    assert unknown("", SHIPPED) == []
    assert unknown("ansi", SHIPPED) == []
    assert unknown("vmtui-drak", SHIPPED) == ["there is no theme 'vmtui-drak' (did you mean 'vmtui-dark'?)"]
    assert "known: ansi" in unknown("x", SHIPPED)[0]


def test_the_document_lists_them() -> None:
    text = (ROOT / "docs/config.md").read_text()
    block = re.search(r"<!-- themes -->\n\| theme.*?\n\|---\|---\|\n(.*?)<!-- end -->", text, re.DOTALL)
    assert block is not None
    assert block[1] == "".join(f"| `{name}` | {theme.about} |\n" for name, theme in SHIPPED.items())


@pytest.mark.parametrize(
    ("environment", "theme", "ascii_only", "colours"),
    [
        ({"TERM": "xterm-256color", "LANG": "en_GB.UTF-8"}, DEFAULT, False, True),
        ({"TERM": "xterm-kitty", "LANG": "C.utf8"}, DEFAULT, False, True),
        ({"TERM": "xterm", "COLORTERM": "truecolor", "LANG": "C.UTF-8"}, DEFAULT, False, True),
        ({"TERM": "xterm", "LANG": "C.UTF-8"}, "ansi", False, True),
        ({"TERM": "linux", "LANG": "C.UTF-8"}, "ansi", True, True),
        ({"TERM": "screen", "LANG": "C.UTF-8"}, "ansi", False, True),
        ({"TERM": "screen-256color", "LANG": "C.UTF-8"}, DEFAULT, False, True),
        ({"TERM": "vt100", "LANG": "C.UTF-8"}, "ansi", True, False),
        ({"TERM": "vt220-8bit", "LANG": "C.UTF-8"}, "ansi", True, False),
        ({"TERM": "xterm-mono", "LANG": "C.UTF-8"}, "ansi", False, False),
        ({"TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C"}, DEFAULT, True, True),
        ({"TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": ""}, DEFAULT, False, True),
        ({"TERM": "xterm-256color", "LANG": "de_DE.ISO-8859-1"}, DEFAULT, True, True),
        ({"TERM": "xterm-256color", "LANG": "C", "LC_CTYPE": "C.UTF-8"}, DEFAULT, False, True),
        ({"TERM": "xterm-256color"}, DEFAULT, True, True),
        ({"TERM": "xterm-256color", "LANG": "C.UTF-8", "NO_COLOR": "1"}, "ansi", False, False),
        ({"TERM": "xterm-256color", "LANG": "C.UTF-8", "NO_COLOR": ""}, DEFAULT, False, True),
        ({"TERM": "xterm-256color", "LANG": "C.UTF-8", "TEXTUAL_THEME": "polar,nord"}, "polar", False, True),
        ({"TERM": "xterm", "LANG": "C.UTF-8", "TEXTUAL_COLOR_SYSTEM": "truecolor"}, DEFAULT, False, True),
        ({"TERM": "xterm-256color", "LANG": "C.UTF-8", "TEXTUAL_COLOR_SYSTEM": "standard"}, "ansi", False, True),
        ({}, "ansi", True, True),
    ],
)
def test_the_terminal_chooses(environment: dict[str, str], theme: str, ascii_only: bool, colours: bool) -> None:
    choice = choose(environment)
    assert (choice.theme, choice.ascii, choice.colours) == (theme, ascii_only, colours)
    assert set(COLOURS) <= set(themes.ThemeFile.__struct_fields__)


# The picker


@pytest.fixture
async def workspace(paths: Paths) -> AsyncIterator[Workspace]:
    opened = await workspace_of(paths)
    yield opened
    await opened.aclose()


async def test_a_theme_is_shown_while_it_is_selected_and_kept_by_enter(own: Path, workspace: Workspace) -> None:
    config = own.parent / "config.toml"
    config.write_text('# mine\ntheme = "vmtui-dark"  # the usual\n')
    async with panel_of(workspace) as (app, pilot):
        await until(pilot, lambda: set(SHIPPED) <= set(app.available_themes))
        await pilot.press("ctrl+t")
        await until(pilot, lambda: isinstance(app.screen, ThemeScreen))
        for name in SHIPPED:
            assert name in shown(app)
        assert "running" in shown(app)
        await pilot.press("j")
        await until(pilot, lambda: app.theme == "vmtui-light")
        await pilot.press("k", "k", "enter")
        await until(pilot, lambda: not isinstance(app.screen, ThemeScreen))
        assert app.theme == "sepia"
        assert config.read_text() == '# mine\ntheme = "sepia"  # the usual\n'
        assert any('theme = "sepia" is in' in notice.text for notice in app.notices)


async def test_escape_goes_back_to_the_theme_before(own: Path, workspace: Workspace) -> None:
    async with panel_of(workspace) as (app, pilot):
        await until(pilot, lambda: set(SHIPPED) <= set(app.available_themes))
        await pilot.press("ctrl+t")
        await until(pilot, lambda: isinstance(app.screen, ThemeScreen))
        await pilot.press("g")
        await until(pilot, lambda: app.theme == "ansi")
        await pilot.press("escape")
        await until(pilot, lambda: app.theme == "vmtui-dark")
        assert not (own.parent / "config.toml").exists()


async def test_where_it_cannot_be_written_the_line_is_said(own: Path, workspace: Workspace) -> None:
    (own.parent / "config.toml").write_text("= broken\n")
    async with panel_of(workspace) as (app, pilot):
        await until(pilot, lambda: set(SHIPPED) <= set(app.available_themes))
        await pilot.press("ctrl+t")
        await until(pilot, lambda: isinstance(app.screen, ThemeScreen))
        await pilot.press("j", "enter")
        await until(pilot, lambda: any('put there: theme = "vmtui-light"' in notice.text for notice in app.notices))
        assert app.theme == "vmtui-light"


@pytest.mark.parametrize("name", SHIPPED)
async def test_the_panel_runs_in_every_theme(own: Path, workspace: Workspace, name: str) -> None:
    async with panel_of(workspace, settings=Settings(theme=name)) as (app, pilot):
        await until(pilot, lambda: "guest" in shown(app))
        assert app.theme == name
        if name == "ascii":
            assert shown(app).isascii()


async def test_without_colours_nothing_is_coloured(
    own: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with panel_of(workspace, settings=Settings()) as (app, pilot):
        await until(pilot, lambda: "guest" in shown(app))
        assert app.theme == "ansi"
        assert [type(filter_).__name__ for filter_ in app._filters] == ["ANSIToTruecolor", "NoColor"]
        assert app.palette.cursor.reverse
