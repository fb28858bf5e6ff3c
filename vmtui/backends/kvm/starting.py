"""Starts a VM that was made: puts its initramfs together, starts the VMM, and sees it up."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import msgspec

from vmtui.backends.kvm import check, program, proof, state
from vmtui.backends.kvm.config import Plan, config
from vmtui.backends.kvm.options import KvmOptions
from vmtui.core.backend import Attachments, Context, Desired, Progress, Report
from vmtui.core.errors import NotPermitted, OperationFailed
from vmtui.core.resource import Ref
from vmtui.core.specs import VmSpec
from vmtui.guests import image, kernel, launch, owner
from vmtui.guests import run as files
from vmtui.guests.launch import POLL_S, START_S
from vmtui.host.files import in_words, remedy, write_atomic
from vmtui.host.tasks import uncancelled

CONFIG = "config.json"


async def start(
    context: Context, desired: Desired[VmSpec], folder: Path, attachments: Attachments, report: Report
) -> None:
    """See Runnable.start; of one that does not run."""
    ref, spec, options = desired.ref, desired.spec, desired.options or KvmOptions()
    cache, token = context.paths.cache, desired.ref.token(context.workspace)
    await check.require_kvm(cache)
    if spec.kernel is None:
        raise NotPermitted(f"{ref}: {check.unsuitable(spec)}", hint='set backend = "qemu"')
    found = await kernel.resolve(spec.kernel, cache, report)
    await launch.end(folder, reap=False)  # what a start that was cut short may have left
    try:
        # Kernel and initrd stay where they are: a guest that restarts is loaded from them again.
        initrd = await image.write_initrd(cache, folder, desired, found, report, dhcp=bool(attachments.ports))
        chose = state.Launch(
            why=proof.PROVED,
            kernel=f"{found.image} ({found.release})",
            console=options.console,
            ports=attachments.ports,
        )
        run = launch.prepare(context, ref, chose)
        plan = Plan(
            desired=desired,
            attachments=attachments,
            run=str(run),
            log=str(folder / files.LOG),
            sockets=str(context.runtime_dir(ref)),
            kernel=str(found.image),
            initrd=initrd,
            user=owner.uid_of(token) if os.geteuid() == 0 else None,
        )
        write_atomic(run / CONFIG, msgspec.json.encode(config(plan)))
        report(Progress(message="starting the VMM"))
        await launch.spawn(ref, run, program.argv(str(run / CONFIG)), program.environment())
        await _wait_up(ref, run)
    except BaseException as error:
        await uncancelled(_undo(context, ref, folder))
        if isinstance(error, OSError):
            hint = remedy(error, context.paths.state, context.paths.runtime)
            raise OperationFailed(f"cannot start {ref}: {in_words(error)}", hint=hint) from error
        raise


async def _wait_up(ref: Ref, run: Path) -> None:
    """Wait until the VMM says that the guest runs. Raises OperationFailed with what it said."""
    deadline = time.monotonic() + START_S
    while not (run / files.STARTED).exists():
        if (run / files.EXIT).exists() and not (run / files.STARTED).exists():
            noted = files.load(run / files.EXIT, state.Noted)
            said = files.errors(run) or (noted.reason if noted else "")
            raise OperationFailed(f"the VMM did not start {ref}", details=said)
        if time.monotonic() > deadline:
            raise OperationFailed(f"the VMM did not start {ref} within {START_S:g} s", details=files.errors(run))
        await asyncio.sleep(POLL_S)


async def _undo(context: Context, ref: Ref, folder: Path) -> None:
    await launch.end(folder, reap=False)
    launch.remove_run(folder)
    launch.remove_sockets(context.runtime_dir(ref))
    (folder / files.INITRD).unlink(missing_ok=True)
