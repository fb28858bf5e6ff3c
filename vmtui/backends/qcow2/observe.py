"""What the files and the kernel's locks show of a disk, without running anything and without taking a lock.

It must not get in the way of a guest that starts at the same moment, and it must be fast: a list reads every disk.
"""

from __future__ import annotations

import os
from pathlib import Path

from msgspec.structs import replace

from vmtui.backends.qcow2 import use
from vmtui.backends.qcow2.files import plain, reading
from vmtui.backends.qcow2.formats import Refused, read_qcow2
from vmtui.backends.qcow2.rules import declared_size
from vmtui.backends.records import Record
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Fact, Problem, Ref, Status
from vmtui.core.specs import DiskSpec
from vmtui.core.units import Size


def observe(ref: Ref, backend: str, path: Path, record: Record[DiskSpec] | None) -> Status:
    """The status of the disk whose image is, or should be, `path`. Faults go into problems."""
    status = Status(
        ref=ref,
        backend=backend,
        phase=Phase.AVAILABLE,
        spec_hash=record.desired.spec_hash if record else "",
        facts=(Fact(name="path", value=str(path)), Fact(name="format", value="qcow2")),
    )
    purge = f"vmtui rm --purge {ref.short}"
    if record is None:
        return _broken(status, "record-unreadable", f"{path.parent}: its record is missing or damaged", purge)
    if not record.complete:
        return _broken(status, "half-made", f"{ref}: making it was interrupted", purge)
    try:
        with reading(path) as fd:
            header = read_qcow2(fd)
            facts = (
                Fact(name="virtual size", value=str(Size(header.size_bytes))),
                Fact(name="allocated", value=str(Size(os.fstat(fd).st_blocks * 512))),
                Fact(name="use", value=str(use.usage(fd))),
            )
    except FileNotFoundError:
        return _broken(status, "image-missing", f"{path}: the image is gone", purge)
    except Refused as refusal:
        return _broken(status, "image-damaged", f"{path}: {refusal}", purge)
    except OSError as error:
        return _broken(status, "image-unreadable", f"{path}: {plain(error)}", f"ls -l {path}")
    status = replace(status, size_bytes=declared_size(record, header), facts=(*status.facts, *facts))
    if header.corrupt:
        return _broken(
            status, "image-corrupt", f"{path}: it is marked as corrupt", f"qemu-img check -r all -f qcow2 {path}"
        )
    return status


def _broken(status: Status, code: str, message: str, hint: str) -> Status:
    return replace(status, phase=Phase.BROKEN, problems=(Problem(code=code, message=message, hint=hint),))
