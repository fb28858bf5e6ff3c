"""The network card whose packets the kernel carries: vhost-net (drivers/vhost/net.c). Nothing passes through Python.

The kernel then reads and writes the rings and buffers itself, in this process's memory, kicked by the ioeventfds and
interrupting by the irqfds.
"""

from __future__ import annotations

import errno
import os
import struct
import threading

from vmtui.vmm.devices.net.card import RX, TX, Card
from vmtui.vmm.devices.net.features import MRG_RXBUF, OFFERED
from vmtui.vmm.devices.net.tap import Tap
from vmtui.vmm.eventfd import EventFd
from vmtui.vmm.kvm import ioctl
from vmtui.vmm.loop import Loop
from vmtui.vmm.memory import GuestMemory
from vmtui.vmm.virtio.device import Activation
from vmtui.vmm.virtio.queue import RING_EVENT_IDX, RING_INDIRECT_DESC, VERSION_1, Queue

VHOST_NET = "/dev/vhost-net"
# include/uapi/linux/vhost.h
GET_FEATURES, SET_FEATURES, SET_OWNER, SET_MEM_TABLE = 0x8008AF00, 0x4008AF00, 0xAF01, 0x4008AF03
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE = 0x4008AF10, 0x4028AF11, 0x4008AF12, 0xC008AF12
SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR, NET_SET_BACKEND = 0x4008AF20, 0x4008AF21, 0x4008AF22, 0x4008AF30
UNBIND = -1
LOOK_S = 5.0  # the TAP's end is nothing that we are told: a guest that sends shows it at once, one that does not, then
_MEMORY = struct.Struct("<II")  # struct vhost_memory: nregions, padding
_REGION = struct.Struct("<QQQQ")  # guest_phys_addr, memory_size, userspace_addr, flags_padding
_STATE = struct.Struct("<II")  # struct vhost_vring_state: index, num
_FILE = struct.Struct("<Ii")  # struct vhost_vring_file: index, fd
_ADDR = struct.Struct("<IIQQQQ")  # struct vhost_vring_addr: index, flags, descriptors, used, available, log
# What is the kernel's to do, and offered only if it can. The other features are between the guest and the TAP.
KERNELS = MRG_RXBUF | RING_INDIRECT_DESC | RING_EVENT_IDX | VERSION_1


