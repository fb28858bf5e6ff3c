"""The contract of networks and disks: what workloads plug into and open."""

from __future__ import annotations

import ipaddress
from typing import Any, ClassVar

import pytest
from msgspec.structs import replace

from tests.contract.subject import Lab
from tests.contract.suite import BackendContract
from tests.support import claims
from tests.support.hostview import HostView
from vmtui.core.backend import Backend, PortRequest, ProvidesPorts, silent
from vmtui.core.errors import Conflict, NotFound, NotPermitted
from vmtui.core.lifecycle import Role
from vmtui.core.resource import Kind, Port, Ref
from vmtui.core.specs import spec_hash
from vmtui.core.units import Publish, Size


class ProvidesPortsContract(BackendContract):
    """A network. This role has no action, so `roles` does not list it."""

    def _request(self, lab: Lab, name: str = "guest", medium: str = "tap", **more: Any) -> PortRequest:
        consumer = Ref("contract", Kind.VM if medium == "tap" else Kind.CONTAINER, name)
        lab.refs.add(consumer)
        return PortRequest(consumer=consumer, index=0, medium=medium, hostname=name, **more)

    async def _network(self, lab: Lab, backend: Backend[Any]) -> Ref:
        assert isinstance(backend, ProvidesPorts)
        desired = await lab.desired()
        await backend.create(desired, silent)
        return desired.ref

    async def _ports(self, backend: Backend[Any], network: Ref) -> list[Port]:
        return list((await backend.inspect(network)).ports)

    @pytest.mark.parametrize("medium", ["tap", "veth"])
    async def test_a_port_is_the_same_each_time(self, lab: Lab, backend: Any, medium: str) -> None:
        network = await self._network(lab, backend)
        request = self._request(lab, medium=medium)
        port = await backend.add_port(network, request)
        again = await backend.add_port(network, request)
        later = await lab.front_end().add_port(network, request)  # type: ignore[attr-defined]
        assert _place(port) == _place(again) == _place(later)
        assert (port.network, port.consumer, port.index, port.medium) == (network, request.consumer, 0, medium)
        assert port.interface
        assert len(port.interface) < 16  # IFNAMSIZ, include/uapi/linux/if.h
        assert bool(port.peer) == (medium == "veth")
        subnet = ipaddress.ip_network(f"{port.gateway}/{port.prefix}", strict=False)
        assert ipaddress.ip_address(port.address) in subnet
        assert port.address != port.gateway
        (seen,) = await self._ports(backend, network)
        assert (_place(seen), seen.present) == (_place(port), True)

    async def test_an_address_is_kept_until_it_is_forgotten(self, lab: Lab, backend: Any) -> None:
        network = await self._network(lab, backend)
        request = self._request(lab, medium="veth")
        port = await backend.add_port(network, request)
        host = HostView.of(lab.context, lab.refs, files=False)
        await backend.remove_ports(request.consumer, forget=False)
        await backend.remove_ports(request.consumer, forget=False)
        assert not [seen for seen in await self._ports(backend, network) if seen.present]
        assert _place(await backend.add_port(network, request)) == _place(port)
        assert host.diff(HostView.of(lab.context, lab.refs, files=False)) == ""
        await backend.remove_ports(request.consumer, forget=True)
        await backend.remove_ports(request.consumer, forget=True)
        assert await self._ports(backend, network) == []

    async def test_consumers_get_places_of_their_own(self, lab: Lab, backend: Any) -> None:
        network = await self._network(lab, backend)
        ports = [await backend.add_port(network, self._request(lab, f"c{n}", "veth")) for n in range(3)]
        for name in ("interface", "mac", "address"):
            assert len({getattr(port, name) for port in ports}) == 3
        await backend.remove_ports(ports[0].consumer, forget=True)
        assert {port.consumer for port in await self._ports(backend, network)} == {p.consumer for p in ports[1:]}

    async def test_a_host_port_has_one_owner(self, lab: Lab, backend: Any) -> None:
        network = await self._network(lab, backend)
        publish = (Publish(claims.port(), 80, "127.0.0.1"),)
        await backend.add_port(network, self._request(lab, "first", "veth", publish=publish))
        host = HostView.of(lab.context, lab.refs, files=False)
        with pytest.raises(Conflict):
            await backend.add_port(network, self._request(lab, "second", "veth", publish=publish))
        assert host.diff(HostView.of(lab.context, lab.refs, files=False)) == ""
        await backend.remove_ports(Ref("contract", Kind.CONTAINER, "first"), forget=False)
        await backend.add_port(network, self._request(lab, "second", "veth", publish=publish))

    async def test_ports_go_with_their_network(self, lab: Lab, backend: Any) -> None:
        network = await self._network(lab, backend)
        await backend.add_port(network, self._request(lab))
        await backend.delete(network, purge=False)
        view = HostView.of(lab.context, lab.refs)
        assert view.empty, str(view)
        with pytest.raises(NotFound):
            await backend.add_port(network, self._request(lab))

    async def test_who_is_plugged_nowhere_can_be_unplugged(self, lab: Lab, backend: Any) -> None:
        await backend.remove_ports(Ref("contract", Kind.VM, "nobody"), forget=True)


