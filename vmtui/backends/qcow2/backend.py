"""Disks as qcow2 files: made, imported, resized, checked and copied out by qemu-img, looked at without it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

from msgspec.structs import replace

from vmtui.backends.qcow2 import image, use, watch
from vmtui.backends.qcow2.files import commit, free_bytes, plain_errors, publish, reading
from vmtui.backends.qcow2.formats import FORMATS, MAX_VIRTUAL_BYTES, Qcow2Header, Refused, read_qcow2
from vmtui.backends.qcow2.observe import observe
from vmtui.backends.qcow2.rules import about, as_problem, contradictions, rounded, too_small
from vmtui.backends.records import Record, Records
from vmtui.core.backend import (
    Backend,
    Context,
    Desired,
    DiskAttachment,
    DiskImage,
    FileTree,
    HasFiles,
    Probe,
    Progress,
    Report,
    Resizable,
)
from vmtui.core.errors import (
    Conflict,
    Fault,
    InvalidInput,
    MissingCapability,
    NotFound,
    NotPermitted,
    OperationFailed,
    ResourceBusy,
)
from vmtui.core.resource import Fact, Kind, Problem, Ref, Status
from vmtui.core.specs import DiskSpec
from vmtui.core.units import Size
from vmtui.host.files import write_atomic
from vmtui.host.process import which

IMAGE = "disk.qcow2"
PARTIAL = "disk.qcow2.partial"
CONSUMER = "consumer"  # the last one that attached it: names the user of an image that the kernel says is in use
SERIAL_BYTES = 20  # VIRTIO_BLK_ID_BYTES, virtio 5.2.6
PROBE_BYTES = 1 << 20


class Qcow2Backend(Backend[DiskSpec]):
    """One directory per disk: its record, `disk.qcow2`, and who attached it last."""

    name: ClassVar[str] = "qcow2"
    kind: ClassVar[Kind] = Kind.DISK

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._records = Records(context, self.kind, DiskSpec, self.name)

    # Looking

    async def probe(self) -> Probe:
        """Makes, checks and drops a tiny image in memory."""
        facts: tuple[tuple[str, str], ...] = ()
        problems: tuple[Problem, ...] = ()
        try:
            facts = (("qemu-img", await image.version()), ("path", which(image.QEMU_IMG)))
            problems = await _try_image()
        except (Fault, Refused, OSError) as error:
            problems = (as_problem(error),)
        summary = problems[0].message if problems else f"qemu-img {facts[0][1]} makes and checks images"
        return Probe(
            backend=self.name, kind=self.kind, usable=not problems, summary=summary, problems=problems, facts=facts
        )

    async def scan(self) -> Sequence[Status]:
        return [status for ref in self._records.refs() if (status := self._observe(ref)) is not None]

    async def inspect(self, ref: Ref) -> Status:
        status = self._observe(ref)
        if status is None:
            raise _absent(ref)
        if status.fact("use") in (use.Use.READ, use.Use.WRITTEN):
            users = await asyncio.to_thread(use.holders, self._image(ref))
            facts = [Fact(name="used by", value=str(user)) for user in users]
            if consumer := self._consumer(ref):
                facts.append(Fact(name="attached to", value=str(consumer)))
            status = replace(status, facts=(*status.facts, *facts))
        return status

    def watch(self) -> AsyncIterator[Ref]:
        return watch.changes(self.context.paths.state)

    async def check(self, desired: Desired[DiskSpec], others: Sequence[Desired[Any]]) -> Sequence[Problem]:  # noqa: ARG002
        spec = desired.spec
        problems = [as_problem(fault) for fault in contradictions(spec)]
        try:
            which(image.QEMU_IMG)
            if self._records.foreign(desired.ref):
                raise self._taken(desired.ref)
            if not problems and spec.source is not None and spec.source_format is not None:
                with image.opened(Path(spec.source), spec.source_format) as source:
                    await self._measure(source, spec)
        except (Fault, OSError) as error:
            problems.append(as_problem(error))
        return tuple(problems)

    # Making and removing

    async def create(self, desired: Desired[DiskSpec], report: Report) -> None:
        """The record is complete only when the image is. A finished image is never replaced."""
        ref, path = desired.ref, self._image(desired.ref)
        if self._records.foreign(ref):
            raise self._taken(ref)
        for fault in contradictions(desired.spec):
            raise fault
        if self._finished(ref):
            self._refuse_other(desired)
            return
        partial = path.with_name(PARTIAL)
        with plain_errors(ref):
            try:
                self._records.remove(ref)  # what an interrupted run left
                if desired.spec.size is not None and desired.spec.source is None:
                    self._records.begin(desired)
                    await image.create(partial, int(desired.spec.size))
                else:
                    await self._import(desired, partial, report)
                await asyncio.to_thread(commit, partial, path)
                self._records.finish(desired)
            except BaseException:
                with contextlib.suppress(OSError):
                    self._records.remove(ref)
                raise

    async def _import(self, desired: Desired[DiskSpec], partial: Path, report: Report) -> None:
        spec = desired.spec
        assert spec.source is not None
        assert spec.source_format is not None
        with image.opened(Path(spec.source), spec.source_format) as source:
            report(Progress(message=f"checking {source.path}"))
            found, required = await self._measure(source, spec)
            await image.verify_content(source)
            self._records.begin(desired)
            await image.convert(source, partial, report, limit_bytes=required)
        if spec.size is not None and rounded(spec.size) != found.virtual_size:
            await image.resize(partial, int(spec.size), shrink=spec.shrink)

    async def _measure(self, source: image.Source, spec: DiskSpec) -> tuple[image.Info, int]:
        """Raises if it cannot become the disk that `spec` says, or if another process still writes it."""
        await asyncio.to_thread(use.refuse_writers, source.path.resolve())
        found = await image.info(source)
        if found.virtual_size > MAX_VIRTUAL_BYTES:
            raise InvalidInput(f"{source.path}: a qcow2 disk cannot be as large as {Size(found.virtual_size)}")
        if spec.size is not None and rounded(spec.size) < found.virtual_size and not spec.shrink:
            raise too_small(str(source.path), spec.size, found.virtual_size)
        required, state = await image.required_bytes(source), self.context.paths.state
        free = free_bytes(state)
        if required > free:
            raw = source.image_format == "raw"  # zeros that are written count, holes do not
            hint = f"fallocate --dig-holes {shlex.quote(str(source.path))}" if raw else f"df -h {state}"
            sizes = f"importing it may take {about(required)}, {about(free)} are free in {state}"
            raise MissingCapability(f"{source.path}: {sizes}", hint=hint)
        return found, required

    def _refuse_other(self, desired: Desired[DiskSpec]) -> None:
        """Raises unless the disk that exists is, in good order, the one that is desired."""
        ref = desired.ref
        status = self._observe(ref)
        if status is not None and status.problems:
            problem = status.problems[0]
            raise OperationFailed(f"{problem.message}; the file is left as it is", hint=problem.hint)
        if status is not None and status.spec_hash != desired.spec_hash:
            hint = f"vmtui --profile FILE --recreate {ref.short}"
            raise NotPermitted(f"{ref} exists, made from another source, and keeps its data", hint=hint)

    async def delete(self, ref: Ref, *, purge: bool) -> None:
        """Without `purge` a disk with data stays as it is, and that is success."""
        if self._records.foreign(ref) or (self._finished(ref) and not purge):
            return
        with plain_errors(ref):
            await asyncio.to_thread(self._remove, ref)

    def _remove(self, ref: Ref) -> None:
        path = self._image(ref)
        regular = path.is_file() and not path.is_symlink()
        with use.exclusive(path) if regular else contextlib.nullcontext():
            self._records.remove(ref)

    # Roles

    async def resize(self, desired: Desired[Any], *, shrink: bool, report: Report) -> None:
        """A smaller size only with `shrink`. After failure the old size stands, and so does the record."""
        ref, size = desired.ref, desired.spec.size
        record, header = self._whole(ref)
        with plain_errors(ref):
            if size is not None and rounded(size) != header.size_bytes:
                if rounded(size) < header.size_bytes and not shrink:
                    raise too_small(str(ref), size, header.size_bytes)
                await self._refuse_used(ref)
                report(Progress(message=f"resizing to {size}"))
                await image.resize(self._image(ref), rounded(size), shrink=shrink)
            if desired.spec_hash != record.desired.spec_hash:  # what it was made from has not changed
                made_from = replace(record.desired.spec, size=size, shrink=desired.spec.shrink)
                desired = replace(record.desired, spec=made_from)
            self._records.finish(desired)

    async def attach(self, ref: Ref, consumer: Ref) -> DiskAttachment:
        """The last consumer may attach again while it runs; QEMU's own locks have the last word."""
        self._whole(ref)
        path = self._image(ref)
        if self._consumer(ref) != consumer:
            with plain_errors(ref):
                await self._refuse_used(ref)
                write_atomic(path.with_name(CONSUMER), str(consumer).encode())
        token = ref.token(self.context.workspace)
        serial = ref.name if len(ref.name) <= SERIAL_BYTES else f"{ref.name[: SERIAL_BYTES - len(token) - 1]}-{token}"
        return DiskAttachment(ref=ref, path=str(path), format="qcow2", serial=serial)

    async def export(self, ref: Ref, target: Path, image_format: str, report: Report) -> None:
        """An existing target is refused. The copy appears under its name only when it is whole."""
        if image_format not in FORMATS:
            raise InvalidInput(
                f"{image_format!r} is not a known image format", hint=f"use one of: {', '.join(FORMATS)}"
            )
        self._whole(ref)
        target = target.absolute()
        if os.path.lexists(target):
            raise Conflict(f"{target} exists", hint=f"ls -l {shlex.quote(str(target))}")
        if not target.parent.is_dir():
            raise InvalidInput(
                f"{target.parent}: no such directory", hint=f"mkdir -p {shlex.quote(str(target.parent))}"
            )
        # a directory of its own, as some formats hold their file's name; a fixed one, so that the next run clears it
        work = target.parent / f".vmtui-{ref.token(self.context.workspace, str(target))}"
        with plain_errors(ref):
            await self._refuse_written(ref)
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(mode=0o700)
            try:
                await image.export(self._image(ref), work / target.name, image_format, report)
                await asyncio.to_thread(publish, work / target.name, target)
            finally:
                shutil.rmtree(work, ignore_errors=True)

    async def check_image(self, ref: Ref) -> Sequence[Problem]:
        """Raises ResourceBusy while it is written to: a check of a changing image finds faults that are none."""
        status = await self.inspect(ref)
        if status.problems:
            return status.problems
        path = self._image(ref)
        with plain_errors(ref):
            await self._refuse_written(ref)
            return await image.check(path, path.stat().st_size)

    async def files(self, ref: Ref) -> Sequence[FileTree]:
        """The image, to be read: what somebody wrote into it could name other files of the host."""
        path = self._image(ref)
        return [FileTree(name=path.name, path=str(path), image=True)] if self._observe(ref) and path.is_file() else []

    def held(self, ref: Ref) -> AbstractContextManager[None]:
        return use.exclusive(self._image(ref))

    # What is there

    def _image(self, ref: Ref) -> Path:
        return self.context.resource_dir(ref) / IMAGE

    def _observe(self, ref: Ref) -> Status | None:
        """None if there is no such disk, or it is not ours."""
        record = self._records.read(ref)
        if record is None and (self._records.foreign(ref) or not self.context.resource_dir(ref).is_dir()):
            return None
        return observe(ref, self.name, self._image(ref), record)

    def _finished(self, ref: Ref) -> bool:
        """Whether there is an image that may hold data: one whose record is complete, or lost."""
        record = self._records.read(ref)
        return os.path.lexists(self._image(ref)) and (record is None or record.complete)

    def _whole(self, ref: Ref) -> tuple[Record[DiskSpec], Qcow2Header]:
        """Raises NotFound, or OperationFailed with the first problem."""
        status, record = self._observe(ref), self._records.read(ref)
        if status is None:
            raise _absent(ref)
        if status.problems:
            raise OperationFailed(status.problems[0].message, hint=status.problems[0].hint)
        if record is None:
            raise _absent(ref)
        with plain_errors(ref), reading(self._image(ref)) as fd:
            return record, read_qcow2(fd)

    def _consumer(self, ref: Ref) -> Ref | None:
        try:
            return Ref.parse(self._image(ref).with_name(CONSUMER).read_text())
        except (OSError, ValueError):
            return None

    async def _refuse_used(self, ref: Ref) -> None:
        """Raises ResourceBusy if another process writes to the image, or needs it unchanged."""
        try:
            await asyncio.to_thread(use.refuse_users, self._image(ref))
        except ResourceBusy as fault:
            raise self._busy(ref, fault) from None

    async def _refuse_written(self, ref: Ref) -> None:
        """Raises ResourceBusy if another process writes to the image."""
        try:
            await asyncio.to_thread(use.refuse_writers, self._image(ref))
        except ResourceBusy as fault:
            raise self._busy(ref, fault) from None

    def _busy(self, ref: Ref, fault: ResourceBusy) -> ResourceBusy:
        consumer = self._consumer(ref)
        attached = f", attached to {consumer}" if consumer else ""
        return ResourceBusy(f"{ref}: {fault.message}{attached}", hint=fault.hint)

    def _taken(self, ref: Ref) -> Conflict:
        directory = self.context.resource_dir(ref)
        return Conflict(f"{directory} belongs to another backend or workspace", hint=f"cat {directory}/record.json")


_RESIZABLE: type[Resizable] = Qcow2Backend
_DISK_IMAGE: type[DiskImage] = Qcow2Backend
_HAS_FILES: type[HasFiles] = Qcow2Backend


def _absent(ref: Ref) -> NotFound:
    return NotFound(f"there is no disk {ref}", hint="vmtui ls")


async def _try_image() -> tuple[Problem, ...]:
    fd = os.memfd_create("vmtui-probe")
    try:
        path = f"/proc/self/fd/{fd}"
        await image.create(path, PROBE_BYTES, pass_fds=(fd,))
        if (made := read_qcow2(fd).size_bytes) != PROBE_BYTES:
            return (
                Problem(code="image-damaged", message=f"qemu-img made {made} bytes where {PROBE_BYTES} were asked"),
            )
        return await image.check(path, os.fstat(fd).st_size, pass_fds=(fd,))
    finally:
        os.close(fd)
