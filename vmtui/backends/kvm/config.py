"""The VMM's configuration as a pure function of what a VM is to be. vmtui/vmm/config.py reads it."""

from __future__ import annotations

from typing import Any

import msgspec

from vmtui.backends.kvm.options import KvmOptions, Share
from vmtui.core.backend import Attachments, Desired
from vmtui.core.specs import VmSpec

PAGE_BYTES, HUGE_PAGE_BYTES = 4 << 10, 2 << 20
GUEST_CID = 3  # the first that is a guest's (linux/vm_sockets.h); each VM has a VMM, and so a space, of its own


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    format: str
    serial: str
    read_only: bool = False


class Net(msgspec.Struct, frozen=True, kw_only=True):
    interface: str
    mac: str
    mtu: int
    vhost: str


class Config(msgspec.Struct, frozen=True, kw_only=True):
    run: str
    log: str
    sockets: str
    kernel: str
    memory_bytes: int
    cpus: int
    initrd: str | None
    cmdline: str
    hugepages: bool
    prefault: bool
    disks: tuple[Disk, ...]
    nets: tuple[Net, ...]
    shares: tuple[Share, ...]
    vsock_cid: int | None
    balloon: bool
    reboot: bool
    uid: int | None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the configuration depends on. `user` is the uid to run as, None to stay who we are."""

    desired: Desired[VmSpec]
    attachments: Attachments
    run: str
    log: str
    sockets: str
    kernel: str
    initrd: str | None = None
    user: int | None = None


def cmdline(spec: VmSpec, options: KvmOptions) -> str:
    """The kernel's; what the spec says comes last, and wins."""
    words = []
    if "console=" not in spec.cmdline:
        # What is said before the driver of hvc0 is there goes to the serial line.
        words = ["console=ttyS0", *(["console=hvc0"] if options.console == "hvc0" else [])]
    if spec.rootfs is not None:
        words += ["rdinit=/.vmtui/init", "panic=-1", "quiet"]
    return " ".join([*words, spec.cmdline]).strip()


def config(plan: Plan) -> Config:
    spec = plan.desired.spec
    options: KvmOptions = plan.desired.options or KvmOptions()
    return Config(
        run=plan.run,
        log=plan.log,
        sockets=plan.sockets,
        kernel=plan.kernel,
        memory_bytes=_whole_pages(int(spec.memory), HUGE_PAGE_BYTES if options.hugepages else PAGE_BYTES),
        cpus=spec.cpus,
        initrd=plan.initrd,
        cmdline=cmdline(spec, options),
        hugepages=options.hugepages,
        prefault=options.prefault,
        disks=tuple(
            Disk(path=disk.path, format=disk.format, serial=disk.serial, read_only=disk.read_only)
            for disk in plan.attachments.disks
        ),
        nets=tuple(
            Net(interface=port.interface, mac=port.mac, mtu=port.mtu, vhost=options.vhost)
            for port in plan.attachments.ports
        ),
        shares=options.shares,
        vsock_cid=GUEST_CID if spec.rootfs is not None else None,
        balloon=options.balloon,
        reboot=spec.rootfs is None,  # with our init it ends when its command does; then the restart policy decides
        uid=plan.user,
    )


def _whole_pages(size_bytes: int, page_bytes: int) -> int:
    return -(-size_bytes // page_bytes) * page_bytes


def encode(made: Any) -> bytes:
    return msgspec.json.encode(made)
