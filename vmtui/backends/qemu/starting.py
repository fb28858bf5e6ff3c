"""Starts a VM that was made: chooses accelerator and machine, puts its initramfs together, and sees it up."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from vmtui.backends.qemu import accelerator, command, initramfs, kernel, launch, packages, state
from vmtui.backends.qemu.making import guest_of
from vmtui.backends.qemu.options import QemuOptions
from vmtui.core.backend import Attachments, Context, Desired, Progress, Report
from vmtui.core.errors import NotPermitted, OperationFailed
from vmtui.core.resource import Ref
from vmtui.core.specs import VmSpec
from vmtui.host.files import in_words, remedy
from vmtui.host.tasks import uncancelled
from vmtui.runtime.images import ImageStore
from vmtui.runtime.rootfs import initramfs as image_archive


async def start(
    context: Context, desired: Desired[VmSpec], folder: Path, attachments: Attachments, report: Report
) -> None:
    """See Runnable.start; of one that does not run."""
    ref, spec, options = desired.ref, desired.spec, desired.options or QemuOptions()
    cache, token = context.paths.cache, desired.ref.token(context.workspace)
    host = await accelerator.examine(cache)
    chosen = accelerator.choose(host, options.accel)
    machine = command.choose_machine(spec, options, chosen.name)
    found = None if spec.kernel is None else await kernel.resolve(spec.kernel, cache, report)
    user_network = command.user_network(spec)
    if user_network:
        launch.require_free(spec.ports)
    await launch.end(folder, reap=False)  # what a start that was cut short may have left
    try:
        plan = command.Plan(
            desired=desired,
            attachments=attachments,
            program=host.program,
            release=host.release,
            machine=machine,
            accelerator=chosen,
            sockets=str(context.runtime_dir(ref)),
            token=token,
            kernel=None if found is None else _link(folder, found.image),
            initrd=await _initrd(cache, folder, desired, found, report, dhcp=user_network or bool(attachments.ports)),
            user=command.uid_of(token) if os.geteuid() == 0 else None,
        )
        chose = state.Launch(
            machine=f"{machine.name} ({machine.why})",
            accelerator=chosen.name,
            why=chosen.why,
            qemu=host.version,
            kernel="" if found is None else f"{found.image} ({found.release})",
            network="user" if user_network else "",
            ports=attachments.ports,
        )
        run = launch.prepare(context, ref, chose)
        report(Progress(message=f"starting qemu with {chosen.name}"))
        await launch.spawn(ref, run, folder / state.LOG, command.argv(plan))
        await launch.wait_up(ref, run, context.runtime_dir(ref))
    except BaseException as error:
        await uncancelled(_undo(context, ref, folder))
        if isinstance(error, OSError):
            hint = remedy(error, context.paths.state, context.paths.runtime)
            raise OperationFailed(f"cannot start {ref}: {in_words(error)}", hint=hint) from error
        raise
    finally:
        for name in (state.INITRD, state.KERNEL):  # QEMU has read the one, and has the other open
            (folder / name).unlink(missing_ok=True)


async def _undo(context: Context, ref: Ref, folder: Path) -> None:
    await launch.end(folder, reap=False)
    launch.remove_run(folder)
    launch.remove_sockets(context.runtime_dir(ref))


def _link(folder: Path, image: Path) -> str:
    """A link in the VM's own folder: what runs then names nothing that VMs share."""
    link = folder / state.KERNEL
    link.unlink(missing_ok=True)
    link.symlink_to(image.absolute())
    return str(link)


async def _initrd(
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
    target = folder / state.INITRD
    hostname = spec.hostname or ref.name
    await asyncio.to_thread(initramfs.write, target, base, busybox, modules, hostname, guest.command, dhcp=dhcp)
    return str(target)
