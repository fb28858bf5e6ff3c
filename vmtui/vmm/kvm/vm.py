"""One VM of KVM's: memory slots, interrupt controllers, ioeventfds and irqfds."""

from __future__ import annotations

import os
import struct

from vmtui.vmm.arch.x86_64 import layout
from vmtui.vmm.eventfd import EventFd
from vmtui.vmm.kvm import constants as kvm
from vmtui.vmm.kvm import ioctl
from vmtui.vmm.kvm.routing import Routing
from vmtui.vmm.kvm.system import System

_REGION = struct.Struct("<IIQQQ")  # struct kvm_userspace_memory_region
_IOEVENTFD = struct.Struct("<QQIiI36x")  # struct kvm_ioeventfd
_IRQFD = struct.Struct("<IIII16x")  # struct kvm_irqfd


class Vm:
    """Owns the VM's file descriptor. Closing it ends the VM once the vCPUs are closed too."""

    def __init__(self, system: System) -> None:
        self.fd = system.create_vm()
        try:
            ioctl.give(
                self.fd,
                kvm.KVM_SET_IDENTITY_MAP_ADDR,
                "KVM_SET_IDENTITY_MAP_ADDR",
                struct.pack("<Q", layout.KVM_IDENTITY_MAP),
            )
            ioctl.call(self.fd, kvm.KVM_SET_TSS_ADDR, "KVM_SET_TSS_ADDR", layout.KVM_TSS)
            ioctl.call(self.fd, kvm.KVM_CREATE_IRQCHIP, "KVM_CREATE_IRQCHIP")
            pit = struct.pack("<I60x", kvm.PIT_SPEAKER_DUMMY)  # struct kvm_pit_config
            ioctl.give(self.fd, kvm.KVM_CREATE_PIT2, "KVM_CREATE_PIT2", pit)
        except BaseException:
            os.close(self.fd)
            raise
        self.routing = Routing(self.fd)

    def set_memory(
        self, slot: int, guest_addr: int, size_bytes: int, host_addr: int, *, read_only: bool = False
    ) -> None:
        """Map memory of this process into the guest. Raises OSError."""
        flags = kvm.MEM_READONLY if read_only else 0
        region = _REGION.pack(slot, flags, guest_addr, size_bytes, host_addr)
        ioctl.give(self.fd, kvm.KVM_SET_USER_MEMORY_REGION, "KVM_SET_USER_MEMORY_REGION", region)

    def add_ioeventfd(self, addr: int, event: EventFd) -> None:
        """A write of any length at `addr` signals `event`, without an exit (fast MMIO). Raises OSError."""
        ioctl.give(self.fd, kvm.KVM_IOEVENTFD, "KVM_IOEVENTFD", _IOEVENTFD.pack(0, addr, 0, event.fd, 0))

    def remove_ioeventfd(self, addr: int, event: EventFd) -> None:
        data = _IOEVENTFD.pack(0, addr, 0, event.fd, kvm.IOEVENTFD_FLAG_DEASSIGN)
        ioctl.give(self.fd, kvm.KVM_IOEVENTFD, "KVM_IOEVENTFD", data)

    def add_irqfd(self, gsi: int, event: EventFd) -> None:
        """Signalling `event` raises `gsi` as an edge; if it is signalled already, at once. Raises OSError.

        What was signalled before KVM had it raises the line and stays in the count (kvm_irqfd_assign in
        virt/kvm/eventfd.c): it is taken here, or it would be raised once more when KVM is given it again. What comes
        after that, KVM takes itself.
        """
        ioctl.give(self.fd, kvm.KVM_IRQFD, "KVM_IRQFD", _IRQFD.pack(event.fd, gsi, 0, 0))
        event.drain()

    def remove_irqfd(self, gsi: int, event: EventFd) -> None:
        ioctl.give(self.fd, kvm.KVM_IRQFD, "KVM_IRQFD", _IRQFD.pack(event.fd, gsi, kvm.IRQFD_FLAG_DEASSIGN, 0))

    def create_vcpu(self, number: int) -> int:
        """The file descriptor of vCPU `number`, which is its APIC ID as well. Raises OSError."""
        return ioctl.call(self.fd, kvm.KVM_CREATE_VCPU, f"KVM_CREATE_VCPU {number}", number)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
