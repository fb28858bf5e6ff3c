"""What makes a VM impossible for QEMU, found from its spec and from files, before anything is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vmtui.backends.qemu.command import MICROVM, MICROVM_TRANSPORTS, cmdline, device_count
from vmtui.backends.qemu.options import QemuOptions
from vmtui.core.backend import Desired
from vmtui.core.errors import Fault, InvalidInput
from vmtui.core.specs import VmSpec
from vmtui.guests import check as any_guest
from vmtui.host.process import which


def faults(desired: Desired[VmSpec]) -> Iterator[Fault]:
    """What is wrong with the spec by itself, and with the files that it names."""
    spec, options = desired.spec, desired.options or QemuOptions()
    yield from any_guest.faults(desired)
    if options.machine == MICROVM and spec.kernel is None:
        yield InvalidInput("machine microvm boots no disk", hint='set machine = "q35", or a kernel')
    if options.machine == MICROVM and device_count(spec) > MICROVM_TRANSPORTS:
        yield InvalidInput(f"machine microvm takes {MICROVM_TRANSPORTS} devices", hint='set machine = "q35"')
    yield from any_guest.command_line_faults(cmdline(spec, MICROVM))


async def host_faults(
    desired: Desired[VmSpec], others: Sequence[Desired[Any]], cache: Path, *, running: bool
) -> list[Fault]:
    """What of this host is in the way: tools, packages, ports."""
    missing = any_guest.raised(lambda: which("qemu-system-x86_64"))
    return [*missing, *await any_guest.host_faults(desired, others, cache, running=running)]
