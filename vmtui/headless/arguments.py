"""The command line: what can be said, and its help. Parsing alone; imports neither the engine nor asyncio."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import vmtui
from vmtui.headless.exit_codes import MEANINGS, ExitCode

HELP_WIDTH = 100
KINDS = ("network", "disk", "vm", "container", "sandbox")
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
FILTER_HELP = "terms that all must match, as after / in the panel: kind:vm,container state:running !profile:ci web"
PANEL = "panel"  # in place of MODULE:FUNCTION: no part of this package
DEMO_SIZE = 40
DEMO_HELP = f"over N made-up resources (default {DEMO_SIZE}): nothing is real"
NEED_A_PROFILE = ("purge", "only", "recreate", "timeout", "trace")
REF_HELP = "a resource: NAME, KIND/NAME or PROFILE/KIND/NAME, as long as it means one"


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help of one width, with the options of one line as Python 3.13 and later write them."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=HELP_WIDTH)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


class Parser(argparse.ArgumentParser):
    """Ends with 64 on wrong use, as sysexits.h has it."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=prog, description=description, epilog=epilog, formatter_class=Formatter, allow_abbrev=False
        )
        self.color = False  # from Python 3.14 on it is true by default, and ignores where the help goes

    def error(self, message: str) -> NoReturn:
        wrong(message, f"{self.prog} --help")


def wrong(message: str, hint: str) -> NoReturn:
    """A usage error, before there is anything to clean up."""
    from vmtui.headless.text import clean

    sys.stderr.write(f"error: {clean(message)}\nhint: {clean(hint)}\n")
    raise SystemExit(int(ExitCode.USAGE))


class Verb:
    """`run` is MODULE:FUNCTION in this package; it is imported when the verb is used."""

    def __init__(self, about: str, run: str, configure: Callable[[argparse.ArgumentParser], Any], example: str) -> None:
        self.about = about
        self.run = run
        self.configure = configure
        self.example = example


def _json(parser: argparse.ArgumentParser, about: str = "one JSON document on stdout") -> None:
    parser.add_argument("--json", action="store_true", help=about)


def _yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask before data is lost")


