"""The addresses of a simulated network: known once, and right after every change."""

from __future__ import annotations

from vmtui.backends.fake.backend import FakeNetworkBackend
from vmtui.core.backend import Context, Desired, PortRequest, silent
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import NetworkSpec

NET = Ref("t", Kind.NETWORK, "small")


def request(name: str) -> PortRequest:
    return PortRequest(consumer=Ref("t", Kind.VM, name), index=0, medium="tap", hostname=name)


async def test_an_address_is_given_out_once_kept_and_free_again_when_forgotten(context: Context) -> None:
    mine, other = FakeNetworkBackend(context), FakeNetworkBackend(context)
    spec = NetworkSpec(backend="fake", subnet="10.7.0.0/29")
    await mine.create(Desired(ref=NET, backend="fake", spec=spec), silent)
    # Two that each know the leases plug in by turns: five addresses beside the gateway's.
    given = [await (mine, other)[n % 2].add_port(NET, request(f"vm{n}")) for n in range(5)]
    assert len({port.address for port in given}) == 5
    assert (await mine.add_port(NET, request("vm3"))).address == given[3].address
    await other.remove_ports(request("vm3").consumer, forget=False)
    assert (await mine.add_port(NET, request("vm3"))).address == given[3].address
    await other.remove_ports(request("vm3").consumer, forget=True)
    assert (await mine.add_port(NET, request("new"))).address == given[3].address
    for backend in (mine, other):
        await backend.aclose()
