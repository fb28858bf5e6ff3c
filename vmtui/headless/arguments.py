"""The command line: what can be said, and its help. Parsing alone; imports neither the engine nor asyncio."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import vmtui
from vmtui.headless.commands import (
    DEMO_HELP,
    DEMO_SIZE,
    FAMILIES,
    HIDDEN,
    SERVE,
    STDIN,
    VERBS,
    Verb,
    choosing,
    converging,
    json,
    parser_of,
    yes,
)
from vmtui.headless.exit_codes import MEANINGS
from vmtui.headless.parsers import Parser, count, wrong

if TYPE_CHECKING:
    from vmtui.engine.authority import Authority

EXAMPLES = """examples:
  vmtui                                   the panel; on a pipe, the list of resources
  vmtui --demo                            the panel over made-up resources: nothing is real
  vmtui --profile dev.toml                make the host as the profile says, wait until all is ready
  vmtui --profile dev.toml --plan         show what that would change, change nothing
  vmtui --profile dev.toml --check        has the host drifted? exit 2 if so
  vmtui --profile dev.toml --adopt        the other way: make the profile as the host was made
  vmtui --profile dev.toml --only web     only this resource and what it needs
  vmtui --profile dev.toml --down         take it down; disks keep their data
  vmtui down dev --purge                  the same without the file, data included
  vmtui --profile ci.toml --foreground    attached: follows the logs, takes all down on a signal
  vmtui --profile ci.toml --json          one JSON record a line on stdout: vmtui schema events"""
EXAMPLES_OVER_SSH = """examples:
  ssh HOST                                the panel
  ssh -t HOST vmtui --read-only           its options come after a word, or ssh takes them for its own
  ssh HOST ls kind:vm --json              a verb; its exit code is that of ssh
  ssh HOST plan < dev.toml                a profile comes through stdin
  ssh -t HOST console guest               what needs a terminal asks for one"""
# Of these help is no verb of its own, and the rest is run by the console itself: named here for the help alone.
OF_THE_CONSOLE = {
    "help [VERB]": ("tell more of a verb", ""),
    "whoami": ("say who you are here, and what you may do", ""),
    "sessions": ("list the sessions that are open", "sessions"),
    "observe ID": ("look at one; ctrl+] leaves it", "observe"),
    "drive ID": ("type in it too", "drive"),
}
HELP = "help"  # in front rather than --help behind, which ssh would take for its own where nothing stands between
PANEL = "panel"  # in place of MODULE:FUNCTION: no part of this package
NEED_A_PROFILE = ("purge", "only", "recreate", "timeout", "trace")


def parse(argv: Sequence[str], authority: Authority | None = None) -> tuple[str, argparse.Namespace]:
    """MODULE:FUNCTION in this package, and its arguments. Wrong use and --help end the process.

    With an authority it is a session that is served to somebody: what they lack is not in the help, and raises Denied.
    """
    if argv and argv[0] == HELP:
        argv = [*argv[1:], "--help"]
    if argv and (name := _verb(argv)) in VERBS:
        if authority is not None and not _offered(VERBS[name], authority):
            raise authority.denied(VERBS[name].needs[0], to=name if " " not in name else f"use {name}")
        where, args = _parse_verb(name, argv[name.count(" ") + 1 :])
        if authority is not None and getattr(args, "file", STDIN) != STDIN:
            _need_host(authority, f"{name} a file of the host", f"ssh HOST {name} < FILE")
        return where, args
    if argv and argv[0] in FAMILIES:
        _parse_family(argv[0], argv[1:], authority)
    if argv and not argv[0].startswith("-"):
        close = difflib.get_close_matches(argv[0], _shown(authority), 1)
        wrong(f"there is no verb {argv[0]!r}", f"vmtui {close[0]}" if close else "vmtui --help")
    parser = profile_parser()
    parser.helped_by = None if authority is None else served_parser(authority)
    args = _checked(parser, argv)
    if authority is not None and not _offered(VERBS["ls"], authority):
        raise authority.denied(VERBS["ls"].needs[0], to="look at anything")
    if authority is not None and args.profile is not None:
        _need_host(authority, "use files of the host", "ssh HOST apply < FILE")
    if authority is not None and args.demo is not None:
        _need_host(authority, "open a demo", "ssh HOST")
    if args.plain:
        return "plain:main", args
    if args.profile is None and not args.json:
        return PANEL, args
    if args.profile is None:
        return "verbs:ls", listing(["--json"])
    return "converge:profile", args


def _verb(argv: Sequence[str]) -> str:
    return " ".join(argv[:2]) if argv[0] in FAMILIES else argv[0]


def _offered(verb: Verb, authority: Authority) -> bool:
    from vmtui.core import policy

    needed = not verb.needs or any(authority.anywhere(policy.Verb(needed)) for needed in verb.needs)
    return needed and verb.run != SERVE  # which is for who sits at the host


def _need_host(authority: Authority, to: str, hint: str) -> None:
    from vmtui.core import policy

    if not authority.may(policy.Verb.HOST):
        fault = authority.denied(policy.Verb.HOST, to=to)
        fault.hint = hint
        raise fault


def _shown(authority: Authority | None) -> list[str]:
    """The names of the verbs that the help tells of."""
    return [
        name for name, verb in VERBS.items() if name not in HIDDEN and (authority is None or _offered(verb, authority))
    ]


def _parse_family(family: str, argv: Sequence[str], authority: Authority | None) -> NoReturn:
    """A verb of two words of which the second is missing or wrong. Ends the process."""
    shown = [name for name in _shown(authority) if name.startswith(f"{family} ")]
    names = [name.partition(" ")[2] for name in shown]
    listed = "\n".join(f"  {name.ljust(20)}  {VERBS[name].about}" for name in shown)
    parser = Parser(f"vmtui {family}", f"verbs (--help of each tells more):\n{listed}", "")
    parser.usage = f"vmtui {family} VERB …"
    if argv and argv[0] in ("-h", "--help") and shown:
        parser.parse_args(argv)
    close = difflib.get_close_matches(argv[0], names, 1) if argv else names[:1]
    problem = f"{family} has no {argv[0]!r}" if argv else f"{family} what? one of {', '.join(names)}"
    wrong(
        problem if names else f"there is no verb {family!r}", f"vmtui {family} {close[0]}" if close else "vmtui --help"
    )


def _parse_verb(name: str, argv: Sequence[str]) -> tuple[str, argparse.Namespace]:
    if name == "ls":
        return VERBS[name].run, listing(argv)
    command: list[str] | None = None
    if name == "exec" and "--" in argv:
        cut = list(argv).index("--")
        argv, command = argv[:cut], list(argv[cut + 1 :])
    args = parser_of(name).parse_args(argv)
    args.verb = name
    if command is not None:
        if args.command:  # options after REF, which the parser takes for the command
            first = len(argv) - len(args.command)
            args = parser_of(name).parse_args([*argv[: first - 1], *args.command, argv[first - 1]])
            args.verb = name
        if args.command:
            wrong(f"{args.command[0]!r} stands before --", "vmtui exec --help")
        args.command = command
    if name == "exec" and not args.command:
        wrong("a command is missing", "vmtui exec REF -- COMMAND")
    _name_all(args)
    return VERBS[name].run, args


def listing(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of `ls`: terms and options in any order; what begins with - stands after --."""
    from vmtui.core.errors import QueryError
    from vmtui.core.query import parse as parse_query

    cut = list(argv).index("--") if "--" in argv else len(argv)
    args = parser_of("ls").parse_intermixed_args(argv[:cut])
    args.verb = "ls"
    args.filter = " ".join([*args.filter, *argv[cut + 1 :]])
    try:
        args.query = parse_query(args.filter)
    except QueryError as error:
        wrong(f"the filter {args.filter!r} at character {error.position + 1}: {error}", error.hint)
    return args