def _place(port: Port) -> tuple[object, ...]:
    return port.interface, port.mac, port.address, port.prefix, port.gateway


class DiskImageContract(BackendContract):
    role: ClassVar[Role | None] = Role.IMAGE

    async def test_a_disk_is_opened_by_path(self, lab: Lab, backend: Any) -> None:
        desired = await lab.desired()
        await backend.create(desired, silent)
        guest = Ref("contract", Kind.VM, "guest")
        disk = await backend.attach(desired.ref, guest)
        assert disk == await backend.attach(desired.ref, guest)
        assert (disk.ref, disk.read_only) == (desired.ref, False)
        assert disk.path
        assert disk.format
        assert 0 < len(disk.serial) <= 20  # VIRTIO_BLK_ID_BYTES, virtio 5.2.6
        with pytest.raises(NotFound):
            await backend.attach(lab.ref("nobody"), guest)

    async def test_it_stays_unless_purged(self, lab: Lab, backend: Any) -> None:
        desired = await lab.desired()
        await backend.create(desired, silent)
        before = HostView.of(lab.context, lab.refs)
        await backend.delete(desired.ref, purge=False)
        assert before.diff(HostView.of(lab.context, lab.refs)) == ""
        assert (await backend.inspect(desired.ref)).problems == ()

    async def test_it_is_written_out_in_another_format(self, lab: Lab, backend: Any) -> None:
        desired = await lab.desired()
        await backend.create(desired, silent)
        target = lab.folder / "copies" / "copy.raw"
        target.parent.mkdir()
        await backend.export(desired.ref, target, "raw", silent)
        assert target.stat().st_size == (await backend.inspect(desired.ref)).size_bytes
        assert [path.name for path in target.parent.iterdir()] == ["copy.raw"]

    async def test_a_new_image_is_consistent(self, lab: Lab, backend: Any) -> None:
        desired = await lab.desired()
        await backend.create(desired, silent)
        assert list(await backend.check_image(desired.ref)) == []


class ResizableContract(BackendContract):
    """Of a disk whose spec has a size."""

    role: ClassVar[Role | None] = Role.RESIZABLE

    async def test_it_grows_and_shrinks_only_when_told(self, lab: Lab, backend: Any) -> None:
        desired = await lab.desired()
        await backend.create(desired, silent)
        small = int(desired.spec.size)
        grown = replace(desired, spec=replace(desired.spec, size=Size(small * 2)))
        assert spec_hash(grown.spec, grown.options) == desired.spec_hash
        for _ in range(2):
            await backend.resize(grown, shrink=False, report=silent)
            assert (await lab.front_end().inspect(desired.ref)).size_bytes == small * 2
        with pytest.raises(NotPermitted):
            await backend.resize(desired, shrink=False, report=silent)
        assert (await backend.inspect(desired.ref)).size_bytes == small * 2
        await backend.resize(desired, shrink=True, report=silent)
        assert (await backend.inspect(desired.ref)).size_bytes == small
