"""The machine in this process, with guests of some bytes: what a vCPU comes out for, and how it ends."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random

import pytest

from tests.support import tiny
from tests.support.dev_kvm import needs_kvm
from tests.support.kernels import opened, vmlinux
from vmtui.vmm.arch.x86_64 import layout
from vmtui.vmm.devices import pvpanic
from vmtui.vmm.devices.rng import Rng
from vmtui.vmm.kvm import constants as kvm
from vmtui.vmm.loop import Loop
from vmtui.vmm.machine import Cause, Ending, Machine
from vmtui.vmm.memory import GuestMemory
from vmtui.vmm.virtio.transport import COMMON, DEVICE, NOTIFY, TABLE

pytestmark = [needs_kvm, pytest.mark.timeout(300)]
BYTES = 24 << 20
PORT, PORTS = 0x510, 16
END_S = 60.0
VECTOR = 0x40
SIZES = (1, 2, 4)
COUNT = b"\xff\x05" + tiny.DATA.to_bytes(4, "little") + b"\xeb\xf8"  # inc dword [DATA]; jmp


class Recorder:
    """A device that remembers writes, and reads as what it was given."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []
        self.reads: list[tuple[int, int]] = []
        self.values: list[int] = []

    def read(self, offset: int, size: int) -> int:
        self.reads.append((offset, size))
        return self.values.pop(0) & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        self.seen.append((offset, size, value))


class Guest:
    """One machine with a virtio device; `device` is at PORT."""

    def __init__(self, stack: ExitStack, cpus: int = 1) -> None:
        self._closed = False
        self.endings: queue.SimpleQueue[Ending] = queue.SimpleQueue()
        self.failures: list[BaseException] = []
        self.memory = GuestMemory(BYTES)
        self.machine = Machine(cpus, self.memory, self.endings.put, pci_ports=True)
        self.loop = Loop("devices", lambda _, error: self.failures.append(error))
        self.rng = self.machine.plug(Rng("rng", self.loop))
        self.bar = self.rng.bar_addr
        self.device = Recorder()
        self.machine.add_ports(PORT, PORTS, self.device)
        stack.callback(self.close)

    def start(self, code: bytes) -> None:
        with opened(vmlinux(code.ljust(0x2100, b"\xf4"))) as kernel:
            self.machine.load(kernel, "", None)
        self.machine.power_on()

    def run(self, code: bytes) -> Ending:
        """To its end."""
        self.start(code)
        return self.ending()

    def ending(self) -> Ending:
        return self.endings.get(timeout=END_S)

    def did(self, code: bytes) -> None:
        """That it came to the end of `code`."""
        assert self.run(code + tiny.POWER_OFF) == (Cause.POWERED_OFF, "the guest powered off")

    def data(self, number: int = 0) -> int:
        """A word that the guest kept."""
        return self.memory.u32(tiny.DATA + 4 * number)

    @property
    def exits(self) -> dict[tuple[int, int], int]:
        """Of the first vCPU, the one that ends it left out."""
        return {key: n for key, n in self.machine.vcpus[0].exits.items() if key != (kvm.EXIT_IO, layout.POWER_PORT)}

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.machine.close()
            self.loop.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    handler = signal.getsignal(signal.SIGRTMIN)
    with ExitStack() as stack:
        yield stack
    signal.signal(signal.SIGRTMIN, handler)


@pytest.fixture
def guest(stack: ExitStack) -> Guest:
    return Guest(stack)


# Ports


def test_ports_of_each_size(guest: Guest) -> None:
    guest.device.values = [0x11223344] * 3
    guest.did(
        b"".join(tiny.out(PORT + size, 0xA1B2C3D4, size) for size in SIZES)
        + b"".join(tiny.take(PORT + size, size) + tiny.keep(tiny.DATA + 4 * size) for size in SIZES)
    )
    assert guest.device.seen == [(1, 1, 0xD4), (2, 2, 0xC3D4), (4, 4, 0xA1B2C3D4)]
    assert guest.device.reads == [(1, 1), (2, 2), (4, 4)]
    assert [guest.data(size) for size in SIZES] == [0x44, 0x3344, 0x11223344]
    assert guest.exits == {(kvm.EXIT_IO, PORT + size): 2 for size in SIZES}


@pytest.mark.parametrize("size", SIZES)
def test_strings_to_a_port(guest: Guest, size: int) -> None:
    """Several at once come in one exit; each is a write of its own."""
    text = bytes(range(1, 4 * size + 1))
    code = b"".join(tiny.store(tiny.DATA + n, text[n], 1) for n in range(len(text)))
    guest.did(code + tiny.out_string(PORT, tiny.DATA, 4, size))
    words = [int.from_bytes(text[n : n + size], "little") for n in range(0, len(text), size)]
    assert guest.device.seen == [(0, size, word) for word in words]


