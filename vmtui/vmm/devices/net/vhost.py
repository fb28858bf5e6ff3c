"""The network card whose packets the kernel carries: vhost-net (drivers/vhost/net.c). Nothing passes through Python.

The kernel then reads and writes the rings and buffers itself, in this process's memory, kicked by the ioeventfds and
interrupting by the irqfds. What it makes of a packet that is malformed is its own affair: Linux 6.1 stands still with
it, which is the loss of the guest that sent it alone, until its driver starts anew.
"""

from __future__ import annotations

import threading

from vmtui.vmm.devices.net.card import RX, TX, Card
from vmtui.vmm.devices.net.features import OFFERED
from vmtui.vmm.devices.net.tap import Tap
from vmtui.vmm.devices.net.vhost_kernel import KERNELS, UNBIND, VhostKernel, open_vhost
from vmtui.vmm.eventfd import EventFd
from vmtui.vmm.loop import Loop
from vmtui.vmm.virtio.device import Activation

__all__ = ["VhostNet", "open_vhost"]
LOOK_S = 5.0  # the TAP's end is nothing that we are told: a guest that sends shows it at once, one that does not, then


class VhostNet(Card):
    """Owns a descriptor of /dev/vhost-net and the TAP."""

    def __init__(self, name: str, loop: Loop, vhost_fd: int, tap: Tap | None, mac: bytes, mtu: int) -> None:
        """Takes `vhost_fd` and `tap` over. Raises OSError and ValueError, and then it has not."""
        kernel = VhostKernel(vhost_fd)
        self.loop, self.lock, self.session = loop, threading.Lock(), None
        super().__init__(name, tap, mac, mtu, OFFERED & (kernel.features | ~KERNELS))
        self._kernel = kernel
        self._error = EventFd()  # the kernel's word that it cannot go on
        loop.watch(self._error.fd, lambda _: self._failed())

    def activate(self, activation: Activation) -> None:
        with self.lock:
            self.session = activation
            self._error.drain()
            try:
                self._begin(activation)
            except OSError as error:
                self._end(activation)
                activation.failed(error.strerror or str(error))
                return
            if self.tap is not None:
                try:
                    self.tap.flush()
                    self.connect(self.tap, activation)
                except OSError:
                    self.unplug()
        self.loop.after(LOOK_S, lambda: self._look(activation))

    def _begin(self, session: Activation) -> None:
        self._kernel.begin(session.features, session.memory)
        for index in _enabled(session):
            self._kernel.set_error(index, self._error)
            self._kernel.set_ring(
                index, session.queues[index], session.memory, session.kicks[index], session.calls[index]
            )

    def _look(self, session: Activation) -> None:
        with self.lock:
            if self.session is not session:
                return
            if self.tap is not None and self.tap.gone:
                self.unplug()
        self.loop.after(LOOK_S, lambda: self._look(session))

    def connect(self, tap: Tap, session: Activation) -> None:
        super().connect(tap, session)
        self._error.drain()  # of the TAP before
        try:
            for index in _enabled(session):
                self._kernel.set_tap(index, tap.fd)
        except OSError:
            before = UNBIND if self.tap is None or self.tap is tap else self.tap.fd
            for index in _enabled(session):
                self._kernel.set_tap(index, before)
            raise
        for index in _enabled(session):
            session.kicks[index].signal()  # what was there before is not looked at without one

    def unplugged(self) -> None:
        session = self.session
        if session is None:
            return
        try:
            for index in _enabled(session):
                self._kernel.set_tap(index, UNBIND)
            if session.queues[TX].enabled:
                # What it took and could not send, it forgets to give back (vhost_tx_batch). It works in order: have
                # it take those again.
                self._kernel.set_base(TX, session.memory.u16(session.queues[TX].used_addr + 2))
        except OSError:
            self._kernel.close()

    def _end(self, session: Activation) -> None:
        """What the kernel does not stop when it is told to ends with its descriptor, and so does this device's use."""
        self.session = None
        if not self._kernel.owned:
            return
        try:
            for index in _enabled(session):
                self._kernel.set_tap(index, UNBIND)
            for index in _enabled(session):
                session.queues[index].popped = self._kernel.release(index)
        except OSError:
            self._kernel.close()

    def _failed(self) -> None:
        """By a packet for a TAP that was deleted, or by the guest."""
        with self.lock:
            session = self.session
            if not self._error.drain() or session is None:
                return
            if self.tap is not None and self.tap.gone:
                self.unplug()
            elif self.tap is not None:
                self._end(session)
                session.failed("the kernel found a ring that breaks the rules")

    def reset(self) -> None:
        with self.lock:
            if self.session is not None:
                self._end(self.session)

    def counters(self) -> dict[str, int]:
        """The packets are counted by the TAP's interface alone."""
        return {"taps_lost": self.taps_lost}

    def close(self) -> None:
        super().close()
        self._kernel.close()
        self.loop.unwatch(self._error.fd)
        self._error.close()


def _enabled(session: Activation) -> list[int]:
    """The queues that the driver has set up."""
    return [index for index in (RX, TX) if session.queues[index].enabled]
