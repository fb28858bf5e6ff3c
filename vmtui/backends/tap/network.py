"""One network as it should be: all names, rules and ports that follow from its spec and its book."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from vmtui.backends.tap import kernel, names
from vmtui.backends.tap.dnsmasq import Dnsmasq
from vmtui.backends.tap.firewall import Policy, Published
from vmtui.backends.tap.ipam import Book, Lease
from vmtui.backends.tap.kernel import Link
from vmtui.core.backend import Context
from vmtui.core.resource import Port, Ref
from vmtui.core.specs import NetworkSpec

TAP, VETH = "tap", "veth"


@dataclass(frozen=True, slots=True)
class Network:
    context: Context
    ref: Ref
    spec: NetworkSpec
    book: Book

    @property
    def mark(self) -> str:
        return self.context.mark(self.ref)

    @property
    def bridge(self) -> str:
        return names.bridge_name(self.context, self.ref)

    @property
    def mac(self) -> str:
        return bridge_mac(self.context, self.ref)

    @property
    def address(self) -> ipaddress.IPv4Interface:
        """The host's, with the prefix."""
        return ipaddress.IPv4Interface(f"{self.book.gateway}/{self.book.network.prefixlen}")

    @property
    def dnsmasq(self) -> Dnsmasq:
        return Dnsmasq(self.bridge)

    @property
    def serves(self) -> bool:
        """Whether it has a dnsmasq."""
        return self.spec.dns or self.spec.dhcp

    def policy(self) -> Policy:
        published = tuple(
            Published(publish, lease.address, self.context.mark(lease.consumer))
            for lease in self.book.plugged()
            for publish in lease.publish
        )
        return Policy(
            bridge=self.bridge,
            mark=self.mark,
            subnet=self.book.network,
            gateway=self.book.gateway,
            internal=self.spec.internal,
            dns=self.spec.dns,
            dhcp=self.spec.dhcp,
            published=published,
        )

    def members(self) -> list[tuple[str, Lease]]:
        """Those that are plugged in, with their MAC."""
        return [(names.mac(self.token(lease)), lease) for lease in self.book.plugged()]

    def token(self, lease: Lease) -> str:
        return names.port_token(self.context, self.ref, lease.consumer, lease.index)

    def interface(self, lease: Lease) -> str:
        """The host's end."""
        return (names.TAP if lease.medium == TAP else names.VETH) + self.token(lease)

    def peer(self, lease: Lease) -> str:
        return names.PEER + self.token(lease) if lease.medium == VETH else ""

    def owns(self, lease: Lease, link: Link) -> bool:
        """Whether a link with the name of this lease's interface is ours."""
        return link.carries(self.context.mark(lease.consumer), names.host_mac(self.token(lease)))

    def seen(self, lease: Lease) -> dict[str, Link]:
        """What the kernel has of the links that `port` looks at."""
        return kernel.find(self.bridge, self.interface(lease), self.peer(lease))

    def port(self, lease: Lease, links: Mapping[str, Link]) -> Port:
        """The port, and what the host has of it."""
        link, bridge = links.get(self.interface(lease)), links.get(self.bridge)
        present = link is not None and bridge is not None and link.master == bridge.index and self.owns(lease, link)
        # A TAP has a carrier while a queue is attached; a veth while both ends are up, and its peer is gone from here
        # as soon as somebody has it.
        held = link is not None and link.carrier and self.peer(lease) not in links
        return Port(
            network=self.ref,
            consumer=lease.consumer,
            index=lease.index,
            medium=lease.medium,
            interface=self.interface(lease),
            peer=self.peer(lease),
            mac=names.mac(self.token(lease)),
            address=lease.address,
            prefix=self.book.network.prefixlen,
            gateway="" if self.spec.internal else self.book.gateway,
            dns=(self.book.gateway,) if self.spec.dns else (),
            search=self.spec.domain if self.spec.dns else "",
            mtu=self.spec.mtu,
            present=present,
            live=present and held,
        )


def bridge_mac(context: Context, ref: Ref) -> str:
    return names.mac(ref.token(context.workspace))
