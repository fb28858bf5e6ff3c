"""A whole Debian, with systemd, from an image on top of another: it boots to a login on the console."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.lab.host.system import disk
from tests.lab.support.guests import initramfs
from tests.lab.support.kernels import kernel
from tests.lab.support.vmm import Caller, vmm

SWITCH = """
mount -t ext4 /dev/vda /mnt
mount --move /proc /mnt/proc; mount --move /sys /mnt/sys; mount --move /dev /mnt/dev
exec switch_root /mnt /sbin/init
"""
MODULES = ("virtio_pci", "virtio_console", "virtio_rng", "virtio_blk", "ext4")
TIMEOUT_S = 240.0


def test_it_boots_to_a_login(tmp_path: Path) -> None:
    found, top = kernel(), tmp_path / "top.qcow2"
    base = disk()
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, top], check=True)
    disks = [{"path": str(top), "format": "qcow2", "serial": "root", "backing": [str(base)]}]
    initrd = initramfs(found, SWITCH, modules=MODULES)
    more = {"memory_bytes": 512 << 20, "cpus": 2, "disks": disks}
    with vmm(tmp_path / "vm", found, initrd, **more) as vm:
        vm.await_log("guest login:", TIMEOUT_S)
        console = vm.connect()
        console.call("console", rows=30, columns=100)
        _say(console, b"root\n")
        vm.await_log("root@guest:~#", TIMEOUT_S)
        _say(console, b"echo sum $((6*7)) $(systemctl is-system-running) size $(stty size)\n")
        vm.await_log("sum 42 ", TIMEOUT_S)
        vm.await_log("size 30 100", TIMEOUT_S)
        _say(console, b"poweroff\n")
        ended = vm.ending(TIMEOUT_S)
    assert (ended["code"], ended["reason"]) == (0, "the guest powered off")
    subprocess.run(["qemu-img", "check", "-q", top], check=True)


def _say(console: Caller, data: bytes) -> None:
    console.socket.sendall(data)
