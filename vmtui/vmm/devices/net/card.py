"""What the network card is to the guest and to the host, whoever carries the packets."""

from __future__ import annotations

import os
import struct
import threading

from vmtui.vmm.devices.net.features import OFFERED, STATUS_LINK_UP, tap_offloads
from vmtui.vmm.devices.net.tap import Tap
from vmtui.vmm.loop import EPOLLERR, EPOLLHUP, EPOLLIN, Loop
from vmtui.vmm.virtio.device import Activation, VirtioDevice

RX, TX = 0, 1  # 5.1.2
QUEUE_SIZE = 256
TYPE_NET = 1  # 5.1.1
MIN_MTU, MAX_MTU = 68, 0xFFFF  # 5.1.4.1


class Card(VirtioDevice):
    """Plugged into a TAP or, after that was deleted on the host, into nothing: the guest then sees the link down."""

    type_id = TYPE_NET
    queue_sizes = (QUEUE_SIZE, QUEUE_SIZE)
    loop: Loop
    lock: threading.Lock
    session: Activation | None

    def __init__(self, name: str, tap: Tap | None, mac: bytes, mtu: int, offered: int = OFFERED) -> None:
        """Takes `tap` over. `mac`: 6 bytes. Raises ValueError."""
        if len(mac) != 6 or mac[0] & 1:
            raise ValueError(f"{mac.hex(':')} is not the address of a network card")
        if not MIN_MTU <= mtu <= MAX_MTU:
            raise ValueError(f"an MTU of {mtu} bytes is not from {MIN_MTU} to {MAX_MTU}")
        self.name = name
        self.features = offered
        self.tap = tap
        self._mac, self._mtu = mac, mtu
        self._awaiting = False  # packets: the loop watches the TAP
        self.taps_lost = 0

    def config(self) -> bytes:
        """struct virtio_net_config, 5.1.4: mac, status, max_virtqueue_pairs (only with MQ), mtu."""
        return self._mac + struct.pack("<HHH", STATUS_LINK_UP if self.tap is not None else 0, 1, self._mtu)

    def attach(self, fd: int) -> None:
        """Go on with another TAP; takes `fd` over. From any thread but the loop's.

        Raises OSError: no TAP, or one that was deleted. `fd` is closed then, and all is as it was.
        """
        try:
            tap = Tap(fd)
            with self.lock:
                if self.tap is not None and self.tap.gone:
                    self.unplug()  # nobody had noticed: what was under way is lost as ever
                session, was_up = self.session, self.tap is not None
                if session is not None:
                    self.connect(tap, session)
                self._drop()
                self.tap = tap
                self.await_packets(self.ready_for_packets())
        except OSError:
            os.close(fd)
            raise
        if session is not None and not was_up:
            session.config_changed()

    def unplug(self) -> None:
        """The TAP was found deleted; the lock is held."""
        self.taps_lost += 1
        self._drop()
        self.unplugged()
        if self.session is not None:
            self.session.config_changed()

    def _drop(self) -> None:
        if self.tap is not None:
            self.await_packets(False)
            self.tap.close()
            self.tap = None

    def await_packets(self, wanted: bool) -> None:
        """Whether `packets` is to be called when there are some; meanwhile we hear of the TAP's end as well.

        Not otherwise: epoll is woken for it as for a packet, and would have to be for each.
        """
        tap = self.tap
        if tap is None or wanted == self._awaiting:
            return
        self._awaiting = wanted
        if wanted:
            self.loop.watch(tap.fd, lambda happened: self._happened(tap, happened), EPOLLIN)
        else:
            self.loop.unwatch(tap.fd)

    def _happened(self, tap: Tap, events: int) -> None:
        if events & (EPOLLERR | EPOLLHUP):  # level-triggered, and would be for ever
            with self.lock:
                if self.tap is tap:
                    self.unplug()
        else:
            self.packets()

    def connect(self, tap: Tap, session: Activation) -> None:
        """Make `tap` right for what the driver accepted; the lock is held. Raises OSError, and nothing has changed."""
        tap.offload(tap_offloads(session.features))

    def unplugged(self) -> None:
        """`tap` is gone; the lock is held."""
        return

    def ready_for_packets(self) -> bool:
        """Whether `packets` is to be called when the TAP has some; the lock is held."""
        return False

    def packets(self) -> None:
        """The TAP has some. In the loop's thread."""
        return

    def close(self) -> None:
        with self.lock:
            self._drop()
