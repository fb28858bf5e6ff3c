"""What the kernel has of links, addresses and routes: one dump each, a few hundred microseconds."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from vmtui.backends.tap.ipam import Taken
from vmtui.core.backend import Context
from vmtui.core.resource import Ref
from vmtui.host.rtnetlink import (
    ADDRESS,
    IFA_LOCAL,
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    IFLA_MTU,
    LINK,
    ROUTE,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    Message,
    Rtnetlink,
    attribute,
    parse_attributes,
)

# include/uapi/linux/if_link.h
IFLA_MASTER = 10
IFLA_IFALIAS = 20
IFLA_CARRIER = 33
RTA_DST = 1
RTA_OIF = 4
RTN_UNICAST = 1


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface of the host. `master` is the index of its bridge, 0 for none."""

    index: int
    name: str
    kind: str
    alias: str
    mac: str
    mtu: int
    master: int
    up: bool
    carrier: bool

    def carries(self, mark: str, made_with: str) -> bool:
        """Whether it is ours: our mark, or, made but not yet marked, the address that only we would give it."""
        return self.alias == mark or (not self.alias and self.mac == made_with)


def _text(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0").decode("utf-8", "replace")


def _number(value: bytes | None) -> int:
    return struct.unpack("=I", value)[0] if value is not None and len(value) == 4 else 0


def parse_link(message: Message) -> Link:
    found = message.attributes
    _, _, index, flags, _ = LINK.unpack(message.body)
    return Link(
        index=index,
        name=_text(found.get(IFLA_IFNAME)),
        kind=_text(parse_attributes(found.get(IFLA_LINKINFO, b"")).get(IFLA_INFO_KIND)),
        alias=_text(found.get(IFLA_IFALIAS)),
        mac=found.get(IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(found.get(IFLA_MTU)),
        master=_number(found.get(IFLA_MASTER)),
        up=bool(flags & IFF_UP),
        carrier=found.get(IFLA_CARRIER) == b"\1",
    )


def links() -> dict[str, Link]:
    """All interfaces of this network namespace, by name. Raises OSError."""
    with Rtnetlink() as kernel:
        return {link.name: link for link in map(parse_link, kernel.dump(RTM_GETLINK))}


def find(*names: str) -> dict[str, Link]:
    """Those of `names` that are there: cheaper than a dump where there are many. Raises OSError."""
    found: dict[str, Link] = {}
    with Rtnetlink() as kernel:
        for name in filter(None, names):
            try:
                answers = kernel.ask(RTM_GETLINK, LINK.pack(0, 0, 0, 0, 0), attribute(IFLA_IFNAME, name))
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise
                continue
            found[name] = parse_link(answers[0])
    return found


def addresses() -> dict[int, tuple[ipaddress.IPv4Interface, ...]]:
    """The IPv4 addresses of each interface, by its index. Raises OSError."""
    found: dict[int, tuple[ipaddress.IPv4Interface, ...]] = {}
    with Rtnetlink() as kernel:
        for message in kernel.dump(RTM_GETADDR, socket.AF_INET):
            _, prefix, _, _, index = ADDRESS.unpack(message.body)
            local = ipaddress.IPv4Interface((message.attributes[IFA_LOCAL], prefix))
            found[index] = (*found.get(index, ()), local)
    return found


def _routes() -> list[tuple[int, ipaddress.IPv4Network]]:
    """Unicast routes with a destination, of all tables, with the interface's index."""
    found = []
    with Rtnetlink() as kernel:
        for message in kernel.dump(RTM_GETROUTE, socket.AF_INET):
            _, prefix, _, _, _, _, _, kind, _ = ROUTE.unpack(message.body)
            if kind == RTN_UNICAST and prefix and RTA_DST in message.attributes:
                network = ipaddress.IPv4Network((message.attributes[RTA_DST], prefix), strict=False)
                found.append((_number(message.attributes.get(RTA_OIF)), network))
    return found


def taken(context: Context, own_bridge: str) -> list[Taken]:
    """The host's addresses and routes but the default one and those of `own_bridge`. Raises OSError."""
    by_index: Mapping[int, Link] = {link.index: link for link in links().values()}
    found: list[Taken] = []

    def add(index: int, network: ipaddress.IPv4Network, what: str) -> None:
        link = by_index.get(index)
        if link is None or link.name != own_bridge:
            found.append(Taken(network, _whose(context, link, what)))

    for index, interfaces in addresses().items():
        for interface in interfaces:
            add(index, interface.network, f"an address ({interface.ip})")
    for index, network in _routes():
        add(index, network, "a route")
    return found


def _whose(context: Context, link: Link | None, what: str) -> str:
    if link is None:
        return f"{what} of this host"
    head, _, rest = link.alias.partition(":")
    workspace, _, name = rest.partition(":")
    try:
        network = Ref.parse(name)
    except ValueError:
        network = None
    if head != "vmtui" or network is None:
        return f"{what} of interface {link.name}"
    return f"{network}" if workspace == context.workspace else f"{network} of another vmtui workspace ({link.name})"
