"""What the host has of a network, against what it should have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from vmtui.backends.records import Record
from vmtui.backends.tap import firewall, ipam, kernel, sysctl
from vmtui.backends.tap.firewall import Listing
from vmtui.backends.tap.ipam import Book
from vmtui.backends.tap.network import Network, bridge_mac
from vmtui.core.backend import Context
from vmtui.core.errors import Fault
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Address, Fact, Problem, Ref, Status
from vmtui.core.specs import NetworkSpec

NAME = "tap"
MEND = "vmtui --profile FILE"


@dataclass(frozen=True, slots=True)
class Host:
    """One look at the host, for all networks. `listing` is None if the rules cannot be read: `blind` says why.

    Who has no right to the network is `denied` them, which is nothing that is wrong with a network.
    """

    links: dict[str, kernel.Link] = field(default_factory=kernel.links)
    addresses: dict[int, tuple[object, ...]] = field(default_factory=lambda: {**kernel.addresses()})
    listing: Listing | None = None
    blind: str = ""
    denied: bool = False


async def look() -> Host:
    """Raises nothing but OSError."""
    try:
        return Host(listing=await firewall.read())
    except Fault as fault:
        return Host(blind=str(fault), denied=not firewall.permitted())


def load(context: Context, ref: Ref, record: Record[NetworkSpec] | None) -> Network | None:
    """The network as its files tell it, None if they are not complete."""
    book: Book | None = ipam.load(context.resource_dir(ref))
    return None if record is None or book is None else Network(context, ref, record.desired.spec, book)


def status(context: Context, ref: Ref, record: Record[NetworkSpec] | None, host: Host) -> Status:
    """The status of a network that left a trace."""
    network = load(context, ref, record)
    spec_hash = "" if record is None else record.desired.spec_hash
    if network is None or record is None:
        message = f"{ref} is half made, or its record is lost"
        problem = Problem(code="incomplete", message=message, hint=f"vmtui rm {ref}")
        return Status(ref=ref, backend=NAME, phase=Phase.BROKEN, spec_hash=spec_hash, problems=(problem,))
    problems = tuple(_problems(network, host))
    if not record.complete:
        problems = (Problem(code="incomplete", message=f"{ref} is half made", hint=MEND), *problems)
    bridge = host.links.get(network.bridge)
    address = Address(
        network=ref.name, address=network.book.gateway, mac=bridge.mac if bridge else "", interface=network.bridge
    )
    return Status(
        ref=ref,
        backend=NAME,
        phase=Phase.BROKEN if problems else Phase.AVAILABLE,
        spec_hash=spec_hash,
        addresses=(address,),
        ports=tuple(network.port(lease, host.links) for lease in network.book.leases),
        facts=tuple(Fact(name=name, value=value) for name, value in _facts(network, host)),
        problems=problems,
    )


def bridge_is_right(network: Network, host: Host) -> bool:
    """Whether the bridge is there, ours, up and has its address."""
    link = host.links.get(network.bridge)
    return (
        link is not None
        and link.alias == network.mark
        and link.up
        and link.mtu == network.spec.mtu
        and network.address in host.addresses.get(link.index, ())
        and sysctl.bridge_is_set(network.bridge)
    )


def _problems(network: Network, host: Host) -> Iterator[Problem]:
    bridge = host.links.get(network.bridge)
    if bridge is None:
        yield Problem(code="bridge-gone", message=f"bridge {network.bridge} of {network.ref} is gone", hint=MEND)
    elif not bridge.carries(network.mark, bridge_mac(network.context, network.ref)):
        hint = f"ip link show {network.bridge}"
        yield Problem(code="foreign-interface", message=f"interface {network.bridge} is not ours", hint=hint)
    elif not bridge_is_right(network, host):
        message = f"bridge {network.bridge} is down, or lacks its address {network.address} or its settings"
        yield Problem(code="bridge-changed", message=message, hint=MEND)
    if host.listing is None and not host.denied:
        yield Problem(code="rules-unknown", message=f"the rules cannot be read: {host.blind}", hint="vmtui doctor")
    elif host.listing is not None and not firewall.intact(network.policy(), host.listing):
        message = f"rules of {network.bridge} in nft table {firewall.FAMILY} {firewall.TABLE} are lost or changed"
        yield Problem(code="rules-changed", message=message, hint=MEND)
    if not network.spec.internal and not sysctl.forwards():
        yield Problem(code="forwarding-off", message="net.ipv4.ip_forward is 0: no way out for members", hint=MEND)
    if network.serves:
        dnsmasq = network.dnsmasq
        if dnsmasq.runs(dnsmasq.argv(network.spec, network.book)) is None:
            yield Problem(code="dnsmasq-gone", message=f"no dnsmasq serves {network.bridge}", hint=MEND)
        elif not dnsmasq.intact(network.spec, network.members()):
            yield Problem(code="names-changed", message=f"names of {network.ref} are out of date", hint=MEND)


def _facts(network: Network, host: Host) -> Iterator[tuple[str, str]]:
    yield "subnet", network.book.subnet
    yield "gateway", network.book.gateway
    yield "bridge", network.bridge
    yield "nat", "no" if network.spec.internal else "yes"
    if host.denied:
        yield "rules", "not for this session to see"
    if host.listing is not None and not network.spec.internal:
        yield "ip_forward", "turned on by vmtui" if host.listing.forwarding_was_off else "was on"
    if network.serves:
        process = network.dnsmasq.process()
        yield "dnsmasq", f"pid {process.pid}" if process is not None else "not running"
    if network.spec.dns:
        yield "domain", network.spec.domain
    if network.spec.dhcp:
        yield "dhcp_leases", str(len(network.dnsmasq.handed()))
    yield "members", str(len(network.book.plugged()))
