"""The state in which the first processor starts, for each way to boot. The others wait for it to start them.

Plain values, by the names of struct kvm_regs and kvm_sregs (arch/x86/include/uapi/asm/kvm.h); what is not here is to
stay as KVM has it after creation (the APIC base above all). Bits: Intel SDM 3A, 2.5 (control registers), 3.4.5
(segment descriptors), 2.2.1 (EFER).
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import NamedTuple

from vmtui.vmm.arch.x86_64 import layout
from vmtui.vmm.memory import GuestMemory

CR0_PE, CR0_ET, CR0_PG = 1 << 0, 1 << 4, 1 << 31
CR4_PAE = 1 << 5
EFER_LME, EFER_LMA = 1 << 8, 1 << 10
RFLAGS_RESERVED = 1 << 1  # always 1; interrupts are off
PRESENT, WRITABLE, LARGE = 1 << 0, 1 << 1, 1 << 7  # page table entries, SDM 3A 4.5

# Segment types, SDM 3A 3.4.5.1 and 3.5: accessed, as a processor leaves them in the register
CODE_READ, DATA_WRITE, TSS_BUSY = 0xB, 0x3, 0xB
BOOT_CS, BOOT_DS, BOOT_TSS = 0x10, 0x18, 0x20  # boot.rst, "64-bit boot protocol"; the third is ours
GDT_ENTRIES = 5
LIMIT_4G = 0xFFFFFFFF


class Protocol(Enum):
    """How a kernel is entered."""

    LINUX_64 = "linux-64"  # Documentation/arch/x86/boot.rst: long mode, RSI has the zero page
    PVH = "pvh"  # Xen's docs/misc/pvh.pandoc: 32 bits without paging, EBX has the start information


class Entry(NamedTuple):
    """Where a loaded kernel begins, and where what it is told is. Guest physical addresses."""

    protocol: Protocol
    address: int
    data: int


class Segment(NamedTuple):
    """struct kvm_segment. `limit` in bytes, whatever `g` says."""

    base: int = 0
    limit: int = LIMIT_4G
    selector: int = 0
    type: int = 0
    present: int = 1
    dpl: int = 0
    db: int = 0
    s: int = 1
    l: int = 0  # noqa: E741  (the kernel's name: 64-bit code)
    g: int = 1
    avl: int = 0
    unusable: int = 0


class DescriptorTable(NamedTuple):
    """struct kvm_dtable. `limit`: its size in bytes, less one."""

    base: int
    limit: int


class Registers(NamedTuple):
    """Of struct kvm_regs what is not 0."""

    rip: int
    rflags: int = RFLAGS_RESERVED
    rsp: int = 0
    rbp: int = 0
    rsi: int = 0
    rbx: int = 0


class SpecialRegisters(NamedTuple):
    """Of struct kvm_sregs what boot protocols name."""

    cs: Segment
    ds: Segment
    es: Segment
    fs: Segment
    gs: Segment
    ss: Segment
    tr: Segment
    ldt: Segment
    gdt: DescriptorTable
    idt: DescriptorTable
    cr0: int
    cr3: int
    cr4: int
    efer: int


class StartState(NamedTuple):
    registers: Registers
    special: SpecialRegisters


# Of every processor. All else is right after creation; the TSC above all is not to be written: KVM has the processors'
# in step as it made them.
#
# IA32_MISC_ENABLE, fast strings: without the bit Linux on Intel takes REP MOVSB for slow and drops ERMS
# (early_init_intel in arch/x86/kernel/cpu/intel.c). IA32_MTRR_DEF_TYPE, enabled with write-back: with MTRRs off, Linux
# up to 6.2 leaves the PAT off as well, and has no write-combining (arch/x86/mm/pat/memtype.c).
MSR_IA32_MISC_ENABLE, MISC_ENABLE_FAST_STRING = 0x1A0, 1 << 0
MSR_MTRR_DEF_TYPE, MTRR_ENABLE, MTRR_WRITE_BACK = 0x2FF, 1 << 11, 6
START_MSRS: tuple[tuple[int, int], ...] = (
    (MSR_IA32_MISC_ENABLE, MISC_ENABLE_FAST_STRING),
    (MSR_MTRR_DEF_TYPE, MTRR_ENABLE | MTRR_WRITE_BACK),
)


_SEGMENT = struct.Struct("<QIH9Bx")
_TABLE = struct.Struct("<QH6x")


def pack_regs(registers: Registers) -> bytes:
    """struct kvm_regs."""
    r = registers
    return struct.pack("<18Q", 0, r.rbx, 0, 0, r.rsi, 0, r.rsp, r.rbp, *(0,) * 8, r.rip, r.rflags)


def pack_sregs(special: SpecialRegisters, current: bytes) -> bytes:
    """struct kvm_sregs, from what KVM_GET_SREGS says now."""
    sregs = bytearray(current)
    for index, segment in enumerate(special[:8]):
        _SEGMENT.pack_into(sregs, 24 * index, *segment)
    _TABLE.pack_into(sregs, 192, *special.gdt)
    _TABLE.pack_into(sregs, 208, *special.idt)
    for offset, value in ((224, special.cr0), (240, special.cr3), (248, special.cr4), (264, special.efer)):
        struct.pack_into("<Q", sregs, offset, value)
    return bytes(sregs)


def pack_msrs(msrs: tuple[tuple[int, int], ...] = START_MSRS) -> bytes:
    """struct kvm_msrs."""
    return struct.pack("<II", len(msrs), 0) + b"".join(struct.pack("<IIQ", index, 0, value) for index, value in msrs)


def start_state(memory: GuestMemory, entry: Entry) -> StartState:
    """The state to start in; the tables that it points to are written to guest memory."""
    long_mode = entry.protocol is Protocol.LINUX_64
    code = Segment(selector=BOOT_CS, type=CODE_READ, db=int(not long_mode), l=int(long_mode))
    data = Segment(selector=BOOT_DS, type=DATA_WRITE, db=1)
    # PVH asks for a TSS of this limit, SDM 3B 5.2.4.3 has KVM's own checks on entry ask for a busy one
    task = Segment(limit=0x67, selector=BOOT_TSS, type=TSS_BUSY, s=0, g=0)
    gdt = _write_gdt(memory, code, data, task)
    special = SpecialRegisters(
        cs=code, ds=data, es=data, fs=data, gs=data, ss=data, tr=task, ldt=Segment(limit=0, present=0, unusable=1),
        gdt=gdt, idt=DescriptorTable(0, 0), cr0=CR0_PE | CR0_ET, cr3=0, cr4=0, efer=0,
    )  # fmt: skip
    if not long_mode:
        return StartState(Registers(entry.address, rbx=entry.data), special)
    _write_identity_map(memory)
    special = special._replace(cr0=special.cr0 | CR0_PG, cr3=layout.PML4, cr4=CR4_PAE, efer=EFER_LME | EFER_LMA)
    return StartState(Registers(entry.address, rsi=entry.data, rsp=layout.BOOT_STACK), special)


def _write_gdt(memory: GuestMemory, *segments: Segment) -> DescriptorTable:
    """Each segment where its selector says."""
    entries = [0] * GDT_ENTRIES
    for segment in segments:
        entries[segment.selector // 8] = descriptor(segment)
    memory.write(layout.GDT, struct.pack(f"<{GDT_ENTRIES}Q", *entries))
    return DescriptorTable(layout.GDT, 8 * GDT_ENTRIES - 1)


def descriptor(segment: Segment) -> int:
    """The descriptor that loads as this segment (SDM 3A, figure 3-8)."""
    limit = segment.limit >> 12 if segment.g else segment.limit
    flags = segment.avl | segment.l << 1 | segment.db << 2 | segment.g << 3
    access = segment.type | segment.s << 4 | segment.dpl << 5 | segment.present << 7
    return (
        limit & 0xFFFF
        | (segment.base & 0xFFFFFF) << 16
        | access << 40
        | (limit >> 16 & 0xF) << 48
        | flags << 52
        | (segment.base >> 24 & 0xFF) << 56
    )


def _write_identity_map(memory: GuestMemory) -> None:
    """The first 4 GiB by pages of 2 MiB. The protocol asks for the kernel, the zero page and the command line."""
    memory.set_u64(layout.PML4, layout.PDPT | PRESENT | WRITABLE)
    directories = [layout.PAGE_DIRECTORIES + layout.PAGE * index | PRESENT | WRITABLE for index in range(4)]
    memory.write(layout.PDPT, struct.pack("<4Q", *directories))
    pages = [index << 21 | PRESENT | WRITABLE | LARGE for index in range(4 * 512)]
    memory.write(layout.PAGE_DIRECTORIES, struct.pack("<2048Q", *pages))
