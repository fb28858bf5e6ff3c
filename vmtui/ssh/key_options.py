"""The options before a key in authorized_keys, as sshd(8) has them, and two of our own: role="…" and name="…".

Each option that is not known, or that would be ignored here, is an error: what someone wrote to restrict a key must.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase

import msgspec

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@+-]{0,62}[A-Za-z0-9])?")
NAME_RULE = "a name is 1 to 64 of a-z, A-Z, 0-9 and ._@+-, with a letter or digit at both ends"
EXPIRY = re.compile(r"(\d{8})(\d{4}(?:\d{2})?)?(Z?)", re.IGNORECASE)
NEVER = frozenset({"agent-forwarding", "x11-forwarding", "user-rc"})  # nobody has these; permitted or not is the same
OPTION = re.compile(r'([A-Za-z0-9-]+)(?:(=)"((?:[^"\\]|\\.)*)")?')  # a value is always quoted, and \" is a quote in it
ROLE, PERSON = "VMTUI_ROLE", "VMTUI_NAME"  # for tools that know only the options of sshd: environment="VMTUI_ROLE=…"


class Options(msgspec.Struct, kw_only=True):
    """What the options of a line say. `expires_at` is seconds since the epoch."""

    role: str = ""
    name: str = ""
    authority: bool = False
    principals: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    command: str | None = None
    pty: bool = True
    forwarding: bool = True
    touch: bool = True
    opens: tuple[str, ...] = ()  # HOST:PORT that may be connected to; (): all that the role permits
    expires_at: float | None = None


def parse(text: str) -> Options:
    """In their order: a later one may take back what `restrict` took. Raises ValueError with a message for people."""
    options = Options()
    for name, value in _split(text):
        if value is None:
            _word(options, name)
        elif (setter := SETTERS.get(name)) is not None:
            setter(options, value)
        elif name in ("tunnel", "permitlisten"):
            raise ValueError(f"{name}= permits what is never possible here; remove it")
        else:
            raise ValueError(f"there is no option {name}=")
    return options


def _split(text: str) -> Iterator[tuple[str, str | None]]:
    at = 0
    while True:
        match = OPTION.match(text, at)
        if match is None:
            raise ValueError(f'{text[at : at + 40]!r} is not an option; write word or word="value"')
        if text.startswith("=", match.end()):
            raise ValueError(f'{match[1]}=: a value is in quotes; write {match[1]}="…"')
        yield match[1].lower(), None if match[2] is None else match[3].replace('\\"', '"')
        at = match.end()
        if at == len(text):
            return
        if text[at] != ",":
            raise ValueError(f"after {match[1]} there is {text[at : at + 40]!r}; a comma goes between options")
        at += 1


def _word(options: Options, name: str) -> None:
    permitted, bare = not name.startswith("no-"), name.removeprefix("no-")
    if name == "restrict":
        options.pty = options.forwarding = False
    elif name == "cert-authority":
        options.authority = True
    elif name == "no-touch-required":
        options.touch = False
    elif bare == "pty":
        options.pty = permitted
    elif bare == "port-forwarding":
        options.forwarding = permitted
    elif name == "verify-required":
        raise ValueError("verify-required cannot be held here: remove it, or the key")
    elif bare not in NEVER:
        raise ValueError(f"there is no option {name}")


def _set_command(options: Options, value: str) -> None:
    try:
        shlex.split(value)
    except ValueError as error:
        raise ValueError(f"command={value!r}: {str(error).lower()}") from None
    options.command = value


def _set_environment(options: Options, value: str) -> None:
    variable, equals, setting = value.partition("=")
    if not equals or variable not in (ROLE, PERSON):
        raise ValueError(f"environment={value!r}: only {ROLE}=… and {PERSON}=… mean something here")
    (_set_role if variable == ROLE else _set_name)(options, setting)


def _set_role(options: Options, value: str) -> None:
    if options.role not in ("", value):
        raise ValueError(f"two roles: {options.role} and {value}")
    options.role = value


def _set_name(options: Options, value: str) -> None:
    if not NAME.fullmatch(value):
        raise ValueError(f"name {value!r}: {NAME_RULE}")
    options.name = value


def _set_from(options: Options, value: str) -> None:
    for pattern in value.split(","):
        bare = pattern.removeprefix("!")
        if not re.fullmatch(r"[0-9a-fA-F.:*?]+(?:/\d{1,3})?", bare):
            raise ValueError(f"from={pattern!r}: names are not looked up here; write addresses, as 192.0.2.0/24")
        if "/" in bare:
            try:
                ipaddress.ip_network(bare)
            except ValueError as error:
                raise ValueError(f"from={pattern!r}: {error}") from None
    options.sources = (*options.sources, value)


def _set_expiry(options: Options, value: str) -> None:
    match = EXPIRY.fullmatch(value)
    wrong = ValueError(f"expiry-time={value!r} is not a time; write YYYYMMDD or YYYYMMDDHHMM[SS], with Z for UTC")
    if match is None:
        raise wrong
    try:
        moment = datetime.strptime(match[1] + (match[2] or "0000").ljust(6, "0"), "%Y%m%d%H%M%S")
        ends = moment.replace(tzinfo=UTC).timestamp() if match[3] else time.mktime(moment.timetuple())
    except (ValueError, OverflowError):
        raise wrong from None
    options.expires_at = ends if options.expires_at is None else min(ends, options.expires_at)


def _set_principals(options: Options, value: str) -> None:
    found = tuple(filter(None, value.split(",")))
    if not found:
        raise ValueError("principals= names none")
    options.principals = found


def _set_permitopen(options: Options, value: str) -> None:
    host, colon, port = value.rpartition(":")
    if not colon or not host or (port != "*" and not (port.isdigit() and 0 < int(port) < 65536)):
        raise ValueError(f'permitopen={value!r} is not HOST:PORT; write "web:80" or "web:*"')
    options.opens = (*options.opens, value)


SETTERS: dict[str, Callable[[Options, str], None]] = {
    "role": _set_role,
    "name": _set_name,
    "environment": _set_environment,
    "command": _set_command,
    "from": _set_from,
    "expiry-time": _set_expiry,
    "principals": _set_principals,
    "permitopen": _set_permitopen,
}


def comes_from(sources: tuple[str, ...], address: str) -> bool:
    """Whether each of the pattern lists of from= lets `address` in: one pattern fits, and none with a ! does."""
    return all(_fits_list(patterns, address) for patterns in sources)


def _fits_list(patterns: str, address: str) -> bool:
    found = False
    for pattern in patterns.split(","):
        if _fits(pattern.removeprefix("!"), address):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _fits(pattern: str, address: str) -> bool:
    try:
        here = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(here, ipaddress.IPv6Address) and here.ipv4_mapped:
        here = here.ipv4_mapped
    if "/" in pattern:
        return here in ipaddress.ip_network(pattern)
    try:
        return here == ipaddress.ip_address(pattern)
    except ValueError:
        return fnmatchcase(str(here), pattern.lower())
