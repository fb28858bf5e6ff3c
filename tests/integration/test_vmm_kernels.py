"""Debian's own kernel, as apt fetches it, in guest memory: where a distribution's header leads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kernels import MIB, opened
from vmtui.core.backend import silent
from vmtui.guests import kernel as debian
from vmtui.vmm.arch.x86_64 import layout
from vmtui.vmm.arch.x86_64.registers import Protocol
from vmtui.vmm.boot import kernel as kernels
from vmtui.vmm.boot.source import BootError, BootFile
from vmtui.vmm.memory import GuestMemory

pytestmark = pytest.mark.real


@pytest.fixture
async def vmlinuz(warm_cache: Path) -> Path:
    found = await debian.resolve("deb:linux-image-cloud-amd64", warm_cache / "vmtui", silent)
    return found.image


@pytest.fixture
def kernel(vmlinuz: Path) -> Iterator[BootFile]:
    fd = os.open(vmlinuz, os.O_RDONLY)
    yield BootFile(fd, str(vmlinuz))
    os.close(fd)


def test_it_is_loaded_where_it_unpacks_without_moving(kernel: BootFile, vmlinuz: Path) -> None:
    memory = GuestMemory(256 * MIB)
    try:
        with opened(bytes(5 * MIB), "initrd") as initrd:
            entry = kernels.load(memory, kernel, "console=ttyS0 quiet", initrd)
        data = vmlinuz.read_bytes()
        code = data[(data[0x1F1] + 1) * 512 :]
        assert entry == (Protocol.LINUX_64, 0x1000200, layout.ZERO_PAGE)
        assert memory.read(0x1000000, len(code)) == code
        assert memory.u32(layout.ZERO_PAGE + 0x218) == 251 * MIB
        assert memory.read(layout.ZERO_PAGE + 0x1F1, 0x1F) == data[0x1F1:0x210]
    finally:
        memory.close()


def test_it_says_how_much_memory_it_needs(kernel: BootFile) -> None:
    memory = GuestMemory(64 * MIB)
    try:
        with pytest.raises(BootError, match=r"needs \d+ MiB to unpack, the VM has 64 MiB"):
            kernels.load(memory, kernel, "")
    finally:
        memory.close()
