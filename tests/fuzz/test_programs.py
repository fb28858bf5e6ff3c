"""A guest whose program is thrown together: thousands of accesses to ports, to windows of devices, to where nothing is.

It runs in the VMM as it is in use, both processes and all walls. Whatever it does there, the VMM answers after, none of
its parts has failed, and it was not killed for a call that it may not make.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from random import Random

import pytest

from tests.lab.support.vmm import vmm
from tests.support import tiny
from tests.support.dev_kvm import needs_kvm
from tests.support.kernels import vmlinux
from vmtui.guests.kernel import Kernel
from vmtui.vmm.arch.x86_64 import layout
from vmtui.vmm.devices import pvpanic
from vmtui.vmm.virtio.transport import COMMON, DEVICE, ISR, NOTIFY, PENDING, TABLE

OPERATIONS = int(os.environ.get("VMTUI_FUZZ_OPERATIONS", "10000"))
SEED = int(os.environ.get("VMTUI_FUZZ_SEED", "1"))
OPERATIONS_PER_GUEST = 20_000  # 16 bytes each
PER_S = 2000  # operations, at the least: KVM emulates them
BYTES = 64 << 20
SIZES = (1, 2, 4)
DEVICES = 5  # on the bus, behind the bridge
BAR_BYTES = 0x10000
NUMBERS = (0, 1, 2, 3, 6, 7, 0xF, 0x80, 0xFF, 0x8000, 0xFFFF, 0x80000000, 0xC0000000, 0xFFFFFFFF)
PORTS = (
    *range(layout.COM1_PORT - 1, layout.COM1_PORT + 9), *range(layout.PCI_CONFIG_PORT - 1, 0xD00),
    *range(layout.POWER_PORT - 1, layout.POWER_PORT + 9), pvpanic.PORT, 0x20, 0x21, 0xA0, 0xA1, 0x40, 0x43, 0x61, 0x70,
    0x71, 0x80, 0x60, 0x64, 0xF4, 0xFFFF,
)  # fmt: skip
# The UART as it was, so that the last words come out.
LAST_WORDS = tiny.out(layout.COM1_PORT + 3, 0) + tiny.out(layout.COM1_PORT + 4, 0) + tiny.printed(b"\ndone\n")

pytestmark = [pytest.mark.real, needs_kvm, pytest.mark.timeout(180 + OPERATIONS / 500)]


class Program:
    """Writes down one operation after the other."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def made(self, operations: int) -> bytes:
        decoded = b"".join(tiny.store(self._space(device) + 4, 6, 2) for device in range(1, DEVICES + 1))
        acts = self.random.choices(
            (self._port, self._string, self._bar, self._space_access, self._elsewhere, self._bring_up),
            (20, 2, 50, 10, 10, 4),
            k=operations,
        )
        return decoded + b"".join(act() for act in acts) + LAST_WORDS + tiny.HALT

    def _number(self) -> int:
        random = self.random
        return random.choice(NUMBERS) if random.random() < 0.6 else random.getrandbits(random.choice((8, 16, 32)))

    def _port(self) -> bytes:
        port, size = self.random.choice(PORTS), self.random.choice(SIZES)
        if self.random.random() < 0.5:
            return tiny.take(port, size)
        if port == layout.PCI_CONFIG_PORT:
            return tiny.out(port, 1 << 31 | self.random.randrange(6) << 11 | self.random.randrange(256), 4)
        return tiny.out(port, 0 if layout.POWER_PORT <= port < layout.POWER_PORT + 8 else self._number(), size)

    def _string(self) -> bytes:
        port = self.random.choice([port for port in PORTS if not 0x5FF <= port < 0x608])
        count, size = self.random.choice((0, 1, 3, 100)), self.random.choice(SIZES)
        return self.random.choice((tiny.out_string, tiny.take_string))(port, layout.BOOT_STACK, count, size)

    def _space(self, device: int) -> int:
        return layout.ECAM.start + (device << 15)

    def _access(self, addr: int, value: int | None = None) -> bytes:
        size = self.random.choice(SIZES)
        if self.random.random() < 0.4:
            return tiny.load(addr, size)
        return tiny.store(addr, self._number() if value is None else value, size)

    def _bar_at(self) -> int:
        return layout.PCI_WINDOW_32.start + BAR_BYTES * self.random.randrange(DEVICES + 1)

    def _bar(self) -> bytes:
        random = self.random
        window = random.choice((COMMON, COMMON, COMMON, ISR, DEVICE, NOTIFY, TABLE, TABLE, PENDING))
        offset = window + random.randrange(80) if random.random() < 0.95 else random.randrange(BAR_BYTES)
        return self._access(self._bar_at() + offset)

    def _space_access(self) -> bytes:
        """Mostly where the BAR stays what it is."""
        random = self.random
        register = random.choice((0, 2, 6, 12, 14, 0x2C, random.randrange(0x40, 0xC0), random.randrange(4096)))
        acts = self._access(self._space(random.randrange(32)) + register)
        if random.random() < 0.1:
            device = random.randrange(1, DEVICES + 1)
            there = layout.PCI_WINDOW_32.start + BAR_BYTES * random.randrange(8)
            acts += tiny.store(self._space(device) + 0x10, random.choice((there, 0xFFFFFFFF, self._number())))
            if random.random() < 0.7:
                acts += tiny.store(self._space(device) + 0x10, layout.PCI_WINDOW_32.start + BAR_BYTES * (device - 1))
            acts += tiny.store(self._space(device) + 4, random.choice((0, 6, 6, 6, self._number())), 2)
        return acts

    def _elsewhere(self) -> bytes:
        """The interrupt controllers are KVM's; between and beyond is nothing."""
        addr = self.random.choice(
            (layout.IOAPIC + self.random.randrange(0x20), 0xD0000000, 0xBFFFFFFE, 0xDFFFFFFD, 0xE00FFFFE, 0xF0000000,
             layout.ECAM.end - 1, layout.PCI_WINDOW_32.start - 1, self._bar_at() - 2, 0xFED00000, BYTES)
        )  # fmt: skip
        return self._access(addr + self.random.randrange(3))

    def _bring_up(self) -> bytes:
        """A device, as a driver does; its rings where no code is."""
        random, device = self.random, self.random.randrange(1, DEVICES + 1)
        space, bar = self._space(device), layout.PCI_WINDOW_32.start + BAR_BYTES * (device - 1)
        steps = [(20, 0, 1), (20, 3, 1)]
        steps += [(8, 0, 4), (12, random.choice((0, 0, 1 << 29, 0xFFFFFFFF)), 4), (8, 1, 4), (12, 1, 4), (20, 11, 1)]
        for number in range(random.randrange(4)):
            ring = 0x40000 + number * 0x4000
            steps += [(22, number, 2), (24, random.choice((16, 64, 3)), 2), (26, number + 1, 2)]
            steps += [(32, ring, 4), (36, 0, 4), (40, ring + 0x1000, 4), (44, 0, 4), (48, ring + 0x2000, 4), (52, 0, 4)]
            steps += [(28, 1, 2)]
        steps += [(20, 15, 1)]
        kicks = [(NOTIFY + 4 * number, number, 2) for number in range(3)]
        rings = [(0x41000 + 0x4000 * number, random.getrandbits(4) << 16, 4) for number in range(3)]
        return b"".join(
            [tiny.store(space + at, value) for at, value in ((0x10, bar), (0x14, 0), (4, 6))]
            + [tiny.store(at, value, size) for at, value, size in rings]
            + [tiny.store(bar + at, value, size) for at, value, size in (*steps, *kicks)]
        )


