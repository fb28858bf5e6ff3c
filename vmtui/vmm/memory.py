"""Guest memory: one shared memfd, mapped once, and the only way in which anything here touches it.

Guest addresses come from the guest and are hostile: every access is checked against what is RAM.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from typing import NamedTuple

from vmtui.vmm.arch.x86_64.layout import HOLE_END, HOLE_START

PAGE = 4096
# include/uapi/linux/memfd.h
MFD_HUGETLB, MFD_HUGE_2MB = 0x0004, 21 << 26
HUGE_PAGE = 2 << 20
MADV_POPULATE_WRITE = 23  # include/uapi/asm-generic/mman-common.h, Linux 5.14

_U16, _U32, _U64 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")


class GuestFault(Exception):
    """An address that is not guest RAM from end to end."""


class Region(NamedTuple):
    """A piece of RAM: where the guest sees it, where the memfd has it, where it is mapped here. In bytes."""

    guest_addr: int
    size_bytes: int
    file_offset: int
    host_addr: int


class GuestMemory:
    """RAM from 0 to the hole below 4 GiB, what does not fit there from 4 GiB on. `close` ends all views."""

    def __init__(self, size_bytes: int, *, hugepages: bool = False, prefault: bool = False) -> None:
        """`size_bytes`: a multiple of the page (2 MiB with `hugepages`). Raises OSError (no memory), ValueError."""
        page = HUGE_PAGE if hugepages else PAGE
        if size_bytes <= 0 or size_bytes % page:
            raise ValueError(f"{size_bytes} bytes of memory are not a multiple of {page}")
        self.size_bytes = size_bytes
        self.fd = os.memfd_create("guest", os.MFD_CLOEXEC | (MFD_HUGETLB | MFD_HUGE_2MB if hugepages else 0))
        try:
            os.ftruncate(self.fd, size_bytes)
            self._map = mmap.mmap(self.fd, size_bytes, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
            if prefault:
                self._map.madvise(MADV_POPULATE_WRITE)
        except BaseException:
            os.close(self.fd)
            raise
        self._bytes = memoryview(self._map)
        anchor = ctypes.c_char.from_buffer(self._map)
        host_addr = ctypes.addressof(anchor)
        del anchor
        self._low = low = min(size_bytes, HOLE_START)
        self.low = self._bytes[:low]  # RAM below the hole, for a data path that checks bounds by itself
        regions = [Region(0, low, 0, host_addr)]
        if size_bytes > low:
            regions.append(Region(HOLE_END, size_bytes - low, low, host_addr + low))
        self.regions = tuple(regions)
        self._high_end = HOLE_END + size_bytes - low
        self._shift = HOLE_END - low

    def _offset(self, addr: int, length: int) -> int:
        """Where in the file; raises GuestFault."""
        end = addr + length
        if 0 <= addr <= end <= self._low and length >= 0:
            return addr
        if HOLE_END <= addr <= end <= self._high_end:
            return addr - self._shift
        raise GuestFault(f"guest address {addr:#x}+{length:#x} is not RAM")

    def view(self, addr: int, length: int) -> memoryview:
        """`length` bytes as they are, writable, without a copy. The guest may change them at any time: read once."""
        end = addr + length
        if 0 <= addr <= end <= self._low and length >= 0:  # `_offset`, unrolled: this is the data path
            return self._bytes[addr:end]
        at = self._offset(addr, length)
        return self._bytes[at : at + length]

    def host_address(self, addr: int, length: int) -> int:
        """Where this process has it mapped, for who shares the mapping. Raises GuestFault."""
        return self.regions[0].host_addr + self._offset(addr, length)

    def read(self, addr: int, length: int) -> bytes:
        at = self._offset(addr, length)
        return bytes(self._bytes[at : at + length])

    def write(self, addr: int, data: bytes | bytearray | memoryview) -> None:
        at = self._offset(addr, len(data))
        self._bytes[at : at + len(data)] = data

    def u16(self, addr: int) -> int:
        """One load, whole if aligned (as are the others)."""
        value: int = _U16.unpack_from(self._bytes, self._offset(addr, 2))[0]
        return value

    def u32(self, addr: int) -> int:
        value: int = _U32.unpack_from(self._bytes, self._offset(addr, 4))[0]
        return value

    def u64(self, addr: int) -> int:
        value: int = _U64.unpack_from(self._bytes, self._offset(addr, 8))[0]
        return value

    def set_u16(self, addr: int, value: int) -> None:
        _U16.pack_into(self._bytes, self._offset(addr, 2), value)

    def set_u32(self, addr: int, value: int) -> None:
        _U32.pack_into(self._bytes, self._offset(addr, 4), value)

    def set_u64(self, addr: int, value: int) -> None:
        _U64.pack_into(self._bytes, self._offset(addr, 8), value)

    def discard(self, addr: int, length: int) -> None:
        """Give the pages back to the host (balloon); the guest reads zeros after. Raises GuestFault, OSError."""
        at = self._offset(addr, length)
        self._map.madvise(mmap.MADV_REMOVE, at, length)

    def close(self) -> None:
        """Views of devices that are still about end with the process; the file descriptor goes now."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            try:
                self._bytes.release()
                self._map.close()
            except BufferError:
                pass
