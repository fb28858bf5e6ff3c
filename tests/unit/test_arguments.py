"""The command line."""

from __future__ import annotations

import pytest

from vmtui.engine.demo import DEFAULT_SIZE
from vmtui.headless.arguments import PANEL, parse
from vmtui.headless.commands import DEMO_SIZE, SERVE, VERBS


def test_without_a_verb_it_is_a_profile_or_the_list() -> None:
    assert parse([])[0] == PANEL
    assert parse(["--json"])[0] == "verbs:ls"
    where, args = parse(["--profile", "dev.toml", "--only", "web", "vm/guest", "--timeout", "1m30s", "--json"])
    assert where == "converge:profile"
    assert (args.only, args.timeout, args.json, args.on_failure) == (["web", "vm/guest"], 90.0, True, "rollback")
    assert parse(["-p", "x", "--timeout", "2.5"])[1].timeout == 2.5


@pytest.mark.parametrize(
    ("given", "recreate"), [([], []), (["--recreate"], ["all"]), (["--recreate", "a", "--recreate", "b"], ["a", "b"])]
)
def test_recreate(given: list[str], recreate: list[str]) -> None:
    assert parse(["--profile", "x", *given])[1].recreate == recreate


@pytest.mark.parametrize(
    ("argv", "ref", "command"),
    [
        (["exec", "web", "ls", "-l"], "web", ["ls", "-l"]),
        (["exec", "web", "--", "ls", "-l"], "web", ["ls", "-l"]),
        (["exec", "-it", "web", "--", "sh", "--", "x"], "web", ["sh", "--", "x"]),
        (["exec", "web", "-i", "--json", "--", "sh"], "web", ["sh"]),
        (["exec", "web", "-e", "A=1", "--", "sh"], "web", ["sh"]),
    ],
)
def test_exec_leaves_the_command_alone(argv: list[str], ref: str, command: list[str]) -> None:
    where, args = parse(argv)
    assert (where, args.ref, args.command) == ("attach:execute", ref, command)


def test_options_after_the_ref_count_before_the_dashes() -> None:
    args = parse(["exec", "web", "-i", "--json", "-e", "A=1", "--", "sh"])[1]
    assert (args.interactive, args.json, args.environment) == (True, True, ["A=1"])


@pytest.mark.parametrize(
    "argv",
    [
        ["frob"],
        ["exec", "web"],
        ["exec", "web", "x", "--", "y"],
        ["logs", "web", "-n", "-1"],
        ["--down", "--profile", "x", "--recreate"],
        ["--prof", "x"],
        ["ls", "-f", "web"],
        ["backends", "extra"],
        ["--read-only", "--profile", "x"],
        ["--profile", "x", "--demo"],
        ["--plain", "--json"],
        ["--demo", "0"],
        ["--demo", "many"],
        ["--read-only", "--down"],
    ],
)
def test_wrong_use(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(argv)
    assert ended.value.code == 64
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert "hint: vmtui" in shown.err


@pytest.mark.parametrize(("argv", "place"), [(["ls", "kidn:vm"], 1), (["ls", "a", "--json", "b", "--", "-("], 6)])
def test_a_wrong_filter(argv: list[str], place: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(argv)
    assert ended.value.code == 64
    assert f"at character {place}: " in capsys.readouterr().err


def test_a_filter_stands_among_the_options() -> None:
    args = parse(["ls", "kind:vm", "--json", "web", "--", "-f", "--json"])[1]
    assert (args.filter, args.json, bool(args.query)) == ("kind:vm web -f --json", True, True)
    assert not parse(["ls"])[1].query


def test_the_options_of_the_panel() -> None:
    where, args = parse(["--read-only", "--demo"])
    assert (where, args.read_only, args.demo) == (PANEL, True, DEMO_SIZE)
    assert DEMO_SIZE == DEFAULT_SIZE
    where, args = parse(["--plain", "--demo", "7"])
    assert (where, args.read_only, args.demo) == ("plain:main", False, 7)


def test_every_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in VERBS:
        with pytest.raises(SystemExit) as ended:
            parse([*name.split(), "--help"])
        assert ended.value.code == 0
    assert "usage: vmtui ls" in capsys.readouterr().out


@pytest.mark.parametrize("verb", [name for name, verb in VERBS.items() if verb.run != SERVE])
def test_the_function_of_each_verb_is_there(verb: str) -> None:
    from importlib import import_module

    module, _, function = VERBS[verb].run.partition(":")
    assert callable(getattr(import_module(f"vmtui.headless.{module}"), function))
