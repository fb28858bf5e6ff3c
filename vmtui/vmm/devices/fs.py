"""virtio-fs (VIRTIO 5.11): a directory of the host, served by virtiofsd, which speaks FUSE over the queues."""

from __future__ import annotations

import socket
from collections.abc import Callable

from vmtui.vmm.devices.vhost_user.device import VhostUser
from vmtui.vmm.loop import Loop
from vmtui.vmm.virtio.queue import RING_EVENT_IDX, RING_INDIRECT_DESC

TYPE_FS = 26  # 5.11.1
TAG_BYTES = 36  # 5.11.4
REQUEST_QUEUES = 1  # all that QEMU's virtiofsd serves
QUEUE_SIZE = 1024  # a FUSE request is as large as the queue lets it be (fs/fuse/virtio_fs.c)


class Fs(VhostUser):
    """A back-end that ends takes its guest's mount along: open files are its alone. A new one is for a new mount."""

    type_id = TYPE_FS
    queue_sizes = (QUEUE_SIZE,) * (1 + REQUEST_QUEUES)  # the first for FORGET and INTERRUPT (5.11.2)

    def __init__(
        self,
        name: str,
        loop: Loop,
        connected: socket.socket,
        tag: str,
        *,
        lost: Callable[[str], None],
        back: Callable[[], None],
    ) -> None:
        """`tag`: by which the guest mounts it. Takes `connected` over. Raises OSError, and ValueError before that."""
        data = tag.encode()
        if not 0 < len(data) <= TAG_BYTES or b"\0" in data:
            raise ValueError(f"{tag!r} is not a tag: it has from 1 to {TAG_BYTES} bytes, and no zero")
        self._config = data.ljust(TAG_BYTES, b"\0") + REQUEST_QUEUES.to_bytes(4, "little")
        super().__init__(name, loop, connected, carried=RING_INDIRECT_DESC | RING_EVENT_IDX, lost=lost, back=back)

    def config(self) -> bytes:
        """Ours: not every virtiofsd has one."""
        return self._config
