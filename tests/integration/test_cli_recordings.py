"""`vmtui recordings` and `vmtui audit` as a program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.casts import write
from tests.support.cli import Cli
from tests.support.visitors import Visitor
from vmtui.core.policy import Allow, Role
from vmtui.engine import audit, recordings
from vmtui.engine.audit import Entry

NAME = "20261130-101500-anna-7f3a.cast"
OTHER = "20261130-111500-bert-91bc.cast"
HOSTILE = "\x1b]0;title\x07\x1b]52;c;cm0gLXJm\x07\x1b[6n\x1b[?1000h"
KEEPER = Role(name="keeper", allow=(Allow(verbs=("view", "audit", "recordings")),))


@pytest.fixture
def folder(cli: Cli) -> Path:
    made = recordings.folder(cli.paths)
    made.mkdir(parents=True)
    return made


@pytest.fixture
def log(cli: Cli) -> Path:
    cli.paths.make()
    path = cli.paths.state / audit.FILE
    writer = audit.Log(path)
    key = "SHA256:abc"
    writer.append(
        Entry(who="anna", verb="login", result="done", key=key, origin="192.0.2.7 port 40022", session="1"),
        Entry(who="anna", verb="stop", refs=("dev/vm/guest",), result="done", key=key, session="1"),
        Entry(who="bert", verb="purge", refs=("dev/disk/x",), result="denied", message="no\x1b[2J", session="2"),
    )
    writer.close()
    return path


def test_nothing_is_recorded(cli: Cli) -> None:
    assert "nothing is recorded" in cli.run("recordings", "ls").stderr
    assert cli.ok("recordings", "ls", "--json") == "[]\n"
    assert "there is no recording '7f3a'" in cli.refused(64, "recordings", "play", "7f3a")


def test_they_are_listed(cli: Cli, folder: Path) -> None:
    write(folder / NAME, (0.5, "o", "x"), (65.0, "o", "y"))
    write(folder / OTHER, person="bert", session="91bc")
    (folder / "notes.txt").write_text("x")
    done = cli.run("recordings", "ls")
    first, second = (line.split() for line in done.stdout.splitlines()[1:])
    assert (first[0], first[3], first[4], first[5:7]) == ("7f3a", "anna", "operator", ["65", "s"])
    assert second[0] == "91bc"
    assert "passed over: notes.txt" in done.stderr
    listed = json.loads(cli.ok("recordings", "ls", "--json"))
    assert [(each["session"], each["person"], each["length_s"]) for each in listed] == [
        ("7f3a", "anna", 65.0),
        ("91bc", "bert", 0.0),
    ]


def test_on_a_pipe_it_comes_at_once_and_only_draws(cli: Cli, folder: Path) -> None:
    write(folder / NAME, (0.5, "o", f"one{HOSTILE}\r\n"), (3600.0, "o", "\x1b[1mtwo\r\n"))
    assert cli.ok("recordings", "play", "7f3a") == "one\r\n\x1b[1mtwo\r\n"


def test_as_it_is(cli: Cli, folder: Path) -> None:
    path = write(folder / NAME, (0.5, "o", f"one{HOSTILE}"), (1.0, "r", "100x30"))
    assert cli.ok("recordings", "play", NAME, "--json") == path.read_text()


def test_on_a_terminal_it_plays_and_leaves_the_terminal_as_it_was(cli: Cli, folder: Path) -> None:
    write(folder / NAME, (0.0, "o", "one\r\n"), (3600.0, "o", f"two{HOSTILE}\r\n"))
    with cli.on_terminal("recordings", "play", "7f3a", "--idle", "100ms") as terminal:
        before = terminal.settings()
        terminal.expect("anna at .*80 by 24")
        terminal.expect("one")
        terminal.expect("two\r\n")
        assert terminal.end() == 0
        assert terminal.settings() == before
        assert terminal.seen.startswith("\x1b[?1049l")
        assert "\x1b]" not in terminal.seen
        assert "\x1b[6n" not in terminal.seen


@pytest.mark.parametrize("key", [b"q", b"\x03", b"\x1d"])
def test_a_key_ends_it(cli: Cli, folder: Path, key: bytes) -> None:
    write(folder / NAME, (0.0, "o", "one\r\n"), (3600.0, "o", "two\r\n"))
    with cli.on_terminal("recordings", "play", "7f3a", "--idle", "1h") as terminal:
        before = terminal.settings()
        terminal.expect("one\r\n")
        terminal.send(key)
        assert terminal.end() == 0
        assert "two" not in terminal.seen
        assert terminal.settings() == before


def test_a_smaller_terminal_is_told(cli: Cli, folder: Path) -> None:
    write(folder / NAME, (0.0, "o", "one\r\n"))
    with cli.on_terminal("recordings", "play", "7f3a", rows=10, columns=60) as terminal:
        terminal.expect("this terminal has 60 by 10")
        assert terminal.end() == 0


@pytest.mark.parametrize("given", [("--speed", "0"), ("--speed", "x"), ("--idle", "x"), ("--speed", "1e9")])
def test_wrong_use(cli: Cli, given: tuple[str, str]) -> None:
    cli.refused(64, "recordings", "play", "7f3a", *given)


def test_what_is_no_recording_is_not_played(cli: Cli, folder: Path) -> None:
    (folder / NAME).write_bytes(b"[0.1]\n")
    assert NAME in cli.refused(71, "recordings", "play", "7f3a")
    (folder / OTHER).symlink_to("/etc/passwd")
    assert "symbolic link" in cli.refused(71, "recordings", "play", "91bc")
    cli.refused(64, "recordings", "play", "../../../../etc/passwd")


def test_they_are_removed_once_that_is_confirmed(cli: Cli, folder: Path) -> None:
    for name in (NAME, OTHER):
        write(folder / name)
    assert "--yes" in cli.refused(64, "recordings", "rm", "7f3a")
    assert json.loads(cli.ok("recordings", "rm", "7f3a", "--yes", "--json")) == [NAME]
    assert [path.name for path in folder.iterdir()] == [OTHER]
    with cli.on_terminal("recordings", "rm", "91bc") as terminal:
        terminal.expect("Go on")
        terminal.send(b"y\r")
        assert terminal.end() == 0
    assert list(folder.iterdir()) == []


def test_who_may_look_at_them_may_not_remove_them(cli: Cli, folder: Path) -> None:
    cli.ok("ls")  # the workspace is there, as the server sees to
    write(folder / NAME, (0.5, "o", "one"))
    keeper = Visitor(cli, KEEPER)
    assert "7f3a" in keeper.ok("recordings", "ls")
    assert keeper.ok("recordings", "play", "7f3a") == "one"
    assert "may not" in keeper.refused(77, "recordings", "rm", "7f3a", "--yes")
    assert (folder / NAME).exists()
    assert keeper.notes() == [("recordings", "done"), ("host", "denied")]
    for role in ("viewer", "operator"):
        Visitor(cli, role, name=role).refused(77, "recordings", "play", "7f3a")
        Visitor(cli, role, name=role).refused(77, "recordings", "ls")


def test_the_audit_log_is_listed(cli: Cli, log: Path) -> None:
    lines = cli.ok("audit", "ls").splitlines()
    assert len(lines) == 3
    assert "  anna  login  done  (192.0.2.7 port 40022, SHA256:abc, 1)" in lines[0]
    assert "  anna  stop dev/vm/guest  done" in lines[1]
    assert "  bert  purge dev/disk/x  denied: no  (2)" in lines[2]
    assert len(cli.ok("audit", "ls", "-n", "1").splitlines()) == 1
    assert [json.loads(line)["verb"] for line in cli.ok("audit", "ls", "--who", "anna", "--json").splitlines()] == [
        "login",
        "stop",
    ]


def test_it_is_verified(cli: Cli, log: Path) -> None:
    head = cli.ok("audit", "verify").strip()
    assert head.startswith("3:")
    told = json.loads(cli.ok("audit", "verify", "--json"))
    assert told == {"records": 3, "head": head, "torn_bytes": 0}
    with_more = audit.Log(log)
    with_more.append(Entry(who="anna", verb="logout", result="done"))
    with_more.close()
    cli.ok("audit", "verify", "--head", head)
    cli.refused(71, "audit", "verify", "--head", "3:" + "0" * 64)


def test_a_change_of_it_is_found(cli: Cli, log: Path) -> None:
    log.write_bytes(log.read_bytes().replace(b"dev/vm/guest", b"dev/vm/other"))
    said = cli.refused(71, "audit", "verify")
    assert f"{log}:2: " in said
    done = cli.run("audit", "ls")
    assert done.returncode == 71
    assert len(done.stdout.splitlines()) == 1  # as far as it holds


def test_no_log_is_told(cli: Cli) -> None:
    assert "there is no" in cli.refused(64, "audit", "verify")
    assert "nothing is in the audit log" in cli.run("audit", "ls").stderr


def test_the_log_is_for_those_who_may_read_it(cli: Cli, log: Path) -> None:
    cli.ok("ls")  # the workspace is there, as the server sees to
    assert len(Visitor(cli, KEEPER).ok("audit", "ls").splitlines()) == 3
    for role in ("viewer", "operator"):
        Visitor(cli, role).refused(77, "audit", "ls")
        Visitor(cli, role).refused(77, "audit", "verify")