@pytest.mark.parametrize("size", SIZES)
def test_strings_from_a_port(guest: Guest, size: int) -> None:
    """KVM may read more ahead than the guest has asked for in one instruction, never more than it takes in all."""
    guest.device.values = [0x01010101 * n for n in range(1, 5)]
    guest.did(tiny.take_string(PORT, tiny.DATA, 4, size))
    assert guest.memory.read(tiny.DATA, 4 * size) == b"".join(bytes((n,)) * size for n in range(1, 5))
    assert guest.device.reads == [(0, size)] * 4


def test_a_port_that_nobody_has(guest: Guest) -> None:
    guest.did(
        tiny.out(0x123, 1, 4)
        + b"".join(tiny.take(0x123, size) + tiny.keep(tiny.DATA + 4 * size) for size in SIZES)
        + tiny.take_string(0x123, tiny.DATA, 2, 2)
    )
    assert [guest.data(size) for size in SIZES] == [0xFF, 0xFFFF, 0xFFFFFFFF]
    assert guest.data() == 0xFFFFFFFF


def test_an_access_may_reach_beyond_a_device(guest: Guest) -> None:
    guest.device.values = [0x55667788]
    guest.did(tiny.out(PORT + PORTS - 1, 0x11223344, 4) + tiny.take(PORT + PORTS - 1, 4) + tiny.keep(tiny.DATA))
    assert guest.device.seen == [(PORTS - 1, 4, 0x11223344)]
    assert guest.data() == 0x55667788


# Memory


def test_the_bar_of_a_device(guest: Guest) -> None:
    common = guest.bar + COMMON
    guest.did(
        tiny.out(0xCF8, 1 << 31 | 1 << 11 | 4, 4)
        + tiny.out(0xCFC, 6, 2)  # decode memory
        + tiny.load(common + 18, 2)  # num_queues
        + tiny.keep(tiny.DATA)
        + tiny.store(common + 20, 3, 1)  # ACKNOWLEDGE, DRIVER
        + tiny.load(common + 20, 1)
        + tiny.keep(tiny.DATA + 4)
        + tiny.store(common, 1)
        + tiny.load(common + 4)  # features 32 to 63: VERSION_1
        + tiny.keep(tiny.DATA + 8)
        + tiny.load(guest.bar + DEVICE)
        + tiny.keep(tiny.DATA + 12)
    )
    assert [guest.data(n) for n in range(4)] == [1, 3, 1, 0]
    assert guest.rng.status == 3
    assert guest.exits[kvm.EXIT_MMIO, guest.bar >> 16] == 6
    assert guest.machine.metrics()["exits"]["rng"] == 6


def test_a_bar_answers_only_where_it_is(guest: Guest) -> None:
    guest.did(tiny.load(guest.bar + COMMON + 18, 2) + tiny.keep(tiny.DATA) + tiny.store(guest.bar + COMMON + 20, 1, 1))
    assert guest.data() == 0xFFFF
    assert guest.rng.status == 0


def test_doorbells_and_reads_of_configuration_space_need_no_exit(guest: Guest) -> None:
    """Written with any length."""
    command = layout.ECAM.start + (1 << 15) + 4
    guest.did(
        tiny.store(command, 6, 2)
        + b"".join(tiny.store(guest.bar + NOTIFY, 0, size) for size in SIZES)
        + b"".join(tiny.load(layout.ECAM.start + (n << 15)) + tiny.keep(tiny.DATA + 4 * n) for n in range(3))
    )
    assert [guest.data(n) for n in range(3)] == [0x0D578086, 0x10441AF4, 0xFFFFFFFF]
    assert guest.exits == {(kvm.EXIT_MMIO, layout.ECAM.start >> 16): 1}
    assert guest.rng.kicks[0].drain() == 3


def test_memory_that_is_not_there(guest: Guest) -> None:
    nowhere = 0xD0000000
    guest.did(
        tiny.store(nowhere, 1)
        + b"".join(tiny.load(nowhere + size, size) + tiny.keep(tiny.DATA + 4 * size) for size in SIZES)
        + tiny.load(nowhere + 0xFFFE)  # over the end of a slot
        + tiny.keep(tiny.DATA)
    )
    assert [guest.data(size) for size in SIZES] == [0xFF, 0xFFFF, 0xFFFFFFFF]
    assert guest.data() == 0xFFFFFFFF


