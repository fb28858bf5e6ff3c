"""What makes a VM impossible for the bundled VMM, found from its spec and from files, before anything is made."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vmtui.backends.kvm import proof
from vmtui.backends.kvm.config import cmdline
from vmtui.backends.kvm.options import KvmOptions, Share
from vmtui.core.backend import Context, Desired, problem_of
from vmtui.core.errors import Fault, InvalidInput, MissingCapability
from vmtui.core.resource import Problem
from vmtui.core.specs import VmSpec
from vmtui.guests import check as any_guest
from vmtui.host.process import which

MOST_CPUS = 32
STORAGE_DAEMON = "qemu-storage-daemon"
VIRTIOFSDS = ("/usr/libexec/virtiofsd", "/usr/bin/virtiofsd", "/usr/lib/virtiofsd", "/usr/lib/qemu/virtiofsd")
VIRTIOFSD_HINT = "apt-get install virtiofsd || apt-get install qemu-system-common"  # Debian 13, Debian 12
VHOST_NET = Path("/dev/vhost-net")


def unsuitable(spec: VmSpec) -> str | None:
    """What the VMM has no part for: firmware, and a network of its own making."""
    if spec.kernel is None:
        return "kvm has no firmware to boot a disk with"
    if any_guest.user_network(spec):
        return "kvm has no user-mode network"
    if spec.cpus > MOST_CPUS:
        return f"kvm takes {MOST_CPUS} CPUs"
    return None


def faults(desired: Desired[VmSpec]) -> Iterator[Fault]:
    """What is wrong with the spec by itself, and with the files that it names."""
    spec, options = desired.spec, desired.options or KvmOptions()
    yield from any_guest.faults(desired)
    if (why := unsuitable(spec)) is not None:
        hint = 'set networks, or network_mode = "none", or' if any_guest.user_network(spec) else "set"
        yield InvalidInput(why, hint=f'{hint} backend = "qemu"')
    yield from any_guest.command_line_faults(cmdline(spec, options))
    tags = [share.tag for share in options.shares]
    for number, share in enumerate(options.shares):
        if share.tag in tags[:number]:
            yield InvalidInput(f"two shares have the tag {share.tag}", hint="give each a tag of its own")
        yield from _share(share)


def _share(share: Share) -> Iterator[Fault]:
    if not Path(share.path).is_dir():
        hint = f"mkdir -p {shlex.quote(share.path)}"
        yield InvalidInput(f"share {share.tag}: {share.path} is not a folder", hint=hint)


async def problems(context: Context, desired: Desired[VmSpec], others: Sequence[Desired[Any]]) -> list[Problem]:
    """See Backend.check."""
    cache = context.paths.cache
    found = [*faults(desired), *_missing(desired)]
    found += await any_guest.host_faults(desired, others, cache, running=False)
    try:
        await require_kvm(cache)
    except MissingCapability as fault:
        found.append(fault)
    distinct = {fault.message: fault for fault in found}.values()
    return [problem_of(fault, f"{desired.ref}: {fault.message}") for fault in distinct]


def _missing(desired: Desired[VmSpec]) -> Iterator[Fault]:
    """Programs and devices of the host."""
    options = desired.options or KvmOptions()
    if desired.spec.disks:
        yield from any_guest.raised(lambda: which(STORAGE_DAEMON))
    if options.shares and not any(os.access(program, os.X_OK) for program in VIRTIOFSDS):
        yield MissingCapability("virtiofsd is not installed", hint=VIRTIOFSD_HINT)
    if options.shares and os.geteuid() != 0:
        yield MissingCapability("shares need root, whose files virtiofsd makes and gives away", hint="run as root")
    if options.vhost == "on" and not VHOST_NET.exists():
        yield MissingCapability(f"{VHOST_NET} is not there", hint="modprobe vhost_net")


async def require_kvm(cache: Path) -> None:
    """Raises MissingCapability: no guest runs here."""
    host = await proof.examine(cache)
    if host.why:
        raise MissingCapability(f"KVM boots no guest here: {host.why}", hint='set backend = "qemu"')
