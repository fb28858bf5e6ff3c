"""The network card whose packets a loop carries, on real TAPs, without a VM."""

from __future__ import annotations

import pytest

from tests.support.card_cases import CardCases, wrong_packets
from tests.support.frames import UDP, udp
from tests.support.nic import GUEST, HOST, MAC, MTU, Guest
from vmtui.vmm.devices.net.card import TX, Card
from vmtui.vmm.devices.net.device import Net
from vmtui.vmm.devices.net.tap import Tap
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
