"""What passes on a network and what does not, with members, a neighbour of the host, and a guest's DHCP."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import dhcp
from tests.support.netns import Place, ask_udp, fetch, ip, reaches, resolve, serving
from tests.support.tap import OUTSIDE, TapLab, tap_lab
from vmtui.core.resource import Kind, Ref
from vmtui.host.paths import Paths

pytestmark = pytest.mark.real
BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")  # of each network namespace


@pytest.fixture
async def lab(paths: Paths) -> AsyncIterator[TapLab]:
    async with tap_lab(paths) as made:
        yield made


async def test_members_reach_each_other_by_name(lab: TapLab) -> None:
    await lab.network()
    (web, port), (client, _) = await lab.member("web"), await lab.member("client")
    for name in ("web", "web.vmtui"):
        assert await resolve(client, port.gateway, name) == (0, [port.address])
    assert await resolve(client, port.gateway, "nobody.vmtui") == (3, [])  # NXDOMAIN
    assert await resolve(client, port.gateway, "nobody") == (3, [])
    async with serving(web, 80, "web"):
        answer = await fetch(client, port.address, 80)
    assert answer.startswith("web 10.89.0.")
    assert "1 packets received" in client.run("busybox", "ping", "-c1", "-W2", port.address)
    config = Path(f"/proc/{client.pid}/net/route").read_text()
    assert config.count("\n") == 3  # a header, the subnet, the default route
    assert (port.dns, port.search) == ((port.gateway,), "vmtui")


async def test_names_come_and_go_with_their_members(lab: TapLab) -> None:
    status = await lab.network()
    client, _ = await lab.member("client")
    web = await lab.plug("web")
    assert (await resolve(client, web.gateway, "web"))[1] == [web.address]
    await lab.backend.remove_ports(Ref("test", Kind.CONTAINER, "web"), forget=False)
    assert (await resolve(client, web.gateway, "web"))[1] == []
    assert (await lab.plug("web")).address == web.address
    assert (await resolve(client, web.gateway, "web"))[1] == [web.address]
    assert (await lab.backend.inspect(status.ref)).problems == ()


async def test_two_networks_are_islands(lab: TapLab) -> None:
    await lab.network()
    await lab.network("other")
    (one, first), (two, second) = await lab.member("one"), await lab.member("two", network="other")
    async with serving(one, 80, "one"), serving(two, 80, "two"), serving(None, 7777, "host"):
        assert not await reaches(one, second.address, 80)
        assert not await reaches(two, first.address, 80)
        for member in (one, two):
            for address in (first.gateway, second.gateway):
                assert not await reaches(member, address, 7777)
        assert (await fetch(None, second.address, 80)).startswith("two")
    assert await resolve(one, first.gateway, "two") == (3, [])


async def test_the_world_is_reached_and_does_not_reach_in(lab: TapLab) -> None:
    neighbour = lab.neighbour()
    await lab.network()
    member, port = await lab.member("one")
    neighbour.run("ip", "route", "add", "10.89.0.0/24", "via", f"{OUTSIDE}.1")
    async with serving(neighbour, 80, "world"), serving(member, 80, "one"), serving(None, 7777, "host"):
        assert await fetch(member, f"{OUTSIDE}.2", 80) == f"world {OUTSIDE}.1"
        assert not await reaches(neighbour, port.address, 80)
        assert not await reaches(member, f"{OUTSIDE}.1", 7777)
        assert await fetch(None, port.address, 80) == f"one {port.gateway}"


async def test_an_internal_network_has_no_way_out(lab: TapLab) -> None:
    neighbour = lab.neighbour()
    await lab.network(internal=True)
    await lab.network("other")  # turns forwarding on
    (one, port), (two, _) = await lab.member("one", "8080:80"), await lab.member("two")
    third, _ = await lab.member("third", "9090:80", network="other")
    assert port.gateway == ""
    one.run("ip", "route", "add", "default", "via", port.dns[0])
    async with serving(neighbour, 80, "world"), serving(one, 80, "one"), serving(third, 80, "third"):
        assert not await reaches(one, f"{OUTSIDE}.2", 80)
        assert not await reaches(one, f"{OUTSIDE}.1", 9090)
        with pytest.raises(ConnectionRefusedError):  # by the host itself: it is not published to others
            await fetch(neighbour, f"{OUTSIDE}.1", 8080)
        assert (await fetch(two, port.address, 80)).startswith("one")
        assert (await fetch(None, "127.0.0.1", 8080)).startswith("one")
    assert await resolve(two, port.dns[0], "one") == (0, [port.address])
    code, found = await resolve(two, port.dns[0], "example.com")
    assert (code in (2, 5), found) == (True, [])  # SERVFAIL or REFUSED: nobody outside is asked


@pytest.mark.parametrize("filtered", ["0", "1"])
async def test_a_published_port_is_reached_from_everywhere(lab: TapLab, filtered: str) -> None:
    """Also where br_netfilter, which Docker loads, shows bridged frames to the rules."""
    if BRIDGE_FILTER.exists():
        BRIDGE_FILTER.write_text(filtered)
    elif filtered == "1":
        pytest.skip("the module br_netfilter is not loaded")
    neighbour = lab.neighbour()
    await lab.network()
    await lab.network("other")
    (web, port), (near, _) = await lab.member("web", "8080:80", "5353:53/udp"), await lab.member("near")
    far, _ = await lab.member("far", network="other")
    async with serving(web, 80, "web"), serving(web, 53, "udp"):
        everywhere: list[tuple[Place | None, str]] = [
            (None, "127.0.0.1"),
            (None, "127.0.0.53"),
            (None, f"{OUTSIDE}.1"),
            (None, port.gateway),
            (neighbour, f"{OUTSIDE}.1"),
            (near, port.gateway),
            (near, f"{OUTSIDE}.1"),
            (far, f"{OUTSIDE}.1"),
            (web, port.gateway),
            (web, f"{OUTSIDE}.1"),
        ]
        for place, address in everywhere:
            assert (await fetch(place, address, 8080)).startswith("web "), address
            assert (await ask_udp(place, address, 5353)).startswith(b"udp "), address
        assert await fetch(neighbour, f"{OUTSIDE}.1", 8080) == f"web {OUTSIDE}.2"  # the client's own address
    await lab.backend.remove_ports(Ref("test", Kind.CONTAINER, "web"), forget=False)
    for place, address in everywhere[:6]:
        assert not await reaches(place, address, 8080) or place is None or place is neighbour
    with pytest.raises(OSError):
        await fetch(None, "127.0.0.1", 8080)


async def test_an_address_narrows_a_published_port(lab: TapLab) -> None:
    neighbour = lab.neighbour()
    await lab.network()
    web, port = await lab.member("web", "127.0.0.1:8080:80", f"{OUTSIDE}.1:9090:80")
    async with serving(web, 80, "web"):
        assert (await fetch(None, "127.0.0.1", 8080)).startswith("web")
        assert (await fetch(None, f"{OUTSIDE}.1", 9090)).startswith("web")
        assert (await fetch(neighbour, f"{OUTSIDE}.1", 9090)).startswith("web")
        for place, address, number in ((neighbour, f"{OUTSIDE}.1", 8080), (None, f"{OUTSIDE}.1", 8080)):
            with pytest.raises((OSError, TimeoutError)):
                await fetch(place, address, number, timeout=0.6)
        assert not await reaches(web, port.gateway, 8080)


async def test_members_do_not_reach_the_loopback_of_the_host(lab: TapLab) -> None:
    """route_localnet is on, so only our own rule keeps them out (as in CVE-2020-8558)."""
    await lab.network()
    member, port = await lab.member("one")
    member.run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
    member.run("ip", "route", "add", "127.0.0.0/8", "via", port.gateway, "src", port.address)
    member.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet")
    async with serving(None, 7777, "host", "127.0.0.1"):
        assert not await reaches(member, "127.0.0.1", 7777)
        assert (await fetch(None, "127.0.0.1", 7777)).startswith("host")


async def test_a_member_cannot_borrow_an_address_of_others(lab: TapLab) -> None:
    neighbour = lab.neighbour()
    await lab.network()
    member, _ = await lab.member("one")
    member.run("ip", "addr", "add", "198.51.100.7/32", "dev", "lo")
    async with serving(neighbour, 80, "world"):
        neighbour.run("ip", "route", "add", "198.51.100.7", "via", f"{OUTSIDE}.1")
        ip("route add 198.51.100.7 dev " + (await lab.backend.inspect(lab.ref("lab"))).fact("bridge"))
        with pytest.raises(subprocess.CalledProcessError):
            member.run("busybox", "nc", "-w1", "-s", "198.51.100.7", f"{OUTSIDE}.2", "80")


async def test_a_guest_gets_its_address_by_dhcp(lab: TapLab) -> None:
    status = await lab.network(mtu=1400, domain="lab.test")
    port = await lab.plug("guest", medium="tap")
    fd = dhcp.open_tap(port.interface)
    try:
        given = await asyncio.to_thread(dhcp.lease, fd, port.mac, name="hijack")
        assert given is not None
        address, options = given
        gateway = bytes(map(int, port.gateway.split(".")))
        assert address == port.address
        assert (options[dhcp.ROUTER], options[dhcp.DNS]) == (gateway, gateway)
        assert (options[dhcp.HOST_NAME], options[dhcp.DOMAIN]) == (b"guest", b"lab.test")
        assert int.from_bytes(options[dhcp.MTU], "big") == 1400
        assert options[dhcp.SEARCH] == b"\x03lab\x04test\x00"
        assert (await lab.backend.inspect(status.ref)).fact("dhcp_leases") == "1"
        stranger = await asyncio.to_thread(dhcp.lease, fd, "02:00:00:00:00:99", tries=1)
        assert stranger is None
    finally:
        os.close(fd)
    client, _ = await lab.member("client")
    assert (await resolve(client, port.gateway, "guest.lab.test"))[1] == [port.address]
    assert (await resolve(client, port.gateway, "hijack"))[1] == []


async def test_busybox_gets_its_address_by_dhcp(lab: TapLab, tmp_path: Path) -> None:
    """A second client, which checks what it reads more strictly than ours does."""
    await lab.network()
    port = await lab.plug("guest")
    place = lab.place()
    await place.plug(port)
    place.run("ip", "addr", "flush", "dev", "eth0")
    script = tmp_path / "script"
    script.write_text('#!/bin/sh\n[ "$1" = bound ] && echo "$ip $subnet $router $dns $hostname"\nexit 0\n')
    script.chmod(0o755)
    said = place.run("busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t30", "-T2", "-s", str(script))
    assert f"{port.address} 255.255.255.0 {port.gateway} {port.gateway} guest" in said


async def test_a_guest_keeps_its_carrier_when_the_bridge_is_made_anew(lab: TapLab) -> None:
    status = await lab.network()
    port = await lab.plug("guest", medium="tap")
    fd = dhcp.open_tap(port.interface)
    try:
        ip(f"link del {status.fact('bridge')}")
        await lab.network()
        (seen,) = (await lab.backend.inspect(status.ref)).ports
        assert (seen.present, seen.live) == (True, True)
        given = await asyncio.to_thread(dhcp.lease, fd, port.mac)
        assert given is not None
        assert given[0] == port.address
    finally:
        os.close(fd)
