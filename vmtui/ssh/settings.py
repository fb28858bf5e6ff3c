"""The table [serve] of serve.toml: how the console is served. The tables [role.NAME] are of profile/roles.py."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, field

from vmtui.core.errors import FileInvalid
from vmtui.core.specs import decode
from vmtui.core.units import Duration, Size
from vmtui.host.paths import config_dir
from vmtui.profile import document, rules

FILE = "serve.toml"
KEYS = "authorized_keys"
FORM = "serve.toml has the table [serve], and tables of the form [role.NAME]"
TABLES = ("serve", "role")
Count = Annotated[int, Meta(ge=1, le=100_000)]
Listen = tuple[str, int]


class ServeInvalid(FileInvalid):
    """The file serve.toml cannot be used."""


class Web(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table [serve.web]: the console in a browser."""

    listen: str = "127.0.0.1:8022"
    names: tuple[str, ...] = ()  # by which browsers reach it, beside its address
    certificate: str = ""  # PEM files; without them one is made
    key: str = ""


class Serve(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Paths are relative to the file's folder; a count is of what is there at once."""

    listen: tuple[str, ...] = ("127.0.0.1:2222",)
    keys: str = KEYS
    host_key: str = ""  # "": in the state directory
    host_key_grace: Duration = field(default_factory=lambda: Duration(7 * 86400))
    login_timeout: Duration = field(default_factory=lambda: Duration(15))
    keepalive: Duration = field(default_factory=lambda: Duration(30))
    connections: Count = 256
    connections_per_person: Count = 128
    unauthenticated: Count = 256
    unauthenticated_per_address: Count = 128
    sessions_per_connection: Count = 10
    recordings: bool = True  # of sessions on a terminal, where the role has them recorded
    recording_size: Size = field(default_factory=lambda: Size(64 << 20))
    web: Web = field(default_factory=Web)


def default_path() -> Path:
    return config_dir() / FILE


def load(path: Path, *, must_exist: bool = False) -> Serve:
    """Without a file: the defaults. Raises ServeInvalid for the first thing that is wrong."""
    if not must_exist and not os.path.lexists(path):
        return Serve()
    text = document.read(path, ServeInvalid)
    tables = document.parse(text, path, ServeInvalid, form=FORM)
    for name in tables:
        if name not in TABLES:
            hint = document.meant(name, TABLES) or FORM
            raise document.located(ServeInvalid, path, text, (name,), "unknown table", hint)
    table = tables.get("serve", {})
    try:
        serve = decode(table, Serve)
    except msgspec.ValidationError as error:
        raise document.located(ServeInvalid, path, text, *_explained(str(error), table)) from None
    for key, value in [(("serve", "listen", at), one) for at, one in enumerate(serve.listen)] + [
        (("serve", "web", "listen"), serve.web.listen)
    ]:
        try:
            address(value)
        except ValueError as error:
            raise document.located(ServeInvalid, path, text, key, str(error)) from None
    if not serve.listen:
        raise document.located(ServeInvalid, path, text, ("serve", "listen"), "there must be an address to listen at")
    return serve


def address(text: str) -> Listen:
    """ADDRESS:PORT, [IPV6]:PORT, ADDRESS or PORT to a pair. Raises ValueError with a message for people."""
    wrong = ValueError(f'{text!r} is not an address to listen at; write "127.0.0.1:2222" or "[::1]:2222"')
    host, colon, port = text.rpartition(":")
    if not colon:
        host, port = (text, "2222") if not text.isdigit() else ("127.0.0.1", text)
    elif ":" in host and not (host.startswith("[") and host.endswith("]")):
        host, port = text, "2222"  # an IPv6 address without brackets has no port
    host = host.removeprefix("[").removesuffix("]")
    if host == "localhost":
        host = "127.0.0.1"
    if host == "*":
        host = "0.0.0.0"
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        raise wrong from None
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise wrong
    return host, int(port)


def _explained(error: str, table: Any) -> tuple[tuple[str | int, ...], str, str]:
    """The key that is wrong, what is, and a hint."""
    message, steps = rules.explain(error, table if isinstance(table, Mapping) else {})
    key: tuple[str | int, ...] = ("serve", *steps)
    unknown = message.removeprefix("unknown key '").removesuffix("'")
    if unknown == message:
        return key, message, ""
    known = sorted((Web if steps == ("web",) else Serve).__struct_fields__)
    return (*key, unknown), "unknown key", document.meant(unknown, known) or f"known here: {', '.join(known)}"
