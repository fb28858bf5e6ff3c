"""What makes a VM impossible, found from its spec and from files, before anything is made."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vmtui.core.backend import Desired
from vmtui.core.errors import Conflict, Fault, InvalidInput, NotFound
from vmtui.core.specs import NetworkMode, VmSpec
from vmtui.guests import kernel, packages
from vmtui.guests.launch import require_free
from vmtui.host import apt
from vmtui.host.files import open_regular
from vmtui.runtime.bundle import checked_environment
from vmtui.runtime.reference import parse, require_local

LEAST_MEMORY = 64 << 20  # Debian's kernel unpacks itself and gets to user space in this
LEAST_ROOTFS_MEMORY = 96 << 20
# An image in memory is there twice while the kernel unpacks it, and the unpacked one gets half of the memory at most.
IMAGE_COPIES = 2


def faults(desired: Desired[VmSpec]) -> Iterator[Fault]:
    """What is wrong with the spec by itself, and with the files that it names."""
    spec = desired.spec
    yield from _boot(spec)
    if spec.kernel is not None and not spec.kernel.startswith(kernel.DEB):
        yield from raised(lambda: kernel.of_file(Path(spec.kernel or "")))
    if spec.initrd is not None:
        yield from _readable(spec.initrd)
    if spec.rootfs is not None:
        reference = spec.rootfs
        yield from raised(lambda: require_local(parse(reference)))
        yield from raised(lambda: checked_environment(spec.environment, f"vm {desired.ref.name}"))
    least = LEAST_MEMORY if spec.rootfs is None else LEAST_ROOTFS_MEMORY
    if spec.memory < least:
        yield InvalidInput(
            f"{spec.memory} of memory is too small to boot", hint=f'set memory = "{least >> 20}MiB" or more'
        )
    if spec.ports and not spec.networks and spec.network_mode is NetworkMode.NONE:
        yield InvalidInput("ports need a network", hint='set networks, or network_mode = "user"')
    texts = (spec.cmdline, *(spec.command or ()), spec.hostname or "")
    if any("\0" in text for text in texts):
        yield InvalidInput("cmdline, command and hostname hold no NUL byte")


def user_network(spec: VmSpec) -> bool:
    """Whether its only card is on a network that its own process makes up."""
    return not spec.networks and spec.network_mode is NetworkMode.USER


def command_line_faults(line: str) -> Iterator[Fault]:
    """What is wrong with the whole command line of a kernel."""
    if len(line.encode()) > kernel.COMMAND_LINE_MAX:
        message = f"cmdline is longer than the {kernel.COMMAND_LINE_MAX} bytes that a kernel takes"
        yield InvalidInput(message, hint="shorten cmdline")


def _boot(spec: VmSpec) -> Iterator[Fault]:
    if spec.kernel is None and not spec.disks:
        yield InvalidInput(
            "there is nothing to boot: neither kernel nor disks", hint='set kernel = "deb:linux-image-cloud-amd64"'
        )
    if spec.initrd is not None and spec.rootfs is not None:
        yield InvalidInput(
            "initrd and rootfs exclude each other: both are the first root file system", hint="remove one"
        )
    for name in ("initrd", "rootfs", "cmdline"):
        if getattr(spec, name) and spec.kernel is None:
            yield InvalidInput(f"{name} needs kernel", hint='set kernel = "deb:linux-image-cloud-amd64"')
    for name in ("command", "environment"):
        if getattr(spec, name) and spec.rootfs is None:
            yield InvalidInput(f"{name} needs rootfs: no other guest has our init to run it", hint=f"remove {name}")


def raised(act: Callable[[], object]) -> Iterator[Fault]:
    """The fault that calling it raises, if it does."""
    try:
        act()
    except Fault as fault:
        yield fault


def _readable(path: str) -> Iterator[Fault]:
    try:
        with open_regular(Path(path)) as file:
            empty = not file.read(1)
    except OSError as error:
        reason = (error.strerror or "").lower()
        yield InvalidInput(f"cannot read initrd {path}: {reason}", hint=f"ls -l {shlex.quote(path)}")
    else:
        if empty:
            yield InvalidInput(f"initrd {path} is empty", hint=f"ls -l {shlex.quote(path)}")


async def host_faults(
    desired: Desired[VmSpec], others: Sequence[Desired[Any]], cache: Path, *, running: bool
) -> list[Fault]:
    """What of this host is in the way: packages, ports."""
    spec = desired.spec
    found: list[Fault] = []
    if spec.kernel is not None and spec.kernel.startswith(kernel.DEB):
        package = spec.kernel.removeprefix(kernel.DEB)
        try:
            if not apt.PACKAGE_NAME.fullmatch(package):
                raise InvalidInput(f"{spec.kernel} names no Debian package", hint="apt-cache search linux-image")
            if packages.remembered(package, cache / "kernels") is None:
                await apt.candidate(package)
        except Fault as fault:
            found.append(fault if isinstance(fault, InvalidInput) else NotFound(fault.message, hint=fault.hint))
    if user_network(spec):
        found += _taken(desired, others)
        if not running:
            found += raised(lambda: require_free(spec.ports))
    return found


def _taken(desired: Desired[VmSpec], others: Sequence[Desired[Any]]) -> Iterator[Fault]:
    """Ports that another VM of the profile forwards too."""
    for other in others:
        if other.ref == desired.ref or not isinstance(other.spec, VmSpec) or not user_network(other.spec):
            continue
        for mine in desired.spec.ports:
            for theirs in other.spec.ports:
                same = (mine.host_port, mine.protocol) == (theirs.host_port, theirs.protocol)
                if same and (
                    mine.host_address == theirs.host_address or "0.0.0.0" in (mine.host_address, theirs.host_address)
                ):
                    yield Conflict(
                        f"host port {mine.host_port}/{mine.protocol} is also {other.ref.short}'s", hint="choose another"
                    )


def require_memory(spec: VmSpec, image_bytes: int) -> None:
    """Raises InvalidInput: the image does not fit into the VM's memory."""
    need = max(LEAST_ROOTFS_MEMORY, IMAGE_COPIES * image_bytes + LEAST_MEMORY)
    if spec.memory < need:
        step = 64 << 20
        raise InvalidInput(
            f"image {spec.rootfs} is {image_bytes >> 20} MiB, and boots from memory: {spec.memory} is too small",
            hint=f'set memory = "{-(-need // step) * (step >> 20)}MiB"',
        )
