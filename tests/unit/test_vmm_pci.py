"""Configuration space both ways, and where BARs may be and what happens when they move."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.bus import STATUS, Bus, Probe, window
from tests.support.dev_kvm import needs_kvm
from vmtui.vmm.arch.x86_64 import layout
from vmtui.vmm.eventfd import EventFd
from vmtui.vmm.pci.function import BAR0, BAR1, COMMAND, VENDOR_ID
from vmtui.vmm.virtio.transport import COMMON, DEVICE, NOTIFY, PENDING, TABLE

pytestmark = needs_kvm
NUM_QUEUES = COMMON + 18
ALL_ONES = 0xFFFFFFFF


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus()
    yield bus
    bus.close()


def answers(bus: Bus, addr: int) -> bool:
    """Whether a BAR is there: two queues, as the probe has."""
    return bus.mmio.read(addr + NUM_QUEUES, 2) == 2


def rings(bus: Bus, addr: int) -> bool:
    """Whether KVM has the doorbell there: it refuses a second one (EEXIST)."""
    event = EventFd()
    try:
        bus.vm.add_ioeventfd(addr + NOTIFY, event)
    except FileExistsError:
        return True
    else:
        bus.vm.remove_ioeventfd(addr + NOTIFY, event)
        return False
    finally:
        event.close()


def move(bus: Bus, slot: int, addr: int) -> None:
    """As Linux does it: not decoded meanwhile."""
    bus.write_ecam(slot, COMMAND, 2, 0)
    bus.write_ecam(slot, BAR0, 4, addr & ALL_ONES)
    bus.write_ecam(slot, BAR1, 4, addr >> 32)
    bus.write_ecam(slot, COMMAND, 2, 6)


# Both ways


def test_ports_and_memory_agree(bus: Bus) -> None:
    for slot in range(32):
        for register in range(0, 256, 4):
            value = bus.read_ecam(slot, register, 4)
            assert bus.read_ports(slot, register, 4) == value, (slot, register)
            for at in range(4):
                assert bus.read_ports(slot, register + at, 1) == value >> 8 * at & 0xFF
            assert bus.read_ports(slot, register + 2, 2) == value >> 16


def test_what_is_written_one_way_is_read_the_other(bus: Bus) -> None:
    bus.write_ports(1, COMMAND, 2, 4)
    assert bus.read_ecam(1, COMMAND, 2) == 4
    bus.write_ecam(1, COMMAND + 1, 1, 4)
    assert bus.read_ports(1, COMMAND, 2) == 0x404


def test_who_is_there(bus: Bus) -> None:
    assert [bus.read_ecam(0, at, 2) for at in (0, 2)] == [0x8086, 0x0D57]
    assert bus.read_ecam(0, 8, 4) >> 8 == 0x060000, "a host bridge"
    assert [bus.read_ecam(1, at, 2) for at in (0, 2, 0x2C, 0x2E)] == [0x1AF4, 0x1044] * 2
    assert bus.read_ecam(1, 8, 1) == 1, "no transitional device (4.1.2.1)"
    assert bus.read_ecam(1, 0x3D, 1) == 0, "no interrupt pin"


def test_who_is_not_there_reads_as_all_ones(bus: Bus) -> None:
    for slot in (2, 17, 31):
        assert bus.read_ecam(slot, VENDOR_ID, 4) == bus.read_ports(slot, VENDOR_ID, 4) == ALL_ONES
        bus.write_ecam(slot, COMMAND, 4, 0)
        bus.write_ports(slot, COMMAND, 4, 0)
        assert bus.read_ecam(slot, COMMAND, 4) == ALL_ONES


@pytest.mark.parametrize("address", [1 << 31 | 1 << 16, 1 << 31 | 1 << 8, 1 << 11, 1 << 31 | 2 << 11])
def test_what_ports_do_not_reach(bus: Bus, address: int) -> None:
    """Another bus, another function, not enabled, nobody."""
    bus.root.write(0, 4, address)
    assert bus.root.read(4, 4) == ALL_ONES
    bus.root.write(4, 4, 0)


def test_the_address_port(bus: Bus) -> None:
    bus.root.write(0, 4, ALL_ONES)
    assert bus.root.read(0, 4) == 0x80FFFFFC
    assert (bus.root.read(1, 2), bus.root.read(3, 1)) == (0xFFFF, 0x80)
    for offset, size in ((0, 1), (0, 2), (1, 1), (2, 2)):
        bus.root.write(offset, size, 0)  # 3.2.2.3.2: as a doubleword alone; others are other devices' ports
    assert bus.root.read(0, 4) == 0x80FFFFFC


def test_what_is_read_only_stays(bus: Bus) -> None:
    for slot in (0, 1):
        before = bytes(bus.root.page(slot))
        for register in range(0, 4096, 4):
            if register not in (COMMAND, BAR0, BAR1) and not 0x40 <= register < 0x100:
                bus.write_ecam(slot, register, 4, ALL_ONES)
                bus.write_ecam(slot, register, 4, 0)
        assert bytes(bus.root.page(slot)) == before
        bus.write_ecam(slot, COMMAND, 4, ALL_ONES)
        assert bus.read_ecam(slot, COMMAND, 2) == 0x0406, "memory, master, no INTx"
        assert bus.read_ecam(slot, COMMAND + 2, 2) == int.from_bytes(before[6:8], "little")


def test_accesses_of_eight_bytes(bus: Bus) -> None:
    move(bus, 1, 0xC8000000)
    bus.write_ecam(1, BAR0, 8, (1 << 64) - 1)
    assert bus.read_ecam(1, BAR0, 8) == (1 << 64) - 0x10000 | 0xC


def test_an_access_over_the_end_of_a_page(bus: Bus) -> None:
    for offset in range(4090, 4096):
        bus.function.write(offset, 8, 0)
        bus.mmio.write(layout.ECAM.start + (1 << 15) + offset, 8, (1 << 64) - 1)
    assert bus.read_ecam(2, VENDOR_ID, 4) == ALL_ONES


# Capabilities


def test_the_list_of_capabilities(bus: Bus) -> None:
    assert bus.read_ecam(1, 6, 2) & 0x10
    found = bus.capabilities()
    assert [body[0] for _, body in found] == [0x09] * 5 + [0x11]
    end = 0x40
    for at, body in found:
        assert at % 4 == 0
        assert at >= end, "one lies in another"
        end = at + len(body)
    assert end <= 0x100
    kinds = [window(body) for _, body in found[:5]]
    assert [kind for kind, *_ in kinds] == [1, 2, 3, 4, 5]
    for _, bar, offset, length in kinds[:4]:
        assert bar == 0
        assert offset + length <= bus.function.bar_bytes
    assert struct.unpack_from("<I", found[1][1], 16) == (4,), "notify_off_multiplier"
    control, table, pending = struct.unpack("<HII", found[5][1][2:])
    assert (control & 0x7FF, table, pending) == (2, TABLE, PENDING), "as many vectors as queues, and one"


def test_only_these_bits_of_message_control_are_the_guests(bus: Bus) -> None:
    (at,) = (at for at, body in bus.capabilities() if body[0] == 0x11)
    bus.write_ecam(1, at, 4, ALL_ONES)
    assert bus.read_ecam(1, at + 2, 2) == 0xC002
    bus.write_ecam(1, at + 4, 8, (1 << 64) - 1)
    assert bus.read_ecam(1, at + 4, 4) == TABLE


@pytest.fixture
def access(bus: Bus) -> int:
    """The PCI configuration access capability (4.1.4.9)."""
    (at,) = (at for at, body in bus.capabilities() if body[0] == 0x09 and body[3] == 5)
    return at


@pytest.mark.parametrize("by_ports", [True, False])
def test_the_bar_without_mapping_it(bus: Bus, access: int, by_ports: bool) -> None:
    bus.write_ecam(1, COMMAND, 2, 0)
    read, write = (bus.read_ports, bus.write_ports) if by_ports else (bus.read_ecam, bus.write_ecam)

    def point(offset: int, length: int) -> None:
        write(1, access + 4, 1, 0)
        write(1, access + 8, 4, offset)
        write(1, access + 12, 4, length)

    point(NUM_QUEUES, 2)
    assert read(1, access + 16, 2) == 2
    point(COMMON + STATUS, 1)
    write(1, access + 16, 1, 3)
    assert bus.function.status == 3
    point(DEVICE, 4)
    assert read(1, access + 16, 4) == int.from_bytes(b"conf", "little")
    write(1, access + 16, 4, int.from_bytes(b"CONF", "little"))
    assert bus.probe.space.startswith(b"CONF")
    point(NOTIFY + 4, 2)
    write(1, access + 16, 2, 1)
    assert bus.function.kicks[1].drain() == 1


@pytest.mark.parametrize(
    ("bar", "offset", "length"),
    [(1, COMMON, 4), (5, COMMON, 4), (0, COMMON, 3), (0, COMMON, 8), (0, COMMON, 0), (0, 0xFFFD, 4), (0, ALL_ONES, 4)],
)
def test_where_it_leads_nowhere(bus: Bus, access: int, bar: int, offset: int, length: int) -> None:
    bus.write_ecam(1, access + 4, 1, bar)
    bus.write_ecam(1, access + 8, 4, offset)
    bus.write_ecam(1, access + 12, 4, length)
    before = bus.read_ports(1, access + 16, 4)
    bus.write_ports(1, access + 16, 4, 0x01020304)
    assert bus.function.status == 0
    assert before in (0, ALL_ONES)


# BARs


def test_the_size_of_a_bar(bus: Bus) -> None:
    addr = bus.function.bar_addr
    bus.write_ecam(1, COMMAND, 2, 0)
    bus.write_ecam(1, BAR0, 4, ALL_ONES)
    bus.write_ecam(1, BAR1, 4, ALL_ONES)
    assert (bus.read_ecam(1, BAR0, 4), bus.read_ecam(1, BAR1, 4)) == (0xFFFF000C, ALL_ONES)
    for register in (0x18, 0x1C, 0x20, 0x24, 0x30):
        bus.write_ecam(1, register, 4, ALL_ONES)
        assert bus.read_ecam(1, register, 4) == 0
    move(bus, 1, addr)
    assert answers(bus, addr)


def test_bars_are_placed_before_a_guest_is_there(bus: Bus) -> None:
    others = [bus.plug(Probe()) for _ in range(4)]
    addrs = [function.bar_addr for function in bus.functions]
    assert addrs == [layout.PCI_WINDOW_32.start + 0x10000 * n for n in range(5)]
    assert all(answers(bus, addr) and rings(bus, addr) for addr in addrs)
    assert len(others) == 4


def test_a_bar_that_is_not_decoded(bus: Bus) -> None:
    addr = bus.function.bar_addr
    assert answers(bus, addr)
    assert rings(bus, addr)
    bus.write_ecam(1, COMMAND, 2, 4)
    assert bus.mmio.read(addr + NUM_QUEUES, 2) == 0xFFFF
    assert not rings(bus, addr)
    bus.write_ports(1, COMMAND, 2, 6)
    assert answers(bus, addr)


@pytest.mark.parametrize("wide", [False, True])
def test_a_bar_that_moves(bus: Bus, wide: bool) -> None:
    """Window and doorbells with it."""
    old = bus.function.bar_addr
    new = layout.pci_window_64(1 << 21).start + 0x40000 if wide else layout.PCI_WINDOW_32.end - 0x10000
    move(bus, 1, new)
    assert answers(bus, new)
    assert rings(bus, new)
    assert not rings(bus, old)
    assert bus.mmio.read(old + NUM_QUEUES, 2) == 0xFFFF
    bus.write_ecam(1, BAR0, 4, old & ALL_ONES)  # decoded meanwhile: half of it is there already
    bus.write_ecam(1, BAR1, 4, old >> 32)
    assert answers(bus, old)
    assert rings(bus, old)
    assert not rings(bus, new)


@pytest.mark.parametrize(
    "addr",
    [0, 0x100000, layout.PCI_WINDOW_32.start - 0x10000, layout.ECAM.start, layout.IOAPIC & ~0xFFFF, layout.LAPIC,
     layout.HOLE_END - 0x10000, layout.pci_window_64(1 << 21).end, (1 << 64) - 0x10000, 1 << 40],
)  # fmt: skip
def test_where_no_bar_can_be(bus: Bus, addr: int) -> None:
    old, others = bus.function.bar_addr, dict(bus.mmio.slots)
    move(bus, 1, addr)
    others = {slot: held for slot, held in others.items() if slot != old >> 16}
    assert bus.mmio.slots == others
    assert not rings(bus, addr)
    move(bus, 1, old)
    assert answers(bus, old)


def test_a_bar_over_another(bus: Bus) -> None:
    """The one that was there first stays; the other is back when it is moved away."""
    bus.plug(Probe())
    first, second = (function.bar_addr for function in bus.functions)
    bus.function.kicks[0].drain()
    move(bus, 2, first)
    assert answers(bus, first)
    assert not answers(bus, second)
    bus.mmio.write(first + NOTIFY, 2, 0)
    assert [function.kicks[0].drain() for function in bus.functions] == [1, 0]
    move(bus, 2, second)
    assert answers(bus, first)
    assert answers(bus, second)
    assert rings(bus, first)
    assert rings(bus, second)


def test_the_bus_is_full_at_some_point(bus: Bus) -> None:
    for _ in range(30):
        bus.plug(Probe())
    with pytest.raises(ValueError, match="more than 31 devices"):
        bus.root.free_device()


def test_windows_of_memory(bus: Bus) -> None:
    """Aligned, in whole slots, and no two in one place."""
    held = dict(bus.mmio.slots)
    bar = bus.mmio.slots[bus.function.bar_addr >> 16][1]
    for base, length in ((0x8000, 0x10000), (0, 0x8000), (0, 0), (0, -0x10000), (bus.function.bar_addr, 0x10000)):
        assert not bus.mmio.add(base, length, bar)
    assert bus.mmio.slots == held
    bus.mmio.remove(0x12340000, 0x10000)


ACCESS = st.tuples(
    st.sampled_from(("ecam", "ports", "bar")), st.booleans(), st.integers(0, 3), st.integers(0, 0xFFFF),
    st.sampled_from((1, 2, 4, 8)), st.integers(0, (1 << 64) - 1) | st.sampled_from((0, 2, 6, 0xC0000000, ALL_ONES)),
)  # fmt: skip
HEADER = st.tuples(
    st.just("ecam"), st.just(True), st.integers(0, 2), st.sampled_from((COMMAND, BAR0, BAR1, 0x40, 0x90, 0xA0)),
    st.sampled_from((1, 2, 4, 8)), st.sampled_from((0, 6, 0xC0000000, 0xC0010000, 0xE0000000, ALL_ONES)),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(ACCESS | HEADER, max_size=50))
def test_no_access_raises(accesses: list[tuple[str, bool, int, int, int, int]]) -> None:
    bus = Bus()
    try:
        bus.plug(Probe())
        for way, writes, slot, offset, size, value in accesses:
            value &= (1 << 8 * size) - 1
            if way == "bar":
                addr = layout.PCI_WINDOW_32.start + 0x10000 * slot + offset
            else:
                addr = layout.ECAM.start + (slot << 15) + (offset & 0x7FFF)
            if way == "ports":
                size = min(size, 4)
                bus.root.write(0, 4, 1 << 31 | slot << 11 | offset & 0xFC)
                if writes:
                    bus.root.write(4 + offset % 4, size, value & (1 << 8 * size) - 1)
                else:
                    assert 0 <= bus.root.read(offset % 8, size) < 1 << 8 * size
            elif writes:
                bus.mmio.write(addr, size, value)
            else:
                assert 0 <= bus.mmio.read(addr, size) < 1 << 8 * size
        assert len(bus.mmio.slots) <= layout.ECAM.size // 0x10000 + 2, "what moved has left nothing"
        for slot, addr in ((1, 0xC1000000), (2, 0xC2000000)):
            move(bus, slot, addr)
            assert answers(bus, addr)
            assert rings(bus, addr)
    finally:
        bus.close()
