"""qemu-img: the one place that runs it, reads what it says, and turns its failures into errors for people.

Every call names the format, so that nothing is ever probed, and runs under limits. No call uses `-U`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from vmtui.backends.qcow2 import use
from vmtui.backends.qcow2.files import no_space, plain
from vmtui.backends.qcow2.formats import Refused, verify
from vmtui.core.backend import Progress, Report
from vmtui.core.errors import CommandFailed, Fault, InvalidInput, OperationFailed, ResourceBusy
from vmtui.core.resource import Problem
from vmtui.host.process import Completed, Limits, run, tail

QEMU_IMG = "qemu-img"
ADDRESS_SPACE_BYTES = 2 << 30  # its 64 threads' stacks take 512 MiB of it, the largest qcow2 tables 64 MiB
QUICK_CPU_S = 20
SLOWEST_CPU_BYTES_S = 8 << 20  # zlib on a slow machine
SLOWEST_BYTES_S = 1 << 20  # a slow disk: what takes longer has stalled
SLACK_BYTES = 64 << 20  # of a target beyond what `measure` foresees
OUTPUT_BYTES = 4 << 20
PROGRESS = re.compile(rb"\((\d{1,3}(?:\.\d{1,4})?)/100%\)")
PROGRESS_TAIL_BYTES = 32
EXPORT_OPTIONS = {"vpc": ("-o", "force_size=on")}  # without it the size is rounded to a CHS geometry
CLEAN, CORRUPTIONS, LEAKS = 0, 2, 3  # exit codes of qemu-img check, docs/tools/qemu-img.rst
LOCKED = re.compile(r"Failed to (?:get|lock)")
NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded")
READS = frozenset({"--version", "info", "measure", "check"})
EXHAUSTED = (-signal.SIGXCPU, -signal.SIGXFSZ, -signal.SIGABRT, -signal.SIGKILL)
NO_MEMORY = re.compile(r"Cannot allocate memory|failed to allocate|out of memory|Could not allocate", re.IGNORECASE)


class Extent(msgspec.Struct, frozen=True, rename="kebab"):
    filename: str = ""


class FormatData(msgspec.Struct, frozen=True, rename="kebab"):
    extents: tuple[Extent, ...] = ()
    data_file: str | None = None
    encrypt: msgspec.Raw | None = None


class FormatSpecific(msgspec.Struct, frozen=True, rename="kebab"):
    data: FormatData = FormatData()


class Info(msgspec.Struct, frozen=True, rename="kebab"):
    """What `qemu-img info` says."""

    virtual_size: int
    format: str
    backing_filename: str | None = None
    encrypted: bool = False
    format_specific: FormatSpecific = FormatSpecific()


class Measure(msgspec.Struct, frozen=True):
    required: int


class Check(msgspec.Struct, frozen=True, rename="kebab"):
    check_errors: int = 0
    corruptions: int = 0
    leaks: int = 0


class ProgressParser:
    """Reads the "(12.34/100%)" that `-p` prints, in whatever pieces it comes."""

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, chunk: bytes) -> float | None:
        """The newest fraction, 0 to 1, that `chunk` completes; None if it completes none."""
        data = self._tail + chunk
        fraction, end = None, 0
        for match in PROGRESS.finditer(data):
            fraction, end = min(float(match[1]) / 100, 1.0), match.end()
        self._tail = data[end:][-PROGRESS_TAIL_BYTES:]
        return fraction


@dataclass(frozen=True, slots=True)
class Source:
    """A file to import: open, verified, and pinned, since qemu-img gets this descriptor and not the path."""

    path: Path
    image_format: str
    fd: int

    @property
    def name(self) -> str:
        return f"/proc/self/fd/{self.fd}"

    @property
    def allocated_bytes(self) -> int:
        """What there is to read: a sparse file may claim to be of any size."""
        return os.fstat(self.fd).st_blocks * 512


@contextlib.contextmanager
def opened(path: Path, image_format: str) -> Iterator[Source]:
    """Open and verify a file to import. Raises InvalidInput."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO does not block
    except OSError as error:
        raise InvalidInput(f"{path}: {plain(error)}", hint=f"ls -l {shlex.quote(str(path))}") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidInput(f"{path}: not a regular file", hint=f"ls -l {shlex.quote(str(path))}")
        try:
            verify(fd, image_format)
        except Refused as refusal:
            raise refused(path, image_format, str(refusal)) from None
        yield Source(path, image_format, fd)
    finally:
        os.close(fd)