def _ref(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    if nargs is None:
        parser.add_argument("ref", metavar="REF", help=REF_HELP)
    else:
        parser.add_argument("refs", metavar="REF", nargs=nargs, help=REF_HELP)


def _whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("it must not be negative")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of resources")
    return int(text)


def _duration(text: str) -> float:
    from vmtui.core.units import Duration

    try:
        return float(Duration.parse(float(text) if text.replace(".", "", 1).isdigit() else text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _acts(*, grace: bool = False, purge: bool = False) -> Callable[[argparse.ArgumentParser], None]:
    def configure(parser: argparse.ArgumentParser) -> None:
        _ref(parser, "+")
        if grace:
            parser.add_argument("--grace", metavar="TIME", type=_duration, help="before it is killed: 30s, 1m30s")
        if purge:
            parser.add_argument("--purge", action="store_true", help="remove its data too: disks need this")
            _yes(parser)
        _json(parser)

    return configure


def _ls(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-p", "--profile-name", metavar="NAME", help="only the resources of this profile")
    parser.add_argument("-k", "--kind", choices=KINDS, help="only this kind")
    parser.add_argument(
        "--plain", action="store_true", help="only the names, one a line; without FILTER from the database"
    )
    _json(parser)
    parser.add_argument("filter", metavar="FILTER", nargs="*", help=FILTER_HELP)


def _inspect(parser: argparse.ArgumentParser) -> None:
    _ref(parser)
    parser.add_argument(
        "--exits", action="store_true", help="what a VM on backend kvm left its guest for, and how often"
    )
    _json(parser)


def _logs(parser: argparse.ArgumentParser) -> None:
    _ref(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new lines as they come")
    parser.add_argument("-n", "--lines", metavar="N", type=_whole, help="only the last N lines (default: all)")
    parser.add_argument("-t", "--timestamps", action="store_true", help="begin each line with its time")
    _json(parser, "one JSON record a line")


def _exec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-i", "--interactive", action="store_true", help="pass on stdin")
    parser.add_argument("-t", "--tty", action="store_true", help="give it a terminal")
    parser.add_argument("-u", "--user", metavar="USER", help="run as USER[:GROUP]")
    parser.add_argument("-w", "--working-dir", metavar="DIR", help="run in DIR")
    parser.add_argument("-e", "--environment", metavar="NAME=VALUE", action="append", default=[], help="set a variable")
    _json(parser, "one JSON record a line, the last with the exit code")
    _ref(parser)
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="the command, best after --")


def _console(parser: argparse.ArgumentParser) -> None:
    _ref(parser)
    _json(parser, "what the console shows as JSON records")


def _stats(parser: argparse.ArgumentParser) -> None:
    _ref(parser, "*")
    parser.add_argument("--watch", action="store_true", help="measure again and again")
    parser.add_argument("--interval", metavar="TIME", type=_duration, default=1.0, help="between two (default 1s)")
    _json(parser, "one JSON record a line")


def _events(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new ones as they come")
    parser.add_argument("-n", "--lines", metavar="N", type=_whole, default=100, help="the last N (default 100)")
    _json(parser, "one JSON record a line")


def _down(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("profile_name", metavar="NAME", help="the name of a profile, as vmtui ls shows it")
    parser.add_argument("--purge", action="store_true", help="remove the data of its disks too")
    parser.add_argument("--only", metavar="REF", nargs="+", action="extend", default=[], help="only these resources")
    _yes(parser)
    _json(parser, "one JSON record a line")


def _schema(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="?", choices=("profile", "config", "events"), default="profile", help="(default profile)"
    )
    _json(parser, "accepted; a schema always is JSON")


def _completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell to make it for")


def _reap(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", metavar="PROFILE/KIND/NAME", help="the workload that ended")


VERBS: dict[str, Verb] = {
    "ls": Verb("list the resources that are there", "verbs:ls", _ls, "vmtui ls kind:vm state:problem -- -profile:ci"),
    "inspect": Verb("show all that is known of one", "verbs:inspect", _inspect, "vmtui inspect vm/guest"),
    "start": Verb("start what is stopped", "verbs:act", _acts(), "vmtui start web guest"),
    "stop": Verb("stop what runs", "verbs:act", _acts(grace=True), "vmtui stop --grace 30s vm/guest"),
    "restart": Verb("stop and start again", "verbs:act", _acts(grace=True), "vmtui restart web"),
    "pause": Verb("freeze what runs", "verbs:act", _acts(), "vmtui pause guest"),
    "resume": Verb("go on with what is paused", "verbs:act", _acts(), "vmtui resume guest"),
    "kill": Verb("end it at once", "verbs:act", _acts(), "vmtui kill guest"),
    "rm": Verb("remove", "verbs:act", _acts(purge=True), "vmtui rm --purge disk/data"),
    "logs": Verb("show its log", "streams:logs", _logs, "vmtui logs -f -n 20 web"),
    "exec": Verb("run a command inside", "attach:execute", _exec, "vmtui exec -it web -- sh"),
    "console": Verb("attach to its console; ctrl+] leaves it", "attach:console", _console, "vmtui console guest"),
    "stats": Verb("measure what runs", "streams:stats", _stats, "vmtui stats --watch"),
    "events": Verb("what happened", "streams:events", _events, "vmtui events -f"),
    "down": Verb("take a profile down by its name", "converge:down", _down, "vmtui down dev --purge"),
    "doctor": Verb("try every backend, say what is missing", "health:doctor", _json, "vmtui doctor"),
    "backends": Verb("list the backends and what they can", "health:backends", _json, "vmtui backends"),
    "schema": Verb("print a JSON Schema", "verbs:schema", _schema, "vmtui schema > profile.schema.json"),
    "completion": Verb("print completion for a shell", "completion:main", _completion, ". <(vmtui completion bash)"),
    "reap": Verb("", "verbs:reap", _reap, ""),
}  # fmt: skip
HIDDEN = frozenset({"reap"})


def parse(argv: Sequence[str]) -> tuple[str, argparse.Namespace]:
    """MODULE:FUNCTION in this package, and its arguments. Wrong use and --help end the process."""
    if argv and argv[0] in VERBS:
        return _parse_verb(argv[0], argv[1:])
    if argv and not argv[0].startswith("-"):
        close = difflib.get_close_matches(argv[0], [name for name in VERBS if name not in HIDDEN], 1)
        wrong(f"there is no verb {argv[0]!r}", f"vmtui {close[0]}" if close else "vmtui --help")
    args = _checked(profile_parser(), argv)
    if args.plain:
        return "plain:main", args
    if args.profile is None and not args.json:
        return PANEL, args
    if args.profile is None:
        return "verbs:ls", _parse_ls(["--json"] if args.json else [])
    return "converge:profile", args


def _parse_verb(name: str, argv: Sequence[str]) -> tuple[str, argparse.Namespace]:
    if name == "ls":
        return VERBS[name].run, _parse_ls(argv)
    command: list[str] | None = None
    if name == "exec" and "--" in argv:
        cut = list(argv).index("--")
        argv, command = argv[:cut], list(argv[cut + 1 :])
    args = verb_parser(name).parse_args(argv)
    args.verb = name
    if command is not None:
        if args.command:  # options after REF, which the parser takes for the command
            first = len(argv) - len(args.command)
            args = verb_parser(name).parse_args([*argv[: first - 1], *args.command, argv[first - 1]])
            args.verb = name
        if args.command:
            wrong(f"{args.command[0]!r} stands before --", "vmtui exec --help")
        args.command = command
    if name == "exec" and not args.command:
        wrong("a command is missing", "vmtui exec REF -- COMMAND")
    return VERBS[name].run, args


def _parse_ls(argv: Sequence[str]) -> argparse.Namespace:
    """Terms and options in any order; what begins with - stands after --."""
    from vmtui.core.errors import QueryError
    from vmtui.core.query import parse as parse_query

    cut = list(argv).index("--") if "--" in argv else len(argv)
    args = verb_parser("ls").parse_intermixed_args(argv[:cut])
    args.filter = " ".join([*args.filter, *argv[cut + 1 :]])
    try:
        args.query = parse_query(args.filter)
    except QueryError as error:
        wrong(f"the filter {args.filter!r} at character {error.position + 1}: {error}", error.hint)
    return args


def verb_parser(name: str) -> Parser:
    verb = VERBS[name]
    parser = Parser(f"vmtui {name}", f"{verb.about[:1].upper()}{verb.about[1:]}.", f"example:\n  {verb.example}")
    verb.configure(parser)
    return parser


def profile_parser() -> Parser:
    """The parser of the command line without a verb; its help is the documentation of the program."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name.ljust(width)}  {verb.about}" for name, verb in VERBS.items() if name not in HIDDEN)
    codes = "\n".join(f"  {int(code):>3}  {meaning}" for code, meaning in MEANINGS.items())
    parser = Parser(
        "vmtui",
        f"{vmtui.__doc__}\n\nverbs (vmtui VERB --help tells more):\n{verbs}",
        f"{EXAMPLES}\n\nexit codes:\n{codes}\n\nNO_COLOR switches colours off.",
    )
    parser.usage = "vmtui [--read-only] [--demo [N]] [--plain] | vmtui --profile FILE [OPTION…] | vmtui VERB …"
    add = parser.add_argument
    add("-V", "--version", action="version", version=vmtui.__version__, help="print the version")
    panel = parser.add_argument_group("the panel, without --profile")
    panel.add_argument("--read-only", action="store_true", help="look at everything, change nothing")
    panel.add_argument("--demo", metavar="N", nargs="?", type=_count, const=DEMO_SIZE, help=DEMO_HELP)
    panel.add_argument("--plain", action="store_true", help="lines instead of a screen, as for screen readers")
    add("-p", "--profile", metavar="FILE", help="make the host as this TOML file says")
    instead = parser.add_argument_group("instead of that")
    instead.add_argument("--adopt", action="store_true", help="change FILE to what was applied; --plan only shows it")
    modes = instead.add_mutually_exclusive_group()
    modes.add_argument("--plan", action="store_true", help="show what would change; exit 2 if anything would")
    modes.add_argument("--check", action="store_true", help="say what has drifted; exit 2 if anything has")
    modes.add_argument("--down", action="store_true", help="take the profile down; disks stay")
    modes.add_argument("--foreground", action="store_true", help="stay, follow the logs, take all down on a signal")
    add("--purge", action="store_true", help="with --down: remove the data of its disks too")
    add("--only", metavar="REF", nargs="+", action="extend", default=[], help="only these and what they need")
    add("--recreate", metavar="REF", nargs="*", action="extend", help="make these anew, all if none is named")
    add("--timeout", metavar="TIME", type=_duration, help="for each resource to become ready: 30s, 5m")
    add("--on-failure", choices=("rollback", "keep"), default="rollback", help="(default rollback)")
    add("--trace", action="store_true", help="print on stderr what is done to the host, as commands")
    _yes(parser)
    _json(parser, "one JSON record a line on stdout, nothing else there")
    return parser


def _checked(parser: Parser, argv: Sequence[str]) -> argparse.Namespace:
    args = parser.parse_args(argv)
    if args.recreate is not None and not args.recreate:
        args.recreate = ["all"]
    args.recreate = args.recreate or []
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
    """What `parse` gave; the panel's place on what is no screen is the list."""
    from importlib import import_module

    if where == PANEL:
        where, listed = "verbs:ls", _parse_ls([])
        listed.demo = args.demo
        args = listed
    module, _, function = where.partition(":")
    code: int = getattr(import_module(f"vmtui.headless.{module}"), function)(args)
    return code
