"""A refresh of what changed shows the same as a scan of everything, and looks at nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
import pytest

from tests.support.fakes import open_fakes, profile
from vmtui.backends.fake.script import Script
from vmtui.core.backend import PortRequest
from vmtui.core.errors import NotPermitted
from vmtui.core.lifecycle import Action, Phase
from vmtui.core.resource import Kind, Ref, Status
from vmtui.core.specs import ContainerSpec, DiskSpec, NetworkSpec, SandboxSpec, Spec, VmSpec
from vmtui.core.units import Publish, Size
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths

SPECS: dict[str, Spec] = {
    "network/lab": NetworkSpec(backend="fake", subnet="10.77.0.0/24"),
    "disk/data": DiskSpec(backend="fake", size=Size(1 << 20)),
    "vm/guest": VmSpec(backend="fake", kernel="/k", networks=("lab",), disks=("data",)),
    "container/web": ContainerSpec(backend="fake", image="x", networks=("lab",), ports=(Publish(8080, 80),)),
    "sandbox/hello": SandboxSpec(backend="fake", module="/m"),
}
REFS = {short: Ref.parse(f"t/{short}") for short in SPECS}


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def workspace(paths: Paths, script: Script) -> AsyncIterator[Workspace]:
    async with open_fakes(paths, script) as opened:
        outcome = await opened.apply(await opened.plan(profile("t", SPECS)), emit=lambda _: None)
        assert outcome.result == "converged"
        script.calls.clear()
        yield opened


async def scanned(workspace: Workspace) -> dict[Ref, Status]:
    return {status.ref: status for status in await workspace.scan()}


async def act(workspace: Workspace, short: str, action: Action) -> None:
    await workspace.act(REFS[short], action, emit=lambda _: None)


async def test_it_is_what_a_scan_shows_addresses_and_endpoints_too(workspace: Workspace) -> None:
    everything = await scanned(workspace)
    assert everything[REFS["container/web"]].addresses
    assert [endpoint.url for endpoint in everything[REFS["container/web"]].endpoints] == ["http://127.0.0.1:8080/"]
    assert await workspace.refresh(list(everything)) == everything


async def test_what_is_gone_or_never_was_is_none(workspace: Workspace) -> None:
    await workspace.act(REFS["sandbox/hello"], Action.DELETE, emit=lambda _: None)
    never = Ref("t", Kind.VM, "never")
    assert await workspace.refresh([REFS["sandbox/hello"], never]) == {REFS["sandbox/hello"]: None, never: None}


async def test_it_looks_at_nothing_else(workspace: Workspace, script: Script) -> None:
    await workspace.refresh([REFS["vm/guest"]])
    assert set(script.calls) == {("inspect", REFS["vm/guest"])}


async def test_with_a_network_come_the_members_that_came_or_went(workspace: Workspace) -> None:
    await workspace.scan()
    assert set(await workspace.refresh([REFS["network/lab"]])) == {REFS["network/lab"]}
    await act(workspace, "container/web", Action.STOP)
    found = await workspace.refresh([REFS["network/lab"]])
    assert set(found) == {REFS["network/lab"], REFS["container/web"]}
    assert (status := found[REFS["container/web"]]) is not None
    assert (status.phase, status.addresses) == (Phase.STOPPED, ())
    assert await workspace.refresh(list(REFS.values())) == await scanned(workspace)


async def test_addresses_that_only_the_network_knows_are_added(workspace: Workspace) -> None:
    """As a VM whose backend does not see into it: the network's lease says where it is."""
    backend = workspace.registry.get(Kind.CONTAINER, "fake")
    inspect = backend.inspect

    async def blind(ref: Ref) -> Status:
        return msgspec.structs.replace(await inspect(ref), addresses=(), ports=())

    expected = (await scanned(workspace))[REFS["container/web"]].addresses
    backend.inspect = blind  # type: ignore[method-assign]
    found = await workspace.refresh([REFS["container/web"]])
    assert (status := found[REFS["container/web"]]) is not None
    assert status.addresses == expected


async def test_watching_tells_of_networks_whose_members_change(workspace: Workspace) -> None:
    told: set[Ref] = set()

    async def listen() -> None:
        async with aclosing(workspace.watch()) as changes:  # type: ignore[type-var]
            async for ref in changes:
                told.add(ref)

    listener = asyncio.create_task(listen())
    await asyncio.sleep(0.1)
    await act(workspace, "container/web", Action.STOP)
    for _ in range(3000):
        if told >= {REFS["container/web"], REFS["network/lab"]}:
            break
        await asyncio.sleep(0.02)
    listener.cancel()
    assert told == {REFS["container/web"], REFS["network/lab"]}


async def test_measuring_does_not_inspect(workspace: Workspace, script: Script) -> None:
    sample = await workspace.stats(REFS["container/web"])
    assert sample.memory_bytes
    assert {call for call, _ in script.calls} == {Action.STATS}
    await act(workspace, "container/web", Action.STOP)
    with pytest.raises(NotPermitted, match="it is stopped"):
        await workspace.stats(REFS["container/web"])
    with pytest.raises(NotPermitted, match="no stats"):
        await workspace.stats(REFS["disk/data"])


async def test_ports_that_are_planted_are_those_that_a_start_would_get(workspace: Workspace) -> None:
    there = (await scanned(workspace))[REFS["network/lab"]].ports
    network = workspace.registry.get(Kind.NETWORK, "fake")
    request = PortRequest(consumer=REFS["vm/guest"], index=0, medium="tap", hostname="guest")
    await network.remove_ports(REFS["vm/guest"], forget=True)  # type: ignore[attr-defined]
    made = network.plug(REFS["network/lab"], [request])  # type: ignore[attr-defined]
    assert made == [port for port in there if port.consumer == REFS["vm/guest"]]
