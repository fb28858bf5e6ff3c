"""QEMU's command line as a pure function of what a VM is to be."""

from __future__ import annotations

import json
import uuid
from typing import Any

import msgspec

from vmtui.backends.qemu.accelerator import KVM, Accelerator
from vmtui.backends.qemu.options import QemuOptions
from vmtui.core.backend import Attachments, Desired
from vmtui.core.specs import NetworkMode, VmSpec
from vmtui.guests.check import user_network
from vmtui.guests.initramfs import SLOTS
from vmtui.guests.run import socket_path

MICROVM, Q35 = "microvm", "q35"
MICROVM_TRANSPORTS = 8  # virtio-mmio places that every microvm has (hw/i386/microvm.c)
# QEMU drops a control message (a port was opened, was closed) when the device's queue of 32 is full. One session makes
# six in a burst, so the sessions are spread over several devices.
PORT_DEVICES = 2
LOG_FD, STATUS_FD = 4, 6  # as parent.sh numbers them
LOG_SET, STATUS_SET = 1, 2
TRANSLATION_CACHE_MIB = 256  # TCG; its own default is up to a gigabyte for each VM
NAMESPACE = uuid.UUID("6f1d9e0e-8a3b-5a57-9a66-0c2b7f6d2f11")  # ours, for uuid5


class Machine(msgspec.Struct, frozen=True):
    name: str
    why: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the command line depends on. `user` is the uid and gid to run as, None to stay who we are."""

    desired: Desired[VmSpec]
    attachments: Attachments
    program: str
    release: tuple[int, ...]
    machine: Machine
    accelerator: Accelerator
    sockets: str
    token: str
    kernel: str | None = None
    initrd: str | None = None
    user: int | None = None


def choose_machine(spec: VmSpec, options: QemuOptions, accelerator: str) -> Machine:
    """microvm where it does: it boots faster and has less to attack."""
    if options.machine != "auto":
        return Machine(options.machine, "asked for")
    if spec.kernel is None:
        return Machine(Q35, "booting a disk needs PCI")
    if device_count(spec) > MICROVM_TRANSPORTS:
        return Machine(Q35, f"more than {MICROVM_TRANSPORTS} devices")
    if accelerator != KVM:
        # A microvm has neither HPET nor PM timer. Without kvmclock, Linux measures the TSC by the PIT alone, which
        # fails on a busy host; it then waits for a timer interrupt that never comes.
        return Machine(Q35, "a microvm needs the clock of KVM")
    return Machine(MICROVM, "direct kernel boot")


def device_count(spec: VmSpec) -> int:
    """Its virtio devices: those of the spec, the entropy source, and those with the ports of our init."""
    cards = len(spec.networks) or (spec.network_mode is NetworkMode.USER)
    return len(spec.disks) + cards + 1 + (PORT_DEVICES if spec.rootfs is not None else 0)


def port_names(slot: int) -> tuple[str, str, str]:
    """The sockets of an exec slot: stdin, stdout, stderr."""
    return f"{slot}i", f"{slot}o", f"{slot}e"


def cmdline(spec: VmSpec, machine: str) -> str:
    """The kernel's; what the spec says comes last, and wins."""
    words = [] if "console=" in spec.cmdline else ["console=ttyS0"]
    if machine == MICROVM:
        words.append("reboot=t")  # there is no keyboard controller to reset it, and ACPI resets do not end it
    if spec.rootfs is not None:
        words += ["rdinit=/.vmtui/init", "panic=-1", "quiet"]
    return " ".join([*words, spec.cmdline]).strip()


def argv(plan: Plan) -> list[str]:
    spec, ref = plan.desired.spec, plan.desired.ref
    options = plan.desired.options or QemuOptions()
    words = [plan.program, "-nodefaults", "-no-user-config", "-display", "none"]
    words += ["-name", f"{ref.profile}-{ref.name},debug-threads=off"]
    words += ["-uuid", str(uuid.uuid5(NAMESPACE, plan.token))]
    words += ["-machine", _machine(plan), "-accel", _accelerator(plan)]
    words += ["-cpu", options.cpu or ("host" if plan.accelerator.name == KVM else "max")]
    words += ["-smp", str(spec.cpus), "-m", f"size={int(spec.memory) >> 10}k"]
    words += ["-sandbox", _sandbox(plan)]
    if plan.user is not None:
        who = f"{plan.user}:{plan.user}"
        words += ["-run-with", f"user={who}"] if plan.release >= (9, 1) else ["-runas", who]
    words += ["-add-fd", f"fd={LOG_FD},set={LOG_SET}", "-add-fd", f"fd={STATUS_FD},set={STATUS_SET}"]
    words += ["-chardev", f"{_listen(plan, 'qmp')}", "-mon", "chardev=qmp,mode=control"]
    words += [
        "-chardev",
        f"{_listen(plan, 'console')},logfile=/dev/fdset/{LOG_SET},logappend=on",
        "-serial",
        "chardev:console",
    ]
    if plan.machine.name == MICROVM:
        words += ["-global", "virtio-mmio.force-legacy=false"]
    if plan.kernel is not None:
        words += ["-kernel", plan.kernel, "-append", cmdline(spec, plan.machine.name)]
        if plan.initrd is not None:
            words += ["-initrd", plan.initrd]
    if spec.rootfs is not None:
        words += ["-no-reboot"]  # it ends when its command does; then the restart policy decides
    for device in (_entropy(plan), *_disks(plan), *_cards(plan), *_ports(plan)):
        words += device
    return words


