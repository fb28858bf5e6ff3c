"""Kernel modules as files: which ones a guest needs, in the order in which they load.

A package that was unpacked, not installed, has no modules.dep (depmod makes it), so dependencies are read from the
modules themselves.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from vmtui.core.errors import InvalidInput

SUFFIXES = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")
MAX_MODULE_BYTES = 64 << 20
# What the guest's init loads, if the kernel has it as a module: transports first.
WANTED = (
    "virtio_pci",
    "virtio_mmio",
    "virtio_console",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "af_packet",
    "button",
    "evdev",
    "pvpanic_mmio",
    "pvpanic_pci",
    "vmw_vsock_virtio_transport",
)
# What it can load when a file system of that kind is mounted.
FILE_SYSTEMS = ("ext4", "vfat", "xfs", "btrfs", "overlay", "squashfs", "isofs")


def canonical(name: str) -> str:
    """The kernel takes - and _ in module names for the same."""
    return name.replace("-", "_")


class Modules:
    """The modules of one kernel, found under lib/modules/VERSION."""

    def __init__(self, root: Path) -> None:
        self._files = dict(_files(root))

    def load_order(self, names: Iterable[str]) -> list[str]:
        """The named modules that exist, each after those it depends on. Built-in ones have no file: left out."""
        order: list[str] = []
        for name in names:
            self._visit(canonical(name), order, ())
        return order

    def _visit(self, name: str, order: list[str], above: tuple[str, ...]) -> None:
        if name in order or name in above or name not in self._files:
            return
        for dependency in depends(self.read(name)):
            self._visit(canonical(dependency), order, (*above, name))
        order.append(name)

    def read(self, name: str) -> bytes:
        """The module's ELF image, uncompressed. Raises InvalidInput."""
        path = self._files[name]
        try:
            data = uncompressed(path)
        except (OSError, ValueError, EOFError, ImportError) as error:
            raise InvalidInput(f"cannot read kernel module {path}: {error}") from None
        if len(data) > MAX_MODULE_BYTES:
            raise InvalidInput(f"kernel module {path} is too large")
        return data


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    for path in root.rglob("*.ko*"):
        for suffix in SUFFIXES:
            if path.name.endswith(suffix):
                yield canonical(path.name.removesuffix(suffix)), path


def uncompressed(path: Path) -> bytes:
    """What is in a module's file. Raises OSError, ValueError, EOFError, ImportError (no zstandard)."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        import lzma

        try:
            return lzma.LZMADecompressor().decompress(data, MAX_MODULE_BYTES + 1)
        except lzma.LZMAError as error:
            raise ValueError(str(error)) from None
    if path.suffix == ".gz":
        import zlib

        try:
            return zlib.decompressobj(wbits=31).decompress(data, MAX_MODULE_BYTES + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from None
    if path.suffix == ".zst":
        import zstandard

        try:
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from None
    return data


def depends(module: bytes) -> list[str]:
    """The names in the "depends=" entry of an ELF64 module's .modinfo section. Raises InvalidInput."""
    for entry in _section(module, b".modinfo").split(b"\0"):
        key, _, value = entry.partition(b"=")
        if key == b"depends":
            return [name for name in value.decode("ascii", "replace").split(",") if name]
    return []


def _section(elf: bytes, wanted: bytes) -> bytes:
    """A section's bytes by name (elf(5): e_shoff at 40, e_shentsize at 58); b"" if there is none."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise InvalidInput("a kernel module is not a little-endian ELF64 file")
    try:
        (table,) = struct.unpack_from("<Q", elf, 40)
        size, count, names_index = struct.unpack_from("<HHH", elf, 58)
        headers = [struct.unpack_from("<IIQQQQ", elf, table + number * size) for number in range(count)]
        names_at = headers[names_index][4]
    except (struct.error, IndexError) as error:
        raise InvalidInput(f"a kernel module has a broken section table: {error}") from None
    for name, _, _, _, offset, length in headers:
        if elf[names_at + name : names_at + name + len(wanted) + 1] == wanted + b"\0":
            return elf[offset : offset + length]
    return b""
