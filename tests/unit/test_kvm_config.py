"""What the bundled VMM is told, what a VM is refused for, and how its end is told, without a VM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from vmtui.backends.kvm import check, config, state
from vmtui.backends.kvm.options import KvmOptions, Share
from vmtui.core.backend import Attachments, Desired, DiskAttachment
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Kind, Port, Ref
from vmtui.core.specs import NetworkMode, VmSpec
from vmtui.core.units import Size
from vmtui.host.process import ProcessId, boot_id
from vmtui.vmm import config as vmm

REF = Ref("dev", Kind.VM, "guest")
NET = Ref("dev", Kind.NETWORK, "lab")
PORT = Port(network=NET, consumer=REF, index=0, medium="tap", interface="t0", mac="52:54:00:00:00:01", mtu=1400)
DISK = DiskAttachment(ref=Ref("dev", Kind.DISK, "d"), path="/d,1", format="qcow2", serial="d", read_only=True)
DIRECT = VmSpec(kernel="/k", network_mode=NetworkMode.NONE)
GONE = ProcessId(4_000_000, 1, boot_id())


def want(spec: VmSpec, **options: Any) -> Desired[VmSpec]:
    return Desired(ref=REF, backend="kvm", spec=spec, options=KvmOptions(**options))


def told(desired: Desired[VmSpec], folder: Path, **attached: Any) -> vmm.Config:
    """What the VMM itself makes of it."""
    plan = config.Plan(
        desired=desired, attachments=Attachments(**attached), run="/r", log="/l", sockets="/s", kernel="/k", user=7
    )
    path = folder / "config.json"
    path.write_bytes(msgspec.json.encode(config.config(plan)))
    return vmm.read(str(path))


def test_the_vmm_understands_all_of_it(tmp_path: Path) -> None:
    shares = (Share(tag="src", path="/srv", read_only=True),)
    spec = VmSpec(kernel="/k", rootfs="x", cpus=3, disks=("d",), networks=("lab",))
    made = told(want(spec, shares=shares, vhost="off", balloon=False), tmp_path, disks=(DISK,), ports=(PORT,))
    assert (made.cpus, made.memory_bytes, made.balloon, made.uid) == (3, 512 << 20, False, 7)
    assert made.disks == [vmm.Disk("/d,1", "qcow2", "d", True)]
    assert made.nets == [vmm.Net("t0", "52:54:00:00:00:01", 1400, "off")]
    assert made.shares == [vmm.Share("src", "/srv", True)]
    assert made.vsock_cid == config.GUEST_CID


def test_our_init_decides_whether_a_restart_ends_it(tmp_path: Path) -> None:
    assert told(want(DIRECT), tmp_path).reboot
    ours = told(want(VmSpec(kernel="/k", rootfs="x", network_mode=NetworkMode.NONE)), tmp_path)
    assert not ours.reboot
    assert "rdinit=/.vmtui/init" in ours.cmdline


@pytest.mark.parametrize(("huge", "size"), [(False, (64 << 20) + 4096), (True, 66 << 20)])
def test_memory_is_whole_pages(huge: bool, size: int, tmp_path: Path) -> None:
    spec = VmSpec(kernel="/k", memory=Size((64 << 20) + 1), network_mode=NetworkMode.NONE)
    assert told(want(spec, hugepages=huge), tmp_path).memory_bytes == size


def test_the_spec_has_the_last_word_of_the_command_line() -> None:
    assert config.cmdline(DIRECT, KvmOptions()) == "console=ttyS0 console=hvc0"
    assert config.cmdline(DIRECT, KvmOptions(console="ttyS0")) == "console=ttyS0"
    assert config.cmdline(VmSpec(kernel="/k", cmdline="console=ttyS0 quiet"), KvmOptions()) == "console=ttyS0 quiet"


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (VmSpec(disks=("a",), networks=("lab",)), "firmware"),
        (VmSpec(kernel="/k"), "user-mode"),
        (VmSpec(kernel="/k", networks=("lab",), cpus=64), "32 CPUs"),
        (VmSpec(kernel="/k", networks=("lab",)), None),
        (DIRECT, None),
    ],
)
def test_what_the_vmm_has_no_part_for(spec: VmSpec, why: str | None) -> None:
    said = check.unsuitable(spec)
    assert said is None if why is None else why in (said or "")


def test_whoever_asks_for_it_is_told_the_same() -> None:
    found = list(check.faults(want(VmSpec(kernel="deb:k"))))
    assert [(fault.message, fault.hint) for fault in found] == [
        ("kvm has no user-mode network", 'set networks, or network_mode = "none", or backend = "qemu"')
    ]


def test_shares_are_folders_with_tags_of_their_own(tmp_path: Path) -> None:
    twice = (Share(tag="a", path=str(tmp_path)), Share(tag="a", path=str(tmp_path / "gone")))
    spec = VmSpec(kernel="deb:k", network_mode=NetworkMode.NONE)
    found = [fault.message for fault in check.faults(want(spec, shares=twice))]
    assert found == ["two shares have the tag a", f"share a: {tmp_path}/gone is not a folder"]


def run_folder(folder: Path, **written: str) -> Path:
    run = folder / "run"
    run.mkdir(exist_ok=True)
    for name, text in {"process": f"{GONE.pid} {GONE.start_ticks} {GONE.boot}\n", **written}.items():
        (run / name).write_text(text)
    return folder


def noted(cause: str, code: int, reason: str) -> str:
    return json.dumps({"cause": cause, "code": code, "reason": reason, "at": 5.0, "exits_total": 9})


@pytest.mark.parametrize(
    ("files", "log", "code", "reason"),
    [
        ({"exit": noted("POWERED_OFF", 0, "the guest powered off")}, "", 0, "the guest powered off"),
        ({"exit": noted("POWERED_OFF", 0, "x"), "status": "booted 1\nexit 3\n"}, "", 3, "command exited with 3"),
        ({"exit": noted("POWERED_OFF", 0, "x")}, "vmtui: command exited with 4\r\n", 4, "command exited with 4"),
        ({"exit": noted("PANIC", 1, "kernel panic: \x1b[2Jno"), "status": "exit 3\n"}, "", 1, "kernel panic:  [2Jno"),
        ({"exit": noted("FAULT", 134, "triple fault, on vCPU 0")}, "", 134, "triple fault, on vCPU 0"),
    ],
)
def test_how_a_vm_ended(files: dict[str, str], log: str, code: int, reason: str, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, **files)
    (folder / "image.json").write_text("{}")
    (folder / "serial.log").write_text(log)
    seen = state.observe(folder)
    assert seen.phase is Phase.EXITED
    assert seen.exit is not None
    assert (seen.exit.code, seen.exit.reason) == (code, reason)


@pytest.mark.parametrize("exit_file", [{}, {"exit": "not JSON"}])
def test_one_that_vanished_is_broken(exit_file: dict[str, str], tmp_path: Path) -> None:
    folder = run_folder(tmp_path, **exit_file)
    (folder / "serial.log").write_text("first\nlast \x1b[31mwords\r\n")
    seen = state.observe(folder)
    assert (seen.phase, seen.exit) == (Phase.BROKEN, None)
    (problem,) = seen.problems
    assert problem.code == "vanished"
    assert "first | last  [31mwords" in problem.message


def test_one_that_was_stopped_is_not(tmp_path: Path) -> None:
    assert state.observe(run_folder(tmp_path, stopped="")).phase is Phase.STOPPED


def test_one_that_a_restart_of_the_host_ended(tmp_path: Path) -> None:
    seen = state.observe(run_folder(tmp_path, process="4000000 1 another-boot\n"))
    assert seen.phase is Phase.EXITED
    assert seen.exit is not None
    assert seen.exit.reason == "the host restarted while it ran"
