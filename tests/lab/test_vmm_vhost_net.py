"""The network card whose packets the kernel carries, on real TAPs, without a VM."""

from __future__ import annotations

import time

import pytest

from tests.support.card_cases import CardCases, until, wrong_packets
from tests.support.frames import UDP, udp
from tests.support.netns import ip
from tests.support.nic import GUEST, HOST, MAC, MTU, Guest, host_udp
from vmtui.vmm.devices.net import vhost
from vmtui.vmm.devices.net.card import TX, Card
from vmtui.vmm.devices.net.tap import Tap
from vmtui.vmm.devices.net.vhost import VhostNet, open_vhost
from vmtui.vmm.loop import Loop


class TestVhostNet(CardCases):
    def make(self, loop: Loop, tap: Tap) -> Card:
        return VhostNet("net0", loop, open_vhost(), tap, MAC, MTU)

    def test_a_wrong_packet_harms_the_guest_that_sent_it(self) -> None:
        """The kernel drops it, or stands still with it until the guest's driver starts anew."""
        with self.plugged() as nic:
            guest = Guest(nic, "tap0")
            for pieces in wrong_packets(guest.ip(UDP, udp((GUEST, 1), (HOST, 1), b"?"))):
                nic.start()
                nic.driver.drivers[TX].add(pieces)
                nic.driver.kick(TX)
                time.sleep(0.1)
                nic.driver.reset()
                nic.start()
                assert guest.ping(b"still there") == b"still there"
                nic.driver.reset()

    def test_nothing_passes_through_python(self) -> None:
        """The loop of the device stands still, and packets go both ways."""
        with self.plugged() as nic, host_udp() as host:
            guest = Guest(nic.start(), "tap0")
            card = nic.driver.device
            assert isinstance(card, Card)
            card.loop.stop()
            assert guest.ping(b"?") == b"?"
            for number in range(100):
                nic.send(guest.ip(UDP, udp((GUEST, 1), host.getsockname(), b"%d" % number)))
                assert host.recv(100) == b"%d" % number
                host.sendto(b"%d" % number, (GUEST, 1))
                assert nic.receive()[1][42:] == b"%d" % number

    def test_a_guest_that_sends_nothing_hears_of_its_tap_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(vhost, "LOOK_S", 0.2)
        with self.plugged() as nic:
            nic.start()
            time.sleep(0.3)
            ip("link del tap0")
            until(lambda: nic.driver.config_changes == 1)

    def test_a_ring_that_leaves_memory_asks_for_a_reset(self) -> None:
        with self.plugged() as nic:
            guest = Guest(nic.start(), "tap0")
            ring = nic.driver.drivers[TX]
            ring.set_descriptor(0, 1 << 40, 64)
            ring.offer(0)
            nic.driver.kick(TX)
            until(lambda: len(nic.driver.failures) == 1)
            nic.driver.reset()
            nic.start()
            assert guest.ping(b"well") == b"well"
