"""The state that the first processor starts in, checked as a processor would: by walking what it points to."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from vmtui.vmm.arch.x86_64 import layout, registers
from vmtui.vmm.arch.x86_64.registers import Entry, Protocol, Segment
from vmtui.vmm.memory import GuestMemory


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    made = GuestMemory(2 << 20)
    yield made
    made.close()


def translate(memory: GuestMemory, cr3: int, addr: int) -> int:
    """What the processor's page walk gives: four levels, the third with pages of 2 MiB (SDM 3A, 4.5)."""
    table = cr3
    for shift in (39, 30, 21):
        entry = memory.u64(table + 8 * (addr >> shift & 511))
        assert entry & 3 == 3, f"{addr:#x} is not mapped writable"
        table = entry & ~0xFFF
    assert entry & 1 << 7
    return int(table + (addr & 0x1FFFFF))


def test_long_mode(memory: GuestMemory) -> None:
    state = registers.start_state(memory, Entry(Protocol.LINUX_64, 0x1000200, layout.ZERO_PAGE))
    regs, sregs = state.registers, state.special
    assert (regs.rip, regs.rsi, regs.rflags) == (0x1000200, layout.ZERO_PAGE, 2)
    assert (sregs.cr0, sregs.cr4, sregs.efer) == (0x80000011, 0x20, 0x500)
    for addr in (0, layout.ZERO_PAGE, 0x1000200, 0x7FFFFFFF, 0xFEE00000, 0xFFFFFFFF):
        assert translate(memory, sregs.cr3, addr) == addr
    assert (sregs.cs.selector, sregs.cs.l, sregs.cs.db) == (0x10, 1, 0)
    assert {segment.selector for segment in sregs[1:6]} == {0x18}


def test_pvh_is_flat_32_bit_without_paging(memory: GuestMemory) -> None:
    state = registers.start_state(memory, Entry(Protocol.PVH, 0x1000850, layout.PVH_START_INFO))
    regs, sregs = state.registers, state.special
    assert (regs.rip, regs.rbx, regs.rflags) == (0x1000850, layout.PVH_START_INFO, 2)
    assert (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) == (0x11, 0, 0, 0)
    assert (sregs.cs.l, sregs.cs.db, sregs.cs.limit, sregs.tr.limit) == (0, 1, 0xFFFFFFFF, 0x67)
    assert memory.read(layout.PML4, 4096) == bytes(4096)


@pytest.mark.parametrize("protocol", Protocol)
def test_the_gdt_has_what_the_registers_have(memory: GuestMemory, protocol: Protocol) -> None:
    sregs = registers.start_state(memory, Entry(protocol, 0x1000000, 0)).special
    assert sregs.gdt.limit == 8 * 5 - 1
    for segment in (sregs.cs, sregs.ds, sregs.tr):
        assert memory.u64(sregs.gdt.base + segment.selector) == registers.descriptor(segment)
    assert memory.u64(sregs.gdt.base) == 0


def test_descriptors_as_linux_writes_them() -> None:
    """GDT_ENTRY of arch/x86/include/asm/segment.h gives these for 64-bit code, flat 32-bit code, and data."""
    assert registers.descriptor(Segment(type=0xB, l=1)) == 0x00AF9B000000FFFF
    assert registers.descriptor(Segment(type=0xB, db=1)) == 0x00CF9B000000FFFF
    assert registers.descriptor(Segment(type=0x3, db=1)) == 0x00CF93000000FFFF
    assert registers.descriptor(Segment(base=0x12345678, limit=0x67, type=0xB, s=0, g=0)) == 0x12008B3456780067


def test_packed_as_kvm_takes_it(memory: GuestMemory) -> None:
    state = registers.start_state(memory, Entry(Protocol.LINUX_64, 0x1000200, layout.ZERO_PAGE))
    regs = struct.unpack("<18Q", registers.pack_regs(state.registers))
    assert (regs[4], regs[6], regs[16], regs[17]) == (layout.ZERO_PAGE, layout.BOOT_STACK, 0x1000200, 2)
    before = bytearray(range(256)) + bytearray(range(56))
    sregs = registers.pack_sregs(state.special, bytes(before))
    assert len(sregs) == 312
    assert struct.unpack_from("<QIH9B", sregs, 0)[:4] == (0, 0xFFFFFFFF, 0x10, 0xB)
    assert struct.unpack_from("<QIH9B", sregs, 24 * 6)[:4] == (0, 0x67, 0x20, 0xB)
    assert struct.unpack_from("<QH", sregs, 192) == (layout.GDT, 39)
    cr0, cr2, cr3, cr4, cr8, efer = struct.unpack_from("<6Q", sregs, 224)
    assert (cr0, cr3, cr4, efer) == (0x80000011, layout.PML4, 0x20, 0x500)
    kept = struct.unpack_from("<6Q", before, 224)
    assert (cr2, cr8) == (kept[1], kept[4])
    assert sregs[272:] == before[272:], "the APIC base and pending interrupts"


def test_msrs() -> None:
    packed = registers.pack_msrs()
    assert struct.unpack_from("<II", packed) == (2, 0)
    assert list(struct.iter_unpack("<IIQ", packed[8:])) == [(0x1A0, 0, 1), (0x2FF, 0, 0x806)]
