"""Who has which address. Pure: a book in, a book out; `load` and `save` are the only I/O."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from vmtui.core.errors import Conflict, InvalidInput
from vmtui.core.resource import Ref
from vmtui.core.specs import NetworkSpec, from_json, to_json
from vmtui.core.units import Publish
from vmtui.host.files import write_atomic

POOL = ipaddress.IPv4Network("10.89.0.0/16")  # networks without a subnet of their own take a /24 of it
POOL_PREFIX = 24
PREFIXES = range(8, 31)  # larger is a typing error; smaller has no room for the host and a member
FILE = "addresses.json"


class Taken(NamedTuple):
    """Addresses that are not free, and by whom, in words for people."""

    network: ipaddress.IPv4Network
    by: str


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A member's place, plugged in or not. It lasts until it is forgotten."""

    consumer: Ref
    index: int
    address: str
    medium: str
    names: tuple[str, ...]
    publish: tuple[Publish, ...] = ()
    plugged: bool = True


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """The addresses of one network."""

    subnet: str
    gateway: str
    leases: tuple[Lease, ...] = ()
    forwarding_was_off: str = ""  # the boot id of the boot in which IP forwarding was off before vmtui turned it on

    @property
    def network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(self.subnet)

    def find(self, consumer: Ref, index: int) -> Lease | None:
        return next((each for each in self.leases if (each.consumer, each.index) == (consumer, index)), None)

    def plugged(self) -> tuple[Lease, ...]:
        return tuple(lease for lease in self.leases if lease.plugged)

    def plug(
        self, consumer: Ref, index: int, *, medium: str, names: tuple[str, ...], publish: tuple[Publish, ...]
    ) -> tuple[Book, Lease]:
        """The book with this member plugged in, at the address that it had before, if any. Raises Conflict if full."""
        old = self.find(consumer, index)
        address = old.address if old is not None else self._free()
        lease = Lease(
            consumer=consumer, index=index, address=address, medium=medium, names=names, publish=publish, plugged=True
        )
        if old is None:
            return msgspec.structs.replace(self, leases=(*self.leases, lease)), lease
        leases = tuple(lease if each is old else each for each in self.leases)
        return msgspec.structs.replace(self, leases=leases), lease

    def unplug(self, consumer: Ref, *, forget: bool) -> Book:
        """The book with all places of this member unplugged, or, with `forget`, free."""
        kept = (
            msgspec.structs.replace(lease, plugged=False) if lease.consumer == consumer else lease
            for lease in self.leases
            if not (forget and lease.consumer == consumer)
        )
        return msgspec.structs.replace(self, leases=tuple(kept))

    def _free(self) -> str:
        used = {self.gateway, *(lease.address for lease in self.leases)}
        for candidate in self.network.hosts():
            if str(candidate) not in used:
                return str(candidate)
        raise Conflict(
            f"subnet {self.subnet} is full: all {len(used)} addresses are taken",
            hint='give the network a larger one: subnet = "10.88.0.0/16"',
        )


def load(directory: Path) -> Book | None:
    """The book of the network that has `directory`; None if there is none or it cannot be read."""
    try:
        book: Book = from_json((directory / FILE).read_bytes(), Book)
        ipaddress.IPv4Network(book.subnet)
        for address in (book.gateway, *(lease.address for lease in book.leases)):
            ipaddress.IPv4Address(address)
    except (OSError, ValueError):  # msgspec's errors are ValueErrors
        return None
    return book


def save(directory: Path, book: Book) -> None:
    """Raises OSError; the old book then stands."""
    write_atomic(directory / FILE, to_json(book))


EXAMPLE = 'write it as in subnet = "10.88.0.0/24"'


def explicit(spec: NetworkSpec) -> ipaddress.IPv4Network | None:
    """The subnet that a spec names. Raises InvalidInput."""
    if spec.subnet is None:
        return None
    try:
        subnet = ipaddress.IPv4Network(spec.subnet)
    except ValueError as error:
        raise InvalidInput(f"subnet {spec.subnet!r} is not an IPv4 network: {error}", hint=EXAMPLE) from None
    if subnet.prefixlen not in PREFIXES:
        message = f"subnet {subnet}: the prefix must be between /{PREFIXES[0]} and /{PREFIXES[-1]}"
        raise InvalidInput(message, hint=EXAMPLE)
    if subnet.is_multicast or subnet.is_loopback or subnet.is_unspecified or subnet.is_link_local:
        raise InvalidInput(f"subnet {subnet} is reserved for other uses", hint=EXAMPLE)
    return subnet


def gateway_of(spec: NetworkSpec, subnet: ipaddress.IPv4Network) -> str:
    """The host's address. Raises InvalidInput if the spec's own is not one of the subnet."""
    if spec.gateway is None:
        return str(subnet[1])
    try:
        gateway = ipaddress.IPv4Address(spec.gateway)
    except ValueError:
        raise InvalidInput(
            f"gateway {spec.gateway!r} is not an IPv4 address", hint=f'gateway = "{subnet[1]}"'
        ) from None
    if gateway not in subnet or gateway in (subnet.network_address, subnet.broadcast_address):
        raise InvalidInput(f"gateway {gateway} is not a host address of {subnet}", hint=f'gateway = "{subnet[1]}"')
    return str(gateway)


def overlap(subnet: ipaddress.IPv4Network, taken: Iterable[Taken]) -> Taken | None:
    """The first of `taken` that shares an address with `subnet`."""
    return next((each for each in taken if each.network.overlaps(subnet)), None)


def open_book(spec: NetworkSpec, taken: Iterable[Taken]) -> Book:
    """A new book: the spec's subnet, or the first free one of the pool. Raises Conflict, InvalidInput."""
    taken = tuple(taken)
    subnet = explicit(spec)
    if subnet is None:
        free = (each for each in POOL.subnets(new_prefix=POOL_PREFIX) if overlap(each, taken) is None)
        subnet = next(free, None)
        if subnet is None:
            raise Conflict(f"no /{POOL_PREFIX} of {POOL} is free", hint='give the network its own: subnet = "…/24"')
        return Book(subnet=str(subnet), gateway=gateway_of(spec, subnet))
    if (other := overlap(subnet, taken)) is not None:
        raise Conflict(f"subnet {subnet} overlaps {other.network}, {other.by}", hint="choose another subnet")
    return Book(subnet=str(subnet), gateway=gateway_of(spec, subnet))
