"""What a disk's spec must be, and what its size means to qemu-img. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vmtui.backends.qcow2.files import plain
from vmtui.backends.qcow2.formats import FORMATS, MAX_VIRTUAL_BYTES, SECTOR_BYTES, Qcow2Header
from vmtui.backends.records import Record
from vmtui.core.errors import Conflict, Fault, InvalidInput, MissingCapability, NotPermitted
from vmtui.core.resource import Problem
from vmtui.core.specs import DiskSpec
from vmtui.core.units import Size


def contradictions(spec: DiskSpec) -> Iterator[InvalidInput]:
    """What is wrong with a spec by itself."""
    known = ", ".join(FORMATS)
    if spec.size is None and spec.source is None:
        yield InvalidInput("a disk needs a size or a source", hint='add size = "10GiB"')
    if spec.size is not None and not 0 < spec.size <= MAX_VIRTUAL_BYTES:
        yield InvalidInput(f"a qcow2 disk has 1 byte to {Size(MAX_VIRTUAL_BYTES)}", hint='write size = "10GiB"')
    if spec.source is None:
        return
    if not Path(spec.source).is_absolute():
        yield InvalidInput(f"{spec.source}: not an absolute path", hint=f"realpath {spec.source}")
    if spec.source_format is None:
        yield InvalidInput(
            f"{spec.source}: source_format is missing, and a format is never guessed", hint=f"add one of: {known}"
        )
    elif spec.source_format not in FORMATS:
        yield InvalidInput(f"{spec.source_format!r} is not a known image format", hint=f"use one of: {known}")


def too_small(what: str, wanted: Size, has: int) -> NotPermitted:
    """The refusal to shrink without the explicit word."""
    message = f"{what}: {wanted} is smaller than its {Size(has)}, and what is beyond would be lost"
    return NotPermitted(message, hint="add shrink = true to the disk")


def rounded(size: int) -> int:
    """The virtual size that qemu-img gives an image of `size`: whole sectors."""
    return -(-size // SECTOR_BYTES) * SECTOR_BYTES


def about(size: int) -> str:
    """A size for people who compare it with another: one decimal."""
    value, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.1f}{unit}"


def declared_size(record: Record[DiskSpec], header: Qcow2Header) -> int:
    """The image's size, as it was asked for if it is that but for rounding."""
    asked = record.desired.spec.size
    return int(asked) if asked is not None and rounded(asked) == header.size_bytes else header.size_bytes


def as_problem(error: BaseException) -> Problem:
    """A fault as `probe` and `check` tell it; the codes are those that the engine maps to errors again."""
    if isinstance(error, Fault):
        codes = {MissingCapability: "missing-capability", Conflict: "conflict", NotPermitted: "not-permitted"}
        message = f"{error.message}: {error.details}" if error.details else error.message
        return Problem(code=codes.get(type(error), "invalid"), message=message, hint=error.hint)
    return Problem(code="invalid", message=plain(error))
