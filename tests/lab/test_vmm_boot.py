"""Unmodified kernels of Debian boot on the bundled VMM, and each way in which a VM ends is told as what it is."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.lab.support.guests import initramfs
from tests.lab.support.kernels import KERNELS, kernel
from tests.lab.support.vmm import vmm

BASIC = ("virtio_pci", "virtio_console", "virtio_rng")


@pytest.mark.parametrize("cpus", [1, 2, 4])
@pytest.mark.parametrize(("suite", "sort"), KERNELS)
def test_it_boots(tmp_path: Path, suite: str, sort: str, cpus: int) -> None:
    found = kernel(suite, sort)
    script = (
        "echo kernel $(uname -r) cpus $(nproc) console $(cat /sys/class/tty/console/active)\n"
        "head -c 64 /dev/hwrng | wc -c\npoweroff -f"
    )
    with vmm(tmp_path / "vm", found, initramfs(found, script, modules=BASIC), cpus=cpus) as vm:
        ended = vm.ending()
    assert f"kernel {found.release} cpus {cpus} console ttyS0 hvc0" in vm.log.read_text()
    assert "\n64" in vm.log.read_text()
    assert (ended["code"], ended["cause"], ended["reason"]) == (0, "POWERED_OFF", "the guest powered off")
    assert 0 < ended["exits_total"] <= 3000


@pytest.mark.thorough
def test_more_memory_than_fits_below_the_hole(tmp_path: Path) -> None:
    found = kernel()
    initrd = initramfs(found, "free -m | head -2\npoweroff -f", modules=BASIC)
    with vmm(tmp_path / "vm", found, initrd, memory_bytes=3 * 1024**3 + (512 << 20)) as vm:
        assert vm.ending()["code"] == 0
    total = int(vm.log.read_text().split("Mem:")[1].split()[0])
    assert 3300 < total < 3584


def test_the_power_button_ends_in_s5(tmp_path: Path) -> None:
    found = kernel()
    script = (
        "for event in /sys/class/input/event*; do\n"
        '  [ "$(cat $event/device/name)" = "Power Button" ] && button=/dev/input/${event##*/}\n'
        "done\n"
        # Opened before that is said: for who opens it later nothing is kept.
        "exec 3<$button; echo listening; head -c 1 <&3 >/dev/null; echo pressed; poweroff -f"
    )
    initrd = initramfs(found, script, modules=(*BASIC, "button", "evdev"))
    with vmm(tmp_path / "vm", found, initrd) as vm:
        vm.await_log("listening")
        vm.connect().call("power_button")
        ended = vm.ending()
    assert "pressed" in vm.log.read_text()
    assert (ended["code"], ended["reason"]) == (0, "the guest powered off")


def test_a_panic_is_told_as_one(tmp_path: Path) -> None:
    found = kernel()
    script = "echo 1 >/proc/sys/kernel/sysrq\necho c >/proc/sysrq-trigger"
    with vmm(tmp_path / "vm", found, initramfs(found, script, modules=BASIC)) as vm:
        ended = vm.ending()
    assert (ended["code"], ended["cause"]) == (1, "PANIC")
    assert ended["reason"] == "kernel panic: sysrq triggered crash"


def test_a_triple_fault_is_told_as_one(tmp_path: Path) -> None:
    found = kernel()
    with vmm(tmp_path / "vm", found, initramfs(found, "reboot -f"), cmdline="console=ttyS0 quiet reboot=t") as vm:
        ended = vm.ending()
    assert ended["cause"] == "FAULT"
    assert ended["reason"].startswith("triple fault")


@pytest.mark.thorough
def test_a_restart_starts_it_anew_where_that_is_wanted(tmp_path: Path) -> None:
    found = kernel()
    with vmm(tmp_path / "vm", found, initramfs(found, "echo up $$"), reboot=True) as vm:
        vm.await_log("up 1")
        first = vm.machine_pid
        while vm.machine_pid == first:
            time.sleep(0.05)
        (vm.run / "stopped").touch()
        ended = vm.ending()
    assert vm.log.read_text().count("up 1") >= 2
    assert ended["cause"] == "RESET"


@pytest.mark.thorough
def test_a_vmm_that_is_killed_is_told_as_killed(tmp_path: Path) -> None:
    found = kernel()
    with vmm(tmp_path / "vm", found, initramfs(found, "echo up; sleep 1000")) as vm:
        vm.await_log("up")
        os.kill(vm.machine_pid, signal.SIGKILL)
        ended = vm.ending()
    assert (ended["code"], ended["reason"]) == (137, "the VMM was killed by SIGKILL")


@pytest.mark.thorough
def test_it_stands_still_and_goes_on(tmp_path: Path) -> None:
    found = kernel()
    script = "n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.1; done"
    with vmm(tmp_path / "vm", found, initramfs(found, script, modules=BASIC), cpus=2) as vm:
        vm.await_log("tick 3")
        caller = vm.connect()
        caller.call("pause")
        assert caller.call("info")["state"] == "paused"
        exits, stood, deadline = caller.call("metrics")["exits_total"], "", time.monotonic() + 60
        while (said := vm.log.read_text()) != stood:  # it has said that before, and it was on its way to the log
            assert time.monotonic() < deadline, said
            stood = said
            time.sleep(1)
        assert caller.call("metrics")["exits_total"] == exits
        caller.call("resume")
        vm.await_log(f"tick {stood.count('tick') + 3}")
        caller.call("kill")
        assert vm.ending()["cause"] == "KILLED"


@pytest.mark.thorough
def test_an_idle_guest_costs_nothing(tmp_path: Path) -> None:
    found = kernel()
    with vmm(tmp_path / "vm", found, initramfs(found, "echo idle; sleep 1000", modules=BASIC)) as vm:
        vm.await_log("idle")
        caller = vm.connect()
        time.sleep(3)
        before = caller.call("metrics")["exits"]
        time.sleep(10)
        assert caller.call("metrics")["exits"] == before
        caller.call("kill")
        vm.ending()
