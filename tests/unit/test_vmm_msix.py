"""MSI-X on real irqfds. What arrives is seen in the local APIC of a vCPU that never runs (its IRR)."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.bus import Bus
from tests.support.dev_kvm import needs_kvm
from vmtui.vmm.eventfd import EventFd
from vmtui.vmm.kvm import constants as kvm
from vmtui.vmm.kvm import ioctl
from vmtui.vmm.kvm.routing import MAX_MSI_ROUTES
from vmtui.vmm.kvm.system import System
from vmtui.vmm.kvm.vm import Vm
from vmtui.vmm.pci.msix import MASKED, NO_VECTOR, Msix
from vmtui.vmm.virtio.transport import PENDING, TABLE

pytestmark = needs_kvm
APIC = 0xFEE00000  # messages to APIC 0, fixed (SDM 3, 11.11)
FIRST = 0x40  # the interrupt that entry 0 is led to
IRR, SPURIOUS, ENABLED = 0x200, 0xF0, 0x1FF  # SDM 3, table 11-1 and 11.9
ARRIVES_S = 60.0


class Processor:
    """A vCPU's local APIC."""

    def __init__(self, vm: Vm) -> None:
        self.fd = vm.create_vcpu(0)
        self._fresh = bytearray(ioctl.give(self.fd, kvm.KVM_GET_LAPIC, "KVM_GET_LAPIC", bytes(1024)))
        struct.pack_into("<I", self._fresh, SPURIOUS, ENABLED)
        self.forget()

    def forget(self) -> None:
        """What is waiting."""
        ioctl.give(self.fd, kvm.KVM_SET_LAPIC, "KVM_SET_LAPIC", self._fresh)

    def waiting(self) -> set[int]:
        page = ioctl.give(self.fd, kvm.KVM_GET_LAPIC, "KVM_GET_LAPIC", bytes(1024))
        words = (struct.unpack_from("<I", page, IRR + 0x10 * n)[0] for n in range(8))
        return {32 * n + bit for n, word in enumerate(words) for bit in range(32) if word >> bit & 1}

    def hears(self, *interrupts: int) -> None:
        """These, and nothing else; then they are forgotten."""
        deadline = time.monotonic() + ARRIVES_S
        while self.waiting() != set(interrupts):
            assert time.monotonic() < deadline, f"{self.waiting()} came, not {set(interrupts)}"
            time.sleep(0.001)
        self.forget()

    def hears_nothing(self) -> None:
        time.sleep(0.02)
        assert self.waiting() == set()

    def close(self) -> None:
        os.close(self.fd)


class Host:
    def __init__(self) -> None:
        self.system = System()
        self.vm = Vm(self.system)
        self.processor = Processor(self.vm)
        self.msix = Msix(self.vm, 3)

    def lead(self, number: int, interrupt: int | None = None, control: int = 0) -> None:
        """As a driver writes an entry."""
        at = 16 * number
        data = FIRST + number if interrupt is None else interrupt
        for offset, value in ((0, APIC), (4, 0), (8, data), (12, control)):
            self.msix.write_table(at + offset, 4, value)

    def pending(self) -> int:
        return self.msix.read_pending(0, 8)

    def signal(self, number: int) -> None:
        self.msix.event(number).signal()

    def close(self) -> None:
        self.msix.close()
        self.processor.close()
        self.vm.close()
        self.system.close()


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


def test_each_entry_leads_to_its_own_interrupt(host: Host) -> None:
    host.msix.control(True, False)
    for number in range(3):
        host.lead(number)
    for number in (1, 0, 2):
        host.signal(number)
        host.processor.hears(FIRST + number)
    for number in range(3):
        host.signal(number)
    host.processor.hears(FIRST, FIRST + 1, FIRST + 2)
    assert host.pending() == 0


