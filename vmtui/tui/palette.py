"""Styles and signs by their role, made from a theme. A state always has a sign and a word, never a colour alone."""

from __future__ import annotations

import msgspec
from rich.color import Color as RichColor
from rich.style import Style
from textual.color import Color
from textual.theme import Theme

from vmtui.core.lifecycle import Phase


class Glyphs(msgspec.Struct, frozen=True):
    """What is drawn beside letters. `spark` are levels from low to high; `box` the parts of a frame."""

    phases: dict[Phase, str]
    failed: str
    mark: str
    spark: str
    bar: tuple[str, str]
    right: str
    down: str
    up: str
    dot: str
    more: str
    vertical: str
    horizontal: str
    tee: str
    corner: str
    top_left: str
    top_right: str
    bottom_left: str
    bottom_right: str


UNICODE = Glyphs(
    phases={
        Phase.RUNNING: "●",
        Phase.AVAILABLE: "◆",
        Phase.PAUSED: "‖",
        Phase.STOPPED: "○",
        Phase.EXITED: "✓",
        Phase.BROKEN: "✗",
        Phase.ABSENT: "·",
    },
    failed="✗", mark="▎", spark="▁▂▃▄▅▆▇█", bar=("█", "░"), right="▸", down="▾", up="▴", dot="·", more="…",
    vertical="│", horizontal="─", tee="├", corner="└",
    top_left="╭", top_right="╮", bottom_left="╰", bottom_right="╯",
)  # fmt: skip
ASCII = Glyphs(
    phases={
        Phase.RUNNING: "*",
        Phase.AVAILABLE: "+",
        Phase.PAUSED: "=",
        Phase.STOPPED: "o",
        Phase.EXITED: "v",
        Phase.BROKEN: "X",
        Phase.ABSENT: ".",
    },
    failed="X", mark=">", spark="_.,-~=+#", bar=("#", "."), right=">", down="v", up="^", dot=".", more="~",
    vertical="|", horizontal="-", tee="|", corner="`",
    top_left="+", top_right="+", bottom_left="+", bottom_right="+",
)  # fmt: skip
GOOD = frozenset({Phase.RUNNING, Phase.AVAILABLE})


class Palette(msgspec.Struct, frozen=True):
    """Rich styles for line-drawn widgets. None of them sets a background but `cursor`, `title`, `match` and `head`."""

    text: Style
    dim: Style
    good: Style
    warn: Style
    bad: Style
    accent: Style
    secondary: Style
    title: Style
    head: Style
    cursor: Style
    cursor_idle: Style
    match: Style
    key: Style
    glyphs: Glyphs

    def of_phase(self, phase: Phase, exit_code: int = 0) -> Style:
        """The colour that goes with a phase's sign and word."""
        if phase is Phase.BROKEN or (phase is Phase.EXITED and exit_code):
            return self.bad
        if phase in GOOD:
            return self.good
        return self.warn if phase is Phase.PAUSED else self.dim

    def sign(self, phase: Phase, exit_code: int = 0) -> str:
        return self.glyphs.failed if phase is Phase.EXITED and exit_code else self.glyphs.phases[phase]


def palette_of(theme: Theme, *, ascii_only: bool = False, colours: bool = True) -> Palette:
    """The palette of a theme whose colours have been checked (themes.read), or of a built-in one.

    Without `colours`, and with the terminal's own, whose contrast is not known, grounds are made by reversing.
    """
    base = theme.primary
    foreground = theme.foreground or ("#e0e0e0" if theme.dark else "#202020")
    background = theme.background or ("#121212" if theme.dark else "#fafafa")

    def style(colour: str | None, bold: bool | None = None) -> Style:
        return Style(color=Color.parse(colour or base).rich_color, bold=bold)

    def on(back: str | None, front: str, bold: bool | None = None) -> Style:
        if theme.ansi or not colours:
            return Style(color=Color.parse(back or base).rich_color, bold=bold, reverse=True)
        return Style(color=Color.parse(front).rich_color, bgcolor=Color.parse(back or base).rich_color, bold=bold)

    return Palette(
        text=style(foreground),
        dim=Style(color=_between(foreground, background)),
        good=style(theme.success),
        warn=style(theme.warning),
        bad=style(theme.error, bold=True),
        accent=style(theme.accent),
        secondary=style(theme.secondary),
        title=on(theme.primary, background, bold=True),
        head=on(theme.panel or background, foreground, bold=True),
        cursor=on(_tinted(background, theme.primary), foreground, bold=True),
        cursor_idle=Style(underline=True),
        match=on(theme.accent, background),
        key=style(theme.accent, bold=True),
        glyphs=ASCII if ascii_only else UNICODE,
    )


def _tinted(background: str, colour: str) -> str:
    """The background with a little of a colour, for what is selected."""
    ground, tint = Color.parse(background), Color.parse(colour)
    return colour if ground.ansi is not None or tint.ansi is not None else ground.blend(tint, 0.22).hex


def _between(foreground: str, background: str) -> RichColor:
    front, back = Color.parse(foreground), Color.parse(background)
    if front.ansi is not None or back.ansi is not None:
        return Color.parse("ansi_bright_black").rich_color
    return front.blend(back, 0.4).rich_color
