"""The simulated backends, one for each kind: the reference for the contract tests, and what demos run on."""

from __future__ import annotations

import ipaddress
import os
import tempfile
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from msgspec.structs import replace

from vmtui.backends.fake import simulation
from vmtui.backends.fake.base import FakeBackend
from vmtui.backends.fake.ledger import Ledger
from vmtui.backends.fake.options import FakeOptions
from vmtui.backends.fake.workload import FakeMachine, FakeWorkload
from vmtui.backends.fake.world import Entry, Plug
from vmtui.core.backend import (
    Desired,
    DiskAttachment,
    DiskImage,
    Executes,
    HasConsole,
    HasLogs,
    Killable,
    Measurable,
    Pausable,
    PortRequest,
    ProvidesPorts,
    Reconnectable,
    Report,
    Resizable,
    Runnable,
    resized,
    silent,
)
from vmtui.core.errors import Conflict, NotPermitted, ResourceBusy
from vmtui.core.lifecycle import Action
from vmtui.core.resource import Address, Fact, Kind, Port, Problem, Ref, Status
from vmtui.core.simulation import Planted, Simulates, SimulatesDisks, SimulatesEnds, SimulatesLinks
from vmtui.core.specs import ContainerSpec, DiskSpec, NetworkMode, NetworkSpec, SandboxSpec, VmSpec, to_json
from vmtui.core.units import Publish, Size

MEMBERS = (Kind.VM, Kind.CONTAINER)  # kinds that are on networks
IMPORTED_BYTES = 1 << 30  # the made-up size of an imported image
SERIAL_BYTES = 20  # VIRTIO_BLK_ID_BYTES, virtio 5.2.6


