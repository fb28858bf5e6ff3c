"""`python -m vmtui.vmm --prove`: try whether KVM runs a guest here that does what a kernel does.

Prints one line, {"usable": true | false, "why": TEXT}, and exits 0 or 1. A guest gets a second of a processor.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import time
from typing import NamedTuple

from vmtui.vmm.arch.x86_64 import registers
from vmtui.vmm.arch.x86_64.cpuid import vcpu_cpuid
from vmtui.vmm.bus import MmioBus, PortBus
from vmtui.vmm.kvm import constants as kvm
from vmtui.vmm.kvm.system import System
from vmtui.vmm.kvm.vcpu import KICK, Vcpu
from vmtui.vmm.kvm.vm import Vm
from vmtui.vmm.memory import GuestMemory

MEMORY_BYTES = 2 << 20
TIME_S = 1.0  # of a processor; a working one needs some microseconds
PATIENCE_S = 5.0  # on a busy host the guest may get no processor for some time
LOOK_S = 0.1
CODE_ADDR = 0x10000
PORT = 0xF4
DONE, FAILED = 0x2A, 0xFF
# What guest/proof.S was about when it had said the number, and no more.
STEPS = {
    0: "before its first instruction",
    1: "at its first interrupt in long mode",
    2: "at an interrupt of its local APIC",
    3: "at cmpxchg16b",
}
# guest/proof.S, assembled: a machine that runs vmtui has no assembler. A test assembles the source again and compares.
PROOF = bytes.fromhex(
    "bc00a00100b001e6f4b0ffe621e6a1bf00820100b8c2000100e887000000bf10820100b8c9000100e8780000000f011dac00000031db31ed"
    "cd2083fb2a755fb002e6f4bf0000e0fec787f0000000ff010000fbc7870003000021400400b9a086010083fd2a7408f390ffc975f5eb2ffa"
    "b003e6f4bf0090010031c04889074889470899bb07000000b909000000f0480fc70f750a837f08097504b02aeb02b0ffe6f4f4ebfd668907"
    "66c74702100066c74704008ec1e810894706c7470a00000000c3bb2a00000048cfbd2a000000c787b00000000000000048cf660f1f440000"
    "1f020080010000000000"
)


class Teller:
    """The port by which the guest says how far it is."""

    def __init__(self) -> None:
        self.step = 0
        self.heard: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read(self, offset: int, size: int) -> int:
        return 0xFF

    def write(self, offset: int, size: int, value: int) -> None:
        value &= 0xFF
        if value in (DONE, FAILED):
            self.heard.put("" if value == DONE else "its processor did something else than it should")
        else:
            self.step = value

    def gave_up(self, number: int, reason: str) -> None:
        self.heard.put(reason)


def why_not() -> str:
    """What stands in the way of a guest here; "" if one ran. Leaves a thread behind: the process is to end."""
    try:
        system = System()
    except OSError as error:
        said = error.strerror or str(error)
        return f"{error.filename}: {said.lower()}" if error.filename else said
    teller = Teller()
    try:
        guest = _guest(system, teller)
    except OSError as error:
        return f"no guest could be made: {error.strerror or error}"
    signal.signal(KICK, lambda number, frame: None)
    guest.vcpu.start()
    guest.vcpu.resume()
    reason = _wait(teller, guest.vcpu)
    return f"a guest stopped {STEPS.get(teller.step, 'somewhere')}: {reason}" if reason else ""


def _wait(teller: Teller, vcpu: Vcpu) -> str:
    """Why the guest did not come through; "" if it did."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return teller.heard.get(timeout=LOOK_S)
        except queue.Empty:
            used_s = vcpu.counts().cpu_s
            if used_s >= TIME_S or time.monotonic() > deadline:
                return f"nothing came of it in {used_s:.1f} s of a processor"


class Guest(NamedTuple):
    """What must stay for as long as the vCPU runs: its memory is this process's."""

    vcpu: Vcpu
    vm: Vm
    memory: GuestMemory


def _guest(system: System, teller: Teller) -> Guest:
    """A VM of one vCPU, about to run the proof. Raises OSError."""
    memory = GuestMemory(MEMORY_BYTES)
    vm = Vm(system)
    for slot, region in enumerate(memory.regions):
        vm.set_memory(slot, region.guest_addr, region.size_bytes, region.host_addr)
    ports = PortBus()
    ports.add(PORT, 1, teller)
    vcpu = Vcpu(vm.create_vcpu(0), 0, system.run_bytes, ports, MmioBus(), teller.gave_up)
    deadline = bool(system.has(kvm.CAP_TSC_DEADLINE_TIMER))
    cpuid = vcpu_cpuid(system.supported_cpuid(), index=0, cpus=1, tsc_deadline=deadline, tsc_khz=vcpu.tsc_khz())
    vcpu.configure(cpuid, registers.pack_msrs())
    memory.write(CODE_ADDR, PROOF)
    entry = registers.Entry(registers.Protocol.LINUX_64, CODE_ADDR, 0)
    state = registers.start_state(memory, entry)
    vcpu.set_registers(registers.pack_regs(state.registers), registers.pack_sregs(state.special, vcpu.sregs()))
    return Guest(vcpu, vm, memory)


def main() -> int:
    """Does not return where a guest hangs: a thread in KVM_RUN must not be waited for."""
    why = why_not()
    print(json.dumps({"usable": not why, "why": why}), flush=True)
    sys.stdout.flush()
    os._exit(int(bool(why)))
