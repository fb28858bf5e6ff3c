"""The panel over the demo, as its user has it: the real program in a terminal, driven by keys and read as text."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.pty import Pty
from tests.support.tmux import Tmux
from vmtui.engine.moving import CHANGE
from vmtui.host.paths import Paths

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not in PATH"),
]

ROOT = Path(__file__).resolve().parents[2]
HOME = r"STATE +KIND"


def run(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, check=True, text=True).stdout


class Demo:
    """Starts `vmtui --demo`, with all that it keeps in directories of its own."""

    def __init__(self, paths: Paths, config: Path) -> None:
        self.paths = paths
        self.environment = {**paths.environment(), "XDG_CONFIG_HOME": str(config), "PYTHONPATH": str(ROOT), CHANGE: "0"}

    def start(self, *words: str, columns: int = 120, rows: int = 36) -> Tmux:
        argv = [sys.executable, "-m", "vmtui", *(words or ("--demo",))]
        return Tmux(run, argv, self.environment, columns=columns, rows=rows)

    def left(self) -> list[str]:
        """What demos have left behind."""
        folder = self.paths.runtime / "demo"
        return [path.name for path in folder.iterdir()] if folder.exists() else []


@pytest.fixture
def demo(paths: Paths, tmp_path: Path) -> Iterator[Demo]:
    made = Demo(paths, tmp_path / "config")
    yield made
    deadline = time.monotonic() + 60
    while made.left() and time.monotonic() < deadline:  # of a test that failed
        time.sleep(0.05)
    assert made.left() == []
    assert not (paths.state / "state.db").exists(), "the demo has touched the person's own workspace"


def only(tmux: Tmux, name: str, found: int = 1) -> None:
    """Back home, with the filter on one name and the cursor on it."""
    tmux.keys("1", "Escape", "Escape")
    tmux.wait(HOME)
    tmux.keys("/")
    tmux.type(f"name:{name}")
    tmux.keys("Enter")
    tmux.wait(rf"Resources +{found} of 40")
    tmux.keys("G")


def leave(tmux: Tmux) -> None:
    tmux.keys("q")
    tmux.wait(r"ended 0")


def test_it_starts_with_forty_of_all_kinds_and_states(demo: Demo) -> None:
    with demo.start() as tmux:
        tmux.wait(r"Resources +40\b")
        words = ["nothing is real", *(f"▾ {profile}  " for profile in ("ci", "edge", "home"))]
        words += ["● running", "◆ available", "✗ exited 1", "✓ exited 0", "‖ paused", "○ stopped"]
        tmux.until(lambda screen: all(word in screen for word in words), f"{words}")
        tmux.keys("G")
        tmux.wait(r"▾ shop  ")
        leave(tmux)


def test_a_filter_narrows_and_escape_widens_again(demo: Demo) -> None:
    with demo.start() as tmux:
        tmux.wait(r"Resources +40\b")
        tmux.keys("/")
        tmux.type("kind:vm profile:home")
        tmux.wait(r"2 of 40")
        tmux.keys("Enter")
        tmux.until(lambda screen: "nas" in screen and "container" not in screen, "nas, and no container")
        tmux.keys("Escape")
        tmux.wait(r"Resources +40\b")
        tmux.keys("/")
        tmux.type("label:tier=data")
        tmux.keys("Enter")
        tmux.wait(r"3 of 40")
        tmux.keys("Escape")
        tmux.wait(r"Resources +40\b")
        tmux.keys("v")
        tmux.wait(r"▾ container ")
        tmux.keys("v")
        tmux.wait_not(r"^▾ ")
        leave(tmux)


def test_logs_and_consoles(demo: Demo) -> None:
    with demo.start() as tmux:
        tmux.wait(r"Resources +40\b")
        only(tmux, "proxy")
        tmux.keys("l")
        tmux.wait(r"▸ Logs")
        tmux.wait(r"GET /")
        only(tmux, "router")
        tmux.keys("c")
        tmux.wait(r"edge/vm/router")
        tmux.wait(r"router:/#")
        tmux.type("echo it $HOSTNAME answers; hostname\r")
        tmux.wait(r"^router$")
        tmux.keys("q", "1")  # they are the guest's
        tmux.wait(r"router:/# q1")
        tmux.keys("C-]")
        tmux.wait(HOME)
        tmux.keys("3")
        tmux.wait(r"router:/# q1")
        tmux.keys("C-]")
        only(tmux, "dns")
        tmux.keys("s")
        tmux.wait(r"edge/container/dns")
        tmux.type("id\r")
        tmux.wait(r"uid=0")
        tmux.keys("C-]")
        tmux.wait(HOME)
        leave(tmux)


def test_stop_asks_and_is_taken_back(demo: Demo) -> None:
    with demo.start() as tmux:
        tmux.wait(r"Resources +40\b")
        only(tmux, "registry")
        tmux.wait(r"● running +container +registry")
        tmux.keys("x")
        tmux.wait(r"stop ci/container/registry\?")
        tmux.keys("Enter")  # the focus is on Cancel
        tmux.wait_not(r"stop ci/container/registry\?")
        tmux.wait(r"● running +container +registry")
        tmux.keys("x")
        tmux.wait(r"stop ci/container/registry\?")
        tmux.keys("y")
        tmux.wait(r"○ stopped +container +registry")
        tmux.wait(r"u Undo")  # a moment later, when the stop is over
        tmux.keys("u")
        tmux.wait(r"● running +container +registry")
        tmux.keys("p")
        tmux.wait(r"‖ paused +container +registry")
        tmux.keys("p")
        tmux.wait(r"● running +container +registry")
        tmux.keys("7", "7")
        tmux.wait(r"▸ Events")
        for verb in ("stop", "start", "pause", "resume"):
            tmux.wait(rf"done +{verb} +ci/container/registry")
        leave(tmux)


def test_data_goes_only_with_its_name(demo: Demo) -> None:
    with demo.start() as tmux:
        tmux.wait(r"Resources +40\b")
        only(tmux, "uploads")
        tmux.keys("C-d")
        tmux.wait(r"200")
        tmux.type("upload\r")
        tmux.type("s\r")
        tmux.wait(r"0 of 39")
        leave(tmux)


def test_it_moves(demo: Demo) -> None:
    del demo.environment[CHANGE]
    with demo.start() as tmux:
        tmux.wait(r"Resources +40\b")
        tmux.keys("7", "7")
        tmux.wait(r"the simulation")
        leave(tmux)


def test_what_changes_is_painted_without_a_key(demo: Demo) -> None:
    """Only the lines that changed are sent to the terminal: these must be."""
    with demo.start() as tmux:
        before = re.findall(r"\d+% ", tmux.wait(r"\d+% "))
        tmux.until(lambda screen: re.findall(r"\d+% ", screen) not in ([], before), "other loads")
        leave(tmux)


def test_all_seven_screens_at_every_size(demo: Demo) -> None:
    with demo.start() as tmux:
        tmux.wait(r"Resources +40\b")
        for columns, rows in ((120, 36), (80, 24), (40, 10)):
            tmux.resize(columns, rows)
            only_any(tmux)
            tmux.keys("2")
            tmux.wait(r"▸ Logs")
            tmux.keys("1")
            tmux.wait(r"▸ Resources")
            tmux.keys("3")
            tmux.wait(r":/#")
            tmux.keys("C-]")
            tmux.wait(r"▸ Resources")
            tmux.keys("4")
            tmux.wait(r"▸ Profile")
            tmux.keys("1", "5")
            tmux.wait(r"▸ Edit")
            tmux.keys("Escape")
            tmux.wait(r"▸ Resources")
            tmux.keys("6")
            tmux.wait(r"▸ Map")
            for title in ("Doctor", "Events", "Actions"):
                tmux.keys("7")
                tmux.wait(rf"▸ {title}")
            tmux.keys("?")
            tmux.wait(r"on this screen")
            tmux.keys("Escape")
            tmux.wait_not(r"on this screen")
            tmux.keys("1")
            tmux.wait(r"▸ Resources")
        leave(tmux)


def only_any(tmux: Tmux) -> None:
    tmux.keys("1", "Escape", "/")
    tmux.type("name:router")
    tmux.keys("Enter", "G")
    tmux.wait(r"router")


def test_its_profiles_are_as_they_say(demo: Demo) -> None:
    with demo.start() as tmux:
        tmux.wait(r"Resources +40\b")
        tmux.keys(":")
        (path,) = (demo.paths.runtime / "demo").glob("*/profiles/home.toml")
        tmux.type(f"profile {path}\r")
        tmux.wait(r"▸ Profile")
        tmux.wait(r"vm/desktop .*resume")
        tmux.keys("a")
        tmux.wait(r"Cancel")
        tmux.keys("y")
        tmux.wait(r"all ready")
        tmux.keys("1")
        tmux.wait(r"● running +vm +desktop")
        leave(tmux)


def test_read_only_shows_and_does_nothing(demo: Demo) -> None:
    with demo.start("--demo", "--read-only") as tmux:
        tmux.wait(r"Resources +40\b")
        only(tmux, "registry")
        assert "Stop" not in tmux.screen()
        tmux.keys("x")
        tmux.wait(r"read-only")
        tmux.wait(r"● running +container +registry")
        leave(tmux)


def test_ten_thousand(demo: Demo) -> None:
    with demo.start("--demo", "10000") as tmux:
        tmux.wait(r"Resources +10,?000\b")
        tmux.keys("G")
        tmux.wait(r"search-9 ")
        tmux.keys("/")
        tmux.type("name:db profile:shop-7")
        tmux.keys("Enter")
        tmux.wait(r"1 of 10,?000")
        tmux.keys("G", "x")
        tmux.wait(r"stop shop-7/vm/db\?")
        tmux.keys("y")
        tmux.wait(r"○ stopped +vm +db")
        leave(tmux)


def test_the_demo_goes_when_its_terminal_goes(demo: Demo) -> None:
    argv = [sys.executable, "-m", "vmtui", "--demo"]
    with Pty(argv, environment=demo.environment) as terminal:
        terminal.shows("container")
        assert len(demo.left()) == 1
        terminal.hang_up()
        terminal.process.wait(60)
