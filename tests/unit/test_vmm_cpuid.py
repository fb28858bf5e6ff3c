"""CPUID as the guest's processors see it: the topology, and what is kept from them."""

from __future__ import annotations

import pytest

from vmtui.vmm.arch.x86_64.cpuid import CpuidEntry, vcpu_cpuid

# Of KVM_GET_SUPPORTED_CPUID on an AMD EPYC (Zen 2): function, subleaf, flags, EAX, EBX, ECX, EDX
AMD = [
    CpuidEntry(*row)
    for row in (
        (0x0, 0, 0, 0x1C, 0x68747541, 0x444D4163, 0x69746E65),
        (0x1, 0, 0, 0x00B00F21, 0x01020800, 0x81202000, 0x078BFBFF),
        (0x7, 0, 1, 1, 0x01800002, 0x104, 0x20000000),
        (0xA, 0, 0, 0, 0, 0, 0),
        (0xB, 0, 1, 0, 0, 0, 1),
        (0xD, 0, 1, 0xE7, 0x980, 0x980, 0),
        (0x80000000, 0, 0, 0x80000021, 0x68747541, 0x444D4163, 0x69746E65),
        (0x80000001, 0, 0, 0x00B00F21, 0x40000000, 0x11C00397, 0x23D3FBFF),
        (0x80000007, 0, 0, 0, 0, 0, 0x100),
        (0x80000008, 0, 0, 0x3030, 0x50020005, 0x7001, 0),
        (0x8000000A, 0, 0, 1, 8, 0, 0x119B9CFF),
        (0x8000001D, 0, 1, 0x121, 0x02C0003F, 0x3F, 0),
        (0x8000001D, 1, 1, 0x122, 0x01C0003F, 0x3F, 0),
        (0x8000001D, 2, 1, 0x143, 0x03C0003F, 0x3FF, 2),
        (0x8000001D, 3, 1, 0x4163, 0x03C0003F, 0x7FFF, 1),
        (0x8000001D, 4, 1, 0, 0, 0, 0),
        (0x8000001E, 0, 0, 0, 0, 0, 0),
        (0x8000001F, 0, 0, 0x1000F, 0x17F, 0x1FD, 1),
        (0x40000000, 0, 0, 0x40000001, 0x4B4D564B, 0x564B4D56, 0x4D),
        (0x40000001, 0, 0, 0x01007EFB, 0, 0, 0),
    )
]
# The same of an Intel Xeon (Ice Lake)
INTEL = [
    CpuidEntry(*row)
    for row in (
        (0x0, 0, 0, 0x1F, 0x756E6547, 0x6C65746E, 0x49656E69),
        (0x1, 0, 0, 0x000606A6, 0x05100800, 0x7FFABFFF, 0x0F8BFBFF),
        (0x4, 0, 1, 0x7C004121, 0x02C0003F, 0x3F, 0),
        (0x4, 1, 1, 0x7C004122, 0x01C0003F, 0x3F, 0),
        (0x4, 2, 1, 0x7C004143, 0x04C0003F, 0x3FF, 0),
        (0x4, 3, 1, 0x7C07C163, 0x02C0003F, 0x7FFF, 4),
        (0x4, 4, 1, 0, 0, 0, 0),
        (0x7, 0, 1, 1, 0xF1BF07AF, 0x40417F5E, 0xBC080410),
        (0xA, 0, 0, 0x08300805, 0, 0xF, 0x8604),
        (0xB, 0, 1, 1, 2, 0x100, 5),
        (0xB, 1, 1, 6, 48, 0x201, 5),
        (0x12, 0, 1, 1, 0, 0, 0),
        (0x1F, 0, 1, 1, 2, 0x100, 5),
        (0x80000000, 0, 0, 0x80000008, 0, 0, 0),
        (0x80000001, 0, 0, 0, 0, 0x121, 0x2C100800),
        (0x80000008, 0, 0, 0x3039, 0x200, 0, 0),
        (0x40000000, 0, 0, 0x40000001, 0x4B4D564B, 0x564B4D56, 0x4D),
        (0x40000001, 0, 0, 0x01007EFB, 0, 0, 0),
    )
]
HOSTS = pytest.mark.parametrize("host", [AMD, INTEL], ids=["amd", "intel"])


def told(entries: list[CpuidEntry], function: int, subleaf: int = 0) -> CpuidEntry:
    found = [entry for entry in entries if (entry.function, entry.subleaf) == (function, subleaf)]
    assert len(found) == 1, f"leaf {function:#x}.{subleaf} is told {len(found)} times"
    return found[0]


@HOSTS
@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 32])
def test_every_processor_knows_its_place(host: list[CpuidEntry], cpus: int) -> None:
    seen = set()
    for index in range(cpus):
        entries = vcpu_cpuid(host, index=index, cpus=cpus)
        first = told(entries, 1)
        assert first.ebx >> 24 == index
        assert first.ebx >> 16 & 0xFF >= cpus
        assert bool(first.edx & 1 << 28) == (cpus > 1)
        thread, core, end = (told(entries, 0xB, level) for level in range(3))
        assert (thread.eax, thread.ebx, thread.ecx >> 8) == (0, 1, 1)
        assert (core.ebx, core.ecx) == (cpus, 0x201)
        assert 1 << core.eax >= cpus
        assert end.ecx >> 8 == 0
        assert {thread.edx, core.edx, end.edx} == {index}
        # a package is what is left of the id: one, for all
        assert index >> core.eax == 0
        seen.add(core.edx)
    assert seen == set(range(cpus))


