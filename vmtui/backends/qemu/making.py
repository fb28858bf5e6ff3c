"""Makes a VM: finds out what is wrong with it, fetches what it boots, notes what its image wants."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from vmtui.backends.qemu import accelerator, check, kernel, packages, state
from vmtui.backends.qemu.initramfs import Command
from vmtui.backends.qemu.options import QemuOptions
from vmtui.core.backend import Context, Desired, Progress, Report, problem_of
from vmtui.core.errors import InvalidInput, MissingCapability, NotPermitted
from vmtui.core.lifecycle import UP
from vmtui.core.resource import Problem, Ref
from vmtui.core.specs import VmSpec
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
    guest = state.load(folder / state.IMAGE, Guest)
    if guest is None:
        raise NotPermitted(f"{ref} has lost {folder / state.IMAGE}", hint=f"vmtui rm {ref}")
    return guest


async def problems(context: Context, desired: Desired[VmSpec], others: Sequence[Desired[Any]]) -> list[Problem]:
    """See Backend.check."""
    cache = context.paths.cache
    running = state.observe(context.resource_dir(desired.ref)).phase in UP
    found = [*check.faults(desired), *await check.host_faults(desired, others, cache, running=running)]
    if (desired.options or QemuOptions()).accel == accelerator.KVM:
        try:
            accelerator.choose(await accelerator.examine(cache), accelerator.KVM)
        except MissingCapability as fault:
            found.append(fault)
    distinct = {fault.message: fault for fault in found}.values()
    return [problem_of(fault, f"{desired.ref}: {fault.message}") for fault in distinct]


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
        write_atomic(folder / state.IMAGE, msgspec.json.encode(guest))


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
