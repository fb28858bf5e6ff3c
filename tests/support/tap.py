"""Real networks in a network namespace that stands for the host."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from tests.support.netns import Place, fresh_namespace, ip, snapshot
from vmtui.backends.tap import lock
from vmtui.backends.tap.backend import TapBackend
from vmtui.core.backend import Context, Desired, PortRequest, silent
from vmtui.core.resource import Kind, Port, Ref, Status
from vmtui.core.specs import NetworkSpec, spec_hash
from vmtui.core.units import Publish
from vmtui.host.paths import Paths

OUTSIDE = "192.0.2"  # RFC 5737: the host is .1 there, its neighbour .2


class TapLab:
    """A workspace with a backend, and places to plug in."""

    def __init__(self, paths: Paths, stack: AsyncExitStack) -> None:
        self.context = Context(paths=paths, workspace=secrets.token_hex(4))
        self.backend = TapBackend(self.context)
        self._stack = stack

    def ref(self, name: str) -> Ref:
        return Ref("test", Kind.NETWORK, name)

    def desired(self, name: str = "lab", **spec: Any) -> Desired[NetworkSpec]:
        made = NetworkSpec(**spec)
        return Desired(ref=self.ref(name), backend="tap", spec=made, spec_hash=spec_hash(made))

    async def network(self, name: str = "lab", **spec: Any) -> Status:
        """Make one, which must have no problems."""
        await self.backend.create(self.desired(name, **spec), silent)
        status = await self.backend.inspect(self.ref(name))
        assert status.problems == ()
        return status

    async def plug(self, name: str, *publish: str, network: str = "lab", medium: str = "veth", index: int = 0) -> Port:
        """Make a port, unplugged at the member's end."""
        kind = Kind.CONTAINER if medium == "veth" else Kind.VM
        request = PortRequest(
            consumer=Ref("test", kind, name),
            index=index,
            medium=medium,
            hostname=name,
            publish=tuple(map(Publish.parse, publish)),
        )
        return await self.backend.add_port(self.ref(network), request)

    async def member(self, name: str, *publish: str, network: str = "lab") -> tuple[Place, Port]:
        """A fake container on a network."""
        port = await self.plug(name, *publish, network=network)
        place = self.place()
        await place.plug(port)
        return place, port

    def place(self) -> Place:
        return self._stack.enter_context(Place())

    def neighbour(self) -> Place:
        """A machine beside the host, on an interface that is not ours."""
        place = self.place()
        ip(f"link add up0 type veth peer name eth0 netns {place.pid}")
        ip(f"addr add {OUTSIDE}.1/24 dev up0")
        ip("link set up0 up")
        place.run("ip", "addr", "add", f"{OUTSIDE}.2/24", "dev", "eth0")
        place.run("ip", "link", "set", "eth0", "up")
        place.run("ip", "link", "set", "lo", "up")
        self._stack.callback(ip, "link del up0")
        return place

    async def clear(self) -> None:
        for status in await self.backend.scan():
            await self.backend.delete(status.ref, purge=True)
        assert list(await self.backend.scan()) == []


@asynccontextmanager
async def tap_lab(paths: Paths) -> AsyncIterator[TapLab]:
    """A host of its own; nothing may be left on it."""
    with fresh_namespace():
        before = snapshot()
        async with AsyncExitStack() as stack:
            lab = TapLab(paths, stack)
            try:
                yield lab
            finally:
                await lab.clear()
        assert snapshot() == before
        ours = [lab.ref(name).token(lab.context.workspace) for name in ("lab", "other")]
        assert not [path for token in ours for path in lock.ROOT.glob(f"*{token}*")]
        assert not (paths.state / "resources").exists()
