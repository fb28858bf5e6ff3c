"""Texts of strangers in every field, and the whole panel walked through on a terminal: none of them does anything."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import hostile
from tests.support.terminal import Watched, plain
from vmtui.host.paths import Paths

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).resolve().parents[2]
ENTER, ESCAPE, TAB, DOWN, DETACH = b"\r", b"\x1b", b"\t", b"\x1b[B", b"\x1d"
CTRL = {letter: bytes([ord(letter) & 31]) for letter in "cdkstw"}
FOLDED = f"▸ {hostile.PROFILE} "
MARKED = tuple(text.encode() for text in hostile.TEXTS.values() if "\x1b" in text or "\x9b" in text or "\x9d" in text)
IN_REGEX = b"[/ [@click=app.quit]x \xc2\x9b2J \xe2\x80\xae"


@pytest.fixture(params=[(30, 100)], ids=["100x30"])
def panel(paths: Paths, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Watched]:
    folder = tmp_path / "w\x1b]0;owned\x07[@click=app.quit]x["
    folder.mkdir()
    hostile.make(paths, folder)
    hostile.configure(tmp_path / "config" / "vmtui")
    rows, columns = request.param
    environment = {
        **paths.environment(),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "PYTHONPATH": str(ROOT),
        "PATH": "/nonexistent",  # doctor finds no tool to try
    }
    argv = [sys.executable, "-m", "vmtui"]
    with Watched(argv, rows=rows, columns=columns, environment=environment, folder=folder) as terminal:
        yield terminal


def see(panel: Watched, *keys: bytes, shows: str) -> None:
    """Press keys, and wait for what comes of them."""
    panel.press(*keys)
    panel.sees(shows)
    panel.read_for(0.2)
    unhurt(panel)


def comes(panel: Watched, *texts: str) -> bool:
    """Whether one of them is shown within some seconds."""
    with contextlib.suppress(TimeoutError):
        panel.until(lambda _: any(text in panel.screen() for text in texts), since=len(panel.raw), timeout_s=20.0)
        return True
    return False


def stand_on(panel: Watched, name: str) -> None:
    """Back home, on one resource. Tried again where ESC and the key after it came to the panel as one."""
    for _ in range(10):
        panel.press(b"1", ESCAPE, ESCAPE, b"/", f"name:{name}".encode(), ENTER, b"G")
        if comes(panel, f"1 of 7  /name:{name}"):
            break
    for _ in range(60):
        panel.press(b"G")
        if "Fold" not in panel.screen():  # no heading
            return
        if FOLDED in panel.screen():  # a click has hit it
            panel.press(ENTER)
    raise AssertionError(f"{name} cannot be stood on\n{panel.screen()}")


def unhurt(panel: Watched, *, console: bool = False) -> None:
    assert panel.stream.wrong == []
    if console:  # a guest may ring, as in any terminal
        panel.stream.bells = 0
    assert panel.stream.bells == 0
    assert panel.process.poll() is None
    for text in MARKED:
        assert text not in panel.raw


def click_everywhere(panel: Watched, *, console: bool = False) -> None:
    """Not on the last line: its keys are real ones."""
    for row in range(1, panel.rows - 1, 2):
        for column in (8, panel.columns // 2, panel.columns - 12):
            panel.click(column, row)
    unhurt(panel, console=console)


def test_no_text_of_a_stranger_does_anything(panel: Watched) -> None:
    panel.sees("4 up, 7 with problems")
    panel.read_for(1.0)
    unhurt(panel)
    home(panel)
    dialogs(panel)
    logs(panel)
    consoles(panel)
    forms(panel)
    profiles(panel)
    others(panel)
    for rows, columns in ((10, 40), (5, 20), (60, 200)):
        panel.resize(rows, columns)
        panel.press(b"1", b"j", b"6", b"4", b"7", b"1", for_s=0.4)
        unhurt(panel)
    assert "demo: nothing is real" not in plain(bytes(panel.raw)), "an action ran"
    panel.send(b"q")
    assert panel.end() == 0
    assert panel.stream.wrong == []


def home(panel: Watched) -> None:
    panel.press(b"g", b"d")
    for _ in range(4):
        panel.press(b"j", b"J", b"J", b"G", b"k", b"j", for_s=0.1)
    click_everywhere(panel)
    panel.press(b"d", b"v", b"v", b"v", b"o", b"o", b"O", b"o", b"*", b"*", for_s=0.2)
    for text in (b"label:x", b"[/", b"!" + IN_REGEX, b"-f " + IN_REGEX, b"state:problem"):
        panel.press(b"/", text, ENTER, ESCAPE, ESCAPE)
    panel.press(b"g", b"j", b"v", b"v", b"v")
    unhurt(panel)


def dialogs(panel: Watched) -> None:
    see(panel, b"?", shows="Help")
    panel.press(DOWN, DOWN, ESCAPE)
    see(panel, CTRL["t"], shows="heme")
    panel.press(DOWN, DOWN, ESCAPE, for_s=0.4)
    panel.press(b":", IN_REGEX, TAB, ENTER, ESCAPE, for_s=0.4)
    see(panel, b":", b"messages", ENTER, shows="there is no theme")
    panel.press(DOWN, b"j", b"G")
    click_everywhere(panel)
    stand_on(panel, "guest")
    see(panel, b"y", shows="SPEC")
    panel.press(DOWN, b"G", ESCAPE)
    see(panel, b"x", shows="stop evil/vm/guest")
    see(panel, b"y", shows="[@click=app.quit]x[/]")  # it fails, and says why in a stranger's words
    click_everywhere(panel)
    panel.press(ESCAPE, ESCAPE)
    see(panel, CTRL["d"], shows="evil/vm/guest")
    panel.press(IN_REGEX, ESCAPE, ESCAPE)
    panel.press(b"W", IN_REGEX, ENTER, ESCAPE, ESCAPE, for_s=0.4)
    unhurt(panel)


def logs(panel: Watched) -> None:
    stand_on(panel, "guest")
    see(panel, b"l", shows="▸ Logs")
    panel.sees("warning: vm")
    panel.press(b"g", b"w", b"t", b"G", b"k", b"k", b"w", b"j", b"/", b"error", ENTER, b"n", b"N", for_s=0.2)
    panel.press(b"/", IN_REGEX, ENTER, ESCAPE, for_s=0.3)
    click_everywhere(panel)
    panel.press(b"1", ESCAPE, ESCAPE, b"*")
    see(panel, b"l", shows="▸ Logs")
    panel.press(b"g", b"w", b"G", b"k", for_s=0.4)
    panel.press(b"1", b"*")
    unhurt(panel)


def consoles(panel: Watched) -> None:
    stand_on(panel, "guest")
    panel.press(b"c")
    panel.sees("evil/vm/guest")
    panel.press(b"echo hello\r", *(text.encode("utf-8") for text in hostile.TEXTS.values()), b"\r", for_s=0.2)
    click_everywhere(panel, console=True)
    leave(panel)
    stand_on(panel, "web")
    panel.press(b"s")
    panel.sees("evil/container/web")
    panel.press(b"env\r", for_s=0.5)
    unhurt(panel, console=True)
    leave(panel)
    unhurt(panel)


def leave(panel: Watched) -> None:
    """The console. What a stranger's text began in the input, the key may have ended."""
    for _ in range(10):
        panel.click(panel.columns // 2, panel.rows // 2)  # it has the focus then
        panel.press(DETACH)
        if comes(panel, "STATE"):
            break
    see(panel, shows="STATE")


def forms(panel: Watched) -> None:
    asked = 0
    for name in ("guest", "lab"):
        stand_on(panel, name)
        see(panel, b"e", shows=f"/{name}  ")
        for _ in range(4):
            panel.press(TAB, TAB, b"x", IN_REGEX, for_s=0.15)
        unhurt(panel)
        asked += leave_form(panel)
    assert asked


def leave_form(panel: Watched) -> bool:
    """Whether it asked, since it would lose what was typed."""
    asked = False
    for _ in range(10):
        panel.press(ESCAPE)
        if comes(panel, "leave without saving?", "STATE"):
            break
    if "leave without saving?" in panel.screen():
        asked = True
        panel.press(b"y")
    see(panel, shows="STATE")
    return asked


def profiles(panel: Watched) -> None:
    see(panel, b"4", shows="▸ Profile")
    panel.press(b"j", b"k", for_s=0.3)
    see(panel, b":", f"profile {'evil.toml'}".encode(), ENTER, shows="recreate")
    for _ in range(6):
        panel.press(b"j", ENTER, for_s=0.15)
    click_everywhere(panel)
    panel.press(b"a", for_s=0.6)
    panel.press(ESCAPE, b"c", b"1", for_s=0.4)
    unhurt(panel)


def others(panel: Watched) -> None:
    see(panel, b"6", shows="▸ Map")
    panel.press(b"j", b"j", DOWN, b"l", b"j", ENTER, for_s=0.3)
    see(panel, b"7", shows="▸ Doctor")
    panel.sees("5 of ")
    panel.press(b"j", DOWN, b"j", b"G", ENTER, ESCAPE, for_s=0.4)
    panel.press(b"1")
    see(panel, b"7", b"7", shows="▸ Events")
    panel.press(b"j", b"j", ENTER, DOWN, ESCAPE, for_s=0.3)
    panel.press(b"1")
    see(panel, b"7", b"7", b"7", shows="▸ Actions")
    panel.press(b"j", ENTER, DOWN, ESCAPE, b"1", for_s=0.3)
    unhurt(panel)
