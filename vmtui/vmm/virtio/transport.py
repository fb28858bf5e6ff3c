"""virtio over PCI (VIRTIO 4.1): the function that carries a device, modern interface alone.

The BAR, 64 KiB: common configuration, ISR, the device's configuration, doorbells (an ioeventfd each), MSI-X table and
pending bits. There is no INTx: the interrupt pin is 0.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from vmtui.vmm.eventfd import EventFd
from vmtui.vmm.kvm.vm import Vm
from vmtui.vmm.memory import GuestMemory
from vmtui.vmm.pci.function import Function
from vmtui.vmm.pci.msix import NO_VECTOR, Msix
from vmtui.vmm.virtio.device import Activation, VirtioDevice
from vmtui.vmm.virtio.queue import VERSION_1, Queue, QueueBroken

VENDOR, FIRST_DEVICE = 0x1AF4, 0x1040  # 4.1.2
COMMON, ISR, DEVICE, NOTIFY, TABLE, PENDING = 0x0000, 0x1000, 0x2000, 0x3000, 0x8000, 0xC000
WINDOW = 0x1000
DOORBELL_STRIDE = 4  # notify_off_multiplier, 4.1.4.4
# 4.1.4: cfg_type of the capabilities
CAP_COMMON, CAP_NOTIFY, CAP_ISR, CAP_DEVICE, CAP_PCI = 1, 2, 3, 4, 5
CAP_VENDOR, CAP_MSIX = 0x09, 0x11
# 2.1 device status
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, FAILED = 1, 2, 4, 8, 64, 128
# 5: type → PCI class code, as other VMMs show them; what has no class of its own is "other"
CLASSES = {1: 0x020000, 2: 0x018000, 3: 0x078000, 19: 0x028000, 26: 0x018000}
CLASS_OTHER = 0xFF0000
_COMMON = struct.Struct("<IIIIHHBBHHHHHQQQHH")  # struct virtio_pci_common_cfg, 4.1.4.3


class VirtioFunction(Function):
    """Owns the device, its queues and eventfds. What the guest writes never raises here."""

    bar_bytes = 0x10000

    def __init__(
        self,
        space: memoryview,
        vm: Vm,
        memory: GuestMemory,
        device: VirtioDevice,
        failed: Callable[[str, str], None],
        activated: Callable[[str], None] = lambda name: None,
    ) -> None:
        """`failed(name, reason)` hears of a device that asks for a reset, `activated(name)` of a driver that is up."""
        class_code = CLASSES.get(device.type_id, CLASS_OTHER)
        super().__init__(space, VENDOR, FIRST_DEVICE + device.type_id, class_code, revision=1)
        struct.pack_into("<HH", space, 0x2C, VENDOR, FIRST_DEVICE + device.type_id)
        self.device = device
        self.queues = tuple(Queue(size) for size in device.queue_sizes)
        self.kicks = tuple(EventFd() for _ in self.queues)
        self.needs_reset = ""  # why, while it does
        self._status = 0  # what the driver wrote
        self._memory = memory
        self._tell_failed, self._tell_activated = failed, activated
        self._msix = Msix(vm, len(self.queues) + 1)
        self._offered = device.features | VERSION_1
        self._accepted = 0
        self._offered_select = self._accepted_select = self._selected = 0
        self._config_vector = NO_VECTOR
        self._vectors = [NO_VECTOR] * len(self.queues)
        self._generation = 0
        self._session = 0
        self._add_capabilities()

    def _add_capabilities(self) -> None:
        def window(kind: int, offset: int, length: int, more: bytes = b"") -> bytes:  # struct virtio_pci_cap
            return struct.pack("<BBBBHII", 16 + len(more), kind, 0, 0, 0, offset, length) + more

        self.add_capability(CAP_VENDOR, window(CAP_COMMON, COMMON, _COMMON.size))
        self.add_capability(
            CAP_VENDOR,
            window(CAP_NOTIFY, NOTIFY, DOORBELL_STRIDE * len(self.queues), struct.pack("<I", DOORBELL_STRIDE)),
        )
        self.add_capability(CAP_VENDOR, window(CAP_ISR, ISR, 1))
        self.add_capability(CAP_VENDOR, window(CAP_DEVICE, DEVICE, WINDOW))
        # bar, offset, length and data are the driver's: a way into the BAR for who cannot map it
        mask = b"\0\0\xff\0\0\0" + b"\xff" * 8 + b"\xff" * 4
        self._window = self.add_capability(CAP_VENDOR, window(CAP_PCI, 0, 0, bytes(4)), mask)
        body = struct.pack("<HII", len(self._msix.vectors) - 1, TABLE, PENDING)
        self._msix_at = self.add_capability(CAP_MSIX, body, struct.pack("<H", 0xC000))

    def doorbells(self) -> list[tuple[int, EventFd]]:
        return [(NOTIFY + DOORBELL_STRIDE * number, kick) for number, kick in enumerate(self.kicks)]

    # Configuration space

    def written(self, offset: int, size: int) -> None:
        if offset < self._msix_at + 4 and offset + size > self._msix_at + 2:
            (control,) = struct.unpack_from("<H", self.space, self._msix_at + 2)
            self._msix.control(bool(control & 0x8000), bool(control & 0x4000))
        data = self._window + 16
        if offset < data + 4 and offset + size > self._window:
            addressed = self._addressed()
            if addressed is not None and offset >= data:
                self.bar_write(*addressed, int.from_bytes(self.space[data : data + addressed[1]], "little"))
            elif addressed is not None:  # read ahead: by ECAM the guest reads this without us
                self.space[data : data + addressed[1]] = self.bar_read(*addressed).to_bytes(addressed[1], "little")

    def _addressed(self) -> tuple[int, int] | None:
        """Where the PCI configuration access capability (4.1.4.9) points: offset and size, None if nowhere."""
        bar = self.space[self._window + 4]
        offset, length = struct.unpack_from("<II", self.space, self._window + 8)
        return (offset, length) if bar == 0 and length in (1, 2, 4) and offset + length <= self.bar_bytes else None

    def read(self, offset: int, size: int) -> int:
        data = self._window + 16
        if data <= offset < data + 4 and (addressed := self._addressed()) is not None:
            self.space[data : data + addressed[1]] = self.bar_read(*addressed).to_bytes(addressed[1], "little")
        return super().read(offset, size)

    @property
    def status(self) -> int:
        """What the driver reads (2.1)."""
        return self._status | (NEEDS_RESET if self.needs_reset else 0)

    # The BAR

    def bar_read(self, offset: int, size: int) -> int:
        window = offset & ~(WINDOW - 1)
        if window == COMMON:
            with self.lock:
                return int.from_bytes(self._common()[offset : offset + size], "little")
        if window == DEVICE:
            return self.device.read_config(offset - DEVICE, size)
        if TABLE <= offset < PENDING:
            return self._msix.read_table(offset - TABLE, size)
        if offset >= PENDING:
            return self._msix.read_pending(offset - PENDING, size)
        return 0  # ISR says nothing where there is MSI-X alone

    def bar_write(self, offset: int, size: int, value: int) -> None:
        window = offset & ~(WINDOW - 1)
        if window == COMMON:
            with self.lock:
                self._write_common(offset, size, value)
        elif window == DEVICE:
            self.device.write_config(offset - DEVICE, size, value)
        elif window == NOTIFY:
            number = (offset - NOTIFY) // DOORBELL_STRIDE
            if number < len(self.kicks):
                self.kicks[number].signal()
        elif TABLE <= offset < PENDING:
            self._msix.write_table(offset - TABLE, size, value)

    def _common(self) -> bytes:
        queue = self.queues[self._selected] if self._selected < len(self.queues) else None
        return _COMMON.pack(
            self._offered_select,
            self._offered >> 32 * self._offered_select & 0xFFFFFFFF if self._offered_select < 2 else 0,
            self._accepted_select,
            self._accepted >> 32 * self._accepted_select & 0xFFFFFFFF if self._accepted_select < 2 else 0,
            self._config_vector,
            len(self.queues),
            self.status,
            self._generation,
            self._selected,
            queue.size if queue else 0,
            self._vectors[self._selected] if queue else NO_VECTOR,
            int(queue.enabled) if queue else 0,
            self._selected if queue else 0,
            queue.desc_addr if queue else 0,
            queue.avail_addr if queue else 0,
            queue.used_addr if queue else 0,
            0,
            0,
        )

    def _write_common(self, offset: int, size: int, value: int) -> None:
        """A field is written whole, 64-bit ones also by halves (4.1.3.1); anything else does nothing."""
        match offset, size:
            case 0, 4:
                self._offered_select = value
            case 8, 4:
                self._accepted_select = value
            case 12, 4 if not self._status & FEATURES_OK and self._accepted_select < 2:
                shift = 32 * self._accepted_select
                self._accepted = self._accepted & ~(0xFFFFFFFF << shift) | value << shift
            case 16, 2:
                self._config_vector = value if value < len(self._msix.vectors) else NO_VECTOR
            case 20, 1:
                self._write_status(value)
            case 22, 2:
                self._selected = value
            case _ if self._selected < len(self.queues):
                self._write_queue(self._selected, offset, size, value)

    def _write_queue(self, number: int, offset: int, size: int, value: int) -> None:
        queue = self.queues[number]
        if (offset, size) == (26, 2):
            self._vectors[number] = value if value < len(self._msix.vectors) else NO_VECTOR
            return
        if queue.enabled:
            return  # 4.1.4.3.2: the rest is fixed until the reset
        match offset, size:
            case 24, 2:
                queue.size = value
            case 28, 2 if value == 1 and not self._status & DRIVER_OK:  # 3.1.1: the device was handed all by then
                queue.enabled = True
            case 32 | 36, 4:
                queue.desc_addr = _half(queue.desc_addr, offset == 36, value)
            case 40 | 44, 4:
                queue.avail_addr = _half(queue.avail_addr, offset == 44, value)
            case 48 | 52, 4:
                queue.used_addr = _half(queue.used_addr, offset == 52, value)
            case 32, 8:
                queue.desc_addr = value
            case 40, 8:
                queue.avail_addr = value
            case 48, 8:
                queue.used_addr = value

    def _write_status(self, value: int) -> None:
        if value == 0:
            self.reset()
            return
        before = self._status
        value = value & ~NEEDS_RESET | before  # 2.1.1: no driver clears a bit
        # 2.2.2: what was not offered is refused, and so is a driver of before version 1
        acceptable = not self._accepted & ~self._offered and self._accepted & VERSION_1
        if not before & FEATURES_OK and not acceptable:
            value &= ~FEATURES_OK
        if not value & FEATURES_OK:
            value &= ~DRIVER_OK  # 3.1.1: that comes first
        self._status = value
        if value & DRIVER_OK and not before & DRIVER_OK:
            self._activate()

    def _activate(self) -> None:
        self._session += 1
        session = self._session
        try:
            for queue in self.queues:
                if queue.enabled:
                    queue.activate(self._memory, self._accepted)
        except QueueBroken as broken:
            self._failed(session, str(broken))
            return
        self.device.activate(
            Activation(
                memory=self._memory,
                features=self._accepted,
                queues=self.queues,
                kicks=self.kicks,
                calls=tuple(self._msix.event(vector) for vector in self._vectors),
                config_changed=self.config_changed,
                failed=lambda reason: self._failed(session, reason),
            )
        )
        self._tell_activated(self.device.name)

    def config_changed(self) -> None:
        """Tell the driver that the device's configuration is another. From any thread."""
        self._generation = (self._generation + 1) & 0xFF
        if self._status & DRIVER_OK:
            self._msix.event(self._config_vector).signal()

    def _failed(self, session: int, reason: str) -> None:
        """The device is of no more use to this driver (2.1.2)."""
        if session != self._session or self.needs_reset:
            return
        self.needs_reset = reason
        self._msix.event(self._config_vector).signal()
        self._tell_failed(self.device.name, reason)

    def reset(self) -> None:
        """As after power-on (2.4): when it returns, the device touches no memory and raises no interrupt."""
        with self.lock:
            self._session += 1
            self.device.reset()
            self._status = 0
            self.needs_reset = ""
            self._accepted = 0
            self._offered_select = self._accepted_select = self._selected = 0
            self._config_vector = NO_VECTOR
            for number, queue in enumerate(self.queues):
                queue.reset()
                self.kicks[number].drain()
                self._vectors[number] = NO_VECTOR

    def close(self) -> None:
        """After the vCPUs have ended."""
        self.device.reset()
        self.device.close()
        self._msix.close()
        for kick in self.kicks:
            kick.close()


def _half(old: int, upper: bool, value: int) -> int:
    return old & 0xFFFFFFFF | value << 32 if upper else old & ~0xFFFFFFFF | value