def test_a_request_is_answered_by_an_interrupt(guest: Guest) -> None:
    """A driver in full: it finds the device, sets a queue and a vector up, kicks, halts, and is woken."""
    space, common, table = layout.ECAM.start + (1 << 15), guest.bar + COMMON, guest.bar + TABLE
    rings, buffer, handler, gates = 0x40000, 0x44000, tiny.AT + 0x1000, tiny.DATA + 0x400
    (msix,) = (at for at in range(0x40, 0x100, 4) if guest.rng.space[at] == 0x11)
    words = {
        rings: buffer, rings + 8: 32, rings + 12: 2,  # a descriptor: 32 bytes to write
        rings + 0x1000: 1 << 16,  # avail: one, the first
        gates + 8 * VECTOR: 0x10 << 16 | handler & 0xFFFF, gates + 8 * VECTOR + 4: handler & 0xFFFF0000 | 0x8E00,
        tiny.DATA + 0x300: gates << 16 & 0xFFFF0000 | 0x7FF, tiny.DATA + 0x304: gates >> 16,
        layout.LAPIC + 0xF0: 0x1FF,
    }  # fmt: skip
    setup = (
        (space + 4, 6, 2), (table + 16, layout.LAPIC, 4), (table + 20, 0, 4), (table + 24, VECTOR, 4),
        (table + 28, 0, 4), (space + msix + 2, 0x8000, 2), (common + 20, 3, 1), (common + 8, 1, 4),
        (common + 12, 1, 4), (common + 20, 11, 1), (common + 24, 8, 2), (common + 26, 1, 2), (common + 32, rings, 4),
        (common + 40, rings + 0x1000, 4), (common + 48, rings + 0x2000, 4), (common + 28, 1, 2),
        (common + 20, 15, 1), (guest.bar + NOTIFY, 0, 2),
    )  # fmt: skip
    code = (
        b"\xbc" + (0x30000).to_bytes(4, "little")  # mov esp
        + b"".join(tiny.store(addr, value) for addr, value in words.items())
        + b"\x0f\x01\x1d" + (tiny.DATA + 0x300).to_bytes(4, "little")  # lidt
        + b"".join(tiny.store(*each) for each in setup)
        + b"\xfb" + tiny.HALT  # sti; hlt
    )  # fmt: skip
    woken = tiny.load(rings + 0x2000) + tiny.keep(tiny.DATA) + tiny.POWER_OFF
    guest.loop.start()
    assert guest.run(code.ljust(handler - tiny.AT, b"\xf4") + woken).cause is Cause.POWERED_OFF
    assert guest.data() >> 16 == 1, "one came back"
    assert guest.memory.u32(rings + 0x2008) == 32, "with so many bytes"
    assert any(guest.memory.read(buffer, 32))
    assert guest.failures == []
    assert guest.rng.device.counters() == {"bytes": 32, "requests": 1}
    guest.loop.stop()


# Ends


def test_nothing_runs_after_power_off(guest: Guest) -> None:
    assert guest.run(tiny.POWER_OFF + tiny.store(tiny.DATA, 1) + tiny.HALT).cause is Cause.POWERED_OFF
    time.sleep(0.05)
    assert guest.data() == 0xF4F4F4F4


def test_a_restart(guest: Guest) -> None:
    assert guest.run(tiny.RESET + tiny.HALT) == (Cause.RESET, "the guest restarted")


@pytest.mark.parametrize("how", [tiny.POWER_OFF, tiny.RESET, tiny.TRIPLE_FAULT], ids=["off", "restart", "fault"])
def test_one_that_panicked_first(guest: Guest, how: bytes) -> None:
    heard: list[str] = []
    guest.machine.events = lambda event, _: heard.append(event)
    panicked = tiny.out(pvpanic.PORT, pvpanic.PANICKED)
    ending = guest.run(panicked * 2 + how + tiny.HALT)
    assert ending == (Cause.PANIC, "kernel panic")
    assert ending.code == 1
    assert heard == ["panic"]


def test_a_triple_fault(guest: Guest) -> None:
    assert guest.run(tiny.TRIPLE_FAULT) == (Cause.FAULT, "triple fault, on vCPU 0")


def test_what_kvm_gives_up_on(guest: Guest) -> None:
    """Code where no memory is."""
    ending = guest.run(b"\xb8\x00\x00\x00\xd0\xff\xe0")  # mov eax, 0xD0000000; jmp eax
    assert ending.cause is Cause.FAULT
    assert "KVM gave up" in ending.reason
    assert "rip 0xd0000000" in ending.reason


def test_a_device_that_raises_ends_the_machine_and_says_so(guest: Guest) -> None:
    ending = guest.run(tiny.take(PORT) + tiny.HALT)  # it has nothing to give
    assert ending == (Cause.FAULT, "IndexError: pop from empty list, on vCPU 0")
    guest.close()


def test_an_end_is_told_once(guest: Guest) -> None:
    guest.run(tiny.POWER_OFF)
    guest.machine.end(Ending(Cause.KILLED, "killed"))
    assert guest.endings.empty()


# Standing still


