"""The image that a VM boots from: fetched when it is made, noted, and put into memory when it starts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from vmtui.core.backend import Desired, Progress, Report
from vmtui.core.errors import InvalidInput, NotPermitted
from vmtui.core.resource import Ref
from vmtui.core.specs import VmSpec
from vmtui.guests import check, initramfs, kernel, packages
from vmtui.guests import run as files
from vmtui.guests.initramfs import Command
from vmtui.host.files import write_atomic
from vmtui.runtime import signals
from vmtui.runtime.images import ImageConfig, ImageStore
from vmtui.runtime.rootfs import initramfs as image_archive


class Guest(msgspec.Struct, frozen=True, kw_only=True):
    """image.json: what `rootfs` was when the VM was made."""

    digest: str
    command: Command


def guest_of(folder: Path, ref: Ref) -> Guest:
    """Raises NotPermitted: the file is gone or damaged."""
    guest = files.load(folder / files.IMAGE, Guest)
    if guest is None:
        raise NotPermitted(f"{ref} has lost {folder / files.IMAGE}", hint=f"vmtui rm {ref}")
    return guest


async def fetch(cache: Path, folder: Path, desired: Desired[VmSpec], report: Report) -> None:
    """Have the kernel and the image in the cache, and write image.json. Raises Fault, OSError."""
    spec = desired.spec
    if spec.kernel is not None:
        report(Progress(message="looking for the kernel"))
        await kernel.resolve(spec.kernel, cache, report)
    if spec.rootfs is not None:
        image = await ImageStore(cache).ensure(spec.rootfs, report)
        await packages.busybox(cache, report)
        check.require_memory(spec, (await image_archive(image, cache, report)).stat().st_size)
        report(Progress(message="noting the image"))
        guest = Guest(digest=image.digest, command=command_of(spec, image.config))
        write_atomic(folder / files.IMAGE, msgspec.json.encode(guest))


def command_of(spec: VmSpec, image: ImageConfig) -> Command:
    """What the VM runs: as a container of the same image would. Raises InvalidInput."""
    argv = (*image.entrypoint, *(image.cmd if spec.command is None else spec.command))
    variables = dict(pair.partition("=")[::2] for pair in image.env)
    variables.update(spec.environment)
    if any("\0" in word for word in (*argv, *variables, *variables.values())):
        raise InvalidInput(f"image {spec.rootfs} has a command or environment with a NUL byte")
    return Command(
        argv=argv,
        environment=tuple(variables.items()),
        user=image.user,
        working_dir=image.working_dir,
        stop_signal=signals.number(image.stop_signal or "SIGTERM"),
    )


def link_kernel(folder: Path, image: Path) -> str:
    """A link in the VM's own folder: what runs then names nothing that VMs share."""
    link = folder / files.KERNEL
    link.unlink(missing_ok=True)
    link.symlink_to(image.absolute())
    return str(link)


async def write_initrd(
    cache: Path, folder: Path, desired: Desired[VmSpec], found: kernel.Kernel | None, report: Report, *, dhcp: bool
) -> str | None:
    spec, ref = desired.spec, desired.ref
    if spec.rootfs is None:
        return spec.initrd
    guest = guest_of(folder, ref)
    image = await ImageStore(cache).ensure(spec.rootfs, report)
    if image.digest != guest.digest:
        hint = f"vmtui rm {ref}, and apply the profile again"
        raise NotPermitted(f"image {spec.rootfs} is no longer the one that {ref} was made from", hint=hint)
    base, busybox = await image_archive(image, cache, report), await packages.busybox(cache, report)
    modules = None if found is None else found.modules
    target = folder / files.INITRD
    hostname = spec.hostname or ref.name
    await asyncio.to_thread(initramfs.write, target, base, busybox, modules, hostname, guest.command, dhcp=dhcp)
    return str(target)