class FakeNetworkBackend(FakeBackend[NetworkSpec]):
    kind: ClassVar[Kind] = Kind.NETWORK

    async def add_port(self, network: Ref, request: PortRequest) -> Port:
        entry = self.world.get(network)
        effect = self.script.take("add_port", network, None)
        await self._work(effect, 0.0, silent, "")
        spec = self._spec(entry)
        key = _plug_key(network, request.consumer, request.index)
        with self.world.plug_rows().changing() as put:
            leased = self.world.leased(network)
            self._refuse_taken(key, request)
            mine = self.world.plug_rows().get(key)
            known = mine is not None and mine.mark == self.context.mark(network)
            port = mine.port if mine is not None and known else self._lease(entry, spec, request, leased)
            port = replace(port, medium=request.medium, search=spec.domain, mtu=spec.mtu)
            put(key, Plug(mark=self.context.mark(network), port=port, publish=_texts(request)))
        return port

    def plug(self, network: Ref, requests: Sequence[PortRequest]) -> Sequence[Port]:
        entry = self.world.get(network)
        spec: NetworkSpec = self._spec(entry)
        mark = self.context.mark(network)
        made = []
        with self.world.plug_rows().changing() as put:
            taken = {plug.port.address for _, plug in self.world.plugs(network)}
            for request in requests:
                port = self._lease(entry, spec, request, taken)
                taken.add(port.address)
                key = _plug_key(network, request.consumer, request.index)
                put(key, Plug(mark=mark, port=port, publish=_texts(request)))
                made.append(port)
        return made

    def link(self, network: Ref, consumer: Ref, *, up: bool) -> None:
        with self.world.plug_rows().changing() as put:
            for key, plug in self.world.plugs(network):
                if plug.port.consumer == consumer:
                    put(key, replace(plug, down=not up))

    async def remove_ports(self, consumer: Ref, *, forget: bool) -> None:
        effect = self.script.take("remove_ports", consumer, None)
        await self._work(effect, 0.0, silent, "")
        with self.world.plug_rows().changing() as put:
            for key in list(self.world.index.plugs_by(str(consumer))):
                plug = self.world.plug_rows().get(key)
                if plug is not None and self.context.owned(plug.mark) == plug.port.network:
                    put(key, None if forget else replace(plug, plugged=False, publish=(), down=False))

    async def delete(self, ref: Ref, *, purge: bool) -> None:
        await super().delete(ref, purge=purge)
        with self.world.plug_rows().changing() as put:
            for key, _ in self.world.plugs(ref):
                put(key, None)

    async def check(self, desired: Desired[NetworkSpec], others: Sequence[Desired[Any]]) -> Sequence[Problem]:
        try:
            self.world.claim_subnet(desired.ref, desired.spec.subnet, _options(desired))
        except Conflict as conflict:
            return (Problem(code="conflict", message=conflict.message, hint=conflict.hint),)
        return await super().check(desired, others)

    def _planted(self, found: Planted) -> Entry:
        return replace(super()._planted(found), subnet=str(_subnet(found.desired.spec.subnet)))

    def _watched(self) -> list[Ledger[Any]]:
        return [*super()._watched(), self.world.plug_rows(), *(self.world.ledger(kind) for kind in MEMBERS)]

    def _touched(self, ledger: Ledger[Any], keys: set[str]) -> set[Ref]:
        if ledger is self.world.ledger(self.kind):
            return super()._touched(ledger, keys)
        if ledger is self.world.plug_rows():
            return {Ref.parse(key.split(" ")[0]) for key in keys}
        return set()

    def _turned(self, workloads: set[str]) -> set[Ref]:
        """Ports are live while their workload is up."""
        return {Ref.parse(plug.split(" ")[0]) for key in workloads for plug in self.world.index.plugs_by(key)}

    def _begin(self, desired: Desired[NetworkSpec], options: FakeOptions | None) -> Entry:
        with self.world.ledger(self.kind).changing() as put:
            subnet = self.world.claim_subnet(desired.ref, desired.spec.subnet, options or FakeOptions())
            entry = replace(self._entry(desired, options), subnet=subnet)
            put(str(desired.ref), entry)
        return entry

    def _status(self, entry: Entry) -> Status:
        status = super()._status(entry)
        gateway = _gateway(entry, self._spec(entry))
        return replace(
            status,
            addresses=(Address(network=entry.ref.name, address=gateway),),
            ports=self._ports(status.ref),
            facts=(*status.facts, Fact(name="subnet", value=entry.subnet), Fact(name="gateway", value=gateway)),
        )

    def _ports(self, network: Ref) -> tuple[Port, ...]:
        """What is plugged in, and whether it is live."""
        index = self.world.index
        self.world.plug_rows().refresh()
        for kind in MEMBERS:
            self.world.ledger(kind).refresh()
        found = []
        for key in index.plugs_of(str(network)):
            known = self.world.known_port(key)
            if known is not None and known.port.network == network:
                _, consumer, _ = key.split(" ")
                up = self.world.known_up(consumer, known.port.consumer.kind) and key in index.held(consumer)
                found.append(known.port if up and not known.down else replace(known.port, live=False))
        return tuple(found)

    def _lease(self, entry: Entry, spec: NetworkSpec, request: PortRequest, taken: Collection[str]) -> Port:
        """Raises Conflict when all addresses are taken."""
        subnet = _subnet(entry.subnet)
        gateway = _gateway(entry, spec)
        token = request.consumer.token(self.context.workspace, str(entry.ref), str(request.index))
        first = simulation.number(request.consumer, entry.behaviour, str(request.index))
        base, count = int(subnet.network_address) + 1, subnet.num_addresses - 2
        candidates = (_dotted(base + (first + step) % count) for step in range(count))
        address = next((address for address in candidates if address not in taken and address != gateway), None)
        if address is None:
            raise Conflict(f"{entry.ref}: no address of {entry.subnet} is free", hint="give it a larger subnet")
        return Port(
            network=entry.ref,
            consumer=request.consumer,
            index=request.index,
            medium=request.medium,
            interface=f"fake{token}",
            peer=f"peer{token}" if request.medium == "veth" else "",
            mac=":".join(["02", *(token[i : i + 2] for i in range(0, 10, 2))]),
            address=address,
            prefix=subnet.prefixlen,
            gateway=gateway,
            dns=(gateway,),
            search=spec.domain,
            mtu=spec.mtu,
        )

    def _refuse_taken(self, key: str, request: PortRequest) -> None:
        wanted = {(publish.host_port, publish.protocol): publish for publish in request.publish}
        for other in self.world.index.publishing if wanted else ():
            plug = self.world.plug_rows().get(other)
            for taken in map(Publish.parse, plug.publish) if plug is not None and other != key else ():
                mine = wanted.get((taken.host_port, taken.protocol))
                hosts = {taken.host_address, mine.host_address} if mine else set()
                if mine and (len(hosts) == 1 or "0.0.0.0" in hosts):
                    raise Conflict(f"{request.consumer}: host port {mine} is taken by {other.split()[1]}")