def refused(path: Path, image_format: str, why: str) -> InvalidInput:
    """An image that must not be read; one whose other files QEMU can read is flattened by a person who trusts it."""
    if "refers to" in why and image_format in ("qcow2", "vmdk"):
        flatten = f"qemu-img convert -f {image_format} -O qcow2 {shlex.quote(str(path))} NEW.qcow2"
        return InvalidInput(f"{path}: {why}", hint=flatten)
    return InvalidInput(f"{path}: {why}", hint=_look(path, image_format))


def _look(path: Path, image_format: str) -> str:
    return f"qemu-img info -f {image_format} {shlex.quote(str(path))}"


async def version() -> str:
    """Raises MissingCapability, CommandFailed."""
    said = await _run("--version")
    words = said.stdout.decode("utf-8", "replace").split()
    return words[2] if len(words) > 2 else "unknown"


async def info(source: Source) -> Info:
    """What qemu-img reads from a verified source. Raises InvalidInput, also for one that refers to other files."""
    said = await _read(source, "info", "--output=json", "-f", source.image_format, source.name)
    found = _decode(said.stdout, Info, source.path)
    data = found.format_specific.data
    if found.backing_filename is not None or data.data_file is not None:
        raise refused(source.path, source.image_format, "it refers to a backing or data file")
    if len(data.extents) > 1 or any(extent.filename != source.name for extent in data.extents):
        raise refused(source.path, source.image_format, "it refers to other files")
    if found.encrypted or data.encrypt is not None:
        raise InvalidInput(f"{source.path}: it is encrypted")
    if found.virtual_size <= 0:
        raise InvalidInput(f"{source.path}: its disk is empty")
    return found


async def required_bytes(source: Source) -> int:
    """How large the qcow2 file made from it can become. Raises InvalidInput."""
    said = await _read(source, "measure", "--output=json", "-f", source.image_format, "-O", "qcow2", source.name)
    return _decode(said.stdout, Measure, source.path).required


async def verify_content(source: Source) -> None:
    """The format's own consistency check, since a read past the end of a cut-off image gives zeros, not an error.

    Raises InvalidInput. Formats without a check (raw, vpc) pass. Leaked clusters do no harm to what is read.
    """
    if source.image_format in ("raw", "vpc"):
        return
    said = await _read(
        source, "check", "--output=json", "-f", source.image_format, source.name, accept=(CLEAN, CORRUPTIONS, LEAKS)
    )
    result = _decode(said.stdout, Check, source.path)
    if result.corruptions or result.check_errors:
        raise InvalidInput(f"{source.path}: the image is damaged or cut off", details=_named(tail(said.stderr), source))


async def create(path: str | Path, size_bytes: int, pass_fds: tuple[int, ...] = ()) -> None:
    """An empty image. Raises OperationFailed, MissingCapability."""
    with _told_as(Path(path), "cannot be made"):
        await _run("create", "-q", "-f", "qcow2", path, str(size_bytes), pass_fds=pass_fds)


async def convert(source: Source, target: Path, report: Report, *, limit_bytes: int) -> None:
    """Import into `target`, whose file may not grow beyond `limit_bytes`. Raises InvalidInput, OperationFailed."""
    arguments = ("-f", source.image_format, "-O", "qcow2", source.name, target)
    limits = _limits(limit_bytes + source.allocated_bytes, limit_bytes + SLACK_BYTES)
    with _told_as(source.path, "cannot be imported", source=source, target=target):
        await _progress(report, f"importing {source.path}", arguments, limits, limit_bytes, (source.fd,))


async def export(path: Path, target: Path, image_format: str, report: Report) -> None:
    """Copy to another format. Raises OperationFailed, ResourceBusy."""
    arguments = ("-f", "qcow2", "-O", image_format, *EXPORT_OPTIONS.get(image_format, ()), path, target)
    copied = path.stat().st_size
    with _told_as(path, f"cannot be exported to {target}", target=target):
        await _progress(report, f"exporting to {target.name}", arguments, _limits(copied), copied, ())


async def resize(path: Path, size_bytes: int, *, shrink: bool) -> None:
    """Raises ResourceBusy, OperationFailed."""
    words = ("--shrink",) if shrink else ()
    with _told_as(path, "cannot be resized"):
        await _run("resize", "-q", "-f", "qcow2", *words, path, str(size_bytes), limits=_limits(path.stat().st_size))


