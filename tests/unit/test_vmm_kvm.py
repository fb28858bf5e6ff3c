"""What is asked of /dev/kvm and a VM of it, and how a refusal reads."""

from __future__ import annotations

import errno
import gc
import os
import struct
from collections.abc import Iterator

import pytest

from tests.support.dev_kvm import needs_kvm
from vmtui.vmm.arch.x86_64 import registers
from vmtui.vmm.bus import MmioBus, PortBus
from vmtui.vmm.eventfd import EventFd
from vmtui.vmm.kvm import constants as kvm
from vmtui.vmm.kvm import ioctl
from vmtui.vmm.kvm import system as systems
from vmtui.vmm.kvm.system import MAX_CPUID_ENTRIES, NEEDED, System, pack_cpuid
from vmtui.vmm.kvm.vcpu import Vcpu
from vmtui.vmm.kvm.vm import Vm
from vmtui.vmm.memory import GuestMemory
from vmtui.vmm.metrics import named

pytestmark = needs_kvm


class Host:
    def __init__(self) -> None:
        self.system = System()
        self.vm = Vm(self.system)

    def close(self) -> None:
        for _ in range(2):  # twice is as once
            self.vm.close()
            self.system.close()


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


# /dev/kvm


def test_what_it_has(host: Host) -> None:
    assert all(host.system.has(capability) for capability, _ in NEEDED)
    assert host.system.has(0xFFFF) == 0
    assert host.system.max_vcpus >= 1
    assert host.system.run_bytes >= 4096


def test_what_it_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()  # what is garbage already may hold some
    before = open_fds()
    monkeypatch.setattr(systems, "NEEDED", (*NEEDED, (0xFFFF, "wings")))
    with pytest.raises(OSError, match="this KVM lacks wings") as caught:
        System()
    assert caught.value.errno == errno.ENOTSUP
    assert open_fds() == before


@pytest.mark.parametrize(
    ("path", "said"), [("/dev/none", "No such file"), ("/dev/null", "the version of KVM: Inappropriate ioctl")]
)
def test_what_is_no_kvm(monkeypatch: pytest.MonkeyPatch, path: str, said: str) -> None:
    gc.collect()  # what is garbage already may hold some
    before = open_fds()
    monkeypatch.setattr(systems, "DEVICE", path)
    with pytest.raises(OSError, match=said):
        System()
    assert open_fds() == before


def test_cpuid_goes_there_and_back(host: Host) -> None:
    supported = host.system.supported_cpuid()
    assert 10 < len(supported) < MAX_CPUID_ENTRIES
    leaves = {entry.function for entry in supported}
    assert {0, 1, 0x80000000} <= leaves
    assert len(pack_cpuid(supported)) == 8 + 40 * len(supported)
    fd = host.vm.create_vcpu(0)
    ioctl.give(fd, kvm.KVM_SET_CPUID2, "KVM_SET_CPUID2", pack_cpuid(supported))
    os.close(fd)


# A VM


def test_a_vm_that_cannot_be_completed_leaves_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()  # what is garbage already may hold some
    before = open_fds()
    monkeypatch.setattr(kvm, "KVM_CREATE_IRQCHIP", kvm.KVM_RUN)
    with pytest.raises(OSError, match="KVM_CREATE_IRQCHIP"):
        Vm(host.system)
    assert open_fds() == before


def test_memory_slots(host: Host) -> None:
    memory = GuestMemory(1 << 20)
    (region,) = memory.regions
    host.vm.set_memory(0, 0, 1 << 20, region.host_addr)
    with pytest.raises(OSError, match="KVM_SET_USER_MEMORY_REGION") as caught:
        host.vm.set_memory(1, 0x80000, 1 << 20, region.host_addr)
    assert caught.value.errno == errno.EEXIST, "one over another"
    with pytest.raises(OSError, match="KVM_SET_USER_MEMORY_REGION"):
        host.vm.set_memory(2, 0x100001, 0x1000, region.host_addr)
    host.vm.set_memory(0, 0, 0, region.host_addr)
    host.vm.set_memory(1, 0x80000, 1 << 20, region.host_addr)
    memory.close()