class VhostNet(Card):
    """Owns a descriptor of /dev/vhost-net and the TAP."""

    def __init__(self, name: str, loop: Loop, vhost_fd: int, tap: Tap | None, mac: bytes, mtu: int) -> None:
        """Takes `vhost_fd` and `tap` over. Raises OSError and ValueError, and then it has not."""
        self._kernel = _features(vhost_fd)
        self.loop, self.lock, self.session = loop, threading.Lock(), None
        super().__init__(name, tap, mac, mtu, OFFERED & (self._kernel | ~KERNELS))
        self._fd = vhost_fd
        self._owned = False
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

    def _look(self, session: Activation) -> None:
        with self.lock:
            if self.session is not session:
                return
            if self.tap is not None and self.tap.gone:
                self.unplug()
        self.loop.after(LOOK_S, lambda: self._look(session))

    def _begin(self, session: Activation) -> None:
        if not self._owned:  # not before: it starts a thread, and what is to be confined may have one only
            ioctl.call(self._fd, SET_OWNER, VHOST_NET)
            self._owned = True
        self._set(SET_FEATURES, struct.pack("<Q", session.features & self._kernel & KERNELS))
        regions = session.memory.regions
        self._set(
            SET_MEM_TABLE,
            _MEMORY.pack(len(regions), 0)
            + b"".join(_REGION.pack(each.guest_addr, each.size_bytes, each.host_addr, 0) for each in regions),
        )
        for index, queue in enumerate(session.queues):
            if queue.enabled:
                self._set(SET_VRING_NUM, _STATE.pack(index, queue.size))
                self._set(SET_VRING_BASE, _STATE.pack(index, queue.popped))
                self._set(SET_VRING_ADDR, self._addresses(index, queue, session.memory))
                self._set(SET_VRING_ERR, _FILE.pack(index, self._error.fd))
                self._set(SET_VRING_CALL, _FILE.pack(index, session.calls[index].fd))
                self._set(SET_VRING_KICK, _FILE.pack(index, session.kicks[index].fd))

    def _addresses(self, index: int, queue: Queue, memory: GuestMemory) -> bytes:
        parts = (queue.desc_addr, queue.used_addr, queue.avail_addr)
        return _ADDR.pack(index, 0, *(host_address(memory, part) for part in parts), 0)

    def connect(self, tap: Tap, session: Activation) -> None:
        super().connect(tap, session)
        enabled = [index for index in (RX, TX) if session.queues[index].enabled]
        try:
            for index in enabled:
                self._set(NET_SET_BACKEND, _FILE.pack(index, tap.fd))
        except OSError:
            before = UNBIND if self.tap is None or self.tap is tap else self.tap.fd
            for index in enabled:
                self._set(NET_SET_BACKEND, _FILE.pack(index, before))
            raise
        for index in enabled:
            session.kicks[index].signal()  # what was there before is not looked at without one

    def unplugged(self) -> None:
        session = self.session
        if session is None:
            return
        self._disconnect(session)
        queue = session.queues[TX]
        if queue.enabled and self._fd >= 0:
            # What it took and could not send, it forgets to give back (vhost_tx_batch). It works in order: have it
            # take those again.
            used = session.memory.u16(queue.used_addr + 2)
            self._set(SET_VRING_BASE, _STATE.pack(TX, used))

    def _disconnect(self, session: Activation) -> None:
        """When it returns, the kernel does nothing with the rings or the TAP."""
        try:
            for index in (RX, TX):
                if session.queues[index].enabled:
                    self._set(NET_SET_BACKEND, _FILE.pack(index, UNBIND))
        except OSError:
            self._give_up()

    def _end(self, session: Activation) -> None:
        self.session = None
        if not self._owned:
            return
        self._disconnect(session)
        try:
            for index in (RX, TX):
                if session.queues[index].enabled:
                    self._set(SET_VRING_KICK, _FILE.pack(index, UNBIND))
                    self._set(SET_VRING_CALL, _FILE.pack(index, UNBIND))
                    state = ioctl.give(self._fd, GET_VRING_BASE, VHOST_NET, _STATE.pack(index, 0))
                    session.queues[index].popped = _STATE.unpack(state)[1] & 0xFFFF
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        """What the kernel does not stop when told to ends with the descriptor, and so does this device's use."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _failed(self) -> None:
        """By a packet for a TAP that was deleted, or by the guest."""
        with self.lock:
            self._error.drain()
            session = self.session
            if session is None:
                return
            if self.tap is not None and self.tap.gone:
                self.unplug()
            elif self.tap is not None:
                self._end(session)
                session.failed("the kernel found a ring that breaks the rules")

    def _set(self, request: int, data: bytes) -> None:
        ioctl.give(self._fd, request, VHOST_NET, data)

    def reset(self) -> None:
        with self.lock:
            if self.session is not None:
                self._end(self.session)

    def counters(self) -> dict[str, int]:
        """The packets are counted by the TAP's interface alone."""
        return {"taps_lost": self.taps_lost}

    def close(self) -> None:
        super().close()
        self._give_up()
        self.loop.unwatch(self._error.fd)
        self._error.close()


def open_vhost() -> int:
    """A descriptor of /dev/vhost-net, for who is not confined. Raises OSError: there is none that works here."""
    fd = os.open(VHOST_NET, os.O_RDWR | os.O_CLOEXEC)
    try:
        _features(fd)
    except OSError:
        os.close(fd)
        raise
    return fd


def _features(fd: int) -> int:
    features: int = struct.unpack("<Q", ioctl.give(fd, GET_FEATURES, VHOST_NET, bytes(8)))[0]
    if not features & VERSION_1:
        raise OSError(errno.EOPNOTSUPP, f"{VHOST_NET} does not know virtio 1")
    return features


def host_address(memory: GuestMemory, addr: int) -> int:
    """Where this process has a guest address that is known to be RAM."""
    for region in memory.regions:
        if region.guest_addr <= addr < region.guest_addr + region.size_bytes:
            return region.host_addr + addr - region.guest_addr
    raise ValueError(f"guest address {addr:#x} is not RAM")