async def check(path: Path | str, file_bytes: int, pass_fds: tuple[int, ...] = ()) -> tuple[Problem, ...]:
    """What the consistency check of one of our own images finds. Raises ResourceBusy, OperationFailed."""
    accept = (CLEAN, CORRUPTIONS, LEAKS)
    where = Path(path)
    try:
        with _told_as(where, "cannot be checked"):
            said = await _run(
                "check", "--output=json", "-f", "qcow2", path,
                accept=accept, limits=_limits(file_bytes), timeout=_timeout(file_bytes), pass_fds=pass_fds,
            )  # fmt: skip
    except OperationFailed as error:
        return (Problem(code="image-damaged", message=f"{where}: {error.details or error.message}"),)
    result = _decode(said.stdout, Check, where)
    name, found = shlex.quote(str(path)), []
    if result.corruptions or result.check_errors:
        count = result.corruptions + result.check_errors
        repair = f"qemu-img check -r all -f qcow2 {name}"
        found.append(Problem(code="image-corrupt", message=f"{where}: {count} faults in its tables", hint=repair))
    if result.leaks:
        repair = f"qemu-img check -r leaks -f qcow2 {name}"
        message = f"{where}: {result.leaks} clusters are lost to use; its data is whole"
        found.append(Problem(code="image-leaks", message=message, hint=repair))
    return tuple(found)


def _limits(work_bytes: int = 0, file_size_bytes: int | None = None) -> Limits:
    cpu_s = QUICK_CPU_S + work_bytes // SLOWEST_CPU_BYTES_S
    return Limits(address_space_bytes=ADDRESS_SPACE_BYTES, cpu_s=cpu_s, file_size_bytes=file_size_bytes)


def _timeout(work_bytes: int) -> float:
    return 120.0 + work_bytes / SLOWEST_BYTES_S


async def _run(
    *arguments: str | Path,
    accept: tuple[int, ...] = (0,),
    limits: Limits | None = None,
    timeout: float = 120.0,
    pass_fds: tuple[int, ...] = (),
    on_stdout: Callable[[bytes], None] | None = None,
) -> Completed:
    """Raises CommandFailed for a code that is not accepted."""
    said = await run(
        [QEMU_IMG, *arguments],
        check=False,
        env={"LC_ALL": "C", "MALLOC_ARENA_MAX": "2"},  # messages to match; address space that is not wasted
        limits=limits or _limits(),
        timeout=timeout,
        pass_fds=pass_fds,
        on_stdout=on_stdout,
        output_limit_bytes=OUTPUT_BYTES,
        die_with_parent=True,
        reads=arguments[0] in READS,
    )
    if said.code not in accept:
        raise CommandFailed(
            f"qemu-img {arguments[0]} failed with code {said.code}",
            code=said.code,
            details=tail(said.stderr or said.stdout),
        )
    return said


async def _read(source: Source, *arguments: str, accept: tuple[int, ...] = (0,)) -> Completed:
    limits, timeout = _limits(source.allocated_bytes), _timeout(source.allocated_bytes)
    with _told_as(source.path, f"not a readable {source.image_format} image", source=source):
        return await _run(*arguments, accept=accept, limits=limits, timeout=timeout, pass_fds=(source.fd,))


async def _progress(
    report: Report,
    message: str,
    arguments: tuple[str | Path, ...],
    limits: Limits,
    work_bytes: int,
    pass_fds: tuple[int, ...],
) -> None:
    parser = ProgressParser()

    def hear(chunk: bytes) -> None:
        fraction = parser.feed(chunk)
        if fraction is not None:
            report(Progress(message=message, fraction=fraction))

    report(Progress(message=message, fraction=0.0))
    timeout = _timeout(work_bytes)
    await _run("convert", "-p", *arguments, limits=limits, timeout=timeout, pass_fds=pass_fds, on_stdout=hear)


@contextlib.contextmanager
def _told_as(path: Path, what: str, *, source: Source | None = None, target: Path | None = None) -> Iterator[None]:
    """Turn a failure of qemu-img into the error that a person can act on; a fault of `source` is bad input."""
    try:
        yield
    except CommandFailed as failure:
        details = _named(failure.details or failure.message, source)
        raise _fault(failure.code, details, path, what, source, target) from None


def _fault(code: int, details: str, path: Path, what: str, source: Source | None, target: Path | None) -> Fault:
    if LOCKED.search(details):
        fault = use.busy(path)
        return ResourceBusy(fault.message, hint=fault.hint, details=details)
    if NO_SPACE.search(details):
        return no_space(target or path)
    if source and (code in EXHAUSTED or NO_MEMORY.search(details)):
        return InvalidInput(f"{path}: reading it takes more than an image of its size may", details=details)
    if source:
        return InvalidInput(f"{path}: {what}", hint=_look(path, source.image_format), details=details)
    return OperationFailed(f"{path}: {what}", details=details)


def _named(text: str, source: Source | None) -> str:
    """The path that a person knows in place of the descriptor."""
    return text.replace(source.name, str(source.path)) if source else text


T = TypeVar("T")


def _decode(data: bytes, kind: type[T], path: Path) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise OperationFailed(f"{path}: qemu-img said something unexpected", details=str(error)) from None
