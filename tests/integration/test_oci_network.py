"""Containers plugged into veth pairs, as a network's backend would make them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from tests.support import claims
from tests.support.containers import Yard
from vmtui.core.errors import Fault
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Kind, Port, Ref
from vmtui.host.process import run

pytestmark = pytest.mark.real


class Pair:
    """A veth pair with the host's address on one end."""

    def __init__(self) -> None:
        token = secrets.token_hex(4)
        self.host, self.peer = f"tst{token}h", f"tst{token}p"
        self.subnet = claims.subnet()
        self.port = Port(
            network=Ref("yard", Kind.NETWORK, "lab"),
            consumer=Ref("yard", Kind.CONTAINER, "one"),
            index=0,
            medium="veth",
            interface=self.host,
            peer=self.peer,
            mac="02:00:00:aa:bb:cc",
            address=f"{self.subnet}.2",
            gateway=f"{self.subnet}.1",
            dns=(f"{self.subnet}.1",),
            search="vmtui",
            mtu=1400,
        )

    async def make(self) -> None:
        await run(["ip", "link", "add", self.host, "type", "veth", "peer", "name", self.peer])
        await run(["ip", "addr", "add", f"{self.subnet}.1/24", "dev", self.host])
        await run(["ip", "link", "set", self.host, "up"])

    async def unmake(self) -> None:
        await run(["ip", "link", "del", self.host], check=False)


@pytest.fixture
async def pair(yard: Yard) -> AsyncIterator[Pair]:
    pair = Pair()
    await pair.make()
    yield pair
    await pair.unmake()


async def fetch(address: str, port: int = 80) -> bytes:
    async with asyncio.timeout(90):
        while True:
            try:
                reader, writer = await asyncio.open_connection(address, port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.write(b"GET /hello HTTP/1.0\r\n\r\n")
            answer = await reader.read()
            writer.close()
            return answer


SERVE = "mkdir /tmp/www; echo hello > /tmp/www/hello; exec httpd -f -p 80 -h /tmp/www"


async def test_it_serves_on_a_low_port_without_privileges(yard: Yard, pair: Pair) -> None:
    ref = await yard.create(yard.want(SERVE, user="web", cap_drop=("ALL",)))
    await yard.start(ref, pair.port)
    assert b"hello\n" in await fetch(pair.port.address)
    script = (
        "ip -4 -o addr show eth0; cd /sys/class/net/eth0; cat address mtu; ip route; cat /etc/resolv.conf /etc/hosts"
    )
    _, said = await yard.exec(ref, "sh", "-c", script)
    for text in (f"{pair.port.address}/24", pair.port.mac, "1400", f"default via {pair.port.gateway}"):
        assert text in said.decode()
    assert f"search vmtui\nnameserver {pair.port.gateway}\n" in said.decode()
    assert f"{pair.port.address}\tone\n" in said.decode()
    sample = await yard.backend.stats(ref)
    assert sample.net_rx_bytes is not None
    assert sample.net_tx_bytes is not None
    assert sample.net_rx_bytes > 100
    assert sample.net_tx_bytes > 100


async def test_it_is_plugged_in_again_while_it_runs(yard: Yard, pair: Pair) -> None:
    ref = await yard.create(yard.want(SERVE))
    await yard.start(ref, pair.port)
    await fetch(pair.port.address)
    pid = (await yard.backend.inspect(ref)).pid
    await pair.unmake()
    other = Pair()
    await other.make()
    try:
        await yard.backend.reconnect(ref, (other.port,))
        await yard.backend.reconnect(ref, (other.port,))
        assert b"hello\n" in await fetch(other.port.address)
        assert other.port.address.encode() in (await yard.exec(ref, "cat", "/etc/hosts"))[1]
        assert (await yard.backend.inspect(ref)).pid == pid
    finally:
        await other.unmake()


async def test_a_port_that_is_not_there_undoes_the_start(yard: Yard, pair: Pair) -> None:
    await pair.unmake()
    ref = await yard.create(yard.want(SERVE))
    with pytest.raises(Fault, match=pair.peer):
        await yard.start(ref, pair.port)
    status = await yard.backend.inspect(ref)
    assert (status.phase, status.problems) == (Phase.STOPPED, ())
    assert not yard.context.runtime_dir(ref).exists()
    await yard.backend.delete(ref, purge=True)
    assert yard.view().empty


async def test_without_networks_there_is_loopback_alone(yard: Yard) -> None:
    code, said = await yard.run("ls /sys/class/net; ping -c 1 -W 1 127.0.0.1 > /dev/null", cap_add=("NET_RAW",))
    assert (code, said) == (0, "lo\n")
