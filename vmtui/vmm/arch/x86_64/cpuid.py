"""What CPUID tells each guest processor: what KVM supports here, less what a guest is not to use, with our topology.

The topology is one package with a core of one thread for each processor, and the last-level cache shared; the APIC id
is the processor's index. Sources of the bits: Intel SDM 2A, "CPUID"; AMD APM 3, appendix E;
arch/x86/include/asm/cpufeatures.h; for leaves 0x40000000 on, Documentation/virt/kvm/x86/cpuid.rst.

What keeps the guest's kernel from leaving to the VMM, and from waiting at boot:
- The TSC deadline timer (leaf 1): without it Linux calibrates the APIC timer against the PIT for 100 ms and more
  (arch/x86/kernel/apic/apic.c, calibrate_APIC_clock).
- x2APIC (leaf 1): the APIC by MSRs, which KVM handles without decoding an instruction.
- kvmclock (leaf 0x40000001, bits 0 and 3): the wall clock without the RTC, and the TSC's frequency without the PIT
  (arch/x86/kernel/kvmclock.c); bit 24, stable: one clock for all processors, read in the vDSO.
- No delay after port I/O (bit 1): otherwise each `outb_p` writes port 0x80 too, one more exit (arch/x86/kernel/kvm.c).
- Invariant TSC (0x80000007): Linux then takes the TSC itself as its clock.
- Leaf 0x40000010, the TSC's frequency: for guests that do not know kvmclock (FreeBSD; VMware's convention).

FSRM and ERMS stay: `rep movsb` in RAM runs without KVM. It leaves for each piece in MMIO only, where no driver uses it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

SIGNIFICANT_INDEX = 1  # KVM_CPUID_FLAG_SIGNIFCANT_INDEX, arch/x86/include/uapi/asm/kvm.h

VENDORS_AMD = (0x68747541, 0x6F677948)  # leaf 0, EBX: "Auth"(enticAMD), "Hygo"(nGenuine)
# Leaf 1
ECX_VMX = 1 << 5
ECX_PDCM = 1 << 15
ECX_X2APIC = 1 << 21
ECX_TSC_DEADLINE = 1 << 24
ECX_OSXSAVE = 1 << 27  # KVM has it follow CR4
ECX_HYPERVISOR = 1 << 31
EDX_HTT = 1 << 28
# Leaf 7
EBX_SGX = 1 << 2
ECX_SGX_LAUNCH = 1 << 30
EDX_ARCH_LBR = 1 << 19
# Leaf 0x80000001, ECX
AMD_CMP_LEGACY = 1 << 1
AMD_SVM = 1 << 2
AMD_PERF_COUNTERS = 1 << 23 | 1 << 24 | 1 << 28  # core, north bridge, last-level cache
# Leaf 0x40000001, EDX
KVM_HINTS_REALTIME = 1 << 0

KVM_SIGNATURE, KVM_FEATURES, TIMING = 0x40000000, 0x40000001, 0x40000010
TOPOLOGY_LEAVES = (0x0B, 0x1F)
LEVEL_THREAD, LEVEL_CORE = 1, 2  # ECX 15-8 there
SVM_LEAF = 0x8000000A
COUNTER_LEAVES = (0x0A, 0x1C, 0x23, 0x80000022)  # architectural, last branch records, its extension, AMD's
NEVER = (0x12, 0x8000001F, 0x80000026)  # SGX; SEV; AMD's second topology, which KVM fills from the host if at all
APIC_BUS_KHZ = 1_000_000  # APIC_BUS_CYCLE_NS is 1, arch/x86/kvm/lapic.h


class CpuidEntry(NamedTuple):
    """struct kvm_cpuid_entry2, in its order."""

    function: int
    subleaf: int
    flags: int
    eax: int
    ebx: int
    ecx: int
    edx: int


def vcpu_cpuid(
    supported: Iterable[CpuidEntry],
    *,
    index: int,
    cpus: int,
    tsc_deadline: bool = True,
    tsc_khz: int = 0,
    dedicated: bool = False,
    nested: bool = False,
    pmu: bool = False,
) -> list[CpuidEntry]:
    """The list for KVM_SET_CPUID2 of processor `index` of `cpus`, from that of KVM_GET_SUPPORTED_CPUID.

    tsc_deadline: whether KVM_CAP_TSC_DEADLINE_TIMER is there, which that list does not say (api.rst 4.46).
    tsc_khz: what KVM_GET_TSC_KHZ says; 0 leaves it untold.
    dedicated: each processor has a host CPU of its own, so the guest spins instead of yielding.
    nested, pmu: hand on VMX or SVM, and the performance counters. Both widen what a guest can attack, and a guest that
    has counters arms its NMI watchdog with one.
    """
    entries = tuple(supported)
    first = next((entry for entry in entries if entry.function == 0), None)
    topology = _Topology(index, cpus, amd=first is not None and first.ebx in VENDORS_AMD)
    told = []
    for entry in entries:
        if entry.function in TOPOLOGY_LEAVES or entry.function == TIMING:
            continue
        entry = _filtered(topology.applied(entry), nested=nested, pmu=pmu)
        if entry.function == 1:
            on = ECX_HYPERVISOR | ECX_X2APIC | (ECX_TSC_DEADLINE if tsc_deadline else 0)
            entry = entry._replace(ecx=entry.ecx & ~(ECX_OSXSAVE | ECX_TSC_DEADLINE) | on)
        elif entry.function == KVM_SIGNATURE and tsc_khz:
            entry = entry._replace(eax=max(entry.eax, TIMING))
        elif entry.function == KVM_FEATURES and dedicated:
            entry = entry._replace(edx=entry.edx | KVM_HINTS_REALTIME)
        told.append(entry)
    last = first.eax if first else 0
    told += [level for leaf in TOPOLOGY_LEAVES if leaf <= last for level in topology.levels(leaf)]
    if tsc_khz:
        told.append(CpuidEntry(TIMING, 0, 0, tsc_khz, APIC_BUS_KHZ, 0, 0))
    return told


def _filtered(entry: CpuidEntry, *, nested: bool, pmu: bool) -> CpuidEntry:
    """Less what a guest is not to use."""
    leaf = entry.function
    if leaf in NEVER or (leaf in COUNTER_LEAVES and not pmu) or (leaf == SVM_LEAF and not nested):
        return entry._replace(eax=0, ebx=0, ecx=0, edx=0)
    if leaf == 1:
        off = (0 if nested else ECX_VMX) | (0 if pmu else ECX_PDCM)
        return entry._replace(ecx=entry.ecx & ~off)
    if leaf == 7 and entry.subleaf == 0:
        return entry._replace(
            ebx=entry.ebx & ~EBX_SGX,
            ecx=entry.ecx & ~ECX_SGX_LAUNCH,
            edx=entry.edx & ~(0 if pmu else EDX_ARCH_LBR),
        )
    if leaf == 0x80000001:
        off = (0 if nested else AMD_SVM) | (0 if pmu else AMD_PERF_COUNTERS)
        return entry._replace(ecx=entry.ecx & ~off)
    return entry


class _Topology:
    """The place of one processor among `cpus`."""

    def __init__(self, index: int, cpus: int, *, amd: bool) -> None:
        self.index, self.cpus, self.amd = index, cpus, amd
        self.id_bits = (cpus - 1).bit_length()  # of an APIC id, those that tell cores apart

    def applied(self, entry: CpuidEntry) -> CpuidEntry:
        """What the leaf says of cores, and of who shares its caches."""
        others = self.cpus - 1
        match entry.function:
            case 1:  # EBX 31-24: APIC id, 23-16: ids in the package
                return entry._replace(
                    ebx=entry.ebx & 0xFFFF | (1 << self.id_bits) << 16 | self.index << 24,
                    edx=entry.edx & ~EDX_HTT | (EDX_HTT if others else 0),
                )
            case 4 if entry.eax & 0x1F:  # Intel's caches. EAX 31-26: ids of cores, 25-14: ids that share it; less 1
                ids = (1 << self.id_bits) - 1
                return entry._replace(eax=entry.eax & 0x3FFF | (ids if _is_shared(entry) else 0) << 14 | ids << 26)
            case 0x8000001D if entry.eax & 0x1F:  # AMD's caches. EAX 25-14: processors that share it, less 1
                return entry._replace(eax=entry.eax & 0x3FFF | (others if _is_shared(entry) else 0) << 14)
            case 0x80000001 if self.amd:
                return entry._replace(ecx=entry.ecx & ~AMD_CMP_LEGACY | (AMD_CMP_LEGACY if others else 0))
            case 0x80000008 if self.amd:  # ECX 15-12: bits of the APIC id, 7-0: cores less 1
                return entry._replace(ecx=entry.ecx & ~0xF0FF | self.id_bits << 12 | others)
            case 0x8000001E if self.amd:  # EAX: APIC id; EBX 15-8: threads of a core less 1, 7-0: core; ECX: node
                return entry._replace(eax=self.index, ebx=self.index, ecx=0, edx=0)
        return entry

    def levels(self, leaf: int) -> tuple[CpuidEntry, ...]:
        """Threads of a core (one), cores of the package, and the end. EDX: the x2APIC id; EAX: bits of it below."""
        return (
            CpuidEntry(leaf, 0, SIGNIFICANT_INDEX, 0, 1, LEVEL_THREAD << 8, self.index),
            CpuidEntry(leaf, 1, SIGNIFICANT_INDEX, self.id_bits, self.cpus, LEVEL_CORE << 8 | 1, self.index),
            CpuidEntry(leaf, 2, SIGNIFICANT_INDEX, 0, 0, 2, self.index),
        )


def _is_shared(cache: CpuidEntry) -> bool:
    """The last level is everybody's, those before it a core's own (EAX 7-5: the level)."""
    return cache.eax >> 5 & 7 >= 3