def profile_parser() -> Parser:
    """The parser of the command line without a verb; its help is the documentation of the program."""
    parser = _program("vmtui VERB --help", [(name, VERBS[name].about) for name in _shown(None)], EXAMPLES)
    parser.usage = "vmtui [--read-only] [--demo [N]] [--plain] | vmtui --profile FILE [OPTION…] | vmtui VERB …"
    add = parser.add_argument
    panel = _panel_options(parser, "the panel, without --profile")
    panel.add_argument("--demo", metavar="N", nargs="?", type=count, const=DEMO_SIZE, help=DEMO_HELP)
    add("-p", "--profile", metavar="FILE", help="make the host as this TOML file says")
    instead = parser.add_argument_group("instead of that")
    instead.add_argument("--adopt", action="store_true", help="change FILE to what was applied; --plan only shows it")
    modes = instead.add_mutually_exclusive_group()
    modes.add_argument("--plan", action="store_true", help="show what would change; exit 2 if anything would")
    modes.add_argument("--check", action="store_true", help="say what has drifted; exit 2 if anything has")
    modes.add_argument("--down", action="store_true", help="take the profile down; disks stay")
    modes.add_argument("--foreground", action="store_true", help="stay, follow the logs, take all down on a signal")
    add("--purge", action="store_true", help="with --down: remove the data of its disks too")
    choosing(parser)
    converging(parser)
    yes(parser)
    json(parser, "one JSON record a line on stdout, nothing else there")
    return parser