class FakeDiskBackend(FakeBackend[DiskSpec]):
    kind: ClassVar[Kind] = Kind.DISK

    async def delete(self, ref: Ref, *, purge: bool) -> None:
        entry = self.world.find(ref)
        if entry is not None and (purge or not entry.complete):
            self._refuse_used(ref, "delete")
            await super().delete(ref, purge=purge)

    async def attach(self, ref: Ref, consumer: Ref) -> DiskAttachment:
        self.world.get(ref)
        effect = self.script.take("attach", ref, None)
        await self._work(effect, 0.0, silent, "")
        self._refuse_used(ref, "attach", but=consumer)
        return self.opened(ref)

    def opened(self, ref: Ref) -> DiskAttachment:
        serial = ref.token(self.context.workspace)[:SERIAL_BYTES]
        return DiskAttachment(ref=ref, path=f"fake://{ref}", format="raw", serial=serial)

    async def export(self, ref: Ref, target: Path, image_format: str, report: Report) -> None:
        """Writes an empty raw image of its size, whatever the format is called."""
        entry, effect = self._permit(Action.EXPORT, ref)
        self._refuse_used(ref, "export")
        fd, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            os.ftruncate(fd, entry.size_bytes or 0)
            await self._work(effect, 0.0, report, f"writing {image_format}")
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    async def check_image(self, ref: Ref) -> Sequence[Problem]:
        _, effect = self._permit(Action.CHECK, ref)
        return () if effect.error is None else (Problem(code="scripted", message=effect.error.message),)

    async def resize(self, desired: Desired[Any], *, shrink: bool, report: Report) -> None:
        ref = desired.ref
        entry, effect = self._permit(Action.RESIZE, ref)
        size: Size | None = desired.spec.size
        direction = resized(None if entry.size_bytes is None else Size(entry.size_bytes), size)
        if direction == 0 or size is None:
            return
        if direction < 0 and not shrink:
            raise NotPermitted(f"{ref}: {size} is smaller than what it has", hint="shrink = true")
        self._refuse_used(ref, "resize")
        await self._work(effect, 0.0, report, f"resizing to {size}")
        self.world.put(replace(entry, size_bytes=int(size), spec=msgspec.Raw(to_json(desired.spec))))
        self._aftermath(effect, ref)

    def _entry(self, desired: Desired[DiskSpec], options: FakeOptions | None, spec: bytes = b"") -> Entry:
        return replace(super()._entry(desired, options, spec), size_bytes=int(desired.spec.size or IMPORTED_BYTES))

    def _status(self, entry: Entry) -> Status:
        return replace(super()._status(entry), size_bytes=entry.size_bytes)

    def _refuse_used(self, ref: Ref, verb: str, but: Ref | None = None) -> None:
        users = [user for user in self.world.users(ref) if user != but]
        if users:
            raise ResourceBusy(f"cannot {verb} {ref}: {users[0]} runs on it", hint=f"vmtui stop {users[0]}")


class FakeVmBackend(FakeMachine[VmSpec]):
    kind: ClassVar[Kind] = Kind.VM

    def _addresses(self, entry: Entry) -> Sequence[Address]:
        spec: VmSpec = self._spec(entry) if not entry.attachments.ports else VmSpec(network_mode=NetworkMode.NONE)
        if spec.network_mode is NetworkMode.USER:
            return [Address(network="user", address="10.0.2.15")]  # QEMU's default for its user-mode network
        return super()._addresses(entry)


class FakeContainerBackend(FakeMachine[ContainerSpec]):
    kind: ClassVar[Kind] = Kind.CONTAINER


class FakeSandboxBackend(FakeWorkload[SandboxSpec]):
    kind: ClassVar[Kind] = Kind.SANDBOX


def _gateway(entry: Entry, spec: NetworkSpec) -> str:
    return spec.gateway or str(_subnet(entry.subnet)[1])


def _texts(request: PortRequest) -> tuple[str, ...]:
    return tuple(map(str, request.publish))


@lru_cache(maxsize=256)
def _subnet(text: str) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(text)


def _dotted(address: int) -> str:
    """As str(IPv4Address(…)), in a fifth of the time."""
    return f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"


def _plug_key(network: Ref, consumer: Ref, index: int) -> str:
    return f"{network} {consumer} {index}"


def _options(desired: Desired[Any]) -> FakeOptions:
    return desired.options if isinstance(desired.options, FakeOptions) else FakeOptions()


_PORTS: type[ProvidesPorts] = FakeNetworkBackend
_IMAGE: type[DiskImage] = FakeDiskBackend
_RESIZABLE: type[Resizable] = FakeDiskBackend
_RUNNABLE: tuple[type[Runnable], ...] = (FakeVmBackend, FakeContainerBackend, FakeSandboxBackend)
_KILLABLE: tuple[type[Killable], ...] = (FakeVmBackend, FakeContainerBackend, FakeSandboxBackend)
_PAUSABLE: tuple[type[Pausable], ...] = (FakeVmBackend, FakeContainerBackend, FakeSandboxBackend)
_LOGS: tuple[type[HasLogs], ...] = (FakeVmBackend, FakeContainerBackend, FakeSandboxBackend)
_MEASURABLE: tuple[type[Measurable], ...] = (FakeVmBackend, FakeContainerBackend, FakeSandboxBackend)
_CONSOLE: tuple[type[HasConsole], ...] = (FakeVmBackend, FakeContainerBackend)
_EXECUTES: tuple[type[Executes], ...] = (FakeVmBackend, FakeContainerBackend)
_RECONNECTABLE: tuple[type[Reconnectable], ...] = (FakeVmBackend, FakeContainerBackend)
_SIMULATES: tuple[type[Simulates], ...] = (
    FakeNetworkBackend,
    FakeDiskBackend,
    FakeVmBackend,
    FakeContainerBackend,
    FakeSandboxBackend,
)
_ENDS: tuple[type[SimulatesEnds], ...] = (FakeVmBackend, FakeContainerBackend, FakeSandboxBackend)
_DISKS: type[SimulatesDisks] = FakeDiskBackend
_LINKS: type[SimulatesLinks] = FakeNetworkBackend
