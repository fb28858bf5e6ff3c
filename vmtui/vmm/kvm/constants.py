"""Numbers of include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h, as far as they are used here."""

from __future__ import annotations

KVMIO = 0xAE
_NONE, _WRITE, _READ = 0, 1, 2  # include/uapi/asm-generic/ioctl.h


def _ioctl(direction: int, number: int, size: int = 0) -> int:
    return direction << 30 | size << 16 | KVMIO << 8 | number


# of /dev/kvm
KVM_GET_API_VERSION = _ioctl(_NONE, 0x00)
KVM_CREATE_VM = _ioctl(_NONE, 0x01)
KVM_CHECK_EXTENSION = _ioctl(_NONE, 0x03)
KVM_GET_VCPU_MMAP_SIZE = _ioctl(_NONE, 0x04)
KVM_GET_SUPPORTED_CPUID = _ioctl(_READ | _WRITE, 0x05, 8)
# of a VM
KVM_CREATE_VCPU = _ioctl(_NONE, 0x41)
KVM_SET_USER_MEMORY_REGION = _ioctl(_WRITE, 0x46, 32)
KVM_SET_TSS_ADDR = _ioctl(_NONE, 0x47)
KVM_SET_IDENTITY_MAP_ADDR = _ioctl(_WRITE, 0x48, 8)
KVM_CREATE_IRQCHIP = _ioctl(_NONE, 0x60)
KVM_IRQ_LINE = _ioctl(_WRITE, 0x61, 8)
KVM_SET_GSI_ROUTING = _ioctl(_WRITE, 0x6A, 8)
KVM_IRQFD = _ioctl(_WRITE, 0x76, 32)
KVM_CREATE_PIT2 = _ioctl(_WRITE, 0x77, 64)
KVM_IOEVENTFD = _ioctl(_WRITE, 0x79, 64)
# of a vCPU
KVM_RUN = _ioctl(_NONE, 0x80)
KVM_GET_REGS = _ioctl(_READ, 0x81, 144)
KVM_SET_REGS = _ioctl(_WRITE, 0x82, 144)
KVM_GET_SREGS = _ioctl(_READ, 0x83, 312)
KVM_SET_SREGS = _ioctl(_WRITE, 0x84, 312)
KVM_SET_MSRS = _ioctl(_WRITE, 0x89, 8)
KVM_SET_FPU = _ioctl(_WRITE, 0x8D, 416)
KVM_GET_LAPIC = _ioctl(_READ, 0x8E, 1024)
KVM_SET_LAPIC = _ioctl(_WRITE, 0x8F, 1024)
KVM_SET_CPUID2 = _ioctl(_WRITE, 0x90, 8)
KVM_GET_TSC_KHZ = _ioctl(_NONE, 0xA3)
KVM_KVMCLOCK_CTRL = _ioctl(_NONE, 0xAD)

API_VERSION = 12
CPUID_FLAG_SIGNIFICANT_INDEX = 1

# capabilities
CAP_IRQCHIP, CAP_USER_MEMORY, CAP_NR_VCPUS, CAP_MAX_VCPUS = 0, 3, 9, 66
CAP_IRQFD, CAP_PIT2, CAP_IOEVENTFD, CAP_READONLY_MEM = 32, 33, 36, 81
CAP_TSC_DEADLINE_TIMER, CAP_IMMEDIATE_EXIT, CAP_IOEVENTFD_ANY_LENGTH = 72, 136, 122

MEM_READONLY = 1 << 1
PIT_SPEAKER_DUMMY = 1
IRQFD_FLAG_DEASSIGN = 1
IOEVENTFD_FLAG_DATAMATCH, IOEVENTFD_FLAG_PIO, IOEVENTFD_FLAG_DEASSIGN = 1, 2, 4
IRQ_ROUTING_IRQCHIP, IRQ_ROUTING_MSI = 1, 2
IRQCHIP_PIC_MASTER, IRQCHIP_PIC_SLAVE, IRQCHIP_IOAPIC = 0, 1, 2
IOAPIC_PINS = 24

# exit reasons
EXIT_IO, EXIT_HLT, EXIT_MMIO, EXIT_SHUTDOWN, EXIT_FAIL_ENTRY, EXIT_INTR = 2, 5, 6, 8, 9, 10
EXIT_INTERNAL_ERROR, EXIT_SYSTEM_EVENT = 17, 24
EXIT_NAMES = {
    0: "unknown", 1: "exception", 2: "io", 3: "hypercall", 4: "debug", 5: "hlt", 6: "mmio", 7: "irq-window-open",
    8: "shutdown", 9: "fail-entry", 10: "intr", 11: "set-tpr", 12: "tpr-access", 17: "internal-error",
    24: "system-event", 26: "ioapic-eoi", 29: "x86-rdmsr", 30: "x86-wrmsr", 39: "memory-fault",
}  # fmt: skip
IO_OUT = 1
INTERNAL_ERRORS = {1: "an instruction that KVM cannot emulate", 2: "an exception while one was delivered",
                   3: "an event that KVM cannot deliver", 4: "an unexpected exit"}  # fmt: skip
