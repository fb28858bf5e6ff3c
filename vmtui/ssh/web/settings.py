"""What can be set of the console in a browser: the table `[serve.web]`, and the address that it listens on."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

import msgspec

from vmtui.core.errors import InvalidInput
from vmtui.profile.serving import WebSettings

PORT = 8022
DEFAULT = f"127.0.0.1:{PORT}"
ADDRESS = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<four>[0-9A-Za-z.-]*))(?::(?P<port>[0-9]{1,5}))?")
NAME = re.compile(r"[0-9A-Za-z_](?:[0-9A-Za-z_.-]*[0-9A-Za-z_])?")
HINT = f"vmtui serve --web {DEFAULT}"


class Address(msgspec.Struct, frozen=True):
    """Where to listen: an IP address, never a name, so that it is plain who can reach it. Port 0 is any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """`ADDRESS:PORT`, either of which may be left out. Raises InvalidInput."""
        match = ADDRESS.fullmatch(text)
        host = (match["six"] or match["four"] or "127.0.0.1") if match else ""
        port = int((match["port"] if match else None) or PORT)
        try:
            parsed = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        except ValueError:
            raise InvalidInput(f"{text!r} is not an address to listen on", hint=HINT) from None
        if port > 65535:
            raise InvalidInput(f"{text!r}: a port is at most 65535", hint=HINT)
        return cls(str(parsed), port)

    @property
    def loopback(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def any(self) -> bool:
        """Whether it stands for all addresses of the host."""
        return ipaddress.ip_address(self.host).is_unspecified

    def __str__(self) -> str:
        return f"{bracketed(self.host)}:{self.port}"


def faults(settings: WebSettings) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """What its types do not say is wrong: a key, why, and a hint."""
    try:
        Address.parse(settings.listen)
    except InvalidInput as fault:
        yield ("listen",), str(fault), f'listen = "{DEFAULT}"'
    for at, name in enumerate(settings.names):
        if len(name) > 253 or not NAME.fullmatch(name):
            yield ("names", at), f"{name!r} is not the name of a host", 'names = ["console.example"]'
    if bool(settings.certificate) != bool(settings.key):
        yield (
            ("certificate" if settings.certificate else "key",),
            "certificate and key go together",
            'certificate = "FILE", key = "FILE"',
        )


def bracketed(host: str) -> str:
    """As it is written in a URL."""
    return f"[{host}]" if ":" in host else host
