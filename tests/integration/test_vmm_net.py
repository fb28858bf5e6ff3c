"""The network card whose packets a loop carries, on real TAPs, without a VM."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest

from tests.support.card_cases import CardCases, until, wrong_packets
from tests.support.frames import UDP, Header, udp
from tests.support.netns import ip
from tests.support.nic import GUEST, HOST, MAC, MTU, Guest, Nic, host_udp, lan, make_tap, plug
from tests.support.virtqueue import Piece
from vmtui.vmm.devices.net.card import RX, TX, Card
from vmtui.vmm.devices.net.device import Net
from vmtui.vmm.devices.net.features import HEADER_BYTES
from vmtui.vmm.devices.net.tap import Tap, open_tap
from vmtui.vmm.devices.net.transmit import TURN_PACKETS
from vmtui.vmm.eventfd import EventFd
from vmtui.vmm.loop import Loop

pytestmark = pytest.mark.real


class TestNet(CardCases):
    def make(self, loop: Loop, tap: Tap) -> Card:
        return Net("net0", loop, tap, MAC, MTU)

    def test_a_wrong_packet_is_lost_and_nothing_else(self) -> None:
        with self.plugged() as nic:
            guest = Guest(nic.start(), "tap0")
            packets = wrong_packets(guest.ip(UDP, udp((GUEST, 1), (HOST, 1), b"?")))
            for pieces in packets:
                nic.driver.request(pieces, queue=TX)
                assert guest.ping(b"still there") == b"still there"
            assert nic.driver.failures == []
            assert nic.driver.device.counters()["tx_dropped"] >= 4  # older kernels take others

    def test_a_flood_leaves_others_their_turn(self) -> None:
        loop, ready = Loop("net", lambda *_: None), EventFd()
        net = Net("net0", loop, Tap(plug("tap0")), MAC, MTU)
        sent: list[int] = []
        loop.watch(ready.fd, lambda _: sent.append(net.counters()["tx_packets"]))
        with Nic(net) as nic, host_udp() as host:
            frame = Guest(nic.start(), "tap0").ip(UDP, udp((GUEST, 1), host.getsockname(), b"flood"))
            ring = nic.driver.drivers[TX]
            at = ring.allocate(2048)
            nic.driver.memory.write(at, Header().pack() + frame)
            for _ in range(256):
                ring.add_pieces([Piece(at, HEADER_BYTES + len(frame), False)])
            nic.driver.kick(TX)
            ready.signal()
            loop.start()
            until(lambda: ring.used == 256)
            loop.stop()
        assert max(after - before for before, after in pairwise([0, *sent])) <= TURN_PACKETS
        assert net.counters()["tx_packets"] == 256
        net.close()
        ready.close()
        loop.close()

    def test_the_end_of_a_tap_shows_to_who_reads_and_to_who_writes(self) -> None:
        """Without epoll's word: the loop stands still."""
        loop = Loop("net", lambda *_: None)
        net = Net("net0", loop, Tap(plug("tap0")), MAC, MTU)
        with Nic(net) as nic:
            nic.start()
            ip("link del tap0")
            for _ in range(3):
                nic.driver.drivers[TX].add([Header().pack(), bytes(60)])
            net.run(TX)
            assert (net.tap, nic.driver.config_changes, nic.driver.drivers[TX].used) == (None, 1, 3)
            assert net.counters()["tx_dropped"] == 3
            make_tap("tap0")
            net.attach(plug("tap0"))
            ip("link del tap0")
            net.run(RX)
            assert (net.tap, nic.driver.config_changes, net.taps_lost) == (None, 3, 2)
            assert nic.driver.failures == []
        net.close()
        loop.close()


def test_what_the_machine_makes_of_a_tap_that_cannot_be_opened() -> None:
    with lan("tap0"):
        fd = plug("tap0")
        with pytest.raises(OSError, match="cannot open TAP tap0: Device or resource busy"):
            open_tap("tap0")
        os.close(fd)
        with pytest.raises(OSError, match="cannot open TAP lo: Invalid argument"):
            open_tap("lo")
        with pytest.raises(OSError, match="cannot open TAP tap1: no such interface"):
            open_tap("tap1")  # and does not make it
        assert "tap1" not in ip("link")