def test_all_are_masked_at_first(host: Host) -> None:
    assert [host.msix.read_table(16 * number + 12, 4) for number in range(3)] == [MASKED] * 3
    host.msix.control(True, False)
    host.signal(1)
    host.processor.hears_nothing()
    assert host.pending() == 0b010


def test_a_masked_one_waits(host: Host) -> None:
    host.msix.control(True, False)
    host.lead(1, control=MASKED)
    for _ in range(5):
        host.signal(1)
    host.processor.hears_nothing()
    assert host.pending() == 0b010
    host.msix.write_table(16 + 12, 4, 0)
    host.processor.hears(FIRST + 1)
    assert host.pending() == 0, "once for all"
    host.processor.hears_nothing()
    host.msix.write_table(16 + 12, 4, MASKED)
    assert host.pending() == 0, "it has been delivered"
    host.msix.write_table(16 + 12, 4, 0)
    host.processor.hears_nothing()
    host.msix.write_table(16 + 12, 4, MASKED)
    host.signal(1)
    assert host.pending() == 0b010


def test_it_leads_where_it_was_led_last(host: Host) -> None:
    """What waited as well: a driver moves an interrupt to another processor while it is masked."""
    host.msix.control(True, False)
    host.lead(0)
    host.signal(0)
    host.processor.hears(FIRST)
    host.lead(0, control=MASKED)
    host.signal(0)
    host.lead(0, 0x80)
    host.processor.hears(0x80)
    host.msix.write_table(8, 4, 0x90)  # and not masked at all
    host.signal(0)
    host.processor.hears(0x90)


def test_the_whole_function_can_be_masked(host: Host) -> None:
    for number in range(3):
        host.lead(number)
    host.msix.control(True, True)
    host.signal(0)
    host.signal(2)
    host.processor.hears_nothing()
    assert host.pending() == 0b101
    host.lead(2, control=MASKED)
    host.msix.control(True, False)
    host.processor.hears(FIRST)
    assert host.pending() == 0b100


def test_nothing_comes_while_it_is_not_enabled(host: Host) -> None:
    host.lead(0)
    host.signal(0)
    host.processor.hears_nothing()
    for _ in range(3):
        host.msix.control(True, False)
        host.processor.hears(FIRST)
        host.msix.control(False, False)
        host.signal(0)
        host.processor.hears_nothing()


def test_a_vector_that_is_none(host: Host) -> None:
    """Signalling it is heard by nobody, as often as it is done."""
    host.msix.control(True, False)
    for number in (NO_VECTOR, 3, 0x7FFF):
        event = host.msix.event(number)
        for _ in range(3):
            event.signal()
    host.processor.hears_nothing()
    assert host.pending() == 0
    os.eventfd_write(host.msix.event(NO_VECTOR).fd, (1 << 64) - 20)
    for _ in range(20):
        host.msix.event(NO_VECTOR).signal()


def test_the_table_reads_as_it_was_written(host: Host) -> None:
    host.msix.write_table(16, 8, 0xFEDC_0000_FEE0_1000)
    host.msix.write_table(24, 8, 0xFFFF_FFFE_0000_4123)
    assert host.msix.read_table(16, 8) == 0xFEDC_0000_FEE0_1000
    assert host.msix.read_table(24, 8) == 0x0000_0000_0000_4123, "of the control one bit alone is ours"
    assert [host.msix.read_table(16 + at, 1) for at in range(4)] == [0x00, 0x10, 0xE0, 0xFE]
    before = [host.msix.read_table(at, 4) for at in range(0, 48, 4)]
    for offset, size in ((16, 1), (16, 2), (18, 4), (20, 8), (30, 4), (48, 4), (0x4000, 4)):
        host.msix.write_table(offset, size, 0xA5)
    assert [host.msix.read_table(at, 4) for at in range(0, 48, 4)] == before
    assert host.msix.read_table(48, 4) == host.msix.read_pending(8, 8) == 0


