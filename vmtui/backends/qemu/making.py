"""Before a VM is made: what is wrong with it, and with this host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vmtui.backends.qemu import accelerator, check, state
from vmtui.backends.qemu.options import QemuOptions
from vmtui.core.backend import Context, Desired, problem_of
from vmtui.core.errors import MissingCapability
from vmtui.core.lifecycle import UP
from vmtui.core.resource import Problem
from vmtui.core.specs import VmSpec


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
