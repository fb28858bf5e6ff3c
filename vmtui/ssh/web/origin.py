"""Whether a request comes from a page of ours: by which name a browser called, and which page made it call.

A name of another's that resolves to this host (DNS rebinding) is refused by the Host header: only names that are known
to be of this host pass, and addresses, which no resolver can lie about. A page of another origin is refused by the
Origin header, which browsers always send with a websocket: it must be the very host that was called.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[0-9A-Za-z_.-]{1,253}))(?::[0-9]{1,5})?")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Names:
    """What this host is called."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = {"localhost", *(name.lower() for name in names)}

    def knows(self, host: str, local: str) -> bool:
        """Whether a Host header is about us. `local` is the address at which the connection came in.

        The port is not looked at: it is another one where a tunnel leads here.
        """
        match = HOST.fullmatch(host)
        if match is None:
            return False
        address = _address(match["six"] or match["name"])
        if address is None:
            return match["six"] is None and match["name"].lower() in self._names
        return address.is_loopback or address == _address(local)


def same(origin: str, host: str, *, tls: bool) -> bool:
    """Whether the page with this Origin header was had from `host`, the Host header of the same request."""
    return origin.lower() == f"{'https' if tls else 'http'}://{host.lower()}"


def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address