def test_a_table_that_kvm_does_not_take_is_not_kept(host: Host) -> None:
    """Each change gives it the whole table: one entry that it refuses must not spoil those that follow."""
    routing, good = host.vm.routing, host.vm.fd
    gsi = routing.allocate()
    with open("/dev/null", "rb") as other:
        routing._vm_fd = other.fileno()
        with pytest.raises(OSError, match="KVM_SET_GSI_ROUTING"):
            routing.set_message(gsi, APIC, FIRST)
        routing._vm_fd = good
    routing.set_message(gsi, APIC, FIRST)
    event = EventFd()
    host.vm.add_irqfd(gsi, event)
    event.signal()
    host.processor.hears(FIRST)
    event.close()


def test_there_are_enough_messages_for_every_device_and_no_more(host: Host) -> None:
    given = [host.vm.routing.allocate() for _ in range(MAX_MSI_ROUTES)]
    assert given == list(range(24, 24 + MAX_MSI_ROUTES))
    with pytest.raises(OSError, match="no GSI is left"):
        host.vm.routing.allocate()
    host.msix.control(True, False)
    host.lead(0)  # silent, and nothing else
    host.signal(0)
    host.processor.hears_nothing()
    assert host.pending() == 1


def test_pins_of_the_io_apic_still_lead_there(host: Host) -> None:
    """KVM forgets its own table when it is given one."""
    event = EventFd()
    host.msix.control(True, False)
    host.lead(0)
    host.vm.add_irqfd(4, event)  # the serial line; the pin is masked, as it is after reset
    event.signal()
    host.processor.hears_nothing()
    host.vm.remove_irqfd(4, event)
    event.close()


def test_by_the_functions_registers() -> None:
    bus = Bus()
    processor = Processor(bus.vm)
    try:
        bus.bring_up()
        for number in range(3):
            for offset, value in ((0, APIC), (4, 0), (8, FIRST + number), (12, 0)):
                bus.write(TABLE + 16 * number + offset, 4, value)
        queue, other = bus.probe.sessions[0].calls
        queue.signal()
        processor.hears_nothing()
        assert bus.read(PENDING, 8) == 0b010
        bus.message_control(0xC000)
        processor.hears_nothing()
        bus.message_control(0x8000)
        processor.hears(FIRST + 1)
        other.signal()
        processor.hears(FIRST + 2)
        bus.probe.sessions[0].config_changed()
        processor.hears(FIRST)
        bus.set_field(20, 1, 0)
        bus.bring_up()  # a reset leaves MSI-X as it is (4.1.5.1.2: the driver maps vectors again)
        bus.probe.sessions[1].calls[0].signal()
        processor.hears(FIRST + 1)
    finally:
        processor.close()
        bus.close()


STEP = st.tuples(
    st.sampled_from(("control", "write", "read", "signal", "pending")), st.integers(0, 60),
    st.sampled_from((1, 2, 4, 8)), st.integers(0, (1 << 64) - 1) | st.sampled_from((0, 1, APIC, 0x40)),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(STEP, max_size=60))
def test_no_traffic_raises_and_what_is_led_properly_arrives_after(steps: list[tuple[str, int, int, int]]) -> None:
    host = Host()
    try:
        for what, offset, size, value in steps:
            value &= (1 << 8 * size) - 1
            match what:
                case "control":
                    host.msix.control(bool(offset & 1), bool(offset & 2))
                case "write":
                    host.msix.write_table(offset, size, value)
                case "read":
                    assert 0 <= host.msix.read_table(offset, size) < 1 << 8 * size
                case "pending":
                    assert 0 <= host.msix.read_pending(offset, size) < 1 << 8 * size
                case _:
                    host.signal(offset % 5)
        host.msix.control(True, True)
        for number in range(3):
            host.lead(number)
            host.msix.event(number).drain()
        host.processor.forget()
        host.msix.control(True, False)
        host.signal(2)
        host.processor.hears(FIRST + 2)
    finally:
        host.close()
