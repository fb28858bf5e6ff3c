"""The network backend: a bridge on this host with addresses, names, rules, and ports for its members.

All changes hold one lock of the host (lock.py). What is to be is written first (record, book), what is done follows,
and every step finds out by itself whether it is done: so making, mending and taking up after a kill are one thing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, ClassVar

import msgspec

from vmtui.backends.records import Records
from vmtui.backends.tap import dnsmasq, firewall, ipam, kernel, names, observe, sysctl
from vmtui.backends.tap.firewall import Listing
from vmtui.backends.tap.ipam import Book, Lease, Taken
from vmtui.backends.tap.lock import exclusive
from vmtui.backends.tap.network import TAP, VETH, Network
from vmtui.core.backend import Backend, Context, Desired, PortRequest, Probe, Progress, ProvidesPorts, Report
from vmtui.core.errors import Conflict, Fault, InvalidInput, MissingCapability, NotFound, OperationFailed
from vmtui.core.resource import Kind, Port, Problem, Ref, Status
from vmtui.core.specs import NetworkSpec
from vmtui.core.units import Publish
from vmtui.host import sockets
from vmtui.host.process import boot_id, which
from vmtui.host.tasks import uncancelled


class TapBackend(Backend[NetworkSpec]):
    """Bridges on this host; VMs plug in by TAP, containers by veth."""

    name: ClassVar[str] = observe.NAME
    kind: ClassVar[Kind] = Kind.NETWORK
    priority: ClassVar[int] = 10

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._records: Records[NetworkSpec] = Records(context, Kind.NETWORK, NetworkSpec, self.name)
        self._turn = asyncio.Lock()  # first come, first served within this process; the kernel's lock only polls

    async def probe(self) -> Probe:
        from vmtui.backends.tap.probe import probe

        return await probe()

    # what there is

    async def scan(self) -> Sequence[Status]:
        found = set(self._traces())
        if not found:
            return ()
        host = await observe.look()
        if host.listing is not None:
            found |= set(self._of_marks(host.listing.marks()))
        return [observe.status(self.context, ref, self._records.read(ref), host) for ref in sorted(found)]

    async def inspect(self, ref: Ref) -> Status:
        for status in await self.scan():
            if status.ref == ref:
                return status
        raise NotFound(f"no network {ref}", hint="vmtui ls")

    def watch(self) -> AsyncIterator[Ref]:
        from vmtui.backends.tap.watch import watch

        return watch(self.context, self._traces, self._networks)

    def _traces(self) -> Iterable[Ref]:
        """The networks of this workspace that left a directory, a bridge, or a dnsmasq's files."""
        yield from (ref for ref in self._records.refs() if not self._records.foreign(ref))
        yield from self._of_marks(link.alias for link in kernel.links().values())
        yield from self._of_marks(mark for _, mark in dnsmasq.marks())

    def _of_marks(self, marks: Iterable[str]) -> Iterable[Ref]:
        owned = (self.context.owned(mark) for mark in marks)
        return (ref for ref in owned if ref is not None and ref.kind is Kind.NETWORK)

    def _networks(self) -> list[Network]:
        """All networks of this workspace whose files are complete."""
        loaded = (observe.load(self.context, ref, self._records.read(ref)) for ref in self._records.refs())
        return [network for network in loaded if network is not None]

    # making, mending, removing

    async def check(self, desired: Desired[NetworkSpec], others: Sequence[Desired[Any]]) -> Sequence[Problem]:
        try:
            _need(desired.spec)
            names.host_name(desired.spec.domain, "domain")
            subnet = ipam.explicit(desired.spec)
            if subnet is not None:
                ipam.gateway_of(desired.spec, subnet)
            if ipam.load(self.context.resource_dir(desired.ref)) is None or subnet is not None:
                beside = [
                    Taken(other, str(each.ref))
                    for each in others
                    if each.ref != desired.ref and (other := _subnet(each)) is not None
                ]
                ipam.open_book(desired.spec, [*self._taken(desired.ref), *beside])
            await self._check_ports(desired.ref)
        except Fault as fault:
            kinds = {InvalidInput: "invalid", MissingCapability: "missing-capability"}
            code = kinds.get(type(fault), "conflict")
            return (Problem(code=code, message=f"{desired.ref}: {fault}", hint=fault.hint),)
        except OSError as error:
            return (Problem(code="host", message=f"{desired.ref}: {error}", hint="vmtui doctor"),)
        return ()

    async def _check_ports(self, ref: Ref) -> None:
        """Published ports of members that are to be put back, as after a reboot. Raises Conflict if one is taken."""
        network = observe.load(self.context, ref, self._records.read(ref))
        if network is not None and network.policy().published:
            listing = await firewall.read()
            for lease in network.book.plugged():
                self._claim(network, lease, listing)

    def _taken(self, ref: Ref) -> list[Taken]:
        """What a network may not overlap: the host's, and all other networks, up or not."""
        mine = [Taken(other.book.network, str(other.ref)) for other in self._networks() if other.ref != ref]
        return [*mine, *kernel.taken(self.context, names.bridge_name(self.context, ref))]

    async def create(self, desired: Desired[NetworkSpec], report: Report) -> None:
        names.host_name(desired.spec.domain, "domain")
        async with self._turn, exclusive():
            record = self._records.read(desired.ref)
            if self._records.foreign(desired.ref):
                raise Conflict(f"{desired.ref} was made by another backend", hint=f"vmtui rm {desired.ref}")
            if record is not None and record.desired.spec_hash != desired.spec_hash:
                if record.complete:
                    raise Conflict(f"{desired.ref} exists, made from another spec", hint=f"vmtui rm {desired.ref}")
                await self._remove(desired.ref)
                record = None
            if record is not None and record.complete:
                await self._mend(self._load(desired.ref, desired.spec), report)
                return
            try:
                self._records.begin(desired)
                await self._mend(self._load(desired.ref, desired.spec), report)
                self._records.finish(desired)
            except BaseException:
                await uncancelled(self._remove(desired.ref))
                raise

    def _load(self, ref: Ref, spec: NetworkSpec) -> Network:
        """The network with its book, which is made if it is not there."""
        directory = self.context.resource_dir(ref)
        book = ipam.load(directory)
        if book is None:
            book = ipam.open_book(spec, self._taken(ref))
            ipam.save(directory, book)
        return Network(self.context, ref, spec, book)

    async def _mend(self, network: Network, report: Report) -> None:
        """Bring about all but the ports; what is right stays untouched. Rules first: no bridge is ever without."""
        report(Progress(message=f"bridge {network.bridge}, {network.book.subnet}"))
        listing = await firewall.read()
        host = observe.Host(listing=listing)
        link = host.links.get(network.bridge)
        if link is not None and not link.carries(network.mark, network.mac):
            raise Conflict(f"interface {network.bridge} exists and is not ours", hint=f"ip link show {network.bridge}")
        if _forwarding_was_off(network, listing) and network.book.forwarding_was_off != boot_id():
            book = msgspec.structs.replace(network.book, forwarding_was_off=boot_id())
            ipam.save(self.context.resource_dir(network.ref), book)
            network = Network(self.context, network.ref, network.spec, book)
        await self._rules(network, listing)
        if link is None:
            await network.dnsmasq.stop()  # one that is left is bound to the bridge that is gone
        if not observe.bridge_is_right(network, host):
            from vmtui.backends.tap.links import session

            async with session() as links:
                await links.bridge(network.bridge, network.mark, network.mac, network.spec.mtu, network.address)
                found = kernel.links()
                for lease in network.book.plugged():
                    if _is_there(network, lease, found):
                        port = found[network.interface(lease)]
                        await links.enslave(port, found[network.bridge], hairpin=bool(lease.publish))
            sysctl.set_bridge(network.bridge)
        await network.dnsmasq.ensure(network.mark, network.spec, network.book, network.members())

    async def _rules(self, network: Network, listing: Listing) -> None:
        needed = not network.spec.internal and not sysctl.forwards()
        if needed or not firewall.intact(network.policy(), listing):
            was_off = _forwarding_was_off(network, listing)
            await firewall.apply(network.policy(), listing, forwarding_was_off=was_off)
        if needed:
            sysctl.set_forwarding(True)

    async def delete(self, ref: Ref, *, purge: bool) -> None:  # noqa: ARG002
        if ref not in set(self._traces()) and not await self._has_rules(ref):
            return
        async with self._turn, exclusive():
            await self._remove(ref)

    async def _has_rules(self, ref: Ref) -> bool:
        try:
            return names.bridge_name(self.context, ref) in (await firewall.read()).bridges
        except Fault:
            return False

    async def _remove(self, ref: Ref) -> None:
        """All that there may be of a network; its record last, so that what is left shows. Raises OperationFailed."""
        bridge = names.bridge_name(self.context, ref)
        found = kernel.links()
        network = observe.load(self.context, ref, self._records.read(ref))
        leases = () if network is None else network.book.leases
        doomed = [network.interface(lease) for lease in leases if network and _is_there(network, lease, found)]
        link = found.get(bridge)
        if link is not None and link.carries(self.context.mark(ref), names.mac(ref.token(self.context.workspace))):
            doomed += [each.name for each in found.values() if each.master == link.index and self._is_port(each)]
            doomed.append(bridge)
        await dnsmasq.Dnsmasq(bridge).stop()
        await self._unlink(dict.fromkeys(doomed))
        listing = await firewall.read()
        if listing.bridges <= {bridge}:
            if listing.forwarding_was_off or (network and network.book.forwarding_was_off == boot_id()):
                sysctl.set_forwarding(False)
            if listing.exists:
                await firewall.remove_table()
        else:
            await firewall.remove(bridge, listing)
        self._records.remove(ref)

    def _is_port(self, link: kernel.Link) -> bool:
        return link.name.startswith((names.TAP, names.VETH)) and self.context.owned(link.alias) is not None

    async def _unlink(self, doomed: Iterable[str]) -> None:
        doomed = list(doomed)
        if doomed:
            from vmtui.backends.tap.links import session

            async with session() as links:
                await links.remove(doomed)

    # ports

    async def add_port(self, network: Ref, request: PortRequest) -> Port:
        if request.medium not in (TAP, VETH):
            raise InvalidInput(f"{request.consumer}: {network} has no ports for medium {request.medium!r}")
        hostname = names.host_name(request.hostname, f"{request.consumer}: hostname")
        async with self._turn, exclusive():
            old = self._complete(network)
            book, lease = old.book.plug(
                request.consumer,
                request.index,
                medium=request.medium,
                names=tuple(dict.fromkeys((hostname, request.consumer.name))),
                publish=request.publish,
            )
            new = Network(self.context, network, old.spec, book)
            listing = await firewall.read()
            self._claim(new, lease, listing)
            was_there = _is_there(new, lease, new.seen(lease))
            try:
                if book != old.book:
                    ipam.save(self.context.resource_dir(network), book)
                await self._plug(new, lease)
                await self._rules(new, listing)
                await new.dnsmasq.ensure(new.mark, new.spec, new.book, new.members())
            except BaseException:
                await uncancelled(self._take_back(old, new, None if was_there else lease))
                raise
            return new.port(lease, new.seen(lease))

    def _complete(self, ref: Ref) -> Network:
        """Raises NotFound, OperationFailed."""
        record = self._records.read(ref)
        network = observe.load(self.context, ref, record)
        if network is None or record is None:
            raise NotFound(f"no network {ref}", hint="vmtui --profile FILE")
        if not kernel.find(network.bridge):
            raise OperationFailed(f"{ref}: bridge {network.bridge} is gone", hint="vmtui --profile FILE")
        return network

    def _claim(self, network: Network, lease: Lease, listing: Listing) -> None:
        """Raises Conflict if a port that this member publishes, and not yet has, is not to be had."""
        mine = (network.bridge, self.context.mark(lease.consumer))
        for at, publish in enumerate(lease.publish):
            twice = any(_collide(publish, other) for other in lease.publish[:at])
            if twice:
                message = f"{lease.consumer} publishes host port {publish.host_port}/{publish.protocol} twice"
                raise Conflict(message, hint=f"remove one {publish} from ports")
            if (*mine, publish) in listing.published:
                continue
            for bridge, mark, other in listing.published:
                if (bridge, mark) != mine and _collide(publish, other):
                    who = self.context.owned(mark) or f"{mark.rpartition(':')[2]} of another vmtui workspace"
                    message = f"host port {publish.host_port}/{publish.protocol} is published by {who}"
                    raise Conflict(f"{lease.consumer}: {message}", hint="nft list table inet vmtui")
            reason = sockets.obstacle(publish.host_address, publish.host_port, publish.protocol)
            if reason is not None:
                hint = sockets.look(publish.host_port, publish.protocol)
                raise Conflict(f"{lease.consumer}: {reason}", hint=hint)

    async def _plug(self, network: Network, lease: Lease) -> None:
        """Make or mend the interface; an intact one is left alone."""
        if network.port(lease, network.seen(lease)).present:
            return
        from vmtui.backends.tap.links import session

        mark, token, mtu = self.context.mark(lease.consumer), network.token(lease), network.spec.mtu
        bridge, name, host_mac = network.seen(lease)[network.bridge], network.interface(lease), names.host_mac(token)
        async with session() as links:
            if lease.medium == TAP:
                await links.tap(name, mark, host_mac, mtu)
            else:
                peer, peer_mac = network.peer(lease), names.mac(token)
                await links.veth(name, mark, host_mac, mtu, peer=peer, peer_mac=peer_mac)
            await links.enslave(kernel.find(name)[name], bridge, hairpin=bool(lease.publish))
        sysctl.set_port(name)

    async def _take_back(self, old: Network, new: Network, made: Lease | None) -> None:
        """After a failure: the interface that was made goes; book, rules and names are as they were."""
        if made is not None and _is_there(new, made, new.seen(made)):
            await self._unlink([new.interface(made)])
        ipam.save(self.context.resource_dir(old.ref), old.book)
        await self._rules(old, await firewall.read())
        await old.dnsmasq.ensure(old.mark, old.spec, old.book, old.members())

    async def remove_ports(self, consumer: Ref, *, forget: bool) -> None:
        mark = self.context.mark(consumer)
        touched = [network for network in self._networks() if _has(network.book, consumer)]
        if not touched and not any(link.alias == mark for link in kernel.links().values()):
            return
        async with self._turn, exclusive():
            found = kernel.links()
            doomed = [link.name for link in found.values() if link.alias == mark and self._is_port(link)]
            for network in touched:
                mine = [lease for lease in network.book.leases if lease.consumer == consumer]
                doomed += [network.interface(lease) for lease in mine if _is_there(network, lease, found)]
            await self._unlink(dict.fromkeys(doomed))
            for network in self._networks():
                book = network.book.unplug(consumer, forget=forget)
                if book == network.book:
                    continue
                new = Network(self.context, network.ref, network.spec, book)
                if new.bridge in found:
                    await self._rules(new, await firewall.read())
                if new.dnsmasq.process() is not None:  # one that is gone is for `create` to mend: leaving never fails
                    await new.dnsmasq.ensure(new.mark, new.spec, new.book, new.members())
                ipam.save(self.context.resource_dir(network.ref), book)