def test_doorbells(host: Host) -> None:
    event, other = EventFd(), EventFd()
    host.vm.add_ioeventfd(0xD0000000, event)
    with pytest.raises(FileExistsError, match="KVM_IOEVENTFD"):
        host.vm.add_ioeventfd(0xD0000000, other)
    with pytest.raises(FileNotFoundError):
        host.vm.remove_ioeventfd(0xD0000000, other)
    host.vm.remove_ioeventfd(0xD0000000, event)
    host.vm.add_ioeventfd(0xD0000000, other)
    event.close()
    other.close()


def test_interrupt_lines(host: Host) -> None:
    """Given away and taken back; what was signalled meanwhile stays in the eventfd."""
    event = EventFd()
    event.signal()
    host.vm.add_irqfd(5, event)
    assert event.drain() == 0, "KVM took it"
    with pytest.raises(OSError, match="KVM_IRQFD") as caught:
        host.vm.add_irqfd(5, event)
    assert caught.value.errno == errno.EBUSY
    host.vm.remove_irqfd(5, event)
    event.signal()
    assert event.drain() == 1
    event.close()


def test_processors_have_numbers_of_their_own(host: Host) -> None:
    fds = [host.vm.create_vcpu(number) for number in (0, 1, 31)]
    with pytest.raises(OSError, match="KVM_CREATE_VCPU 1"):
        host.vm.create_vcpu(1)
    for fd in fds:
        os.close(fd)


# A vCPU


def test_registers_go_there_and_back(host: Host) -> None:
    fd = host.vm.create_vcpu(0)
    vcpu = Vcpu(fd, 0, host.system.run_bytes, PortBus(), MmioBus(), lambda _, __: None)
    regs = registers.pack_regs(registers.Registers(0x1000, rsp=0x2000, rsi=0x3000, rbx=0x4000))
    vcpu.set_registers(regs, vcpu.sregs())
    assert vcpu.registers() == regs
    assert vcpu.counts() == ({}, 0.0)
    vcpu.stop()  # one that was never started
    vcpu.close()
    vcpu.close()


def test_what_a_vcpu_begins_with(host: Host) -> None:
    fd = host.vm.create_vcpu(0)
    vcpu = Vcpu(fd, 0, host.system.run_bytes, PortBus(), MmioBus(), lambda _, __: None)
    vcpu.configure(host.system.supported_cpuid(), registers.pack_msrs())
    page = ioctl.give(fd, kvm.KVM_GET_LAPIC, "KVM_GET_LAPIC", bytes(1024))
    assert struct.unpack_from("<I", page, 0x350) == (0x700,), "LINT0: the PIC"
    assert struct.unpack_from("<I", page, 0x360) == (0x400,), "LINT1: NMI"
    vcpu.close()


def test_a_refusal_says_what_was_asked() -> None:
    with pytest.raises(OSError, match=r"^\[Errno 9\] to be heard: Bad file descriptor$"):
        ioctl.call(-1, kvm.KVM_RUN, "to be heard")
    with pytest.raises(OSError, match="to be heard"):
        ioctl.give(-1, kvm.KVM_RUN, "to be heard", b"1234")


def test_exits_have_names() -> None:
    places = {0xC000: "blk0"}
    assert [named(key, places) for key in ((2, 0x3F8), (2, 0x600), (2, 0x123), (6, 0xC000), (6, 0xE000))] == [
        "serial", "power", "port 0x123", "blk0", "pci-config-writes",
    ]  # fmt: skip
    assert [named(key, places) for key in ((6, 0xD000), (5, 0), (99, 0))] == ["memory 0xd0000000", "hlt", "reason 99"]
