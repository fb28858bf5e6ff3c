"""`vmtui` on a terminal: consoles, questions, colours, and what must never reach it."""

from __future__ import annotations

import signal
import termios

import pytest

from tests.support.cli import Cli

PROFILE = """
[container.web]
backend = "fake"
image = "docker://web"
fake = { log = ["evil \\u001b]0;title\\u0007\\u001b[2J\\u009b31mred\\u202e\\rover"] }
[disk.data]
backend = "fake"
size = "1GiB"
"""
LFLAG = 3  # in what tcgetattr returns


@pytest.fixture
def up(cli: Cli) -> Cli:
    cli.ok("--profile", cli.profile(PROFILE))
    return cli


def test_console_detaches_and_restores_the_terminal(up: Cli) -> None:
    with up.on_terminal("console", "web") as terminal:
        before = terminal.settings()
        terminal.expect(r"ctrl\+\] leaves it")
        terminal.expect(r":/# ")
        assert not terminal.settings()[LFLAG] & (termios.ICANON | termios.ECHO | termios.ISIG)
        terminal.send(b"echo on${x}ce\r")
        terminal.expect(r"\nonce\r\n")
        terminal.send(b"\x03\x1d")
        assert terminal.end() == 0
        assert "detached" in terminal.seen
        assert terminal.settings() == before


def test_console_follows_the_size_of_the_terminal(up: Cli) -> None:
    with up.on_terminal("console", "web", rows=20, columns=70) as terminal:
        terminal.expect(r":/# ")
        terminal.send(b"stty\r")
        terminal.expect(r"20 70\r\n")
        terminal.resize(33, 111)
        for _ in range(50):  # the kernel's signal and what is typed come on two ways
            terminal.send(b"stty\r")
            if terminal.expect(r"(\d+ \d+)\r\n")[1] == "33 111":
                break
        else:
            pytest.fail("the new size did not come")
        terminal.send(b"exit\r")
        assert terminal.end() == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_a_signal_restores_the_terminal(up: Cli, number: int, code: int) -> None:
    with up.on_terminal("console", "web") as terminal:
        before = terminal.settings()
        terminal.expect(r":/# ")
        terminal.signal(number)
        assert terminal.end() == code
        assert terminal.settings() == before


def test_exec_gets_a_terminal(up: Cli) -> None:
    with up.on_terminal("exec", "-it", "web", "--", "sh", rows=21, columns=71) as terminal:
        before = terminal.settings()
        terminal.expect(r":/# ")
        terminal.send(b"tty; stty\r")
        terminal.expect(r"/dev/pts/0\r\n21 71\r\n")
        terminal.send(b"exit 7\r")
        assert terminal.end() == 7
        assert terminal.settings() == before


def test_a_question_before_data_is_lost(up: Cli) -> None:
    for answer, code in ((b"n\n", 64), (b"\n", 64), (b"y\n", 0)):
        with up.on_terminal("down", "dev", "--purge") as terminal:
            terminal.expect(r"this destroys the data of disk/data\r\nGo on\? \[y/N\] ")
            terminal.send(answer)
            assert terminal.end() == code
    assert up.ok("ls") == ""


def test_an_interrupt_at_the_question_changes_nothing(up: Cli) -> None:
    with up.on_terminal("rm", "disk/data", "--purge") as terminal:
        terminal.expect(r"\[y/N\] ")
        terminal.send(b"\x03")
        assert terminal.end() == 130
    assert "dev/disk/data" in up.ok("ls")


def test_nothing_asks_where_nothing_is_lost(up: Cli) -> None:
    with up.on_terminal("down", "dev") as terminal:
        assert terminal.end() == 0
        assert "[y/N]" not in terminal.seen


def test_hostile_text_reaches_a_terminal_as_plain_text(up: Cli) -> None:
    with up.on_terminal("logs", "web") as terminal:
        assert terminal.end() == 0
        assert terminal.seen == "evil red over\r\n"
    with up.on_terminal("exec", "web", "--", "echo", "evil \x1b]0;title\x07\x1b[2Jtext") as terminal:
        assert terminal.end() == 0
        assert terminal.seen == "evil text\r\n"


def test_colours_follow_the_terminal_and_no_color(up: Cli) -> None:
    with up.on_terminal("ls") as terminal:
        terminal.end()
        assert "\x1b[32mrunning\x1b[0m" in terminal.seen
    up.environment["NO_COLOR"] = "1"
    with up.on_terminal("ls") as terminal:
        terminal.end()
        assert "\x1b" not in terminal.seen


def test_progress_is_one_line_in_place(cli: Cli) -> None:
    path = cli.profile('[vm.slow]\nbackend = "fake"\nready.log = "up"\nfake = { create_time = "400ms", log = ["up"] }')
    with cli.on_terminal("--profile", path, columns=60) as terminal:
        terminal.expect(r"\r\x1b\[K\[1/2\] create vm/slow")
        assert terminal.end() == 0
        assert "\x1b[32mdone     \x1b[0m create vm/slow" in terminal.seen
        for line in terminal.seen.replace("\x1b[K", "").splitlines():
            assert len(line) < 120


def test_tables_fit_the_terminal(up: Cli) -> None:
    up.environment["NO_COLOR"] = "1"
    with up.on_terminal("ls", columns=30) as terminal:
        terminal.end()
        assert all(len(line) <= 30 for line in terminal.seen.splitlines())
        assert "…" in terminal.seen
