"""The ACPI tables: sums, pointers, and what ACPICA's own tools make of them."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from vmtui.vmm.acpi import aml, tables
from vmtui.vmm.arch.x86_64 import layout
from vmtui.vmm.memory import GuestMemory

GIB = 1 << 30
START = layout.ACPI_TABLES.start
IASL = shutil.which("iasl")


def parsed(image: bytes) -> dict[str, bytes]:
    """Every table that a guest finds from the RSDP on, by its signature."""

    def at(addr: int) -> bytes:
        offset = addr - START
        return image[offset : offset + struct.unpack_from("<I", image, offset + 4)[0]]

    xsdt = at(struct.unpack_from("<Q", image, 24)[0])
    found = [xsdt, *(at(addr) for (addr,) in struct.iter_unpack("<Q", xsdt[36:]))]
    facp = next(table for table in found if table[:4] == b"FACP")
    found.append(at(struct.unpack_from("<Q", facp, 140)[0]))
    return {table[:4].decode(): table for table in found}


@pytest.mark.parametrize("cpus", [1, 4, 32])
def test_sums_and_pointers(cpus: int) -> None:
    image = tables.build(cpus, 5 * GIB)
    assert image[:8] == b"RSD PTR "
    assert [sum(image[:20]) & 0xFF, sum(image[:36]) & 0xFF] == [0, 0]
    found = parsed(image)
    assert set(found) == {"XSDT", "FACP", "APIC", "MCFG", "DSDT"}
    assert all(sum(table) & 0xFF == 0 for table in found.values())
    assert len(image) <= layout.ACPI_TABLES.size


def test_hardware_reduced_and_nothing_to_poll() -> None:
    facp = parsed(tables.build(1, GIB))["FACP"]
    assert (len(facp), facp[8]) == (276, 6)
    flags, boot = struct.unpack_from("<I", facp, 112)[0], struct.unpack_from("<H", facp, 109)[0]
    assert flags & (1 << 20 | 1 << 10) == 1 << 20 | 1 << 10
    assert boot == 1 << 2 | 1 << 5, "no VGA, no RTC, no 8042"
    for offset in (116, 244, 256):
        assert struct.unpack_from("<BBBBQ", facp, offset) == (1, 8, 0, 1, layout.POWER_PORT)


@pytest.mark.parametrize("cpus", [1, 4, 32])
def test_every_processor_is_told_of(cpus: int) -> None:
    entries, rest = [], parsed(tables.build(cpus, GIB))["APIC"][44:]
    while rest:
        entries.append(rest[: rest[1]])
        rest = rest[rest[1] :]
    assert [entry[3] for entry in entries if entry[0] == 0] == list(range(cpus))
    assert [entry[0] for entry in entries[cpus:]] == [1, 4]


def test_too_many_processors() -> None:
    for cpus in (0, 33):
        with pytest.raises(ValueError, match="1 to 32"):
            tables.build(cpus, GIB)


def test_written_where_the_guest_looks() -> None:
    memory = GuestMemory(8 << 20)
    try:
        assert tables.write(memory, 2) == START
        image = tables.build(2, 8 << 20)
        assert memory.read(START, len(image)) == image
        first = memory.read(layout.VMGENID, 16)
        tables.new_generation(memory)
        assert first not in (bytes(16), memory.read(layout.VMGENID, 16))
    finally:
        memory.close()


@pytest.mark.skipif(IASL is None, reason="iasl is not installed (package acpica-tools)")
@pytest.mark.parametrize("cpus", [1, 4, 32])
@pytest.mark.parametrize("ram", [GIB // 8, 40 * GIB])
def test_acpica_reads_them_and_builds_them_again(tmp_path: Path, cpus: int, ram: int) -> None:
    for signature, table in parsed(tables.build(cpus, ram)).items():
        (tmp_path / f"{signature}.dat").write_bytes(table)
        text = _iasl("-d", f"{signature}.dat", cwd=tmp_path)
        assert not re.search("Error|Warning", text), text
        # without its optimisations, for the bytes to be the same again
        text = _iasl("-on", "-of", "-cr", f"{signature}.dsl", cwd=tmp_path)
        assert re.search(r"0 Errors, 0 Warnings", text), text
        again = (tmp_path / f"{signature}.aml").read_bytes()
        assert len(again) == len(table)
        assert again[36:] == table[36:], f"{signature} changed on the way"


def _iasl(*arguments: str, cwd: Path) -> str:
    done = subprocess.run([str(IASL), *arguments], cwd=cwd, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


# The writer


def test_integers_take_the_shortest_form() -> None:
    assert [aml.integer(value).hex() for value in (0, 1, 2, 0xFF, 0x100, 0x10000, 1 << 32)] == [
        "00", "01", "0a02", "0aff", "0b0001", "0c00000100", "0e0000000001000000",
    ]  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 40, 62, 63, 64, 4000, 4096, 70_000, 1 << 20, 1 << 21])
def test_package_lengths_count_themselves(size: int) -> None:
    term = aml.scope("ABCD", bytes(size))
    lead = term[1]
    extra = lead >> 6
    length = lead & 0x3F if not extra else (lead & 0xF) | int.from_bytes(term[2 : 2 + extra], "little") << 4
    assert length == len(term) - 1


def test_names() -> None:
    assert aml.path("A") == b"A___"
    assert aml.path("\\_SB.PCI0") == b"\\\x2e_SB_PCI0"
    assert aml.path("\\A.B.C") == b"\\\x2f\x03A___B___C___"
    with pytest.raises(ValueError, match="not an ACPI name"):
        aml.path("TOOLONG")
    assert aml.eisa_id("PNP0A08") == bytes.fromhex("0c41d00a08")
