"""Kernels to boot directly: a path, or `deb:PACKAGE`."""

from __future__ import annotations

import shlex
import struct
from dataclasses import dataclass
from pathlib import Path

from vmtui.core.backend import Report
from vmtui.core.errors import InvalidInput
from vmtui.guests import packages
from vmtui.host.files import open_regular

DEB = "deb:"
REAL_PACKAGE = r"linux-image-\d.*"  # what the metapackages linux-image-*-amd64 depend on

# Documentation/arch/x86/boot.rst: offsets in the setup header of a bzImage.
SETUP_SECTS = 0x1F1
BOOT_FLAG = 0x1FE
HEADER = 0x202
VERSION_POINTER = 0x20E
MAGIC = b"HdrS"
OLDEST_PROTOCOL = 0x206  # the one that tells the length of the command line
READ_BYTES = 64 << 10
COMMAND_LINE_MAX = 2047  # COMMAND_LINE_SIZE of x86, less the final zero


@dataclass(frozen=True, slots=True)
class Kernel:
    """A bzImage, and the folder of its modules (None: it has none, or they were not found)."""

    image: Path
    release: str
    modules: Path | None


async def resolve(source: str, cache: Path, report: Report) -> Kernel:
    """Find or fetch a kernel. Raises InvalidInput (not a kernel), Fault (unknown package, no network)."""
    if not source.startswith(DEB):
        return of_file(Path(source))
    tree = await packages.unpacked(source.removeprefix(DEB), cache / "kernels", report, real=REAL_PACKAGE)
    image = next(iter(sorted(tree.glob("boot/vmlinuz-*"))), None)
    if image is None:
        raise InvalidInput(
            f"{source} is not a kernel: the package has no boot/vmlinuz-*", hint="apt-cache search linux-image"
        )
    return of_file(image)


def of_file(image: Path) -> Kernel:
    """Raises InvalidInput: unreadable, or not a bzImage."""
    release = release_of(image)
    # /boot/vmlinuz-RELEASE and /lib/modules/RELEASE, or the same two in an unpacked package.
    root = image.resolve().parent.parent
    found = (root / prefix / "modules" / release for prefix in ("lib", "usr/lib"))
    return Kernel(image, release, next((path for path in found if release and path.is_dir()), None))


def release_of(image: Path) -> str:
    """The release that a bzImage says it is, as `uname -r` would. Raises InvalidInput."""
    try:
        with open_regular(image) as file:
            head = file.read(READ_BYTES)
    except OSError as error:
        hint = f"ls -l {shlex.quote(str(image))}"
        raise InvalidInput(f"cannot read kernel {image}: {(error.strerror or '').lower()}", hint=hint) from None
    if (
        len(head) < HEADER + 0x20
        or head[HEADER : HEADER + 4] != MAGIC
        or head[BOOT_FLAG : BOOT_FLAG + 2] != b"\x55\xaa"
    ):
        raise InvalidInput(
            f"{image} is not a kernel: it lacks the bzImage header",
            hint="set kernel to a vmlinuz file, or to deb:linux-image-cloud-amd64",
        )
    (protocol,) = struct.unpack_from("<H", head, HEADER + 4)
    if protocol < OLDEST_PROTOCOL:
        raise InvalidInput(
            f"kernel {image} is too old: boot protocol {protocol >> 8}.{protocol & 0xFF:02}",
            hint='set kernel = "deb:linux-image-cloud-amd64"',
        )
    (pointer,) = struct.unpack_from("<H", head, VERSION_POINTER)
    if not pointer or pointer >= (head[SETUP_SECTS] or 4) * 512:
        return ""
    words = head[pointer + 0x200 :].split(b"\0", 1)[0][:256].decode("ascii", "replace").split()
    return words[0] if words and "/" not in words[0] else ""
