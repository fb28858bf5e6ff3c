"""Starts a VM that was made: chooses accelerator and machine, puts its initramfs together, and sees it up."""

from __future__ import annotations

import os
from pathlib import Path

from vmtui.backends.qemu import accelerator, command, state
from vmtui.backends.qemu.launch import PARENT, wait_up
from vmtui.backends.qemu.options import QemuOptions
from vmtui.core.backend import Attachments, Context, Desired, Progress, Report
from vmtui.core.errors import OperationFailed
from vmtui.core.resource import Ref
from vmtui.core.specs import VmSpec
from vmtui.guests import image, kernel, launch, owner
from vmtui.guests import run as files
from vmtui.guests.check import user_network
from vmtui.host.files import in_words, remedy
from vmtui.host.tasks import uncancelled


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
    outside = user_network(spec)
    if outside:
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
            kernel=None if found is None else image.link_kernel(folder, found.image),
            initrd=await image.write_initrd(
                cache, folder, desired, found, report, dhcp=outside or bool(attachments.ports)
            ),
            user=owner.uid_of(token) if os.geteuid() == 0 else None,
        )
        chose = state.Launch(
            machine=f"{machine.name} ({machine.why})",
            accelerator=chosen.name,
            why=chosen.why,
            qemu=host.version,
            kernel="" if found is None else f"{found.image} ({found.release})",
            network="user" if outside else "",
            ports=attachments.ports,
        )
        run = launch.prepare(context, ref, chose)
        report(Progress(message=f"starting qemu with {chosen.name}"))
        parent = ("/bin/sh", str(PARENT), str(run), str(folder / files.LOG))
        await launch.spawn(ref, run, (*parent, *command.argv(plan)))
        await wait_up(ref, run, context.runtime_dir(ref))
    except BaseException as error:
        await uncancelled(_undo(context, ref, folder))
        if isinstance(error, OSError):
            hint = remedy(error, context.paths.state, context.paths.runtime)
            raise OperationFailed(f"cannot start {ref}: {in_words(error)}", hint=hint) from error
        raise
    finally:
        for name in (files.INITRD, files.KERNEL):  # QEMU has read the one, and has the other open
            (folder / name).unlink(missing_ok=True)


async def _undo(context: Context, ref: Ref, folder: Path) -> None:
    await launch.end(folder, reap=False)
    launch.remove_run(folder)
    launch.remove_sockets(context.runtime_dir(ref))
