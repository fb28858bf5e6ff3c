"""`vmtui` where there is no screen, or none is wanted: the list, line by line, and which front end a terminal gets."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from tests.support.cli import Cli

PROFILE = """
[disk.data]
backend = "fake"
size = "1GiB"
[vm.guest]
backend = "fake"
[vm.guest.fake]
log = ["one", "two \\u001b]0;title\\u0007\\u001b[31mred\\u202e", "three"]
[container.web]
backend = "fake"
image = "docker://web"
labels = { tier = "front" }
"""


@pytest.fixture
def up(cli: Cli) -> Cli:
    cli.ok("--profile", cli.profile(PROFILE))
    return cli


def told(cli: Cli, *lines: str, options: tuple[str, ...] = ()) -> list[str]:
    """What line by line answers, without the greeting."""
    text = "".join(f"{line}\n" for line in lines).encode()
    return cli.ok("--plain", *options, stdin=text).splitlines()[1:]


def phase(cli: Cli, ref: str) -> str:
    shown: str = json.loads(cli.ok("inspect", ref, "--json"))["status"]["phase"]
    return shown


# Line by line


def test_it_lists_filters_and_shows(up: Cli) -> None:
    lines = told(up, "ls", "ls kind:vm|x", "ls kind:vm", "ls label:tier=front", "show guest", "quit")
    assert lines[0] == "3 resources"
    assert "dev/disk/data: available, fake" in lines
    assert any(line.startswith("dev/vm/guest: running, fake, up ") for line in lines)
    assert "1 resource of 3" in lines
    assert any(line.split() == ["resource", "dev/vm/guest"] for line in lines)


def test_errors_are_lines_and_end_nothing(up: Cli) -> None:
    lines = told(
        up, "frob", "ls kidn:vm", "show nobody", "show", "start", 'show "', "resume guest", "logs data", "ls kind:vm"
    )
    assert "error: there is no command 'frob'; help tells them" in lines
    assert "error: there is no key 'kidn', at character 1 of the filter" in lines
    assert "error: there is no resource 'nobody'" in lines
    assert "error: write show REF" in lines
    assert "error: write start REF…" in lines
    assert "error: No closing quotation" in lines
    assert any(line.startswith("error: resume dev/vm/guest: it is running") for line in lines)
    assert lines[-1] == "1 resource of 3"


def test_logs_are_clean_lines(up: Cli) -> None:
    lines = told(up, "logs guest 2", "logs guest")
    assert lines[1:] == ["two red", "three", "one", "two red", "three"]


def test_it_asks_before_it_stops_and_wants_the_name_before_it_removes(up: Cli) -> None:
    lines = told(up, "stop guest", "no", "stop guest", "yes", "start guest", "rm data", "dat", "rm data")
    assert "stop dev/vm/guest? type yes to go on" in lines
    assert "dev/vm/guest: nothing was changed" in lines
    assert "dev/vm/guest: stopped, fake" in lines
    assert "this removes dev/disk/data and its data, 1.0 GiB; type its name, data, to go on" in lines
    assert lines[-1] == "dev/disk/data: nothing was changed"  # stdin ended at the question
    assert phase(up, "guest") == "running"
    assert "dev/disk/data is removed" in told(up, "rm data", "data")
    assert "dev/disk/data" not in up.ok("ls", "--plain")


def test_read_only_changes_nothing(up: Cli) -> None:
    lines = told(up, "stop guest", "yes", "rm data", "data", "logs guest 1", options=("--read-only",))
    assert lines[0] == "read-only: nothing can be changed"
    assert "error: stop is not possible: read-only" in lines
    assert "error: rm is not possible: read-only" in lines
    assert "three" in lines
    assert phase(up, "guest") == "running"


def test_help_and_history(up: Cli) -> None:
    lines = told(up, "help", "events 3")
    assert "rm REF…: remove it, a disk with its data; its name has to be typed" in lines
    assert any("start dev/vm/guest done" in line for line in lines)


def test_a_demo(cli: Cli) -> None:
    lines = told(cli, "ls kind:vm", options=("--demo", "30"))
    assert lines[0] == "30 resources"
    assert lines[-1].endswith(" of 30")
    assert cli.ok("ls", "--plain") == ""


def test_on_a_terminal_nothing_is_drawn_over(up: Cli) -> None:
    with up.on_terminal("--plain") as terminal:
        terminal.expect(r"quit ends\r\n3 resources\r\n> ")
        up.ok("stop", "vm/guest")
        terminal.expect(r"\r\nby itself: dev/vm/guest is stopped, it was running\r\n> ")
        terminal.send(b"start guest\n")
        terminal.expect(r"dev/vm/guest: running, fake, up \d[^\r]*\r\n> ")
        up.ok("--profile", up.profile(PROFILE + '[container.more]\nbackend = "fake"\nimage = "x"\n'))
        terminal.expect(r"by itself: dev/container/more is (?:there, running|running, it was \w+)\r\n> ")
        up.ok("rm", "container/more")
        terminal.expect(r"by itself: dev/container/more is gone\r\n> ")
        terminal.send(b"follow guest\n")
        terminal.expect(r"new lines follow; enter ends it\r\n")
        terminal.expect(r"three\r\n")
        terminal.send(b"\nls kind:vm\n")
        terminal.expect(r"1 resource of 3\r\n> ")
        terminal.send(b"quit\n")
        assert terminal.end() == 0
        assert "\x1b" not in terminal.seen


def test_an_interrupt_ends_it(up: Cli) -> None:
    with up.on_terminal("--plain") as terminal:
        terminal.expect(r"> ")
        terminal.send(b"\x03")
        assert terminal.end() == 130


# Which front end


@pytest.mark.parametrize("term", ["dumb", "unknown", ""])
def test_a_terminal_without_a_screen_gets_the_list(up: Cli, term: str) -> None:
    up.environment["TERM"] = term
    with up.on_terminal() as terminal:
        assert terminal.end() == 0
        assert "dev/vm/guest" in terminal.seen
        assert "\x1b[?" not in terminal.seen


def test_a_pipe_gets_the_list(up: Cli) -> None:
    assert up.ok().splitlines()[0].startswith("RESOURCE")
    assert "dev/vm/guest" in up.ok("--read-only")
    assert len(up.ok("--demo", "20").splitlines()) > 20
    assert json.loads(up.ok("--json"))


@pytest.mark.parametrize(
    ("environment", "argv"),
    [
        ({"TERM": "xterm-256color"}, ()),
        ({"TERM": "linux"}, ()),
        ({"TERM": "vt100"}, ("--read-only",)),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, ()),
        ({"TERM": "xterm-256color", "LC_ALL": "C"}, ()),
        ({"TERM": "xterm-256color"}, ("--demo", "25")),
    ],
    ids=["256", "linux", "vt100", "no-color", "C", "demo"],
)
def test_a_terminal_gets_the_panel_that_suits_it(up: Cli, environment: dict[str, str], argv: tuple[str, ...]) -> None:
    up.environment.update(environment)
    with up.on_terminal(*argv, rows=24, columns=80) as terminal:
        terminal.expect(r"\x1b\[\?1049h")
        seen = terminal.expect(r"(?s)(.*?shop.*?Quit|.*?guest.*?\x1b)" if argv[:1] == ("--demo",) else r"(?s).*?guest")[
            0
        ]
        terminal.drain()
        seen += terminal.seen
        colours = {int(number) for codes in _sgr(seen) for number in codes.split(";")[:1] if number}
        if "NO_COLOR" in environment:
            assert not colours & {*range(30, 38), *range(40, 48), *range(90, 108), 38, 48}
            assert 7 in colours or ";7" in seen
        elif environment["TERM"] in ("linux", "vt100"):
            assert not {38, 48} & colours
        if environment.get("LC_ALL") == "C" or environment["TERM"] in ("linux", "vt100"):
            assert _text(seen).isascii(), {char for char in _text(seen) if not char.isascii()}
        terminal.send(b"q")
        assert terminal.end() == 0


def test_the_panel_takes_its_settings(up: Cli) -> None:
    folder = up.folder / "config" / "vmtui"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('mouse = false\ncolumns = ["name", "kind"]\nfrob = 1\n[keys]\nquit = "Z"\n')
    up.environment["XDG_CONFIG_HOME"] = str(folder.parent)
    with up.on_terminal(rows=24, columns=80) as terminal:
        seen = terminal.expect(r"(?s).*?guest.*?config\.toml:3:.*?frob")[0]
        assert "\x1b[?1000l" in seen
        assert "STATE" not in seen
        terminal.send(b"qZ")
        assert terminal.end() == 0


def _sgr(seen: str) -> list[str]:
    return re.findall(r"\x1b\[([\d;]*)m", seen)


def _text(seen: str) -> str:
    return re.sub(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|.)", "", seen)


def test_the_version_costs_little_more_than_python() -> None:
    code = (
        "import sys; sys.argv = ['vmtui', '--version']\nfrom vmtui.cli import main\nmain()\nprint(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=180)
    loaded = set(done.stdout.split())
    assert not loaded & {"argparse", "asyncio", "msgspec", "textual", "tomlkit", "tomllib", "json", "vmtui.headless"}


@pytest.mark.parametrize("argv", [["ls"], ["--plain"], ["schema", "config"]])
def test_without_a_screen_no_part_of_the_panel_is_loaded(up: Cli, argv: list[str]) -> None:
    code = f"import sys; sys.argv = ['vmtui', *{argv!r}]\nfrom vmtui.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\nprint('LOADED', *sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input="",
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
        env=up.environment,
    )
    loaded = set(done.stdout.partition("LOADED")[2].split())
    assert not loaded & {"textual", "rich", "bittty", "tomlkit", "wasmtime"}
