"""The network card whose packets a loop of ours carries."""

from __future__ import annotations

import errno

from vmtui.vmm.devices.net.card import RX, TX, Card
from vmtui.vmm.devices.net.features import MRG_RXBUF
from vmtui.vmm.devices.net.receive import Receiver
from vmtui.vmm.devices.net.tap import Tap
from vmtui.vmm.devices.net.transmit import Transmitter
from vmtui.vmm.loop import Loop
from vmtui.vmm.virtio.device import Activation, QueueWorker
from vmtui.vmm.virtio.queue import Queue


class Net(Card, QueueWorker):
    """`attach` plugs it into another TAP. A packet that the guest made wrong is dropped and counted, nothing more."""

    def __init__(self, name: str, loop: Loop, tap: Tap | None, mac: bytes, mtu: int) -> None:
        """Takes `tap` over. `mac`: 6 bytes; `mtu`: bytes, the network's. Raises ValueError."""
        QueueWorker.__init__(self, loop)
        Card.__init__(self, name, tap, mac, mtu)
        self._receiver: Receiver | None = None
        self._transmitter: Transmitter | None = None
        self._carried = dict.fromkeys(COUNTERS, 0)  # in sessions before

    def begun(self, activation: Activation) -> None:
        receive, transmit = activation.queues
        if receive.enabled:
            self._receiver = Receiver(receive, activation.memory, bool(activation.features & MRG_RXBUF))
        if transmit.enabled:
            self._transmitter = Transmitter(transmit)
        if self.tap is not None:
            try:
                self.connect(self.tap, activation)
                self.tap.flush()
            except OSError:
                self.unplug()
        self.await_packets(self.ready_for_packets())

    def ended(self) -> None:
        self._carried = self.counters()
        self._receiver = self._transmitter = None
        self.await_packets(False)

    def ready_for_packets(self) -> bool:
        return self._receiver is not None and not self._receiver.starved

    def packets(self) -> None:
        self.run(RX)

    def process(self, index: int, queue: Queue) -> None:
        tap = self.tap
        try:
            if index == TX and self._transmitter is not None:
                self._transmitter.drain(-1 if tap is None else tap.fd)
            elif self._receiver is not None and tap is not None:
                self._receiver.fill(tap.fd)
                self.await_packets(self.ready_for_packets())
        except OSError as error:
            if error.errno != errno.EBADFD:
                raise
            self.unplug()

    def more(self, index: int) -> bool:
        """What came meanwhile has its turn after the other devices of the loop."""
        if self.session is not None and not (index == RX and self.ready_for_packets()):
            self.session.kicks[index].signal()
        return False

    def counters(self) -> dict[str, int]:
        counted = dict(self._carried)
        for prefix, path in (("rx", self._receiver), ("tx", self._transmitter)):
            if path is not None:
                counted[f"{prefix}_bytes"] += path.bytes
                counted[f"{prefix}_packets"] += path.packets
                counted[f"{prefix}_dropped"] += path.dropped
        return {**counted, "taps_lost": self.taps_lost}


COUNTERS = ("rx_bytes", "rx_packets", "rx_dropped", "tx_bytes", "tx_packets", "tx_dropped")
