"""Plugs a running QEMU into a TAP that was made anew.

When a TAP is deleted, the file that QEMU has open stays, detached. A copy of it (pidfd_getfd(2)) can be attached to
another TAP by TUNSETIFF, and QEMU, whose file it is too, goes on with that one: the guest sees nothing but a pause.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from vmtui.core.errors import MissingCapability, OperationFailed

PIDFD_GETFD = 438  # include/uapi/asm-generic/unistd.h
TUN_MAJOR_MINOR = os.makedev(10, 200)
# include/uapi/linux/if_tun.h
TUNSETIFF = 0x400454CA
TUNSETOFFLOAD = 0x400454D0
TUNSETVNETHDRSZ = 0x400454D8
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
VNET_HEADER_BYTES = 12  # struct virtio_net_hdr_v1, what QEMU uses with virtio 1 devices

_libc = ctypes.CDLL(None, use_errno=True)


def tap_fds(pid: int) -> list[tuple[int, str]]:
    """The TAP fds of a process in the order in which it opened them, with the interface each is attached to or ""."""
    found = []
    folder = Path(f"/proc/{pid}/fd")
    for entry in folder.iterdir():
        try:
            if entry.stat().st_rdev != TUN_MAJOR_MINOR:
                continue
            info = Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text()
        except OSError:
            continue
        names = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("iff:")]
        found.append((int(entry.name), names[0] if names else ""))
    return sorted(found)


def attach(pid: int, fd: int, interface: str) -> None:
    """Attach a detached TAP fd of process `pid` to `interface`. Raises OperationFailed, MissingCapability."""
    pidfd = os.pidfd_open(pid)
    try:
        copy = _libc.syscall(PIDFD_GETFD, pidfd, fd, 0)
        if copy < 0:
            error = ctypes.get_errno()
            raise MissingCapability(f"cannot take qemu's TAP: {os.strerror(error)}", hint="run as root")
    finally:
        os.close(pidfd)
    try:
        request = struct.pack("16sH22x", os.fsencode(interface), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
        fcntl.ioctl(copy, TUNSETIFF, request)
        fcntl.ioctl(copy, TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER_BYTES))
        fcntl.ioctl(copy, TUNSETOFFLOAD, 0)  # what the guest agreed to is not known here: none is always right
    except OSError as error:
        raise OperationFailed(f"cannot attach qemu to {interface}: {error.strerror}") from None
    finally:
        os.close(copy)


def reattach(pid: int, interfaces: Sequence[str]) -> None:
    """Plug the process's TAPs, in the order in which it opened them, into these. What is plugged right is left.

    Raises OperationFailed (it has another number of TAPs, one cannot be attached), MissingCapability.
    """
    fds = tap_fds(pid)
    if len(fds) != len(interfaces):
        raise OperationFailed(f"qemu {pid} has {len(fds)} TAPs, not {len(interfaces)}", hint="restart the VM")
    for (fd, attached), wanted in zip(fds, interfaces, strict=True):
        if attached != wanted:
            attach(pid, fd, wanted)
