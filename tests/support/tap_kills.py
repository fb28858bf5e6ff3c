"""Kills a front end at each step of a network's life, and takes up from there. Run in a network namespace of its own.

    python -m tests.support.tap_kills DIRECTORY

Prints the number of steps. Exits with a traceback at the first one that leaves something, or cannot be taken up.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.support.netns import snapshot
from vmtui.backends import records
from vmtui.backends.tap import dnsmasq, firewall, ipam, links, lock, sysctl
from vmtui.backends.tap.backend import TapBackend
from vmtui.core.backend import Context, Desired, PortRequest, silent
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Kind, Port, Ref
from vmtui.core.specs import NetworkSpec, spec_hash
from vmtui.core.units import Publish
from vmtui.host.paths import Paths

NETWORK = Ref("kill", Kind.NETWORK, "lab")
WEB = PortRequest(
    consumer=Ref("kill", Kind.CONTAINER, "web"),
    index=0,
    medium="veth",
    hostname="web",
    publish=(Publish(8080, 80),),
)
GUEST = PortRequest(consumer=Ref("kill", Kind.VM, "guest"), index=0, medium="tap", hostname="guest")
DESIRED = Desired(ref=NETWORK, backend="tap", spec=NetworkSpec(), spec_hash=spec_hash(NetworkSpec()))


async def life(backend: TapBackend) -> None:
    await backend.create(DESIRED, silent)
    await ports(backend)
    await backend.remove_ports(WEB.consumer, forget=False)
    await backend.remove_ports(GUEST.consumer, forget=True)
    await backend.delete(NETWORK, purge=False)


async def ports(backend: TapBackend) -> list[Port]:
    return [await backend.add_port(NETWORK, request) for request in (WEB, GUEST)]


def arm(left: int) -> None:
    """Let the process end by SIGKILL after the `left`-th step from now."""

    def tick() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def after(act: Callable[..., Any]) -> Callable[..., Any]:
        def done(*args: Any, **kwargs: Any) -> Any:
            result = act(*args, **kwargs)
            tick()
            return result

        return done

    def around(act: Callable[..., Any]) -> Callable[..., Any]:
        """Also in the middle: what was begun goes on without us."""

        async def done(*args: Any, **kwargs: Any) -> Any:
            doing = asyncio.ensure_future(act(*args, **kwargs))
            await asyncio.sleep(0.001)
            tick()
            result = await doing
            tick()
            return result

        return done

    def then(act: Callable[..., Any]) -> Callable[..., Any]:
        async def done(*args: Any, **kwargs: Any) -> Any:
            result = await act(*args, **kwargs)
            tick()
            return result

        return done

    for module in (records, ipam, dnsmasq):
        module.write_atomic = after(module.write_atomic)  # type: ignore[attr-defined]
    for module in (records, dnsmasq):
        rmtree = SimpleNamespace(rmtree=after(shutil.rmtree))
        module.shutil = rmtree  # type: ignore[attr-defined]
    firewall.run = around(firewall.run)  # type: ignore[attr-defined]
    dnsmasq.run = around(dnsmasq.run)  # type: ignore[attr-defined]
    dnsmasq.Dnsmasq._end = then(dnsmasq.Dnsmasq._end)  # type: ignore[method-assign]
    sysctl._write = after(sysctl._write)
    links.Links._call = then(links.Links._call)  # type: ignore[method-assign]
    links.fcntl = SimpleNamespace(ioctl=after(fcntl.ioctl))  # type: ignore[assignment,attr-defined]


def run_killed(context: Context, step: int) -> bool:
    """In a child; False if it came to its end before."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            arm(step)
            asyncio.run(life(TapBackend(context)))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    assert status == 0, f"the life of a network failed before step {step}"
    return False


async def take_up(context: Context, step: int) -> None:
    backend = TapBackend(context)
    for status in await backend.scan():
        assert status.ref == NETWORK
        assert status.phase is Phase.AVAILABLE or status.problems, f"step {step}: broken without a problem"
    if step % 3:
        await backend.create(DESIRED, silent)
        made = await ports(backend)
        status = await backend.inspect(NETWORK)
        assert status.problems == (), f"step {step}: {status.problems}"
        assert [port.present for port in made] == [True, True]
        assert list(status.ports) == made, f"step {step}: {status.ports}"
    if step % 2:
        await backend.remove_ports(WEB.consumer, forget=True)
        await backend.remove_ports(GUEST.consumer, forget=True)
    await backend.delete(NETWORK, purge=True)
    assert list(await backend.scan()) == []


def main(directory: Path) -> None:
    before = snapshot()
    for step in itertools.count(1):
        paths = Paths(directory / "s", directory / "c", directory / "r")
        paths.make()
        context = Context(paths=paths, workspace=f"{os.getpid():x}")
        killed = run_killed(context, step)
        if killed:
            asyncio.run(take_up(context, step))
        after = snapshot()
        assert after == before, f"step {step}: {after}"
        left = [str(path) for path in (*paths.state.iterdir(), *lock.ROOT.glob(f"*{NETWORK.token(context.workspace)}"))]
        assert left == [], f"step {step}: {left}"
        if not killed:
            print(step)
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