def _machine(plan: Plan) -> str:
    if plan.machine.name == MICROVM:
        return "microvm,acpi=on,isa-serial=on,auto-kernel-cmdline=off"
    return "q35,vmport=off"


def _accelerator(plan: Plan) -> str:
    return KVM if plan.accelerator.name == KVM else f"tcg,thread=multi,tb-size={TRANSLATION_CACHE_MIB}"


def _sandbox(plan: Plan) -> str:
    # elevateprivileges=deny would forbid the setuid of -runas as well. Without privileges, and with the no_new_privs
    # that the filter sets, there is nothing that those calls could still gain.
    deny = ("obsolete", "spawn", "resourcecontrol", *(() if plan.user is not None else ("elevateprivileges",)))
    return ",".join(["on", *(f"{what}=deny" for what in deny)])


def _listen(plan: Plan, name: str, identity: str | None = None) -> str:
    path = str(socket_path(plan.sockets, name)).replace(",", ",,")
    return f"socket,id={identity or name},path={path},server=on,wait=off"


def _device(plan: Plan, kind: str, **properties: Any) -> list[str]:
    if plan.machine.name == MICROVM:
        return ["-device", json.dumps({"driver": f"virtio-{kind}-device", **properties})]
    return ["-device", json.dumps({"driver": f"virtio-{kind}-pci", "disable-legacy": "on", **properties})]


def _entropy(plan: Plan) -> list[str]:
    source = {"qom-type": "rng-builtin", "id": "entropy"}
    return ["-object", json.dumps(source), *_device(plan, "rng", rng="entropy")]


def _disks(plan: Plan) -> list[list[str]]:
    found = []
    for number, disk in enumerate(plan.attachments.disks):
        node = {
            "driver": disk.format,
            "node-name": f"disk{number}",
            "read-only": disk.read_only,
            "file": {
                "driver": "file",
                "filename": disk.path,
                "node-name": f"file{number}",
                "read-only": disk.read_only,
                "locking": "on",
                "discard": "unmap",
            },
            "discard": "unmap",
        }
        boot = {"bootindex": 0} if number == 0 and plan.kernel is None else {}
        device = _device(plan, "blk", drive=f"disk{number}", id=f"vd{number}", serial=disk.serial, **boot)
        found.append(["-blockdev", json.dumps(node), *device])
    return found


def _cards(plan: Plan) -> list[list[str]]:
    spec = plan.desired.spec
    # No boot ROMs: nothing boots from the network, and they cost time.
    rom = {} if plan.machine.name == MICROVM else {"romfile": ""}
    found = []
    for number, port in enumerate(plan.attachments.ports):
        tap = {
            "type": "tap",
            "id": f"net{number}",
            "ifname": port.interface,
            "script": "no",
            "downscript": "no",
            "vhost": False,
        }
        mtu = {"host_mtu": port.mtu} if port.mtu != 1500 else {}
        card = _device(plan, "net", netdev=f"net{number}", mac=port.mac, **mtu, **rom)
        found.append(["-netdev", json.dumps(tap), *card])
    if user_network(spec):
        user: dict[str, Any] = {"type": "user", "id": "net0", "hostname": spec.hostname or plan.desired.ref.name}
        forwards = [f"{p.protocol}:{p.host_address}:{p.host_port}-:{p.guest_port}" for p in spec.ports]
        if forwards:
            user["hostfwd"] = [{"str": forward} for forward in forwards]
        card = _device(plan, "net", netdev="net0", mac=_mac(plan.token), **rom)
        found.append(["-netdev", json.dumps(user), *card])
    return found


def _mac(token: str) -> str:
    """Locally administered (IEEE 802), from the VM's own token."""
    digits = token[:10]
    return ":".join(["52", *(digits[at : at + 2] for at in range(0, 10, 2))])


def _ports(plan: Plan) -> list[list[str]]:
    """The ports that our init serves: one to report by, three for each exec session."""
    if plan.desired.spec.rootfs is None:
        return []
    found = [_device(plan, "serial", id=f"ports{number}") for number in range(PORT_DEVICES)]
    found.append(
        ["-chardev", f"file,id=status,path=/dev/fdset/{STATUS_SET},append=on", *_port(0, "status", "vmtui.status")]
    )
    for slot in range(SLOTS):
        for name, stream in zip(port_names(slot), ("in", "out", "err"), strict=True):
            chardev = _listen(plan, name, f"x{name}")
            found.append(["-chardev", chardev, *_port(slot % PORT_DEVICES, f"x{name}", f"vmtui.{slot}.{stream}")])
    return found


def _port(number: int, chardev: str, name: str) -> list[str]:
    device = {"driver": "virtserialport", "bus": f"ports{number}.0", "chardev": chardev, "name": name}
    return ["-device", json.dumps(device)]
