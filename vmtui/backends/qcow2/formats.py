"""What an image file says of itself, read before qemu-img opens it, so that nothing it names is ever followed.

Every reader takes the first bytes, and the file's size, of a file that may be hostile.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

FORMATS = ("raw", "qcow2", "vmdk", "vdi", "vhdx", "vpc")
HEAD_BYTES = 64 << 10
SECTOR_BYTES = 512

# docs/interop/qcow2.txt of QEMU: the header, all fields big endian; the second part is of version 3 alone
QCOW2_MAGIC = 0x514649FB
QCOW2_V2 = struct.Struct(">IIQIIQIIQQIIQ")
QCOW2_V3 = struct.Struct(">QQQII")
INCOMPATIBLE_CORRUPT, INCOMPATIBLE_DATA_FILE, INCOMPATIBLE_KNOWN = 1 << 1, 1 << 2, 0x1F
CLUSTER_BITS = range(9, 22)
MAX_L1_BYTES = 32 << 20  # QCOW_MAX_L1_SIZE, block/qcow2.h
MAX_SNAPSHOTS = 256  # of an image to import: qemu-img info lists them all
MAX_VIRTUAL_BYTES = MAX_L1_BYTES // 8 * (64 << 10) // 8 * (64 << 10)  # what that L1 table can map, clusters of 64 KiB

VMDK_CAPACITY = struct.Struct(
    "<4sIIQ"
)  # magic, version, flags, capacity: VMware Virtual Disk Format 5.0, "hosted sparse"
VMDK_SPARSE, VMDK_ESX_SPARSE, VMDK_DESCRIPTOR = b"KDMV", b"COWD", b"# Disk DescriptorFile"
VDI_MAGIC = 0xBEDA107F  # block/vdi.c of QEMU: signature at 0x40, the layout at 0x154
VDI_DYNAMIC, VDI_STATIC = 1, 2
VPC_COOKIE, VPC_TYPES, VPC_DIFFERENCING = b"conectix", (2, 3), 4  # Virtual Hard Disk Image Format Specification 1.0
# MS-VHDX 2.2.3 (region table at 192 KiB) and 2.6 (metadata)
VHDX_SIGNATURE, VHDX_REGION_TABLE, VHDX_REGIONS = b"vhdxfile", 192 << 10, b"regi"
VHDX_METADATA_REGION = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
VHDX_FILE_PARAMETERS = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
VHDX_MAX_ENTRIES, VHDX_HAS_PARENT = 2047, 1 << 1


class Refused(ValueError):
    """The file is not what it is said to be, or refers to others. The message continues "PATH: "."""


@dataclass(frozen=True, slots=True)
class Qcow2Header:
    """The part of a qcow2 header that is of use here."""

    version: int
    size_bytes: int
    cluster_bytes: int
    snapshots: int
    corrupt: bool

    @classmethod
    def parse(cls, head: bytes, file_bytes: int) -> Qcow2Header:
        """Raises Refused: not qcow2, cut off, encrypted, or referring to other files."""
        if len(head) < QCOW2_V2.size or head[:4] != QCOW2_MAGIC.to_bytes(4, "big"):
            raise Refused("not a qcow2 image")
        (_, version, backing_offset, backing_bytes, cluster_bits, size, crypt, l1_entries, l1_offset,
         refcount_offset, _, snapshots, _) = QCOW2_V2.unpack_from(head)  # fmt: skip
        incompatible = 0
        if version == 3:
            if len(head) < QCOW2_V2.size + QCOW2_V3.size:
                raise Refused("its qcow2 header is cut off")
            incompatible = QCOW2_V3.unpack_from(head, QCOW2_V2.size)[0]
        elif version != 2:
            raise Refused(f"qcow2 version {version} is not known")
        if backing_offset or backing_bytes:
            raise Refused("it refers to a backing file")
        if incompatible & INCOMPATIBLE_DATA_FILE:
            raise Refused("it refers to an external data file")
        if incompatible & ~INCOMPATIBLE_KNOWN:
            raise Refused(f"it needs qcow2 features that are not known ({incompatible:#x})")
        if crypt:
            raise Refused("it is encrypted")
        if cluster_bits not in CLUSTER_BITS or l1_entries * 8 > MAX_L1_BYTES:
            raise Refused("its qcow2 header is damaged")
        if l1_offset + l1_entries * 8 > file_bytes or refcount_offset >= file_bytes:
            raise Refused("it is cut off")
        return cls(version, size, 1 << cluster_bits, snapshots, bool(incompatible & INCOMPATIBLE_CORRUPT))


def read_qcow2(fd: int) -> Qcow2Header:
    """The header of an open file. Raises Refused, OSError."""
    return Qcow2Header.parse(os.pread(fd, 4096, 0), os.fstat(fd).st_size)


def verify(fd: int, image_format: str) -> None:
    """Raises Refused unless the open file is of `image_format`, whole as far as it says, and refers to no other file.

    Raw is whatever it is: a raw disk may well begin as another format does, since its guest wrote it.
    """
    file_bytes = os.fstat(fd).st_size
    if file_bytes == 0:
        raise Refused("it is empty")
    reader = _READERS.get(image_format)
    if reader is not None:
        reader(fd, file_bytes)


def _qcow2(fd: int, _file_bytes: int) -> None:
    header = read_qcow2(fd)
    if header.snapshots > MAX_SNAPSHOTS:
        raise Refused(f"it has {header.snapshots} snapshots, {MAX_SNAPSHOTS} is the most")
    if header.corrupt:
        raise Refused("it is marked as corrupt")


def _vmdk(fd: int, _file_bytes: int) -> None:
    head = os.pread(fd, HEAD_BYTES, 0)
    if head.startswith(VMDK_DESCRIPTOR):
        raise Refused("it is a vmdk descriptor, which refers to other files")
    if len(head) < VMDK_CAPACITY.size or head[:4] not in (VMDK_SPARSE, VMDK_ESX_SPARSE):
        raise Refused("not a vmdk image")
    if head[:4] == VMDK_SPARSE and VMDK_CAPACITY.unpack_from(head)[3] == 0:
        raise Refused("it holds a vmdk descriptor only, which refers to other files")
    if b"parentFileNameHint" in head:
        raise Refused("it refers to a parent file")


def _vdi(fd: int, file_bytes: int) -> None:
    head = os.pread(fd, SECTOR_BYTES, 0)
    if len(head) < SECTOR_BYTES or struct.unpack_from("<I", head, 0x40)[0] != VDI_MAGIC:
        raise Refused("not a vdi image")
    if struct.unpack_from("<I", head, 0x4C)[0] not in (VDI_DYNAMIC, VDI_STATIC):
        raise Refused("it is a differencing vdi image, which refers to a parent file")
    data_offset = struct.unpack_from("<I", head, 0x158)[0]
    block_bytes, _, _, allocated = struct.unpack_from("<IIII", head, 0x178)
    if data_offset + block_bytes * allocated > file_bytes:  # qemu-img reads zeros where a vdi file is cut off
        raise Refused("it is cut off")


def _vhdx(fd: int, _file_bytes: int) -> None:
    if os.pread(fd, len(VHDX_SIGNATURE), 0) != VHDX_SIGNATURE:
        raise Refused("not a vhdx image")
    regions = os.pread(fd, HEAD_BYTES, VHDX_REGION_TABLE)
    metadata = _vhdx_entry(regions, VHDX_REGIONS, "<I", 8, 16, VHDX_METADATA_REGION)
    offset = int.from_bytes(metadata[16:24], "little")
    if offset >= 1 << 63:
        raise Refused("its vhdx header is damaged")
    table = os.pread(fd, HEAD_BYTES, offset)
    entry = _vhdx_entry(table, b"metadata", "<H", 10, 32, VHDX_FILE_PARAMETERS)
    parameters = os.pread(fd, 8, offset + int.from_bytes(entry[16:20], "little"))
    if len(parameters) < 8 or int.from_bytes(parameters[4:], "little") & VHDX_HAS_PARENT:
        raise Refused("it is a differencing vhdx image, which refers to a parent file")


def _vhdx_entry(table: bytes, signature: bytes, count: str, at: int, first: int, guid: bytes) -> bytes:
    if len(table) < HEAD_BYTES or not table.startswith(signature):
        raise Refused("its vhdx header is damaged")
    entries = min(struct.unpack_from(count, table, at)[0], VHDX_MAX_ENTRIES)
    for offset in range(first, min(first + entries * 32, HEAD_BYTES - 31), 32):
        if table[offset : offset + 16] == guid:
            return table[offset : offset + 32]
    raise Refused("its vhdx header is damaged")


def _vpc(fd: int, file_bytes: int) -> None:
    head = os.pread(fd, SECTOR_BYTES, 0)
    end = os.pread(fd, SECTOR_BYTES, max(0, file_bytes - SECTOR_BYTES))
    found = [footer for footer in (head, end) if len(footer) == SECTOR_BYTES and footer.startswith(VPC_COOKIE)]
    if not found:
        raise Refused("not a vpc image")
    for footer in found:
        disk_type = struct.unpack_from(">I", footer, 60)[0]
        if disk_type == VPC_DIFFERENCING:
            raise Refused("it is a differencing vpc image, which refers to a parent file")
        if disk_type not in VPC_TYPES:
            raise Refused(f"vpc disk type {disk_type} is not known")


_READERS: dict[str, Callable[[int, int], None]] = {
    "qcow2": _qcow2,
    "vmdk": _vmdk,
    "vdi": _vdi,
    "vhdx": _vhdx,
    "vpc": _vpc,
}
