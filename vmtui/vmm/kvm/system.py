"""/dev/kvm itself."""

from __future__ import annotations

import os
import struct

from vmtui.vmm.arch.x86_64.cpuid import CpuidEntry
from vmtui.vmm.kvm import constants as kvm
from vmtui.vmm.kvm import ioctl

DEVICE = "/dev/kvm"
MAX_CPUID_ENTRIES = 256  # KVM_MAX_CPUID_ENTRIES, arch/x86/include/asm/kvm_host.h
_CPUID = struct.Struct("<7I12x")  # struct kvm_cpuid_entry2
NEEDED = (
    (kvm.CAP_IRQCHIP, "an interrupt controller in the kernel"),
    (kvm.CAP_USER_MEMORY, "memory of a process as the guest's"),
    (kvm.CAP_IRQFD, "irqfd"),
    (kvm.CAP_PIT2, "the PIT in the kernel"),
    (kvm.CAP_IOEVENTFD, "ioeventfd"),
    (kvm.CAP_READONLY_MEM, "read-only memory"),
    (kvm.CAP_IMMEDIATE_EXIT, "immediate_exit"),
    (kvm.CAP_IOEVENTFD_ANY_LENGTH, "ioeventfd of any length"),
)


class System:
    """The open device. Raises OSError at its construction: it cannot be opened, or lacks something (ENOTSUP)."""

    def __init__(self) -> None:
        self.fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        try:
            version = ioctl.call(self.fd, kvm.KVM_GET_API_VERSION, "the version of KVM")
            if version != kvm.API_VERSION:
                raise OSError(95, f"KVM has interface version {version}, not {kvm.API_VERSION}")
            for capability, name in NEEDED:
                if not self.has(capability):
                    raise OSError(95, f"this KVM lacks {name}")
            self.run_bytes = ioctl.call(self.fd, kvm.KVM_GET_VCPU_MMAP_SIZE, "the size of a vCPU's shared page")
        except BaseException:
            os.close(self.fd)
            raise

    def has(self, capability: int) -> int:
        """0, or what the kernel says of a capability."""
        said: int = max(0, ioctl.raw(self.fd, kvm.KVM_CHECK_EXTENSION, capability))
        return said

    @property
    def max_vcpus(self) -> int:
        return self.has(kvm.CAP_MAX_VCPUS) or self.has(kvm.CAP_NR_VCPUS) or 4  # api.rst 4.4

    def supported_cpuid(self) -> list[CpuidEntry]:
        data = struct.pack("<II", MAX_CPUID_ENTRIES, 0) + bytes(_CPUID.size * MAX_CPUID_ENTRIES)
        filled = ioctl.give(self.fd, kvm.KVM_GET_SUPPORTED_CPUID, "KVM_GET_SUPPORTED_CPUID", data)
        (count,) = struct.unpack_from("<I", filled)
        return [CpuidEntry(*_CPUID.unpack_from(filled, 8 + n * _CPUID.size)) for n in range(count)]

    def create_vm(self) -> int:
        """The file descriptor of a new VM. Raises OSError."""
        while True:
            try:
                return ioctl.call(self.fd, kvm.KVM_CREATE_VM, "KVM_CREATE_VM")
            except InterruptedError:
                continue  # a signal during the long call

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def pack_cpuid(entries: list[CpuidEntry]) -> bytes:
    """struct kvm_cpuid2."""
    return struct.pack("<II", len(entries), 0) + b"".join(_CPUID.pack(*entry) for entry in entries)
