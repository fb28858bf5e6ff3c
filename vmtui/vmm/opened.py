"""Everything that a machine needs from the host, opened by the monitor before it forks: inside nothing can be."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, NamedTuple

from vmtui.vmm.boot.source import BootError, BootFile
from vmtui.vmm.config import Config, Disk, Net

if TYPE_CHECKING:
    from vmtui.vmm.devices.blk.image import Image
    from vmtui.vmm.devices.net.tap import Tap

RAW = "raw"


class OpenDisk(NamedTuple):
    """Served in the machine (`image`), or by a back-end (`connection`); one of the two."""

    name: str
    disk: Disk
    image: Image | None
    connection: socket.socket | None


class OpenCard(NamedTuple):
    """`vhost_fd`: /dev/vhost-net, None where packets go through the machine; `why` says why."""

    name: str
    net: Net
    tap: Tap
    vhost_fd: int | None
    why: str


class OpenShare(NamedTuple):
    name: str
    tag: str
    connection: socket.socket


class Opened(NamedTuple):
    """Owned by whoever holds it: the monitor until it has forked, and the machine."""

    kernel: BootFile
    initrd: BootFile | None
    disks: tuple[OpenDisk, ...]
    cards: tuple[OpenCard, ...]
    shares: tuple[OpenShare, ...]

    def fds(self) -> set[int]:
        """All of them."""
        found = {boot.fd for boot in (self.kernel, self.initrd) if boot is not None}
        for disk in self.disks:
            found |= {disk.image.fd} if disk.image is not None else set()
            found |= {disk.connection.fileno()} if disk.connection is not None else set()
        for card in self.cards:
            found |= {card.tap.fd} if card.vhost_fd is None else {card.tap.fd, card.vhost_fd}
        return found | {share.connection.fileno() for share in self.shares}

    def close(self) -> None:
        """This process's descriptors; another's stay open, and the locks with them."""
        for boot in (self.kernel, self.initrd):
            if boot is not None:
                os.close(boot.fd)
        for disk in self.disks:
            if disk.image is not None:
                os.close(disk.image.fd)
            if disk.connection is not None:
                disk.connection.close()
        for card in self.cards:
            card.tap.close()
            if card.vhost_fd is not None:
                os.close(card.vhost_fd)
        for share in self.shares:
            share.connection.close()


def boot_file(path: str) -> BootFile:
    """Raises BootError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise BootError(f"{path}: {why}", f"see what is there: ls -l {os.path.dirname(path)}") from None
    try:
        return BootFile(fd, path)
    except BootError:
        os.close(fd)
        raise


def open_cards(config: Config) -> tuple[OpenCard, ...]:
    """Raises OSError: a TAP that is not there, or vhost-net that is wanted and does not work."""
    return tuple(_open_card(f"net{number}", net) for number, net in enumerate(config.nets))


def _open_card(name: str, net: Net) -> OpenCard:
    from vmtui.vmm.devices.net.tap import Tap, open_tap
    from vmtui.vmm.devices.net.vhost import open_vhost

    vhost_fd, why = None, "asked for"
    if net.vhost != "off":
        try:
            vhost_fd, why = open_vhost(), "the kernel carries the packets"
        except OSError as error:
            if net.vhost == "on":
                raise
            why = f"/dev/vhost-net: {(error.strerror or str(error)).lower()}"
    return OpenCard(name, net, Tap(open_tap(net.interface)), vhost_fd, why)


def open_image(name: str, disk: Disk) -> OpenDisk:
    """Raises OSError."""
    from vmtui.vmm.devices.blk.image import Image

    return OpenDisk(name, disk, Image(disk.path, writable=not disk.read_only), None)


def listen(path: str) -> socket.socket:
    """A listening unix socket that its owner alone may connect to. Raises OSError."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        old = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(old)
        listener.listen(16)
    except BaseException:
        listener.close()
        raise
    return listener
