"""Where a resource is reached, from its spec and its observed addresses. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from vmtui.core.lifecycle import UP
from vmtui.core.resource import Address, Endpoint, Kind, Port, Ref, Status
from vmtui.core.specs import Spec
from vmtui.core.units import Publish

WEB_PORTS = frozenset({80, 3000, 5000, 8000, 8080, 8888})
ANY = "0.0.0.0"
LOOPBACK = "127.0.0.1"


def reach(spec: Spec, status: Status, port: int) -> tuple[str, int] | None:
    """Host and port by which this machine reaches `port` of the resource, None while it has no address.

    Its own address on a network first, else a published port.
    """
    for address in status.addresses:
        if address.network != "user":
            return address.address, port
    for published in _published(spec):
        if published.guest_port == port and published.protocol == "tcp":
            return _local(published), published.host_port
    return None


def endpoints(spec: Spec) -> tuple[Endpoint, ...]:
    """The published ports as addresses that a person can use on this machine."""
    found = []
    for port in _published(spec):
        http = spec.ready.http if spec.ready else None
        web = port.guest_port in WEB_PORTS or (http is not None and f":{port.guest_port}/" in http)
        scheme = "udp" if port.protocol == "udp" else "http" if web else "tcp"
        slash = "/" if scheme == "http" else ""
        found.append(Endpoint(url=f"{scheme}://{_local(port)}:{port.host_port}{slash}", about=str(port)))
    return tuple(found)


def complete(statuses: Iterable[Status], specs: dict[Ref, Spec]) -> tuple[Status, ...]:
    """Statuses with addresses filled in from the ports of networks, and endpoints of what is up."""
    given = list(statuses)
    plugged: dict[Ref, list[Port]] = {}
    for status in given:
        for port in status.ports if status.ref.kind is Kind.NETWORK else ():
            plugged.setdefault(port.consumer, []).append(port)
    return tuple(completed(status, plugged.get(status.ref, ()), specs.get(status.ref)) for status in given)


def completed(status: Status, ports: Sequence[Port], spec: Spec | None) -> Status:
    """One status with its addresses, from its `ports` on networks if it knows none, and its endpoints, if it is up."""
    if not (status.ref.kind.runs and status.phase in UP):
        return status
    addresses = status.addresses or tuple(
        Address(network=port.network.name, address=port.address, mac=port.mac, interface=port.interface)
        for port in ports
        if port.present and port.address
    )
    reached = status.endpoints or (endpoints(spec) if spec is not None else ())
    if addresses == status.addresses and reached == status.endpoints:
        return status
    return msgspec.structs.replace(status, addresses=addresses, endpoints=reached)


def _published(spec: Spec) -> tuple[Publish, ...]:
    return getattr(spec, "ports", ())


def _local(port: Publish) -> str:
    return LOOPBACK if port.host_address == ANY else port.host_address
