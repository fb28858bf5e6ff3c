"""The initramfs that the lab starts from: busybox, and the modules without which it cannot see the host's files."""

from __future__ import annotations

from pathlib import Path

from tests.lab.host import cache
from vmtui.core.errors import Fault
from vmtui.guests import cpio
from vmtui.guests.kernel import Kernel
from vmtui.guests.modules import Modules
from vmtui.host.files import write_atomic

INIT = Path(__file__).parent / "guest/init"
MODULES = (
    "virtio_pci",
    "9pnet_virtio",
    "9p",
    "overlay",
    "virtio_console",
    "virtio_rng",
    "virtio_blk",
    "crc32c_generic",
    "ext4",
)


def built(kernel: Kernel) -> Path:
    """The initramfs for that kernel; made anew when what goes into it is younger. Raises Fault."""
    if kernel.modules is None:
        raise Fault(f"kernel {kernel.image} has no modules", hint=f"rm -r {cache.folder()}")
    target = cache.folder() / f"initramfs-{kernel.release}"
    sources = (INIT, Path(__file__), kernel.image)
    if not target.exists() or any(source.stat().st_mtime > target.stat().st_mtime for source in sources):
        write_atomic(target, _archive(cache.busybox(), Modules(kernel.modules)))
    return target


def _archive(busybox: Path, modules: Modules) -> bytes:
    order = modules.load_order(MODULES)
    entries = [cpio.directory(name) for name in ("modules", "host", "lab", "disk", "ram", "base", "new")]
    entries.append(cpio.file("busybox", busybox.read_bytes(), mode=0o755))
    entries.append(cpio.file("init", INIT.read_bytes(), mode=0o755))
    entries.append(cpio.file("modules/order", "".join(f"{name}\n" for name in order).encode()))
    entries += [cpio.file(f"modules/{name}.ko", modules.read(name)) for name in order]
    return cpio.archive(entries)
