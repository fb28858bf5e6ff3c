"""A vCPU: its registers, its thread, and what it comes out of the guest for."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import struct
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from vmtui.vmm.arch.x86_64.cpuid import CpuidEntry
from vmtui.vmm.bus import MmioBus, PortBus
from vmtui.vmm.kvm import constants as kvm
from vmtui.vmm.kvm import ioctl
from vmtui.vmm.kvm.system import pack_cpuid

KICK = signal.SIGRTMIN
# struct kvm_run: offsets, and as an array of 32-bit words
_IMMEDIATE_EXIT, _EXIT_REASON, _PAYLOAD = 1, 8 // 4, 32
_IO = struct.Struct("<BBHIQ")  # direction, size, port, count, data_offset
_MMIO = struct.Struct("<Q8sIB")  # phys_addr, data, len, is_write
_LVT_LINT0, _LVT_LINT1 = 0x350, 0x360  # SDM 3, table 11-1
_MODE_EXTINT, _MODE_NMI = 0x700, 0x400
Exit = Callable[[int, str], None]


class Counts(NamedTuple):
    """What a vCPU did: exits by (reason, port or 64 KiB slot of memory), and the time that its thread used, in s."""

    exits: dict[tuple[int, int], int]
    cpu_s: float


class Vcpu:
    """Made in the machine's main thread, run by a thread of its own. `close` after `join`."""

    def __init__(self, fd: int, number: int, run_bytes: int, ports: PortBus, mmio: MmioBus, ended: Exit) -> None:
        self.number = number
        self.exits: dict[tuple[int, int], int] = {}
        self._fd = fd
        self._ports = ports.ports
        self._mmio = mmio
        self._ended = ended
        self._run = mmap.mmap(fd, run_bytes)
        self._view = memoryview(self._run)
        self._words = self._view.cast("I")
        self._going = threading.Event()
        self._parked = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def configure(self, cpuid: list[CpuidEntry], msrs: bytes) -> None:
        """What every vCPU gets. `msrs`: struct kvm_msrs. Raises OSError."""
        ioctl.give(self._fd, kvm.KVM_SET_CPUID2, "KVM_SET_CPUID2", pack_cpuid(cpuid))
        ioctl.give(self._fd, kvm.KVM_SET_MSRS, "KVM_SET_MSRS", msrs)
        # The local APIC's pins as a BIOS leaves them: PIC on LINT0, NMI on LINT1 (MP specification 3.6.2.2).
        lapic = bytearray(ioctl.give(self._fd, kvm.KVM_GET_LAPIC, "KVM_GET_LAPIC", bytes(1024)))
        struct.pack_into("<I", lapic, _LVT_LINT0, _MODE_EXTINT)
        struct.pack_into("<I", lapic, _LVT_LINT1, _MODE_NMI)
        ioctl.give(self._fd, kvm.KVM_SET_LAPIC, "KVM_SET_LAPIC", lapic)

    def sregs(self) -> bytes:
        """struct kvm_sregs."""
        return ioctl.give(self._fd, kvm.KVM_GET_SREGS, "KVM_GET_SREGS", bytes(312))

    def set_registers(self, regs: bytes, sregs: bytes) -> None:
        """struct kvm_regs and kvm_sregs: where the first vCPU begins; the others wait for it. Raises OSError."""
        ioctl.give(self._fd, kvm.KVM_SET_SREGS, "KVM_SET_SREGS", sregs)
        ioctl.give(self._fd, kvm.KVM_SET_REGS, "KVM_SET_REGS", regs)

    def registers(self) -> bytes:
        """struct kvm_regs: for what is told of a vCPU that KVM gave up on."""
        return ioctl.give(self._fd, kvm.KVM_GET_REGS, "KVM_GET_REGS", bytes(144))

    def tsc_khz(self) -> int:
        """How fast its time stamp counter runs, 0 if the kernel does not know."""
        khz: int = max(0, ioctl.raw(self._fd, kvm.KVM_GET_TSC_KHZ, 0))
        return khz

    def clock_stood_still(self) -> None:
        """After a pause: its soft lockup watchdog is to forgive (api.rst, KVM_KVMCLOCK_CTRL), if it has kvmclock."""
        ioctl.raw(self._fd, kvm.KVM_KVMCLOCK_CTRL, 0)

    def is_run_by(self, thread: threading.Thread) -> bool:
        return thread is self._thread

    def halt(self) -> None:
        """By its own thread, from within a device: do not enter the guest again."""
        self._stopping = True

    def start(self) -> None:
        """Start the thread; it enters the guest once `resume` is called."""
        self._thread = threading.Thread(target=self._main, name=f"vcpu{self.number}", daemon=True)
        self._thread.start()

    def resume(self) -> None:
        self._view[_IMMEDIATE_EXIT] = 0
        self._going.set()

    def pause(self) -> None:
        """Have it come out of the guest, and wait until it has. What it was doing is complete then."""
        self._going.clear()
        self._kick()
        self._parked.wait(timeout=5.0)

    def stop(self) -> None:
        """End its thread, and wait for it unless it is this one."""
        self._stopping = True
        self._going.set()
        self._kick()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5.0)

    def _kick(self) -> None:
        self._view[_IMMEDIATE_EXIT] = 1  # for one that is about to enter
        thread = self._thread
        if thread is not None and thread.is_alive() and thread.ident is not None:
            signal.pthread_kill(thread.ident, KICK)  # for one that is inside

    def counts(self) -> Counts:
        thread = self._thread
        cpu_s = 0.0
        if thread is not None and thread.ident is not None and thread.is_alive():
            try:
                cpu_s = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
            except OSError:
                pass  # it ended meanwhile
        return Counts(dict(self.exits), cpu_s)

    def close(self) -> None:
        if self._fd >= 0:
            self._words.release()
            self._view.release()
            self._run.close()
            os.close(self._fd)
            self._fd = -1

    def _main(self) -> None:
        try:
            while not self._stopping:
                if self._going.is_set():
                    self._enter()
                    continue
                self._parked.set()
                self._going.wait()
                self._parked.clear()  # by this thread alone: what it says is true until it has entered the guest
        except Exception as error:  # a fault of ours: the machine ends, and says why
            self._stopping = True
            self._ended(self.number, f"{type(error).__name__}: {error}")
        finally:
            self._parked.set()  # who pauses one that has ended waits for nothing

    def _enter(self) -> None:
        """Run the guest until something asks for it to stop. Nothing here allocates more than it must: a hot path."""
        run, fd, words, view = ioctl.raw, self._fd, self._words, self._view
        ports, mmio, exits = self._ports, self._mmio, self.exits
        unpack_io, unpack_mmio = _IO.unpack_from, _MMIO.unpack_from
        request, out, from_bytes = kvm.KVM_RUN, kvm.IO_OUT, int.from_bytes
        while self._going.is_set() and not self._stopping:
            if run(fd, request, 0) < 0:
                # EINTR: kicked. EAGAIN: one that waited for its SIPI (api.rst 5, KVM_MP_STATE_UNINITIALIZED).
                if (code := ctypes.get_errno()) in (errno.EINTR, errno.EAGAIN):
                    continue
                raise OSError(code, f"KVM_RUN: {os.strerror(code)}")
            reason = words[_EXIT_REASON]
            if reason == kvm.EXIT_IO:
                direction, size, port, count, at = unpack_io(view, _PAYLOAD)
                exits[reason, port] = exits.get((reason, port), 0) + 1
                base, device = ports.get(port, (port, None))
                if direction == out:
                    if device is not None:
                        for n in range(at, at + size * count, size):
                            device.write(port - base, size, from_bytes(view[n : n + size], "little"))
                elif device is None:
                    view[at : at + size * count] = b"\xff" * (size * count)
                else:
                    for n in range(at, at + size * count, size):
                        view[n : n + size] = device.read(port - base, size).to_bytes(size, "little")
            elif reason == kvm.EXIT_MMIO:
                addr, data, size, is_write = unpack_mmio(view, _PAYLOAD)
                key = (reason, addr >> 16)
                exits[key] = exits.get(key, 0) + 1
                if is_write:
                    mmio.write(addr, size, from_bytes(data[:size], "little"))
                else:
                    view[_PAYLOAD + 8 : _PAYLOAD + 8 + size] = mmio.read(addr, size).to_bytes(size, "little")
            else:
                exits[reason, 0] = exits.get((reason, 0), 0) + 1
                if not self._other(reason):
                    return

    def _other(self, reason: int) -> bool:
        """An exit that is rare. False: the machine ends."""
        if reason in (kvm.EXIT_INTR, kvm.EXIT_HLT):
            return True
        self._stopping = True
        if reason == kvm.EXIT_SHUTDOWN:
            self._ended(self.number, "triple fault")
            return False
        name = kvm.EXIT_NAMES.get(reason, str(reason))
        detail = ""
        if reason == kvm.EXIT_INTERNAL_ERROR:
            (suberror,) = struct.unpack_from("<I", self._view, _PAYLOAD)
            detail = f": {kvm.INTERNAL_ERRORS.get(suberror, f'suberror {suberror}')}"
        elif reason == kvm.EXIT_FAIL_ENTRY:
            (why,) = struct.unpack_from("<Q", self._view, _PAYLOAD)
            detail = f": hardware reason {why:#x}"
        rip, rflags = struct.unpack_from("<QQ", self.registers(), 128)
        self._ended(self.number, f"KVM gave up, {name}{detail}, at rip {rip:#x}, rflags {rflags:#x}")
        return False
