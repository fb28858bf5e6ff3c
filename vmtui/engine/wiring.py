"""Plugs workloads into the networks and disks that they refer to, whatever backends these have."""

from __future__ import annotations

from typing import Any

from vmtui.core.backend import Attachments, Desired, DiskAttachment, DiskImage, PortRequest, ProvidesPorts
from vmtui.core.errors import NotPermitted
from vmtui.core.resource import Kind, Port, Ref
from vmtui.engine.registry import Registry
from vmtui.engine.store import Store
from vmtui.host.tasks import uncancelled

MEDIA = {Kind.VM: "tap", Kind.CONTAINER: "veth"}


class Wiring:
    """Resolves references to attachments. The backends on both sides never meet."""

    def __init__(self, registry: Registry, store: Store) -> None:
        self._registry = registry
        self._store = store

    def _backend_of(self, ref: Ref) -> str:
        row = self._store.get(ref)
        if row is None:
            raise NotPermitted(f"{ref} is not applied", hint="vmtui --profile FILE")
        return row.desired.backend

    async def attach(self, desired: Desired[Any]) -> Attachments:
        """Make every port and claim every disk of a workload. On failure the ports made are unplugged again."""
        spec, ref = desired.spec, desired.ref
        networks: tuple[str, ...] = getattr(spec, "networks", ())
        disks: tuple[str, ...] = getattr(spec, "disks", ())
        claimed = [await self._disk(Ref(ref.profile, Kind.DISK, name), ref) for name in disks]
        try:
            ports = [await self._port(desired, index, name) for index, name in enumerate(networks)]
        except BaseException:
            await uncancelled(self.detach(desired))
            raise
        return Attachments(disks=tuple(claimed), ports=tuple(ports))

    async def ports(self, desired: Desired[Any]) -> tuple[Port, ...]:
        """Make or mend the ports alone."""
        networks = getattr(desired.spec, "networks", ())
        return tuple([await self._port(desired, index, name) for index, name in enumerate(networks)])

    async def detach(self, desired: Desired[Any]) -> None:
        """Unplug a workload from the networks of its spec; it keeps its addresses."""
        names = {self._backend_of_or_none(Ref(desired.ref.profile, Kind.NETWORK, name)) for name in _networks(desired)}
        for name in sorted(filter(None, names)):
            backend = self._registry.get(Kind.NETWORK, name)
            if isinstance(backend, ProvidesPorts):
                await backend.remove_ports(desired.ref, forget=False)

    async def forget(self, ref: Ref) -> None:
        """Unplug a workload from whatever network it is on, known to the database or not, and free its addresses."""
        for backend in self._registry.every(Kind.NETWORK):
            if isinstance(backend, ProvidesPorts):
                await backend.remove_ports(ref, forget=True)

    def _backend_of_or_none(self, ref: Ref) -> str:
        row = self._store.get(ref)
        return "" if row is None else row.desired.backend

    async def _disk(self, disk: Ref, consumer: Ref) -> DiskAttachment:
        backend = self._registry.get(Kind.DISK, self._backend_of(disk))
        if not isinstance(backend, DiskImage):
            raise NotPermitted(f"{disk}: backend {backend.name} has no images that {consumer} could open")
        return await backend.attach(disk, consumer)

    async def _port(self, desired: Desired[Any], index: int, name: str) -> Port:
        network = Ref(desired.ref.profile, Kind.NETWORK, name)
        backend = self._registry.get(Kind.NETWORK, self._backend_of(network))
        if not isinstance(backend, ProvidesPorts):
            raise NotPermitted(f"{network}: backend {backend.name} has no ports for {desired.ref}")
        request = PortRequest(
            consumer=desired.ref,
            index=index,
            medium=MEDIA[desired.ref.kind],
            hostname=desired.spec.hostname or desired.ref.name,
            publish=desired.spec.ports if index == 0 else (),
        )
        return await backend.add_port(network, request)


def _networks(desired: Desired[Any]) -> tuple[str, ...]:
    return getattr(desired.spec, "networks", ())
