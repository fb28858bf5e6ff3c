"""How a command line is read: the parser that all verbs share, and what the values of options may be."""

from __future__ import annotations

import argparse
import ipaddress
import sys
from typing import NoReturn

from vmtui.headless.exit_codes import ExitCode

HELP_WIDTH = 100
PORTS = range(1 << 16)


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
        self.helped_by: Parser | None = None

    def format_help(self) -> str:
        """Its own help, or that of `helped_by`: of a parser that shows less than this one reads."""
        return super().format_help() if self.helped_by is None else self.helped_by.format_help()

    def error(self, message: str) -> NoReturn:
        wrong(message, f"{self.prog} --help")


def wrong(message: str, hint: str) -> NoReturn:
    """A usage error, before there is anything to clean up."""
    from vmtui.headless.text import clean

    sys.stderr.write(f"error: {clean(message)}\nhint: {clean(hint)}\n")
    raise SystemExit(int(ExitCode.USAGE))


def whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("it must not be negative")
    return value


def count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of resources")
    return int(text)


def factor(text: str) -> float:
    """How many times as fast: "2", "0.5"."""
    if not text.replace(".", "", 1).isdecimal() or not 0.01 <= float(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0.01 and 1000")
    return float(text)


def duration(text: str) -> float:
    from vmtui.core.units import Duration

    try:
        return float(Duration.parse(float(text) if text.replace(".", "", 1).isdigit() else text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def address(text: str) -> tuple[str, int]:
    """ADDRESS:PORT to both; a name is not looked up, an IPv6 address stands in brackets. Port 0 is any free one."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    try:
        if bracketed:
            ipaddress.IPv6Address(host)
        elif not host or ":" in host or not host.isprintable() or " " in host:
            raise ValueError
        if not colon or not (port.isascii() and port.isdecimal()) or int(port) not in PORTS:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not ADDRESS:PORT, as 127.0.0.1:2222 or [::1]:2222") from None
    return host, int(port)
