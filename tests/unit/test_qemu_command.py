"""QEMU's command line, and what a VM is refused for, without a QEMU."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from vmtui.backends.qemu import accelerator, check, command
from vmtui.backends.qemu.accelerator import Accelerator, Host, choose
from vmtui.backends.qemu.options import QemuOptions
from vmtui.core.backend import Attachments, Desired, DiskAttachment
from vmtui.core.errors import Conflict, InvalidInput, MissingCapability
from vmtui.core.resource import Kind, Port, Ref
from vmtui.core.specs import NetworkMode, VmSpec, decode
from vmtui.core.units import Publish, Size
from vmtui.guests import check as any_guest
from vmtui.guests import initramfs

REF = Ref("dev", Kind.VM, "guest")
TCG, KVM = Accelerator("tcg", "no KVM"), Accelerator("kvm", "proved")


def want(spec: VmSpec, ref: Ref = REF, **options: Any) -> Desired[VmSpec]:
    return Desired(ref=ref, backend="qemu", spec=spec, options=QemuOptions(**options))


def words(
    spec: VmSpec, *, accelerator: Accelerator = TCG, release: tuple[int, ...] = (7, 2, 22), **more: Any
) -> list[str]:
    options = QemuOptions(**more.pop("options", {}))
    plan = command.Plan(
        desired=Desired(ref=REF, backend="qemu", spec=spec, options=options),
        attachments=more.pop("attachments", Attachments()),
        program="/usr/bin/qemu",
        release=release,
        machine=command.choose_machine(spec, options, accelerator.name),
        accelerator=accelerator,
        sockets="/run/vmtui/0123456789",
        token="0123456789",
        kernel=None if spec.kernel is None else "/k",
        **more,
    )
    return command.argv(plan)


def after(argv: list[str], word: str) -> list[str]:
    return [value for name, value in pairwise(argv) if name == word]


def devices(argv: list[str]) -> list[dict[str, Any]]:
    return [json.loads(value) for value in after(argv, "-device")]


DIRECT = VmSpec(kernel="/k", network_mode=NetworkMode.NONE)
IMAGE = VmSpec(kernel="/k", rootfs="deb:busybox-static")


def test_it_is_confined() -> None:
    argv = words(DIRECT, user=None)
    assert {"-nodefaults", "-no-user-config"} <= set(argv)
    assert after(argv, "-sandbox") == ["on,obsolete=deny,spawn=deny,resourcecontrol=deny,elevateprivileges=deny"]
    assert "-runas" not in argv
    argv = words(DIRECT, user=2147418113)
    assert after(argv, "-sandbox") == ["on,obsolete=deny,spawn=deny,resourcecontrol=deny"]
    assert after(argv, "-runas") == ["2147418113:2147418113"]
    assert after(words(DIRECT, user=7, release=(10, 0)), "-run-with") == ["user=7:7"]


@pytest.mark.parametrize(
    ("spec", "accelerator", "name"),
    [
        (DIRECT, KVM, "microvm"),
        (DIRECT, TCG, "q35"),
        (VmSpec(disks=("a",)), KVM, "q35"),
        (VmSpec(kernel="/k", disks=tuple(f"d{n}" for n in range(8))), KVM, "q35"),
    ],
)
def test_the_machine_is_the_smallest_that_works(spec: VmSpec, accelerator: Accelerator, name: str) -> None:
    machine = command.choose_machine(spec, QemuOptions(), accelerator.name)
    assert machine.name == name
    assert machine.why
    assert command.choose_machine(spec, QemuOptions(machine="q35"), "kvm").why == "asked for"


def test_accelerator_and_processor() -> None:
    argv = words(DIRECT, accelerator=KVM)
    assert (after(argv, "-accel"), after(argv, "-cpu")) == (["kvm"], ["host"])
    assert after(argv, "-machine")[0].startswith("microvm,")
    argv = words(DIRECT)
    assert after(argv, "-accel")[0].startswith("tcg,thread=multi")
    assert after(argv, "-cpu") == ["max"]
    assert after(words(DIRECT, options={"cpu": "qemu64,+ssse3"}), "-cpu") == ["qemu64,+ssse3"]


def test_the_kernels_command_line() -> None:
    assert command.cmdline(DIRECT, "q35") == "console=ttyS0"
    assert command.cmdline(DIRECT, "microvm") == "console=ttyS0 reboot=t"
    assert command.cmdline(VmSpec(kernel="/k", cmdline="console=hvc0 quiet"), "q35") == "console=hvc0 quiet"
    assert command.cmdline(VmSpec(kernel="/k", rootfs="x", cmdline="loglevel=7"), "q35").endswith("quiet loglevel=7")
    assert "-no-reboot" in words(IMAGE)
    assert "-no-reboot" not in words(DIRECT)


def test_disks_have_explicit_formats_and_locks() -> None:
    disk = DiskAttachment(ref=Ref("dev", Kind.DISK, "a"), path="/a,b.img", format="raw", serial='s"1', read_only=True)
    argv = words(VmSpec(disks=("a",)), attachments=Attachments(disks=(disk,)))
    (node,) = [json.loads(value) for value in after(argv, "-blockdev")]
    assert (node["driver"], node["file"]["filename"], node["file"]["locking"]) == ("raw", "/a,b.img", "on")
    assert node["read-only"] is True
    (drive,) = [device for device in devices(argv) if "drive" in device]
    assert (drive["serial"], drive["bootindex"]) == ('s"1', 0)
    assert "-kernel" not in argv
    argv = words(VmSpec(kernel="/k", disks=("a",)), attachments=Attachments(disks=(disk,)))
    assert not [device for device in devices(argv) if "bootindex" in device]


def test_networks() -> None:
    port = Port(
        network=Ref("dev", Kind.NETWORK, "lab"),
        consumer=REF,
        index=0,
        medium="tap",
        interface="t0",
        mac="52:54:00:1:2:3",
    )
    argv = words(VmSpec(kernel="/k", networks=("lab",)), attachments=Attachments(ports=(port,)))
    (tap,) = [json.loads(value) for value in after(argv, "-netdev")]
    assert (tap["ifname"], tap["script"], tap["downscript"], tap["vhost"]) == ("t0", "no", "no", False)
    spec = VmSpec(kernel="/k", ports=(Publish(8080, 80), Publish(53, 53, "127.0.0.1", "udp")))
    (user,) = [json.loads(value) for value in after(words(spec), "-netdev")]
    assert [entry["str"] for entry in user["hostfwd"]] == ["tcp:0.0.0.0:8080-:80", "udp:127.0.0.1:53-:53"]
    (card,) = [device for device in devices(words(spec)) if "mac" in device]
    assert int(card["mac"][:2], 16) & 0b11 == 0b10  # locally administered, not a group
    assert after(words(DIRECT), "-netdev") == []


def test_ports_of_our_init_are_spread_over_devices() -> None:
    found = [device for device in devices(words(IMAGE)) if device["driver"] == "virtserialport"]
    assert len(found) == 1 + 3 * initramfs.SLOTS
    assert len({device["name"] for device in found}) == len(found)
    assert {device["bus"] for device in found} == {"ports0.0", "ports1.0"}
    assert not [device for device in devices(words(DIRECT)) if device["driver"] == "virtserialport"]


def test_a_kvm_is_used_only_where_a_guest_proved_it() -> None:
    good = Host(boot="", program="/q", stamp="", version="7.2.22")
    assert choose(good, "auto").name == "kvm"
    assert choose(good, "tcg").name == "tcg"
    bad = Host(boot="", program="/q", stamp="", version="7.2.22", kvm="a guest stopped")
    assert (choose(bad, "auto").name, choose(bad, "auto").why) == ("tcg", "no KVM: a guest stopped")
    with pytest.raises(MissingCapability, match="a guest stopped"):
        choose(bad, "kvm")
    with pytest.raises(MissingCapability):
        choose(Host(boot="", program="/q", stamp="", version="7", kvm="x", tcg="y"), "auto")


def test_options_are_strict() -> None:
    assert decode({"machine": "q35", "cpu": "Skylake-Client-v1,+avx2,-hle,vmx=off"}, QemuOptions).machine == "q35"
    for wrong in ({"cpu": "max -drive file=x"}, {"cpu": ""}, {"machine": "pc"}, {"extra_args": ["-x"]}):
        with pytest.raises(Exception, match=r"Invalid|unknown|matching"):
            decode(wrong, QemuOptions)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "neither kernel nor disks"),
        ({"kernel": "deb:k", "initrd": __file__, "rootfs": "deb:busybox-static"}, "exclude each other"),
        ({"disks": ("a",), "rootfs": "deb:busybox-static"}, "rootfs needs kernel"),
        ({"disks": ("a",), "initrd": __file__}, "initrd needs kernel"),
        ({"kernel": "deb:k", "command": ("x",)}, "command needs rootfs"),
        ({"kernel": "deb:k", "environment": {"A": "b"}}, "environment needs rootfs"),
        ({"kernel": "deb:k", "memory": Size(8 << 20)}, "too small to boot"),
        ({"kernel": "deb:k", "initrd": "/nowhere/initrd"}, "cannot read initrd /nowhere/initrd"),
        ({"kernel": "/nowhere/vmlinuz"}, "cannot read kernel /nowhere/vmlinuz: no such file"),
        ({"kernel": "/proc"}, "cannot read kernel /proc: not a regular file"),
        ({"kernel": __file__}, "is not a kernel"),
        ({"kernel": "deb:k", "cmdline": "x" * 2100}, "longer than"),
        ({"kernel": "deb:k", "rootfs": "nonsense:::"}, "image reference"),
        ({"kernel": "deb:k", "ports": (Publish(80, 80),), "network_mode": NetworkMode.NONE}, "ports need a network"),
    ],
)
def test_impossible_vms_are_told(fields: dict[str, Any], message: str) -> None:
    found = list(check.faults(want(VmSpec(**fields))))
    assert [fault for fault in found if message in fault.message], found
    assert all(not fault.message.endswith(".") for fault in found)


def test_microvm_has_its_limits() -> None:
    disks = tuple(f"d{number}" for number in range(9))
    assert list(check.faults(want(VmSpec(disks=("a",)), machine="microvm")))
    assert list(check.faults(want(VmSpec(kernel="deb:k", disks=disks), machine="microvm")))
    assert not list(check.faults(want(VmSpec(kernel="deb:k"), machine="microvm")))


async def test_two_vms_cannot_forward_one_port(tmp_path: Path) -> None:
    other = Ref("dev", Kind.VM, "other")

    async def found(mine: Publish, theirs: Publish) -> list[str]:
        mine_too = want(VmSpec(kernel="deb:k", ports=(mine,)))
        faults = await check.host_faults(mine_too, (want(VmSpec(ports=(theirs,)), other),), tmp_path, running=True)
        return [fault.message for fault in faults if isinstance(fault, Conflict)]

    assert await found(Publish(8080, 80), Publish(8080, 81)) == ["host port 8080/tcp is also vm/other's"]
    assert await found(Publish(8080, 80, "127.0.0.1"), Publish(8080, 81)) != []
    assert await found(Publish(8080, 80, "127.0.0.1"), Publish(8080, 81, "127.0.0.2")) == []
    assert await found(Publish(8080, 80), Publish(8080, 80, protocol="udp")) == []


def test_memory_that_an_image_needs() -> None:
    any_guest.require_memory(VmSpec(memory=Size(128 << 20)), 2 << 20)
    with pytest.raises(InvalidInput, match="boots from memory") as caught:
        any_guest.require_memory(VmSpec(memory=Size(128 << 20), rootfs="x"), 100 << 20)
    assert caught.value.hint == 'set memory = "320MiB"'


@pytest.mark.parametrize(("tcg", "kept"), [("", True), ("code 1", True), (accelerator.STUCK, False)])
async def test_what_was_only_too_slow_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tcg: str, kept: bool
) -> None:
    async def prove(_: str, name: str) -> str:
        return tcg if name == accelerator.TCG else accelerator.STUCK

    async def version(_: str) -> str:
        return "7.2.22"

    monkeypatch.setattr(accelerator, "which", lambda _: "/bin/sh")
    monkeypatch.setattr(accelerator, "_version", version)
    monkeypatch.setattr(accelerator, "_prove", prove)
    assert (await accelerator.examine(tmp_path)).tcg == tcg
    assert (tmp_path / accelerator.CACHE).exists() is kept