def test_leaf_1f_is_told_where_the_host_has_it() -> None:
    assert told(vcpu_cpuid(INTEL, index=1, cpus=2), 0x1F, 1).ebx == 2
    assert not [entry for entry in vcpu_cpuid(AMD, index=1, cpus=2) if entry.function == 0x1F]


def test_caches_of_intel() -> None:
    entries = vcpu_cpuid(INTEL, index=0, cpus=3)
    sharing = [(told(entries, 4, n).eax >> 14 & 0xFFF, told(entries, 4, n).eax >> 26) for n in range(4)]
    assert sharing == [(0, 3), (0, 3), (0, 3), (3, 3)], "ids, of which there are four for three cores"
    assert told(entries, 4, 4) == told(INTEL, 4, 4)


def test_cores_and_caches_of_amd() -> None:
    entries = vcpu_cpuid(AMD, index=2, cpus=3)
    assert [told(entries, 0x8000001D, n).eax >> 14 & 0xFFF for n in range(4)] == [0, 0, 0, 2]
    assert told(entries, 0x80000008).ecx == 0x2002
    assert told(entries, 0x80000008).eax == 0x3030
    assert told(entries, 0x8000001E)[3:] == (2, 2, 0, 0)
    assert told(entries, 0x80000001).ecx & 1 << 1
    assert not told(vcpu_cpuid(AMD, index=0, cpus=1), 0x80000001).ecx & 1 << 1


def test_intel_is_not_told_of_amds_cores() -> None:
    entries = vcpu_cpuid(INTEL, index=0, cpus=4)
    assert told(entries, 0x80000008).ecx == 0
    assert told(entries, 0x80000001).ecx == 0x121


@HOSTS
def test_no_counters_and_no_nesting_unless_asked_for(host: list[CpuidEntry]) -> None:
    entries = vcpu_cpuid(host, index=0, cpus=1)
    assert told(entries, 0xA)[3:] == (0, 0, 0, 0)
    assert not told(entries, 1).ecx & (1 << 5 | 1 << 15)
    assert not told(entries, 7).edx & 1 << 19
    assert not told(entries, 0x80000001).ecx & (1 << 2 | 1 << 23 | 1 << 24 | 1 << 28)
    entries = vcpu_cpuid(host, index=0, cpus=1, nested=True, pmu=True)
    assert told(entries, 0xA) == told(host, 0xA)
    assert told(entries, 1).ecx & (1 << 5 | 1 << 15) == told(host, 1).ecx & (1 << 5 | 1 << 15)
    assert told(entries, 0x80000001).ecx == told(host, 0x80000001).ecx & ~(1 << 1)


def test_no_enclaves() -> None:
    entries = vcpu_cpuid(INTEL, index=0, cpus=1, nested=True, pmu=True)
    assert told(entries, 0x12)[3:] == (0, 0, 0, 0)
    assert not told(entries, 7).ebx & 1 << 2
    assert not told(entries, 7).ecx & 1 << 30
    assert told(vcpu_cpuid(AMD, index=0, cpus=1), 0x8000001F)[3:] == (0, 0, 0, 0)


@HOSTS
def test_clocks_and_interrupts_that_stay_in_kvm(host: list[CpuidEntry]) -> None:
    entries = vcpu_cpuid(host, index=0, cpus=2)
    assert told(entries, 1).ecx & (1 << 31 | 1 << 24 | 1 << 21) == 1 << 31 | 1 << 24 | 1 << 21
    assert not told(entries, 1).ecx & 1 << 27, "OSXSAVE is KVM's"
    assert not told(vcpu_cpuid(host, index=0, cpus=2, tsc_deadline=False), 1).ecx & 1 << 24
    assert told(entries, 0x40000001) == told(host, 0x40000001), "kvmclock and the rest"
    assert told(vcpu_cpuid(host, index=0, cpus=2, dedicated=True), 0x40000001).edx == 1


@HOSTS
def test_the_frequency_of_the_tsc(host: list[CpuidEntry]) -> None:
    entries = vcpu_cpuid(host, index=0, cpus=1, tsc_khz=2_450_000)
    assert told(entries, 0x40000000).eax == 0x40000010
    assert told(entries, 0x40000010)[3:] == (2_450_000, 1_000_000, 0, 0)
    entries = vcpu_cpuid(host, index=0, cpus=1)
    assert told(entries, 0x40000000).eax == 0x40000001


@HOSTS
def test_nothing_is_told_twice_and_the_rest_is_left(host: list[CpuidEntry]) -> None:
    entries = vcpu_cpuid(host, index=3, cpus=4, tsc_khz=1)
    keys = [(entry.function, entry.subleaf) for entry in entries]
    assert len(keys) == len(set(keys))
    again = vcpu_cpuid(entries, index=3, cpus=4, tsc_khz=1)
    assert sorted(again) == sorted(entries), "what is filtered already stays"