def _is_there(network: Network, lease: Lease, found: dict[str, kernel.Link]) -> bool:
    """Whether the interface of a lease is there and ours."""
    link = found.get(network.interface(lease))
    return link is not None and network.owns(lease, link)


def _forwarding_was_off(network: Network, listing: Listing) -> bool:
    """Whether IP forwarding is to be turned off with the last network.

    The table remembers it for all workspaces; each book too, for when somebody flushes all rules.
    """
    if not network.spec.internal and not sysctl.forwards():
        return True
    return listing.forwarding_was_off or network.book.forwarding_was_off == boot_id()


def _has(book: Book, consumer: Ref) -> bool:
    return any(lease.consumer == consumer for lease in book.leases)


def _collide(one: Publish, other: Publish) -> bool:
    """Whether both cannot be published: the same port, at the same address or at all of them."""
    if (one.host_port, one.protocol) != (other.host_port, other.protocol):
        return False
    return one.host_address == other.host_address or "0.0.0.0" in (one.host_address, other.host_address)


def _need(spec: NetworkSpec) -> None:
    """Raises MissingCapability without the tools or the rights that a network needs."""
    which("nft")
    if spec.dns or spec.dhcp:
        which("dnsmasq")
    if os.geteuid() != 0:
        raise MissingCapability("networks need root", hint="sudo -E vmtui")


def _subnet(desired: Desired[Any]) -> Any:
    """The subnet that another spec names, None if it names none, or none that is one."""
    try:
        return ipam.explicit(desired.spec) if isinstance(desired.spec, NetworkSpec) else None
    except InvalidInput:
        return None


_provides_ports: type[ProvidesPorts] = TapBackend
