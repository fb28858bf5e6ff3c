"""/dev/vhost-net (include/uapi/linux/vhost.h): the kernel's side of a network card's two rings."""

from __future__ import annotations

import errno
import os
import struct

from vmtui.vmm.devices.net.features import MRG_RXBUF
from vmtui.vmm.eventfd import EventFd
from vmtui.vmm.kvm import ioctl
from vmtui.vmm.memory import GuestMemory
from vmtui.vmm.virtio.queue import RING_EVENT_IDX, RING_INDIRECT_DESC, VERSION_1, Queue

VHOST_NET = "/dev/vhost-net"
GET_FEATURES, SET_FEATURES, SET_OWNER, SET_MEM_TABLE = 0x8008AF00, 0x4008AF00, 0xAF01, 0x4008AF03
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE = 0x4008AF10, 0x4028AF11, 0x4008AF12, 0xC008AF12
SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR, NET_SET_BACKEND = 0x4008AF20, 0x4008AF21, 0x4008AF22, 0x4008AF30
UNBIND = -1
_U64 = struct.Struct("<Q")
_MEMORY = struct.Struct("<II")  # struct vhost_memory: nregions, padding
_REGION = struct.Struct("<QQQQ")  # guest_phys_addr, memory_size, userspace_addr, flags_padding
_STATE = struct.Struct("<II")  # struct vhost_vring_state: index, num
_FILE = struct.Struct("<Ii")  # struct vhost_vring_file: index, fd
_ADDR = struct.Struct("<IIQQQQ")  # struct vhost_vring_addr: index, flags, descriptors, used, available, log
# What is the kernel's to do, and offered only if it can. The other features are between the guest and the TAP.
KERNELS = MRG_RXBUF | RING_INDIRECT_DESC | RING_EVENT_IDX | VERSION_1


class VhostKernel:
    """Owns a descriptor. Rings are set up while they have no TAP, and work while they have one. All raise OSError."""

    def __init__(self, fd: int) -> None:
        """`fd` is not owned before this has succeeded."""
        self.features = _features(fd)
        self._fd = fd
        self.owned = False

    def begin(self, features: int, memory: GuestMemory) -> None:
        """A session, in this process's memory, which is where the kernel then reads and writes."""
        if not self.owned:  # not before: it starts a thread, and what is to be confined may have one only
            ioctl.call(self._fd, SET_OWNER, VHOST_NET)
            self.owned = True
        self._give(SET_FEATURES, _U64.pack(features & self.features & KERNELS))
        regions = b"".join(_REGION.pack(each.guest_addr, each.size_bytes, each.host_addr, 0) for each in memory.regions)
        self._give(SET_MEM_TABLE, _MEMORY.pack(len(memory.regions), 0) + regions)

    def set_ring(self, index: int, queue: Queue, memory: GuestMemory, kick: EventFd, call: EventFd) -> None:
        """Where ring `index` is and how far it has come; by whom it is kicked, and whom it interrupts."""
        parts = (host_address(memory, part) for part in (queue.desc_addr, queue.used_addr, queue.avail_addr))
        self._give(SET_VRING_NUM, _STATE.pack(index, queue.size))
        self._give(SET_VRING_BASE, _STATE.pack(index, queue.popped))
        self._give(SET_VRING_ADDR, _ADDR.pack(index, 0, *parts, 0))
        self._give(SET_VRING_CALL, _FILE.pack(index, call.fd))
        self._give(SET_VRING_KICK, _FILE.pack(index, kick.fd))

    def set_error(self, index: int, error: EventFd) -> None:
        """To be signalled when the kernel cannot go on with ring `index`."""
        self._give(SET_VRING_ERR, _FILE.pack(index, error.fd))

    def set_tap(self, index: int, fd: int) -> None:
        """UNBIND: when it returns, the kernel does nothing with the ring any more."""
        self._give(NET_SET_BACKEND, _FILE.pack(index, fd))

    def set_base(self, index: int, popped: int) -> None:
        """The available index of the next chain to take."""
        self._give(SET_VRING_BASE, _STATE.pack(index, popped))

    def release(self, index: int) -> int:
        """Let go of a ring without TAP; the available index of the next chain."""
        self._give(SET_VRING_KICK, _FILE.pack(index, UNBIND))
        self._give(SET_VRING_CALL, _FILE.pack(index, UNBIND))
        base: int = _STATE.unpack(ioctl.give(self._fd, GET_VRING_BASE, VHOST_NET, _STATE.pack(index, 0)))[1]
        return base & 0xFFFF

    def _give(self, request: int, data: bytes) -> None:
        ioctl.give(self._fd, request, VHOST_NET, data)

    def close(self) -> None:
        """Ends whatever it does, as UNBIND does. All calls fail after."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


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
    features: int = _U64.unpack(ioctl.give(fd, GET_FEATURES, VHOST_NET, bytes(8)))[0]
    if not features & VERSION_1:
        raise OSError(errno.EOPNOTSUPP, f"{VHOST_NET} does not know virtio 1")
    return features


def host_address(memory: GuestMemory, addr: int) -> int:
    """Where this process has a guest address that is known to be RAM."""
    for region in memory.regions:
        if region.guest_addr <= addr < region.guest_addr + region.size_bytes:
            return region.host_addr + addr - region.guest_addr
    raise ValueError(f"guest address {addr:#x} is not RAM")
