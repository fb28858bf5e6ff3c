"""The table [serve] of serve.toml: how the console is served."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

from vmtui.core.policy import BUILTIN, Role
from vmtui.host.paths import config_dir
from vmtui.profile import roles
from vmtui.profile.serving import Serve
from vmtui.profile.tables import TomlFile
from vmtui.ssh.web.settings import faults

FILE = "serve.toml"
Listen = tuple[str, int]


def default_path() -> Path:
    return config_dir() / FILE


def read(path: Path, *, must_exist: bool = False) -> tuple[Serve, dict[str, Role]]:
    """How to serve, and the roles that there are. Without a file: the defaults. Raises ServeInvalid."""
    if not must_exist and not os.path.lexists(path):
        return Serve(), dict(BUILTIN)
    file = roles.read(path)
    return of(file), roles.of(file)


def of(file: TomlFile) -> Serve:
    """Raises ServeInvalid for the first thing that is wrong."""
    serve = file.decode(Serve, "serve")
    if not serve.listen:
        file.refuse(("serve", "listen"), "there must be an address to listen at")
    for at, text in enumerate(serve.listen):
        try:
            address(text)
        except ValueError as error:
            file.refuse(("serve", "listen", at), str(error))
    for key, message, hint in faults(serve.web):
        file.refuse(("serve", "web", *key), message, hint)
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
