"""The verbs: what each takes, what runs it, and what it needs a person to be allowed. No import of what it runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from vmtui.headless.parsers import Parser, address, count, duration, factor, whole

KINDS = ("network", "disk", "vm", "container", "sandbox")
FILTER_HELP = "terms that all must match, as after / in the panel: kind:vm,container state:running !profile:ci web"
DEMO_SIZE = 40
DEMO_HELP = f"over N made-up resources (default {DEMO_SIZE}): nothing is real"
REF_HELP = "a resource: NAME, KIND/NAME or PROFILE/KIND/NAME, as long as it means one"
FILE_HELP = "the profile; - for stdin (default -)"
STDIN = "-"
SERVE = "serve"  # in place of MODULE:FUNCTION: no part of this package
LISTEN = "127.0.0.1:2222"
WEB = "127.0.0.1:8022"


class Verb:
    """`run` is MODULE:FUNCTION in this package; it is imported when the verb is used.

    `needs` are verbs of core/policy.py: a served session that has none of them neither shows nor runs it.
    """

    def __init__(
        self, about: str, run: str, configure: Callable[[argparse.ArgumentParser], Any], example: str, *needs: str
    ) -> None:
        self.about = about
        self.run = run
        self.configure = configure
        self.example = example
        self.needs = needs


def json(parser: argparse.ArgumentParser, about: str = "one JSON document on stdout") -> None:
    parser.add_argument("--json", action="store_true", help=about)


def yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask before data is lost")


def choosing(parser: argparse._ActionsContainer) -> None:
    """What of a profile is meant."""
    add = parser.add_argument
    add("--only", metavar="REF", nargs="+", action="extend", default=[], help="only these and what they need")
    add("--recreate", metavar="REF", nargs="*", action="extend", help="make these anew, all if none is named")


def converging(parser: argparse._ActionsContainer) -> None:
    """How a profile is carried out."""
    add = parser.add_argument
    add("--timeout", metavar="TIME", type=duration, help="for each resource to become ready: 30s, 5m")
    add("--on-failure", choices=("rollback", "keep"), default="rollback", help="(default rollback)")
    add("--trace", action="store_true", help="print on stderr what is done to the host, as commands")


def _ref(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    if nargs is None:
        parser.add_argument("ref", metavar="REF", help=REF_HELP)
    else:
        parser.add_argument("refs", metavar="REF", nargs=nargs, help=REF_HELP)


def _acts(*, grace: bool = False, purge: bool = False) -> Callable[[argparse.ArgumentParser], None]:
    def configure(parser: argparse.ArgumentParser) -> None:
        _ref(parser, "+")
        if grace:
            parser.add_argument("--grace", metavar="TIME", type=duration, help="before it is killed: 30s, 1m30s")
        if purge:
            parser.add_argument("--purge", action="store_true", help="remove its data too: disks need this")
            yes(parser)
        json(parser)

    return configure


def _ls(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-p", "--profile-name", metavar="NAME", help="only the resources of this profile")
    parser.add_argument("-k", "--kind", choices=KINDS, help="only this kind")
    parser.add_argument(
        "--plain", action="store_true", help="only the names, one a line; without FILTER from the database"
    )
    json(parser)
    parser.add_argument("filter", metavar="FILTER", nargs="*", help=FILTER_HELP)


def _inspect(parser: argparse.ArgumentParser) -> None:
    _ref(parser)
    parser.add_argument(
        "--exits", action="store_true", help="what a VM on backend kvm left its guest for, and how often"
    )
    json(parser)


def _logs(parser: argparse.ArgumentParser) -> None:
    _ref(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new lines as they come")
    parser.add_argument("-n", "--lines", metavar="N", type=whole, help="only the last N lines (default: all)")
    parser.add_argument("-t", "--timestamps", action="store_true", help="begin each line with its time")
    json(parser, "one JSON record a line")


def _exec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-i", "--interactive", action="store_true", help="pass on stdin")
    parser.add_argument("-t", "--tty", action="store_true", help="give it a terminal")
    parser.add_argument("-u", "--user", metavar="USER", help="run as USER[:GROUP]")
    parser.add_argument("-w", "--working-dir", metavar="DIR", help="run in DIR")
    parser.add_argument("-e", "--environment", metavar="NAME=VALUE", action="append", default=[], help="set a variable")
    json(parser, "one JSON record a line, the last with the exit code")
    _ref(parser)
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="the command, best after --")


def _console(parser: argparse.ArgumentParser) -> None:
    _ref(parser)
    json(parser, "what the console shows as JSON records")


def _stats(parser: argparse.ArgumentParser) -> None:
    _ref(parser, "*")
    parser.add_argument("--watch", action="store_true", help="measure again and again")
    parser.add_argument("--interval", metavar="TIME", type=duration, default=1.0, help="between two (default 1s)")
    json(parser, "one JSON record a line")


def _events(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new ones as they come")
    parser.add_argument("-n", "--lines", metavar="N", type=whole, default=100, help="the last N (default 100)")
    json(parser, "one JSON record a line")


def _plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", nargs="?", default=STDIN, help=FILE_HELP)
    choosing(parser)
    json(parser, "one JSON record a line")


def _apply(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", nargs="?", default=STDIN, help=FILE_HELP)
    choosing(parser)
    converging(parser)
    yes(parser)
    json(parser, "one JSON record a line")


def _down(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("profile_name", metavar="NAME", help="the name of a profile, as vmtui ls shows it")
    parser.add_argument("--purge", action="store_true", help="remove the data of its disks too")
    parser.add_argument("--only", metavar="REF", nargs="+", action="extend", default=[], help="only these resources")
    yes(parser)
    json(parser, "one JSON record a line")


def _answer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", type=whole, help="of the request, as vmtui approvals shows it")
    json(parser)


def _audit_ls(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", "--lines", metavar="N", type=whole, default=100, help="the last N (default 100)")
    parser.add_argument("--who", metavar="NAME", help="only what this person did")
    json(parser, "one JSON record a line")


def _audit_verify(parser: argparse.ArgumentParser) -> None:
    about = "what an earlier one printed, kept elsewhere: all up to there must still be the same"
    parser.add_argument("--head", metavar="NUMBER:HASH", default="", help=about)
    json(parser)


def _recording(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    what = "a recording: its session, or the name of its file or how that begins"
    parser.add_argument("id" if nargs is None else "ids", metavar="ID", nargs=nargs, help=what)


def _recordings_play(parser: argparse.ArgumentParser) -> None:
    _recording(parser)
    parser.add_argument("--speed", metavar="X", type=factor, default=1.0, help="times as fast (default 1)")
    parser.add_argument("--idle", metavar="TIME", type=duration, default=2.0, help="the longest pause (default 2s)")
    json(parser, "the recording as it is: asciicast v2")


def _recordings_rm(parser: argparse.ArgumentParser) -> None:
    _recording(parser, "+")
    yes(parser)
    json(parser)


def _serve(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--listen", metavar="ADDRESS:PORT", type=address, action="append", default=[],
        help=f"where; may be given again (default {LISTEN})",
    )  # fmt: skip
    add("--config", metavar="FILE", help="limits and roles (default $XDG_CONFIG_HOME/vmtui/serve.toml)")
    add("--keys", metavar="FILE", help="who may come in (default $XDG_CONFIG_HOME/vmtui/authorized_keys)")
    add("--host-key", metavar="FILE", help="(default one of its own, made at the first start)")
    add(
        "--web", metavar="ADDRESS:PORT", nargs="?", type=address, const=(),
        help=f"in a browser too (default {WEB})",
    )  # fmt: skip
    add("--demo", metavar="N", nargs="?", type=count, const=DEMO_SIZE, help=DEMO_HELP)
    instead = parser.add_argument_group("instead of that").add_mutually_exclusive_group()
    instead.add_argument("--check", action="store_true", help="only say whether the configuration and keys are good")
    instead.add_argument("--fingerprint", action="store_true", help="only print the fingerprint of the host key")
    instead.add_argument("--rotate-host-key", action="store_true", help="only make the next one, and announce it")


def _schema(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="?", choices=("profile", "config", "events", "serve"), default="profile", help="(default profile)"
    )
    json(parser, "accepted; a schema always is JSON")


def _completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell to make it for")


def _reap(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", metavar="PROFILE/KIND/NAME", help="the workload that ended")


VERBS: dict[str, Verb] = {
    "ls": Verb(
        "list the resources that are there", "verbs:ls", _ls, "vmtui ls kind:vm state:problem -- -profile:ci",
        "view",
    ),
    "inspect": Verb("show all that is known of one", "verbs:inspect", _inspect, "vmtui inspect vm/guest", "view"),
    "start": Verb("start what is stopped", "verbs:act", _acts(), "vmtui start web guest", "start"),
    "stop": Verb("stop what runs", "verbs:act", _acts(grace=True), "vmtui stop --grace 30s vm/guest", "stop"),
    "restart": Verb("stop and start again", "verbs:act", _acts(grace=True), "vmtui restart web", "restart"),
    "pause": Verb("freeze what runs", "verbs:act", _acts(), "vmtui pause guest", "pause"),
    "resume": Verb("go on with what is paused", "verbs:act", _acts(), "vmtui resume guest", "resume"),
    "kill": Verb("end it at once", "verbs:act", _acts(), "vmtui kill guest", "kill"),
    "rm": Verb("remove", "verbs:act", _acts(purge=True), "vmtui rm --purge disk/data", "delete"),
    "logs": Verb("show its log", "streams:logs", _logs, "vmtui logs -f -n 20 web", "logs"),
    "exec": Verb("run a command inside", "attach:execute", _exec, "vmtui exec -it web -- sh", "exec"),
    "console": Verb(
        "attach to its console; ctrl+] leaves it", "attach:console", _console, "vmtui console guest", "console"
    ),
    "stats": Verb("measure what runs", "streams:stats", _stats, "vmtui stats --watch", "stats"),
    "events": Verb("what happened", "streams:events", _events, "vmtui events -f", "view"),
    "plan": Verb(
        "show what a profile would change; exit 2 if anything", "converge:plan", _plan, "vmtui plan < dev.toml",
        "view",
    ),
    "apply": Verb(
        "make the host as a profile says", "converge:apply", _apply, "vmtui apply --yes < dev.toml",
        "create", "change", "delete",
    ),
    "down": Verb("take a profile down by its name", "converge:down", _down, "vmtui down dev --purge", "delete"),
    "doctor": Verb("try every backend, say what is missing", "health:doctor", json, "vmtui doctor", "view"),
    "backends": Verb(
        "list the backends and what they can", "health:backends", json, "vmtui backends", "view"
    ),
    "schema": Verb("print a JSON Schema", "verbs:schema", _schema, "vmtui schema > profile.schema.json"),
    "serve": Verb(
        "serve the panel and the verbs over SSH", SERVE, _serve, "vmtui serve --listen 127.0.0.1:2222", "host"
    ),
    "approvals": Verb(
        "list what waits for a second person", "approvals:ls", json, "vmtui approvals", "approve"
    ),
    "approve": Verb("agree to what another asks for", "approvals:answer", _answer, "vmtui approve 12", "approve"),
    "deny": Verb("refuse it", "approvals:answer", _answer, "vmtui deny 12", "approve"),
    "audit ls": Verb("list what was done over SSH", "audit:ls", _audit_ls, "vmtui audit ls --who anna", "audit"),
    "audit verify": Verb(
        "say whether the audit log is whole", "audit:verify", _audit_verify, "vmtui audit verify", "audit"
    ),
    "recordings ls": Verb(
        "list the recorded sessions", "recordings:ls", json, "vmtui recordings ls", "recordings"
    ),
    "recordings play": Verb(
        "show one as it went", "recordings:play", _recordings_play, "vmtui recordings play --speed 2 7f3a",
        "recordings",
    ),
    "recordings rm": Verb(
        "remove recordings", "recordings:rm", _recordings_rm, "vmtui recordings rm 7f3a", "host"
    ),
    "completion": Verb(
        "print completion for a shell", "completion:main", _completion, ". <(vmtui completion bash)", "host"
    ),
    "reap": Verb("", "verbs:reap", _reap, "", "host"),
}  # fmt: skip
HIDDEN = frozenset({"reap"})
FAMILIES = {"audit": "what was done over SSH", "recordings": "recorded sessions"}  # the first of two words


def parser_of(name: str) -> Parser:
    """The parser of one verb."""
    verb = VERBS[name]
    made = Parser(f"vmtui {name}", f"{verb.about[:1].upper()}{verb.about[1:]}.", f"example:\n  {verb.example}")
    verb.configure(made)
    return made
