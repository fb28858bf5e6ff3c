"""The command line of a session that is served to somebody: what it shows, takes and refuses."""

from __future__ import annotations

import pytest

from vmtui.core.backend import Probe
from vmtui.core.errors import Denied
from vmtui.core.policy import BUILTIN, Allow, Person, Role
from vmtui.core.resource import Kind, Problem
from vmtui.engine.authority import OWNER, Authority
from vmtui.headless import arguments, exit_codes, remote
from vmtui.headless.arguments import PANEL, parse, served_parser
from vmtui.headless.commands import FAMILIES, HIDDEN, SERVE, VERBS

LOOKS = {"ls", "inspect", "logs", "stats", "events", "plan", "doctor", "backends", "schema"}
ACTS = {"start", "stop", "restart", "pause", "resume", "kill", "rm", "exec", "console", "apply", "down"}
EACH = {
    "exec": ["web", "--", "true"], "schema": [], "completion": ["bash"], "down": ["dev"], "reap": ["dev/vm/x"],
    "recordings play": ["1"], "recordings rm": ["1"], "approve": ["1"], "deny": ["1"],
}  # fmt: skip
ALONE = ("ls", "stats", "events", "plan", "apply", "doctor", "backends", "serve", "approvals", "audit", "recordings")


def words(verb: str) -> list[str]:
    """A command line with this verb."""
    alone = verb.startswith(ALONE) and verb not in EACH
    return [*verb.split(), *(EACH.get(verb, [] if alone else ["web"]))]


def acting(role: Role, denied: list[str] | None = None) -> Authority:
    def note(verb: str, _refs: object, result: str, message: str) -> None:
        if denied is not None and result == "denied":
            denied.append(f"{verb}: {message}")

    return Authority(person=Person(name="anna"), role=role, note=note)


def permitted(role: Role) -> set[str]:
    found = set()
    for verb in VERBS:
        try:
            where, _ = parse(words(verb), acting(role))
        except Denied:
            continue
        assert where == VERBS[verb].run
        found.add(verb)
    return found


def test_each_role_has_its_verbs() -> None:
    assert permitted(BUILTIN["viewer"]) == LOOKS
    assert permitted(BUILTIN["operator"]) == LOOKS | ACTS
    assert permitted(BUILTIN["admin"]) == set(VERBS) - {"serve"}
    assert permitted(Role(name="none")) == {"schema"}


@pytest.mark.parametrize("role", [*BUILTIN.values(), Role(name="keeper", allow=(Allow(verbs=("audit",)),))])
def test_the_help_shows_what_would_run(role: Role) -> None:
    shown = served_parser(acting(role)).format_help().partition("\n\noptions:")[0].splitlines()
    named = {line[2:].split("  ")[0].strip() for line in shown if line.startswith("  ")}
    assert named & set(VERBS) == permitted(role) - HIDDEN
    assert "whoami" in named
    assert ("drive ID" in named) == (role.name == "admin")


def test_what_is_denied_is_noted_and_named() -> None:
    denied: list[str] = []
    with pytest.raises(Denied) as raised:
        parse(["stop", "web"], acting(BUILTIN["viewer"], denied))
    assert str(raised.value) == "the role viewer may not stop"
    assert denied == ["stop: the role viewer may not stop"]
    assert exit_codes.of(raised.value) == 77


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (["--profile", "dev.toml"], "ssh HOST apply < FILE"),
        (["--profile", "dev.toml", "--plan"], "ssh HOST apply < FILE"),
        (["--profile", "dev.toml", "--foreground"], "ssh HOST apply < FILE"),
        (["plan", "/etc/shadow"], "ssh HOST plan < FILE"),
        (["apply", "dev.toml", "--only", "web"], "ssh HOST apply < FILE"),
        (["apply", "/dev/stdin"], "ssh HOST apply < FILE"),
        (["--demo"], "ssh HOST"),
        (["--plain", "--demo", "3"], "ssh HOST"),
    ],
)
def test_files_of_the_host_are_for_those_who_may_have_them(argv: list[str], hint: str) -> None:
    with pytest.raises(Denied) as raised:
        parse(argv, acting(BUILTIN["operator"]))
    assert raised.value.hint == hint
    assert parse(argv, acting(BUILTIN["admin"]))


@pytest.mark.parametrize("argv", [[], ["--plain"], ["--json"], ["--read-only"]])
def test_who_may_view_nothing_gets_no_panel(argv: list[str]) -> None:
    with pytest.raises(Denied):
        parse(argv, acting(Role(name="keeper", allow=(Allow(verbs=("audit",)),))))


def test_the_server_itself_is_for_who_sits_there() -> None:
    with pytest.raises(Denied):
        parse(["serve"], acting(BUILTIN["admin"]))
    assert parse(["serve"])[0] == SERVE


def test_stdin_needs_no_right_to_files() -> None:
    for argv in (["plan"], ["plan", "-"]):
        assert parse(argv, acting(BUILTIN["viewer"]))[0] == "converge:plan"
    assert parse(["apply", "--only", "web"], acting(BUILTIN["operator"]))[1].file == "-"