@pytest.mark.parametrize("number", range(-(-OPERATIONS // OPERATIONS_PER_GUEST)))
def test_the_vmm_outlives_any_program(number: int) -> None:
    random = Random(f"{SEED}.{number}")
    operations = min(OPERATIONS, OPERATIONS_PER_GUEST)
    with tempfile.TemporaryDirectory(prefix="vt-", dir="/tmp") as made:
        folder = Path(made)
        kernel, disk = folder / "kernel", folder / "disk.raw"
        kernel.write_bytes(vmlinux(Program(random).made(operations)))
        disk.write_bytes(bytes(1 << 20))
        disks = [{"path": str(disk), "format": "raw", "serial": "fuzzed"}]
        config = {"memory_bytes": BYTES, "cpus": 2, "pci_ports": True, "disks": disks, "vsock_cid": 3}
        with vmm(folder / "vm", Kernel(kernel, "", None), None, **config) as started:
            os.chown(disk, 0x7FFF_1000, 0x7FFF_1000)
            caller = started.connect()
            began = time.monotonic()
            started.await_log("\ndone\n", 120 + operations / PER_S)
            took_s = time.monotonic() - began
            info, metrics = caller.call("info"), caller.call("metrics")
            print(f"{operations} operations in {took_s:.1f} s, {metrics['exits_total']} exits: {metrics['exits']}")
            assert info["faults"] == []
            assert metrics["exits_total"] > operations / 2, "it does not get through to the VMM"
            caller.call("kill")
            assert started.ending()["cause"] in ("KILLED", "PANIC")
            assert (started.run / "errors").read_text() == ""
