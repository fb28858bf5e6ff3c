"""What is made of what a client asks for, before anything is begun for it."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtui.core.errors import OperationFailed
from vmtui.core.policy import Person
from vmtui.engine.audit import Log
from vmtui.headless.exit_codes import Usage
from vmtui.ssh.asked import MOST_COLUMNS, MOST_ROWS, clamped, words
from vmtui.ssh.channel import passes
from vmtui.ssh.journal import NOBODY, REFUSALS_AT_ONCE, Journal, plain


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("ls --json", ("ls", "--json")),
        ("vmtui ls", ("ls",)),
        ("vmtui", ()),
        ("", ()),
        ("exec web -- sh -c 'echo $HOME; id'", ("exec", "web", "--", "sh", "-c", "echo $HOME; id")),
        ("ls; rm -rf / && $(id) `id` | x > y", ("ls;", "rm", "-rf", "/", "&&", "$(id)", "`id`", "|", "x", ">", "y")),
    ],
)
def test_a_command_is_split_and_no_shell_sees_it(command: str, found: tuple[str, ...]) -> None:
    assert words(command) == found


@pytest.mark.parametrize("command", ["ls 'x", 'ls "', "ls \\", "ls a\0b"])
def test_a_command_that_cannot_be_split(command: str) -> None:
    with pytest.raises(Usage) as caught:
        words(command)
    assert caught.value.hint
    assert "\0" not in str(caught.value)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_size_is_one_that_a_terminal_can_have(rows: int, columns: int) -> None:
    found = clamped(rows, columns)
    assert 0 < found[0] <= MOST_ROWS
    assert 0 < found[1] <= MOST_COLUMNS
    assert clamped(0, 0) == (24, 80)


@pytest.mark.parametrize(
    ("name", "value", "reaches"),
    [
        ("LANG", "de_CH.UTF-8", True), ("LC_ALL", "C", True), ("NO_COLOR", "1", True), ("COLORTERM", "truecolor", True),
        ("PATH", "/tmp", False), ("LD_PRELOAD", "x", False), ("VMTUI_ROLE", "admin", False), ("XLC_ALL", "C", False),
        ("LANG", "C\x1b[2J", False), ("LANG", "x" * 300, False), ("TERM", "xterm", False),
    ],
)  # fmt: skip
def test_variables_of_language_and_colours_pass(name: str, value: str, reaches: bool) -> None:
    assert passes(name, value) is reaches


@given(st.text())
def test_a_line_of_the_log_is_one_line_whatever_is_in_it(text: str) -> None:
    out = io.StringIO()
    Journal(None, out=out).say(text)
    assert out.getvalue().count("\n") == 1
    assert out.getvalue()[:-1].isprintable()
    assert len(plain(text)) <= 501


def test_of_very_many_refusals_some_are_told_and_how_many_were_not() -> None:
    now = [0.0]
    out = io.StringIO()
    journal = Journal(None, out=out, clock=lambda: now[0])
    for number in range(1000):
        journal.refused(Person(name="", origin=f"192.0.2.7 port {number}"), "key SHA256:x is not known")
    assert len(out.getvalue().splitlines()) == REFUSALS_AT_ONCE
    now[0] = 10.0
    journal.refused(NOBODY, "again")
    assert out.getvalue().endswith("again (and 970 more before, of which nothing was noted)\n")
    journal.refused(Person(name="anna"), "web:80: no", verb="connect", result="failed")
    assert out.getvalue().endswith("anna from here: connect failed: web:80: no\n")


def test_what_could_not_be_noted_is_not_begun_and_what_cannot_be_rings_the_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung: list[str] = []
    out = io.StringIO()
    journal = Journal(Log(tmp_path / "audit.log"), out=out)
    journal.alarm = rung.append
    journal.note(NOBODY, "", "login", (), "done", "")
    journal.try_note(NOBODY, "", "stop", (), "done", "")
    assert not rung

    def broken(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("os.fdatasync", broken)
    journal.try_note(NOBODY, "", "stop", (), "done", "")
    assert len(rung) == 1
    assert "the audit log lacks stop" in out.getvalue()
    (tmp_path / "audit.reserve").unlink()
    monkeypatch.undo()
    journal.try_note(NOBODY, "", "stop", (), "done", "")
    assert rung[1:] == ["the disk is full"]
    monkeypatch.setattr("os.posix_fallocate", lambda fd, *_: broken(fd))
    with pytest.raises(OperationFailed):
        journal.note(NOBODY, "", "login", (), "done", "")
    with pytest.raises(OperationFailed):
        journal.keep_room()
    journal.close()


def test_a_log_that_nobody_reads_is_not_waited_for() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as read, os.fdopen(writing, "w") as out:
        os.set_blocking(reading, False)
        journal = Journal(None, out=out)
        for number in range(1000):
            journal.say(f"{number} {'x' * 400}")
        said = b"".join(iter(lambda: read.read(1 << 20) or b"", b""))
        journal.say("again")
        left_out = 1000 - len(said.splitlines())
        assert left_out > 0
        assert read.read(1 << 20).decode().endswith(f"again ({left_out} lines before it had no room)\n")
