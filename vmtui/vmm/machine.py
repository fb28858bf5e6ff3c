"""The machine: memory, buses, interrupts, vCPUs and devices of one VM, and what can be done with it as a whole.

Made with one thread and everything opened; `power_on` then starts threads. How it ends is told once: by `Ending`.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from vmtui.vmm.acpi import tables
from vmtui.vmm.arch.x86_64 import layout, registers
from vmtui.vmm.arch.x86_64.cpuid import vcpu_cpuid
from vmtui.vmm.boot import kernel
from vmtui.vmm.boot.source import BootFile
from vmtui.vmm.bus import BusDevice, MmioBus, PortBus
from vmtui.vmm.devices import pvpanic
from vmtui.vmm.devices.power import PowerPort
from vmtui.vmm.eventfd import EventFd
from vmtui.vmm.kvm import constants as kvm
from vmtui.vmm.kvm.system import System
from vmtui.vmm.kvm.vcpu import KICK, Vcpu
from vmtui.vmm.kvm.vm import Vm
from vmtui.vmm.memory import GuestMemory
from vmtui.vmm.metrics import named
from vmtui.vmm.pci.root import Root
from vmtui.vmm.virtio.device import VirtioDevice
from vmtui.vmm.virtio.transport import VirtioFunction

POWER_PORTS = 8


class Cause(Enum):
    """Why a machine ended, and the exit code that its VM gets."""

    POWERED_OFF = "POWERED_OFF", 0
    RESET = "RESET", 0  # by the guest, which may want to be started anew
    RESTART = "RESTART", 0  # by a caller, who does
    PANIC = "PANIC", 1
    FAULT = "FAULT", 134  # as a process that aborts: 128 + SIGABRT
    KILLED = "KILLED", 137  # 128 + SIGKILL


class Ending(NamedTuple):
    cause: Cause
    reason: str

    @property
    def code(self) -> int:
        return self.cause.value[1]


class Machine:
    """One VM. `ended` is called once, from any thread. Raises OSError, ValueError at its construction.

    `pci_ports`: configuration space by ports as well, for guests that do not know ECAM. See pci/root.py.
    """

    def __init__(
        self, cpus: int, memory: GuestMemory, ended: Callable[[Ending], None], *, pci_ports: bool = False
    ) -> None:
        self.memory = memory
        self.paused = False
        self.began_at = time.time()
        self.ports = PortBus()
        self.mmio = MmioBus()
        self.functions: list[VirtioFunction] = []
        self.events: Callable[[str, dict[str, Any]], None] = lambda name, more: None
        self.panic = ""
        self.booted = False  # a kernel has come as far as to its first driver
        self._tell_ended = ended
        self._ending: Ending | None = None
        self._state = threading.Lock()  # of pausing; a vCPU that ends the machine must not wait for one that pauses it
        self._ends = threading.Lock()
        self._system = System()
        if cpus > self._system.max_vcpus:
            raise ValueError(f"{cpus} vCPUs: this KVM takes {self._system.max_vcpus}")
        self.vm = Vm(self._system)
        for slot, region in enumerate(memory.regions):
            self.vm.set_memory(slot, region.guest_addr, region.size_bytes, region.host_addr)
        self.root = Root(self.vm, self.mmio, memory.size_bytes)
        if pci_ports:
            self.ports.add(layout.PCI_CONFIG_PORT, 8, self.root)
        self.ports.add(layout.POWER_PORT, POWER_PORTS, PowerPort(self._powered_off, self._reset))
        self._pvpanic = pvpanic.Pvpanic(self._panicked)
        self.ports.add(pvpanic.PORT, pvpanic.PORTS, self._pvpanic)
        self._button = EventFd()
        self.vm.add_irqfd(layout.GED_GSI, self._button)
        self.vcpus = [self._vcpu(number) for number in range(cpus)]
        self._give_cpuid(cpus)

    def _vcpu(self, number: int) -> Vcpu:
        fd = self.vm.create_vcpu(number)
        return Vcpu(fd, number, self._system.run_bytes, self.ports, self.mmio, self._vcpu_ended)

    def _give_cpuid(self, cpus: int) -> None:
        supported = self._system.supported_cpuid()
        deadline = bool(self._system.has(kvm.CAP_TSC_DEADLINE_TIMER))
        khz = self.vcpus[0].tsc_khz()
        msrs = registers.pack_msrs()
        for vcpu in self.vcpus:
            cpuid = vcpu_cpuid(supported, index=vcpu.number, cpus=cpus, tsc_deadline=deadline, tsc_khz=khz)
            vcpu.configure(cpuid, msrs)

    def load(self, image: BootFile, command_line: str, initrd: BootFile | None) -> None:
        """Kernel, initrd and tables into memory, and the first vCPU to where the kernel begins. Raises BootError."""
        entry = kernel.load(self.memory, image, command_line, initrd)
        tables.write(self.memory, len(self.vcpus))
        state = registers.start_state(self.memory, entry)
        first = self.vcpus[0]
        first.set_registers(registers.pack_regs(state.registers), registers.pack_sregs(state.special, first.sregs()))

    def add_ports(self, base: int, length: int, device: BusDevice) -> None:
        self.ports.add(base, length, device)

    def interrupt_line(self, gsi: int) -> EventFd:
        """An eventfd that raises a pin of the I/O APIC as an edge."""
        event = EventFd()
        self.vm.add_irqfd(gsi, event)
        return event

    def plug(self, device: VirtioDevice) -> VirtioFunction:
        """Put a device on the bus. Before `power_on`. Raises ValueError: the bus is full."""
        number = self.root.free_device()
        function = VirtioFunction(
            self.root.page(number), self.vm, self.memory, device, self._device_failed, self._driver_up
        )
        self.root.plug(number, function)
        self.functions.append(function)
        return function

    # What can be done with it

    def power_on(self) -> None:
        signal.signal(KICK, lambda number, frame: None)  # only there to interrupt KVM_RUN
        for vcpu in self.vcpus:
            vcpu.start()
        for vcpu in self.vcpus:
            vcpu.resume()

    def pause(self) -> None:
        """No vCPU runs when it returns. Twice is as once."""
        with self._state:
            if not self.paused:
                for vcpu in self.vcpus:
                    vcpu.pause()
                self.paused = True

    def resume(self) -> None:
        with self._state:
            if self.paused:
                for vcpu in self.vcpus:
                    vcpu.clock_stood_still()
                for vcpu in self.vcpus:
                    vcpu.resume()
                self.paused = False

    def press_power_button(self) -> None:
        """The guest hears it, if it listens: an event of the GED (ACPI 5.6.9)."""
        self._button.signal()

    def end(self, ending: Ending) -> None:
        """From any thread; the first one counts."""
        with self._ends:
            if self._ending is not None:
                return
            self._ending = ending
        self._tell_ended(ending)

    def close(self) -> None:
        """Stop the vCPUs, then the devices. From the thread that made it."""
        for vcpu in self.vcpus:
            vcpu.stop()
        for function in self.functions:
            function.close()
        for vcpu in self.vcpus:
            vcpu.close()
        self.root.close()
        self.vm.close()
        self._system.close()
        self._button.close()
        self.memory.close()

    # What happens to it

    def _powered_off(self) -> None:
        self.end(self._unless_panicked(Ending(Cause.POWERED_OFF, "the guest powered off")))
        self._hold()

    def _reset(self) -> None:
        self.end(self._unless_panicked(Ending(Cause.RESET, "the guest restarted")))
        self._hold()

    def _unless_panicked(self, ending: Ending) -> Ending:
        return Ending(Cause.PANIC, self.panic) if self.panic else ending

    def _hold(self) -> None:
        """The vCPU that wrote must not run on: whatever follows S5 is undefined."""
        me = threading.current_thread()
        for vcpu in self.vcpus:
            if vcpu.is_run_by(me):
                vcpu.halt()

    def _panicked(self, event: str) -> None:
        if event == "panicked" and not self.panic:
            self.panic = "kernel panic"
            self.events("panic", {})

    def _vcpu_ended(self, number: int, reason: str) -> None:
        self.end(self._unless_panicked(Ending(Cause.FAULT, f"{reason}, on vCPU {number}")))

    def _driver_up(self, name: str) -> None:
        if not self.booted:
            self.booted = True
            self.events("booted", {"first": name})

    def _device_failed(self, name: str, reason: str) -> None:
        self.events("needs_reset", {"device": name, "reason": reason})

    # What is known of it

    def metrics(self) -> dict[str, Any]:
        """Exits by what caused them, time of the vCPUs, and the counters of the devices."""
        counts = [vcpu.counts() for vcpu in self.vcpus]
        exits: dict[str, int] = {}
        places = {function.bar_addr >> 16: function.device.name for function in self.functions}
        for count in counts:
            for key, times in count.exits.items():
                name = named(key, places)
                exits[name] = exits.get(name, 0) + times
        return {
            "exits": dict(sorted(exits.items(), key=lambda pair: -pair[1])),
            "exits_total": sum(exits.values()),
            "vcpu_s": [round(count.cpu_s, 6) for count in counts],
            "devices": {function.device.name: function.device.counters() for function in self.functions},
            "kicks": {function.device.name: [queue.kicks for queue in function.queues] for function in self.functions},
        }

    def info(self) -> dict[str, Any]:
        """How it is, and which devices need something."""
        troubled = {f.device.name: f.needs_reset for f in self.functions if f.needs_reset}
        return {
            "state": "paused" if self.paused else "running",
            "cpus": len(self.vcpus),
            "memory_bytes": self.memory.size_bytes,
            "began_at": self.began_at,
            "booted": self.booted,
            "panic": self.panic,
            "needs_reset": troubled,
        }
