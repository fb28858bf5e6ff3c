"""Networks on a host of their own: made, mended, removed, and never at the cost of what is not ours."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.support.netns import Place, ip, nft, snapshot
from tests.support.tap import TapLab, tap_lab
from vmtui.backends.tap import dnsmasq, firewall, lock
from vmtui.backends.tap.links import Links
from vmtui.core.backend import silent
from vmtui.core.errors import Conflict, InvalidInput, MissingCapability, NotFound, OperationFailed
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Kind, Ref, Status
from vmtui.host.paths import Paths
from vmtui.host.process import ProcessId

pytestmark = pytest.mark.real


@pytest.fixture
async def lab(paths: Paths) -> AsyncIterator[TapLab]:
    async with tap_lab(paths) as made:
        yield made


def codes(status: Status) -> set[str]:
    return {problem.code for problem in status.problems}


async def kill(pid: int) -> None:
    """Returns when it is gone."""
    process = ProcessId.of(pid)
    assert process is not None
    assert process.signal(signal.SIGKILL)
    assert await process.wait(60)


async def answers(place: Place, address: str) -> None:
    """Wait until a ping comes back: what passes a new bridge before it is whole is lost."""
    deadline = time.monotonic() + 60
    while True:
        try:
            place.run("busybox", "ping", "-c1", "-W2", address)
            return
        except subprocess.CalledProcessError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)


async def test_all_of_a_network_comes_and_goes(lab: TapLab) -> None:
    before = snapshot()
    status = await lab.network()
    assert (status.phase, status.fact("nat"), status.fact("ip_forward")) == (
        Phase.AVAILABLE,
        "yes",
        "turned on by vmtui",
    )
    bridge = status.fact("bridge")
    during = snapshot()
    assert (bridge, f"vmtui:{lab.context.workspace}:test/network/lab", "") in during["links"]
    assert (bridge, status.addresses[0].address) in during["addresses"]
    assert during["ip_forward"] == "1\n"
    (served,) = during["processes"]
    assert served.startswith("/usr/sbin/dnsmasq")
    await lab.backend.delete(status.ref, purge=False)
    assert snapshot() == before


async def test_names_are_served_under_a_narrow_umask(lab: TapLab) -> None:
    before = os.umask(0o077)
    try:
        await lab.network()
        await lab.member("web")
    finally:
        os.umask(before)


async def test_forwarding_stays_on_where_it_was_on(lab: TapLab) -> None:
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    forwarding.write_text("1")
    try:
        status = await lab.network()
        assert status.fact("ip_forward") == "was on"
        await lab.backend.delete(status.ref, purge=False)
        assert forwarding.read_text() == "1\n"
    finally:
        forwarding.write_text("0")


@pytest.mark.parametrize("mended", [True, False])
async def test_forwarding_is_put_back_after_all_rules_were_flushed(lab: TapLab, mended: bool) -> None:
    await lab.network()
    other = await lab.network("other")
    await lab.backend.delete(lab.ref("lab"), purge=False)
    nft("flush ruleset")
    if mended:
        await lab.network("other")
    await lab.backend.delete(other.ref, purge=False)
    assert snapshot()["ip_forward"] == "0\n"


async def test_an_internal_network_turns_on_no_forwarding(lab: TapLab) -> None:
    await lab.network(internal=True)
    assert snapshot()["ip_forward"] == "0\n"


async def test_without_names_and_leases_there_is_no_dnsmasq(lab: TapLab) -> None:
    await lab.network(dns=False, dhcp=False)
    assert snapshot()["processes"] == []
    port = await lab.plug("web")
    assert (port.dns, port.search) == ((), "")


async def test_the_last_of_two_workspaces_turns_off_the_light(lab: TapLab, paths: Paths) -> None:
    before = snapshot()
    other = TapLab(Paths(paths.state / "2", paths.cache, paths.runtime), lab._stack)
    mine, theirs = await asyncio.gather(lab.network(), other.network())
    assert mine.fact("subnet") != theirs.fact("subnet")
    assert [status.ref for status in await lab.backend.scan()] == [mine.ref]
    with_both = snapshot()
    await lab.backend.delete(mine.ref, purge=True)
    assert (await other.backend.inspect(theirs.ref)).problems == ()
    assert snapshot()["ip_forward"] == "1\n"
    await lab.network()
    assert len(snapshot()["rules"]) == len(with_both["rules"])
    await lab.clear()
    await other.clear()
    assert snapshot() == before


async def test_what_is_broken_is_shown_and_mended_in_place(lab: TapLab) -> None:
    status = await lab.network()
    place, port = await lab.member("web", "8080:80")
    tap = await lab.plug("guest", medium="tap")
    bridge = status.fact("bridge")
    desired = lab.desired()

    async def mended(*expected: str) -> None:
        seen = await lab.backend.inspect(desired.ref)
        assert (seen.phase, codes(seen)) == (Phase.BROKEN, set(expected))
        assert all(problem.message and problem.hint for problem in seen.problems)
        await lab.backend.create(desired, silent)
        seen = await lab.backend.inspect(desired.ref)
        assert seen.problems == ()
        assert {(each.interface, each.present) for each in seen.ports} == {
            (port.interface, True),
            (tap.interface, True),
        }
        await answers(place, port.gateway)

    nft(f"flush chain inet vmtui {bridge}_forward")
    await mended("rules-changed")
    nft("delete table inet vmtui")
    await mended("rules-changed")
    nft(f"insert rule inet vmtui {bridge}_input accept")
    await mended("rules-changed")
    ip(f"addr flush dev {bridge}")
    await mended("bridge-changed")
    ip(f"link set {bridge} down")
    await mended("bridge-changed")
    await kill(int(status.fact("dnsmasq").split()[1]))
    await mended("dnsmasq-gone")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    await mended("forwarding-off")
    (lock.ROOT / bridge / dnsmasq.HOSTS).write_text("192.0.2.9 web\n")
    await mended("names-changed")
    ip(f"link del {bridge}")
    await mended("bridge-gone")


async def test_after_a_reboot_the_records_bring_it_back(lab: TapLab) -> None:
    status = await lab.network()
    port = await lab.plug("guest", "8080:80", medium="tap")
    for interface in (port.interface, status.fact("bridge")):
        ip(f"link del {interface}")
    nft("delete table inet vmtui")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    await dnsmasq.Dnsmasq(status.fact("bridge")).stop()
    async with lock.exclusive():  # which removes its folder in the end, unless others have something in it
        pass
    seen = await lab.backend.inspect(status.ref)
    assert (seen.phase, [each.present for each in seen.ports]) == (Phase.BROKEN, [False])
    assert "bridge-gone" in codes(seen)
    with pytest.raises(OperationFailed):
        await lab.plug("guest", "8080:80", medium="tap")
    await lab.network()
    again = await lab.plug("guest", "8080:80", medium="tap")
    assert (again.address, again.mac, again.present) == (port.address, port.mac, True)


async def test_a_port_is_mended_and_otherwise_left_alone(lab: TapLab) -> None:
    status = await lab.network()
    port = await lab.plug("guest", "8080:80", medium="tap")
    whole = snapshot()
    assert await lab.plug("guest", "8080:80", medium="tap") == port
    assert snapshot() == whole
    ip(f"link del {port.interface}")
    nft(f"flush chain inet vmtui {status.fact('bridge')}_output")
    (lock.ROOT / status.fact("bridge") / dnsmasq.HOSTS).write_text("")
    assert [each.present for each in (await lab.backend.inspect(status.ref)).ports] == [False]
    assert await lab.plug("guest", "8080:80", medium="tap") == port
    assert (await lab.backend.inspect(status.ref)).problems == ()
    assert [line[0] for line in snapshot()["links"]] == [line[0] for line in whole["links"]]
    ip(f"link set {port.interface} nomaster")
    assert await lab.plug("guest", "8080:80", medium="tap") == port


async def test_a_tap_is_live_while_it_is_open(lab: TapLab) -> None:
    import fcntl

    from vmtui.backends.tap.links import IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, IFREQ, TUN, TUNSETIFF

    status = await lab.network()
    port = await lab.plug("guest", medium="tap")
    assert (port.present, port.live) == (True, False)
    with open(TUN, "r+b", buffering=0) as opened:
        flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
        fcntl.ioctl(opened, TUNSETIFF, IFREQ.pack(port.interface.encode(), flags))
        (seen,) = (await lab.backend.inspect(status.ref)).ports
        assert seen.live
    (seen,) = (await lab.backend.inspect(status.ref)).ports
    assert (seen.present, seen.live) == (True, False)


async def test_a_veth_is_live_while_it_is_plugged_in(lab: TapLab) -> None:
    status = await lab.network()
    place, port = await lab.member("web")
    assert not port.live
    (seen,) = (await lab.backend.inspect(status.ref)).ports
    assert (seen.present, seen.live) == (True, True)
    place.close()
    deadline = time.monotonic() + 60
    while seen.present:  # the kernel takes namespaces down in its own time
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
        (seen,) = (await lab.backend.inspect(status.ref)).ports
    assert not seen.live
    assert (await lab.plug("web")).address == port.address


async def test_what_is_not_ours_survives(lab: TapLab) -> None:
    ip("link add br-foreign type bridge")
    ip("link add vmbforeign type bridge")
    ip("addr add 10.89.0.1/24 dev br-foreign")
    nft("table inet filter { chain forward { type filter hook forward priority 0; policy accept; accept; }; }")
    nft("table ip vmtui { chain mine { }; }")
    try:
        before = snapshot()
        status = await lab.network()
        await lab.member("web", "8080:80")
        assert status.fact("subnet") == "10.89.1.0/24"
        await lab.clear()
        assert snapshot() == before
    finally:
        ip("link del br-foreign")
        ip("link del vmbforeign")
        nft("delete table inet filter; delete table ip vmtui")


async def test_a_foreign_interface_with_our_name_is_a_conflict(lab: TapLab) -> None:
    token = lab.ref("lab").token(lab.context.workspace)
    ip(f"link add vmb{token} type bridge")
    before = snapshot()
    try:
        with pytest.raises(Conflict, match=f"vmb{token}"):
            await lab.network()
        assert snapshot() == before
        assert list(await lab.backend.scan()) == []
    finally:
        ip(f"link del vmb{token}")
    await lab.network()
    consumer = Ref("test", Kind.VM, "guest")
    port = f"vmt{consumer.token(lab.context.workspace, 'test/network/lab', '0')}"
    ip(f"link add {port} type bridge")
    before = snapshot()
    with pytest.raises(Conflict, match=port):
        await lab.plug("guest", medium="tap")
    assert snapshot() == before
    await lab.backend.remove_ports(consumer, forget=True)
    assert snapshot() == before
    ip(f"link del {port}")


@pytest.mark.parametrize("subnet", ["10.77.0.0/16", "10.77.3.0/25", "10.66.0.0/24"])
async def test_an_overlap_names_both(lab: TapLab, subnet: str) -> None:
    ip("link add dm0 type bridge")
    ip("addr add 10.77.3.1/24 dev dm0")
    ip("link set dm0 up")
    ip("route add 10.66.0.0/15 dev dm0 table 77")
    try:
        desired = lab.desired(subnet=subnet)
        (problem,) = await lab.backend.check(desired, ())
        assert problem.code == "conflict"
        assert subnet in problem.message
        assert "dm0" in problem.message
        with pytest.raises(Conflict, match="dm0"):
            await lab.backend.create(desired, silent)
        assert list(await lab.backend.scan()) == []
    finally:
        ip("link del dm0")


async def test_networks_do_not_overlap_each_other(lab: TapLab, paths: Paths) -> None:
    other = TapLab(Paths(paths.state / "2", paths.cache, paths.runtime), lab._stack)
    mine = await lab.network()
    subnet = mine.fact("subnet")
    (problem,) = await lab.backend.check(lab.desired("other", subnet=subnet), [lab.desired()])
    assert "test/network/other" in problem.message
    assert "test/network/lab" in problem.message
    (problem,) = await other.backend.check(other.desired(subnet=subnet), ())
    assert "another vmtui workspace" in problem.message
    one, two = lab.desired("other", subnet="10.50.0.0/24"), lab.desired("third", subnet="10.50.0.0/16")
    (problem,) = await lab.backend.check(one, [two])
    assert "test/network/third" in problem.message
    assert list(await lab.backend.check(lab.desired(), [one])) == []
    assert list(await lab.backend.check(lab.desired(subnet=subnet), ())) == []
    assert list(await lab.backend.check(one, [one])) == []


@pytest.mark.parametrize(
    "spec",
    [
        {"subnet": "10.0.0.1/24"},
        {"subnet": "fd00::/64"},
        {"subnet": "10.0.0.0/31"},
        {"subnet": "0.0.0.0/0"},
        {"subnet": "10.50.0.0/24", "gateway": "10.50.0.255"},
        {"subnet": "10.50.0.0/24", "gateway": "10.51.0.1"},
        {"gateway": "gateway"},
        {"domain": "a b"},
        {"domain": "x/y"},
        {"domain": "-"},
    ],
)
async def test_a_spec_that_makes_no_sense(lab: TapLab, spec: dict[str, str]) -> None:
    desired = lab.desired(**spec)
    (problem,) = await lab.backend.check(desired, ())
    assert (problem.code, bool(problem.message)) == ("invalid", True)
    with pytest.raises(InvalidInput):
        await lab.backend.create(desired, silent)
    assert list(await lab.backend.scan()) == []


async def test_leaving_a_broken_network_succeeds(lab: TapLab, monkeypatch: pytest.MonkeyPatch) -> None:
    status = await lab.network()
    port = await lab.plug("guest", "8080:80", medium="tap")
    await kill(int(status.fact("dnsmasq").split()[1]))
    ip(f"link del {status.fact('bridge')}")
    await lab.backend.remove_ports(port.consumer, forget=True)
    seen = await lab.backend.inspect(status.ref)
    assert {"bridge-gone", "dnsmasq-gone"} <= codes(seen)
    assert seen.ports == ()
    assert port.interface not in [name for name, _, _ in snapshot()["links"]]


async def test_hostile_host_names_are_refused(lab: TapLab) -> None:
    await lab.network()
    before = snapshot()
    for name in ("a b", "a\n192.0.2.1 b", "a,b", "#", "", "a" * 64, "ä", "-a", "a..b"):
        with pytest.raises(InvalidInput):
            await lab.plug("web") if name is None else await _plug_as(lab, name)
    assert snapshot() == before


async def _plug_as(lab: TapLab, hostname: str) -> None:
    from vmtui.core.backend import PortRequest

    request = PortRequest(consumer=Ref("test", Kind.CONTAINER, "web"), index=0, medium="veth", hostname=hostname)
    await lab.backend.add_port(lab.ref("lab"), request)


async def test_a_port_in_use_is_named_with_its_holder(lab: TapLab) -> None:
    status = await lab.network()
    before = snapshot()
    for kind, protocol in ((socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")):
        with socket.socket(socket.AF_INET, kind) as taken:
            taken.bind(("127.0.0.1", 0))
            if kind == socket.SOCK_STREAM:
                taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(Conflict, match=rf"{port}/{protocol} is in use .* by .* \(pid {os.getpid()}\)"):
                await lab.plug("web", f"{port}:80/{protocol}")
            assert snapshot() == before
            assert (await lab.backend.inspect(status.ref)).ports == ()
        await lab.plug("web", f"{port}:80/{protocol}")
        await lab.backend.remove_ports(Ref("test", Kind.CONTAINER, "web"), forget=True)
    with pytest.raises(Conflict, match=r"203\.0\.113\.7 is not an address of this host"):
        await lab.plug("web", "203.0.113.7:80:80")


async def test_a_port_is_published_once_on_this_host(lab: TapLab, paths: Paths) -> None:
    other = TapLab(Paths(paths.state / "2", paths.cache, paths.runtime), lab._stack)
    await lab.network()
    await other.network()
    await lab.plug("web", "127.0.0.1:8080:80")
    for there in (lab, other):
        for wanted in ("8080:90", "127.0.0.1:8080:90"):
            with pytest.raises(Conflict, match="test/container/web"):
                await there.plug("late", wanted)
    with pytest.raises(Conflict, match="twice"):
        await lab.plug("late", "9090:80", "9090:81")
    await other.plug("late", "8080:80/udp", "127.0.0.2:8080:80")
    await lab.backend.remove_ports(Ref("test", Kind.CONTAINER, "web"), forget=False)
    await other.plug("late", "8080:80")
    await other.clear()


async def test_a_port_that_was_taken_while_the_host_was_down(lab: TapLab) -> None:
    await lab.network()
    await lab.plug("web", "127.0.0.1:8081:80")
    assert list(await lab.backend.check(lab.desired(), ())) == []
    nft("delete table inet vmtui")
    with socket.create_server(("127.0.0.1", 8081)):
        (problem,) = await lab.backend.check(lab.desired(), ())
        assert "8081/tcp is in use" in problem.message


async def test_a_full_subnet_is_a_clear_error(lab: TapLab) -> None:
    await lab.network(subnet="10.50.0.0/30")
    await lab.plug("first", medium="tap")
    before = snapshot()
    with pytest.raises(Conflict, match=r"10\.50\.0\.0/30 is full"):
        await lab.plug("second", medium="tap")
    assert snapshot() == before


async def test_a_failure_in_the_middle_takes_all_back(lab: TapLab, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OperationFailed("no")

    before = snapshot()
    for where, what in ((Links, "bridge"), (dnsmasq.Dnsmasq, "ensure"), (firewall, "apply")):
        with monkeypatch.context() as patch:
            patch.setattr(where, what, fail)
            with pytest.raises(OperationFailed):
                await lab.network()
        assert snapshot() == before
        assert list(await lab.backend.scan()) == []
    status = await lab.network()
    before = snapshot()
    for where, what in ((Links, "veth"), (Links, "enslave"), (firewall, "apply")):
        with monkeypatch.context() as patch:
            patch.setattr(where, what, fail)
            with pytest.raises(OperationFailed):
                await lab.plug("web", "8080:80")
        assert snapshot() == before
    seen = await lab.backend.inspect(status.ref)
    assert (seen.ports, seen.problems) == ((), ())


async def test_a_lost_state_directory_orphans_nothing(lab: TapLab) -> None:
    import shutil

    status = await lab.network()
    await lab.plug("guest", "8080:80", medium="tap")
    shutil.rmtree(lab.context.paths.state / "resources")
    (seen,) = await lab.backend.scan()
    assert (seen.ref, seen.phase, codes(seen)) == (status.ref, Phase.BROKEN, {"incomplete"})
    await lab.backend.delete(seen.ref, purge=False)
    assert snapshot()["links"] == [("lo", "", "")]


async def test_another_spec_is_refused_until_it_is_deleted(lab: TapLab) -> None:
    await lab.network()
    with pytest.raises(Conflict, match="another spec"):
        await lab.backend.create(lab.desired(mtu=1400), silent)
    await lab.clear()
    await lab.network(mtu=1400)
    assert (await lab.plug("web")).mtu == 1400


async def test_changes_are_told(lab: TapLab) -> None:
    status = await lab.network()
    changes = lab.backend.watch()

    async def told() -> Ref:
        async with asyncio.timeout(60):
            return await anext(changes)

    async def quiet() -> None:
        with contextlib.suppress(TimeoutError):
            while True:
                waiting.append(asyncio.ensure_future(anext(changes)))
                await asyncio.wait_for(asyncio.shield(waiting[-1]), 0.3)
                waiting.pop()

    waiting: list[asyncio.Future[Ref]] = []

    async def expect(act: object) -> None:
        await quiet()
        if callable(act):
            result = act()
            if asyncio.iscoroutine(result):
                await result
        async with asyncio.timeout(60):
            assert await waiting.pop() == status.ref

    await expect(lambda: ip(f"link set {status.fact('bridge')} down"))
    await expect(lambda: lab.backend.create(lab.desired(), silent))
    await expect(lambda: lab.plug("guest", medium="tap"))
    await expect(lambda: ip(f"addr flush dev {status.fact('bridge')}"))
    await expect(lambda: os.kill(int(status.fact("dnsmasq").split()[1]), signal.SIGKILL))
    for each in waiting:
        each.cancel()


async def test_probe_finds_what_is_missing(lab: TapLab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = snapshot()
    probe = await lab.backend.probe()
    assert (probe.usable, probe.problems) == (True, ())
    assert {"nft", "dnsmasq"} <= {name for name, _ in probe.facts}
    nft("table inet strict { chain forward { type filter hook forward priority 0; policy drop; }; }")
    probe = await lab.backend.probe()
    assert probe.usable
    assert [problem.code for problem in probe.problems] == ["other-firewall"]
    nft("delete table inet strict")
    monkeypatch.setenv("PATH", str(tmp_path))
    probe = await lab.backend.probe()
    assert not probe.usable
    assert {"apt-get install nftables", "apt-get install dnsmasq-base"} == {each.hint for each in probe.problems}
    (problem,) = await lab.backend.check(lab.desired(), ())
    assert (problem.code, problem.hint) == ("missing-capability", "apt-get install nftables")
    with pytest.raises(MissingCapability):
        await lab.network()
    monkeypatch.undo()
    assert snapshot() == before


async def test_what_is_not_there_cannot_be_plugged_into(lab: TapLab) -> None:
    with pytest.raises(NotFound):
        await lab.plug("web")
    await lab.backend.remove_ports(Ref("test", Kind.VM, "nobody"), forget=True)
    await lab.network()
    with pytest.raises(InvalidInput):
        await lab.plug("web", medium="carrier-pigeon")


async def test_many_ports_at_once(lab: TapLab) -> None:
    status = await lab.network()
    ports = await asyncio.gather(*(lab.plug(f"c{number}", f"{20000 + number}:80") for number in range(25)))
    assert len({port.address for port in ports}) == 25
    seen = await lab.backend.inspect(status.ref)
    assert (len(seen.ports), seen.problems) == (25, ())
    assert all(port.present for port in seen.ports)
    consumers = [replace(port.consumer) for port in ports]
    await asyncio.gather(*(lab.backend.remove_ports(consumer, forget=True) for consumer in consumers))
    assert (await lab.backend.inspect(status.ref)).ports == ()
