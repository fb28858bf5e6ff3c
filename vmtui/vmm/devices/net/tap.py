"""A TAP: the host's end of a guest's network card (Documentation/networking/tuntap.rst).

`open_tap` is for who is not confined. What is opened goes to the machine, which can but read, write, and set offloads.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct

from vmtui.vmm.devices.net.features import HEADER_BYTES
from vmtui.vmm.kvm import ioctl

TUN = "/dev/net/tun"
# include/uapi/linux/if_tun.h
TUNSETIFF, TUNSETOFFLOAD, TUNGETIFF, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x800454D2, 0x400454D8
IFF_TAP, IFF_PERSIST, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x0800, 0x1000, 0x4000
_IFREQ = struct.Struct("16sH22x")  # ifreq(7): name, flags
NAME_BYTES = 15  # include/uapi/linux/if.h, IFNAMSIZ without its zero

STALE_PACKETS = 4096  # more than its queue holds (TUN_READQ_SIZE is 500), if the host sends meanwhile


def open_tap(name: str) -> int:
    """A descriptor of the persistent TAP `name`, which somebody has made before. Raises OSError that says why not."""
    try:
        if len(os.fsencode(name)) > NAME_BYTES:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        socket.if_nametoindex(name)  # TUNSETIFF makes what is not there
        fd = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        reason = f"{TUN}: {error.strerror}" if error.filename else error.strerror or "no such interface"
        raise OSError(error.errno or errno.ENODEV, f"cannot open TAP {name}: {reason}") from None
    try:
        ioctl.give(fd, TUNSETIFF, name, _IFREQ.pack(os.fsencode(name), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        if not _IFREQ.unpack(ioctl.give(fd, TUNGETIFF, name, bytes(_IFREQ.size)))[1] & IFF_PERSIST:
            raise OSError(errno.ENODEV, f"{name}: it was deleted just now")  # and ours goes with its descriptor
        ioctl.give(fd, TUNSETVNETHDRSZ, name, struct.pack("i", HEADER_BYTES))
    except OSError as error:
        os.close(fd)
        raise OSError(error.errno, f"cannot open TAP {error.strerror}") from None
    return fd


class Tap:
    """Owns a descriptor that `open_tap` made, in this process or another."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        """Raises OSError, and `fd` is then still the caller's: no TAP, or one that was deleted."""
        os.set_blocking(fd, False)
        ioctl.call(fd, TUNSETOFFLOAD, "not a TAP that could be used")
        self.fd = fd

    def offload(self, offloads: int) -> None:
        """Which packets it may hand over without a checksum, and unsegmented. Raises OSError: it was deleted."""
        ioctl.call(self.fd, TUNSETOFFLOAD, "cannot set the TAP's offloads", offloads)

    def flush(self) -> None:
        """Throw away what waits: it was put there under offloads that held before. Raises OSError: it was deleted."""
        scratch = bytearray(HEADER_BYTES)
        try:
            for _ in range(STALE_PACKETS):
                os.readv(self.fd, [scratch])
        except BlockingIOError:
            pass

    @property
    def gone(self) -> bool:
        """Whether the interface was deleted; it does not come back for this descriptor."""
        poll = select.poll()
        poll.register(self.fd, 0)
        return bool(poll.poll(0))  # POLLERR

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