@pytest.mark.parametrize("code", [tiny.SPIN, tiny.HALT, COUNT], ids=["spins", "halts", "counts"])
def test_it_can_be_stopped_at_any_time(guest: Guest, code: bytes) -> None:
    guest.start(code)
    for _ in range(20):
        guest.machine.pause()
        guest.machine.resume()
    guest.close()
    assert guest.endings.empty()


def test_nothing_runs_while_it_is_paused(guest: Guest) -> None:
    """However shortly it ran before: it must not be taken for one that stands still because it did just now."""
    guest.start(COUNT)
    random = Random(1)
    rounds = moved = 0
    last = guest.data()
    deadline = time.monotonic() + END_S
    while rounds < 300 or moved <= 50:
        assert time.monotonic() < deadline, f"it moved {moved} times in {rounds} rounds"
        rounds += 1
        guest.machine.pause()
        paused = guest.data()
        moved += paused != last
        time.sleep(random.choice((0, 0.0002)))
        assert guest.data() == paused
        last = paused
        guest.machine.resume()
        time.sleep(random.choice((0, 0, 0.0002)))


def test_it_can_be_paused_before_its_first_instruction(stack: ExitStack) -> None:
    for _ in range(10):
        guest = Guest(stack)
        guest.start(COUNT)
        guest.machine.pause()
        before = guest.data()
        time.sleep(0.002)
        assert guest.data() == before


def test_a_pause_does_not_wait_for_a_guest_that_ends_just_then(guest: Guest) -> None:
    class Slow:
        """Ends the machine when it is about to be paused."""

        def read(self, offset: int, size: int) -> int:
            return 0

        def write(self, offset: int, size: int, value: int) -> None:
            entered.set()
            time.sleep(0.1)
            guest.machine.end(Ending(Cause.POWERED_OFF, "slowly"))

    entered = threading.Event()
    guest.machine.add_ports(0x700, 1, Slow())
    guest.start(tiny.out(0x700, 1) + tiny.HALT)
    assert entered.wait(END_S)
    guest.machine.pause()
    assert guest.ending().reason == "slowly"


def test_one_that_has_ended_can_be_paused(guest: Guest) -> None:
    guest.run(tiny.POWER_OFF)
    guest.machine.pause()
    guest.machine.resume()


def test_processors_that_were_not_started(stack: ExitStack) -> None:
    """They wait for the first one's call, inside KVM; and come out when they are asked to."""
    guest = Guest(stack, cpus=4)
    guest.start(COUNT)
    guest.machine.pause()
    assert guest.machine.info()["state"] == "paused"
    guest.machine.resume()
    counts = guest.machine.metrics()
    assert len(counts["vcpu_s"]) == 4
    guest.close()


def test_processors_that_are_started(stack: ExitStack) -> None:
    """By INIT and SIPI, as a kernel does it; each begins in real mode, where it was told."""
    guest = Guest(stack, cpus=2)
    # mov dx, PORT; mov al, 7; out dx, al; mov word [0x9000], 1; hlt; jmp
    code = b"\xba" + PORT.to_bytes(2, "little") + bytes.fromhex("b007 ee c70600900100") + tiny.HALT
    icr = layout.LAPIC + 0x300
    guest.did(
        b"".join(tiny.store(0x8000 + n, byte, 1) for n, byte in enumerate(code))
        + tiny.store(0x9000, 0)
        + tiny.store(icr + 0x10, 1 << 24)  # APIC id 1
        + tiny.store(icr, 0x4500)
        + tiny.store(icr, 0x4608)  # at page 8
        + tiny.until(0x9000, 1)
    )
    assert guest.device.seen == [(0, 1, 7)]
    assert guest.machine.vcpus[1].exits[kvm.EXIT_IO, PORT] == 1


def test_time_and_exits_are_counted(guest: Guest) -> None:
    guest.start(tiny.printed(b"x" * 100) + tiny.SPIN)
    deadline = time.monotonic() + END_S
    while (metrics := guest.machine.metrics())["vcpu_s"][0] < 0.01 or metrics["exits"].get("serial", 0) < 100:
        assert time.monotonic() < deadline, metrics
    assert metrics["exits"]["serial"] == 100
    assert metrics["exits_total"] == sum(metrics["exits"].values())
    assert set(metrics["exits"]) <= {"serial", "intr"}


# What cannot be made


def test_more_processors_than_kvm_takes() -> None:
    memory = GuestMemory(BYTES)
    with pytest.raises(ValueError, match="100000 vCPUs: this KVM takes"):
        Machine(100_000, memory, lambda _: None)
    memory.close()


def test_more_devices_than_the_bus_has(guest: Guest) -> None:
    for number in range(2, 32):
        guest.machine.plug(Rng(f"rng{number}", guest.loop))
    with pytest.raises(ValueError, match="more than 31 devices"):
        guest.machine.plug(Rng("rng32", guest.loop))