def test_the_panel_and_the_list() -> None:
    assert parse([], acting(BUILTIN["viewer"]))[0] == PANEL
    assert parse(["--read-only"], acting(BUILTIN["admin"]))[1].read_only
    assert parse(["--json"], acting(BUILTIN["viewer"]))[0] == "verbs:ls"


@pytest.mark.parametrize("role", [BUILTIN["viewer"], BUILTIN["admin"]])
@pytest.mark.parametrize("argv", [["--help"], ["help"]])
def test_help_is_that_of_the_session(role: Role, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(argv, acting(role))
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "ssh HOST help VERB" in shown
    assert "--profile" not in shown
    assert "--demo" not in shown


def test_help_of_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["help", "ls"], ["help", "recordings", "play"], ["help", "recordings"]):
        with pytest.raises(SystemExit) as ended:
            parse(argv, acting(BUILTIN["admin"]))
        assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "usage: vmtui ls" in shown
    assert "usage: vmtui recordings play" in shown
    with pytest.raises(Denied):
        parse(["help", "stop"], acting(BUILTIN["viewer"]))


def test_a_word_that_is_no_verb_is_not_answered_with_one_that_is_lacking(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["stpo"], ["recordings"], ["recordings", "--help"], ["audit", "verfy"]):
        with pytest.raises(SystemExit) as ended:
            parse(argv, acting(BUILTIN["viewer"]))
        assert ended.value.code == 64
    assert "vmtui stop" not in capsys.readouterr().err
    assert "recordings ls" not in capsys.readouterr().err


@pytest.mark.parametrize("family", FAMILIES)
def test_of_two_words_the_second_is_asked_for(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    for argv, code in (([family], 64), ([family, "x"], 64), ([family, "--help"], 0)):
        with pytest.raises(SystemExit) as ended:
            parse(argv)
        assert ended.value.code == code
    shown = capsys.readouterr()
    assert f"{family} ls" in shown.out
    assert f"hint: vmtui {family}" in shown.err


@pytest.mark.parametrize(
    ("given", "viewer", "admin"),
    [
        ("vmtui ls", "vmtui ls", "vmtui ls"),
        ("vmtui rm --purge dev/disk/x", "", "vmtui rm --purge dev/disk/x"),
        ("vmtui serve", "", "vmtui serve"),
        ("write the full name", "write the full name", "write the full name"),
        ("df -h", remote.TELL, "df -h"),
        ("ls -ld /root/.local/state", remote.TELL, "ls -ld /root/.local/state"),
        ("sudo -E vmtui", remote.TELL, "sudo -E vmtui"),
        ("apply its profile: vmtui --profile FILE", "apply its profile: ssh HOST apply < FILE", None),
        (
            "vmtui --profile dev.toml --on-failure keep; vmtui logs dev/vm/x",
            "ssh HOST apply --on-failure keep < FILE; vmtui logs dev/vm/x",
            None,
        ),
        ("vmtui apply --on-failure keep < FILE; vmtui logs dev/vm/x", "vmtui logs dev/vm/x", None),
        ("vmtui recordings ls", "", "vmtui recordings ls"),
        ("", "", ""),
    ],
)
def test_hints_are_for_who_reads_them(given: str, viewer: str, admin: str | None) -> None:
    assert remote.hint_for(OWNER, given) == given
    assert remote.hint_for(acting(BUILTIN["viewer"]), given) == viewer
    if admin is not None:
        assert remote.hint_for(acting(BUILTIN["admin"]), given) == admin


def test_problems_are_told_with_hints_for_who_reads_them() -> None:
    problems = (Problem(code="x", message="it is gone", hint="sudo vmtui doctor"),)
    probe = Probe(backend="tap", kind=Kind.NETWORK, usable=False, summary="no", problems=problems)
    assert remote.told(OWNER, [probe]) == [probe]
    (shown,) = remote.told(acting(BUILTIN["viewer"]), [probe])
    assert [problem.hint for problem in shown.problems] == [remote.TELL]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("127.0.0.1:2222", ("127.0.0.1", 2222)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_addresses(given: str, meant: tuple[str, int]) -> None:
    args = parse(["serve", "--listen", given, "--web", given])[1]
    assert (args.listen, args.web) == ([meant], meant)
    assert parse(["serve", "--web"])[1].web == ()  # as the configuration has it
    assert parse(["serve"])[1].web is None


@pytest.mark.parametrize(
    "given", ["2222", ":2222", "::1:2222", "[::1]", "host:", "host:x", "host:65536", "a b:1", "[x]:1", "host:²", ""]
)
def test_what_is_no_address(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["serve", "--listen", given])
    assert ended.value.code == 64
    assert "is not ADDRESS:PORT" in capsys.readouterr().err


def test_every_need_is_a_verb_that_can_be_allowed() -> None:
    from vmtui.core import policy

    for verb in VERBS.values():
        assert set(verb.needs) <= set(policy.Verb)
    for _, needed in arguments.OF_THE_CONSOLE.values():
        assert not needed or needed in set(policy.Verb)
