"""virtio-blk through a back-end: qemu-storage-daemon, for every image format that QEMU knows."""

from __future__ import annotations

import socket
from collections.abc import Callable

from vmtui.vmm.devices.blk import layout
from vmtui.vmm.devices.vhost_user import messages as m
from vmtui.vmm.devices.vhost_user.connection import BackEndLost, Connection
from vmtui.vmm.devices.vhost_user.device import VhostUser
from vmtui.vmm.loop import Loop
from vmtui.vmm.virtio.queue import RING_EVENT_IDX, RING_INDIRECT_DESC

QUEUE_SIZE = 256
MAX_QUEUES = 32
# What is between the driver and the back-end, and needs nothing of us
CARRIED = (
    layout.SIZE_MAX
    | layout.SEG_MAX
    | layout.GEOMETRY
    | layout.RO
    | layout.BLK_SIZE
    | layout.FLUSH
    | layout.TOPOLOGY
    | layout.CONFIG_WCE
    | layout.MQ
    | layout.DISCARD
    | layout.WRITE_ZEROES
    | RING_INDIRECT_DESC
    | RING_EVENT_IDX
)


class VhostUserBlk(VhostUser):
    """The configuration space is the back-end's; so is what a request means."""

    type_id = layout.TYPE_BLOCK

    def __init__(
        self,
        name: str,
        loop: Loop,
        connected: socket.socket,
        *,
        durable: bool,
        lost: Callable[[str], None],
        back: Callable[[], None],
    ) -> None:
        """Takes `connected` over. Raises OSError.

        `durable`: what was written is not lost with the back-end, it keeps nothing to itself until a flush.
        """
        self._durable = durable
        self._config = b""
        self._writeback = 1  # as the driver has set it; QEMU's daemon does not tell what it does itself
        super().__init__(name, loop, connected, carried=CARRIED, lost=lost, back=back)
        queues = 1
        if self.features & layout.MQ:
            queues = int.from_bytes(self._config[layout.NUM_QUEUES_AT : layout.NUM_QUEUES_AT + 2], "little")
        self.queue_sizes = (QUEUE_SIZE,) * min(max(queues, 1), MAX_QUEUES)

    @property
    def capacity_bytes(self) -> int:
        return int.from_bytes(self._config[:8], "little") * layout.SECTOR

    def resized(self, size_bytes: int) -> None:
        """The image was made that large. QEMU's daemon serves what is new, but does not say so itself up to 7.2."""
        if size_bytes > self.capacity_bytes:
            self._config = (size_bytes // layout.SECTOR).to_bytes(8, "little") + self._config[8:]
            if (session := self._session) is not None:
                session.config_changed()

    def attached(self, connection: Connection) -> None:
        if not connection.protocol & m.F_CONFIG:
            raise BackEndLost("the back-end does not tell the disk's configuration")
        self._config = connection.config(layout.CONFIG.size)

    def resumable(self, *, clean: bool) -> bool:
        """A driver counts on what was acknowledged for as long as the disk has power, flushed or not."""
        return clean or self._durable or bool(self.features & layout.RO) or self._writeback == 0

    def starting(self, connection: Connection) -> None:
        if connection.features & layout.CONFIG_WCE:
            connection.tell(m.SET_CONFIG, _writeback(self._writeback))

    def config_may_have_changed(self, connection: Connection) -> bool:
        before, self._config = self._config, connection.config(layout.CONFIG.size)
        return before != self._config

    def config(self) -> bytes:
        """As the back-end has it, but for what was fixed at the beginning, and what it is told."""
        config = bytearray(self._config)
        config[layout.NUM_QUEUES_AT : layout.NUM_QUEUES_AT + 2] = len(self.queue_sizes).to_bytes(2, "little")
        config[layout.WRITEBACK_AT] = self._writeback
        return bytes(config)

    def write_config(self, offset: int, size: int, value: int) -> None:
        if (offset, size) == (layout.WRITEBACK_AT, 1) and self.features & layout.CONFIG_WCE:
            self._writeback = value & 1
            self.say(m.SET_CONFIG, _writeback(self._writeback))


def _writeback(value: int) -> bytes:
    return m.CONFIG.pack(layout.WRITEBACK_AT, 1, 0) + bytes([value])
