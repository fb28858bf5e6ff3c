"""As whom a session runs, and what of its client's environment passes."""

from __future__ import annotations

import os
import pwd

import pytest

from tests.support.ssh_sessions import request, role
from vmtui.core.errors import OperationFailed
from vmtui.ssh import identity
from vmtui.ssh.session import Request
from vmtui.ssh.spawn import NO_USER

SERVER = {"PATH": "/bin", "HOME": "/home/ann", "SUDO_USER": "eve", "LD_PRELOAD": "/x.so", "VMTUI_DEBUG": "1"}


def with_environment(**variables: str) -> Request:
    asked = request(size=(24, 80))
    return Request(person=asked.person, role=asked.role, term="xterm", size=(24, 80), environment=variables)


def test_only_language_and_colours_pass() -> None:
    asked = with_environment(LANG="de_DE.UTF-8", LC_TIME="C", COLORTERM="truecolor", NO_COLOR="1", LD_PRELOAD="/e.so")
    found = identity.of(asked, SERVER).environment
    assert {name: found[name] for name in ("LANG", "LC_TIME", "COLORTERM", "NO_COLOR")} == {
        "LANG": "de_DE.UTF-8", "LC_TIME": "C", "COLORTERM": "truecolor", "NO_COLOR": "1",
    }  # fmt: skip
    assert not {"LD_PRELOAD", "SUDO_USER", "VMTUI_DEBUG"} & set(found)
    assert (found["PATH"], found["HOME"], found["TERM"]) == ("/bin", "/home/ann", "xterm")


@pytest.mark.parametrize("value", ["a\nb", "\x1b[0m", "x" * 200, "ü"])
def test_a_value_that_is_no_plain_word_does_not(value: str) -> None:
    assert identity.of(with_environment(LANG=value), SERVER).environment["LANG"] == "C.UTF-8"


@pytest.mark.parametrize("term", ["xterm-256color", "screen.linux", "vt100", "linux", "rxvt+x_y"])
def test_a_terminal_with_a_screen_gets_the_panel(term: str) -> None:
    asked = request(size=(24, 80), term=term)
    assert identity.has_screen(asked)
    assert identity.of(asked, SERVER).environment["TERM"] == term


@pytest.mark.parametrize("term", ["dumb", "", "unknown", "../etc/passwd", "x" * 33, "a b", "x\n"])
def test_one_without_gets_lines(term: str) -> None:
    asked = request(size=(24, 80), term=term)
    assert not identity.has_screen(asked)
    assert "/" not in identity.of(asked, SERVER).environment["TERM"]


def test_without_a_terminal_there_is_no_kind_of_one() -> None:
    assert "TERM" not in identity.of(request("ls"), SERVER).environment
    assert not identity.has_screen(request())


def test_a_session_runs_as_the_server_unless_its_role_says_otherwise() -> None:
    assert identity.of(request(), SERVER).uid == NO_USER
    me = pwd.getpwuid(os.geteuid()).pw_name
    assert identity.of(request(role=role("mine", "view", user=me)), SERVER).uid == NO_USER


def test_a_user_that_is_not_there_is_named() -> None:
    with pytest.raises(OperationFailed, match="runs as nobody-here") as raised:
        identity.of(request(role=role("theirs", "view", user="nobody-here")), SERVER)
    assert raised.value.hint == "useradd -m nobody-here"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_has_its_own_workspace() -> None:
    found = identity.of(request(role=role("theirs", "view", user="nobody")), {**SERVER, "XDG_STATE_HOME": "/mine"})
    assert (found.uid, found.gid) == pwd.getpwnam("nobody")[2:4]
    assert found.environment["USER"] == "nobody"
    assert found.environment["HOME"] == pwd.getpwnam("nobody").pw_dir
    assert "XDG_STATE_HOME" not in found.environment