def served_parser(authority: Authority) -> Parser:
    """The help of a served session: what is offered to this person, as they would say it."""
    from vmtui.core import policy

    verbs = [(name, VERBS[name].about) for name in _shown(authority)]
    verbs += [
        (name, about)
        for name, (about, needed) in OF_THE_CONSOLE.items()
        if not needed or authority.anywhere(policy.Verb(needed))
    ]
    parser = _program("ssh HOST help VERB", verbs, EXAMPLES_OVER_SSH)
    parser.usage = "ssh HOST [vmtui [--read-only] [--plain] [--json]] | ssh HOST VERB …"
    _panel_options(parser, "the panel")
    json(parser, "without a verb: the list of resources as JSON")
    return parser


def _program(more: str, verbs: Sequence[tuple[str, str]], examples: str) -> Parser:
    width = max(len(name) for name, _ in verbs)
    shown = "\n".join(f"  {name.ljust(width)}  {about}" for name, about in verbs)
    codes = "\n".join(f"  {int(code):>3}  {meaning}" for code, meaning in MEANINGS.items())
    parser = Parser(
        "vmtui",
        f"{vmtui.__doc__}\n\nverbs ({more} tells more):\n{shown}",
        f"{examples}\n\nexit codes:\n{codes}\n\nNO_COLOR switches colours off.",
    )
    parser.add_argument("-V", "--version", action="version", version=vmtui.__version__, help="print the version")
    return parser


def _panel_options(parser: Parser, title: str) -> argparse._ArgumentGroup:
    panel = parser.add_argument_group(title)
    panel.add_argument("--read-only", action="store_true", help="look at everything, change nothing")
    panel.add_argument("--plain", action="store_true", help="lines instead of a screen, as for screen readers")
    return panel


def _name_all(args: argparse.Namespace) -> None:
    """`--recreate` without a REF means all."""
    if getattr(args, "recreate", None) == []:
        args.recreate = ["all"]
    elif "recreate" in args:
        args.recreate = args.recreate or []


def _checked(parser: Parser, argv: Sequence[str]) -> argparse.Namespace:
    args = parser.parse_args(argv)
    _name_all(args)
    modes = [f"--{mode}" for mode in ("adopt", "check", "down", "foreground", "plan") if getattr(args, mode)]
    panel = [f"--{name.replace('_', '-')}" for name in ("read_only", "demo", "plain") if getattr(args, name)]
    if panel and (args.profile is not None or args.json):
        parser.error(f"{panel[0]} does not go with {'--json' if args.profile is None else '--profile'}")
    if args.profile is None:
        given = [*modes, *(f"--{name}" for name in NEED_A_PROFILE if getattr(args, name))]
        if given:
            parser.error(f"{given[0]} needs --profile FILE")
    if args.purge and not args.down:
        parser.error("--purge goes with --down")
    if args.adopt and modes[1:] not in ([], ["--plan"]):
        parser.error(f"--adopt does not go with {modes[1]}")
    if args.recreate and (args.adopt or args.down or args.check):
        parser.error(f"--recreate does not go with {modes[0]}")
    return args


def run(argv: Sequence[str]) -> int:
    """Parse, import what is asked for, and do it; the exit code."""
    return call(*parse(argv))


def call(where: str, args: argparse.Namespace) -> int:
    """What `parse` gave, of this package; the panel's place on what is no screen is the list."""
    from importlib import import_module

    if where == PANEL:
        where, listed = "verbs:ls", listing([])
        listed.demo = args.demo
        args = listed
    module, _, function = where.partition(":")
    code: int = getattr(import_module(f"vmtui.headless.{module}"), function)(args)
    return code


def main_in_session(argv: Sequence[str]) -> int:
    """The same in a process that acts for somebody else, with a list in the panel's place: the exit code.

    Raises SystemExit for wrong use and --help.
    """
    import os
    import sys

    from vmtui.engine import authority
    from vmtui.headless import exit_codes, remote, text
    from vmtui.host.faults import Fault

    try:
        return call(*parse(argv, authority.current()))
    except Fault as fault:
        hint = remote.hint_for(authority.current(), fault.hint)
        hint = f"\nhint: {text.clean(hint)}" if hint else ""
        sys.stderr.write(f"error: {text.clean(str(fault))}{hint}\n")
        return exit_codes.of(fault)
    except BrokenPipeError:  # of --help or a schema, whose reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
