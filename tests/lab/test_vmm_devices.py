"""What a guest does with its disks, cards and shares on the bundled VMM, and what becomes of back-ends that die."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.support.guests import booted, initramfs
from tests.lab.support.kernels import kernel
from tests.lab.support.vmm import vmm

BASIC = ("virtio_pci", "virtio_console", "virtio_rng")
DISK = (*BASIC, "virtio_blk", "ext4")
WRITE = """
mount -t ext4 /dev/vda /mnt
head -c 4194304 /dev/urandom >/mnt/data
sync
echo sum $(sha256sum </mnt/data)
umount /mnt
poweroff -f
"""


def sh(*argv: str) -> str:
    """What it says. Raises AssertionError."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def image(folder: Path, image_format: str) -> Path:
    """A disk of 48 MiB with an empty ext4 file system."""
    raw = folder / "disk.raw"
    sh("truncate", "-s", "48M", str(raw))
    sh("mkfs.ext4", "-q", str(raw))
    if image_format == "raw":
        return raw
    made = folder / f"disk.{image_format}"
    sh("qemu-img", "convert", "-O", image_format, str(raw), str(made))
    raw.unlink()
    return made


def sum_of(log: str) -> str:
    found = re.search(r"sum ([0-9a-f]{64})", log)
    assert found is not None, log
    return found[1]


@pytest.mark.parametrize("image_format", ["qcow2", pytest.param("raw", marks=pytest.mark.thorough)])
def test_what_is_written_is_there_for_another_vmm(tmp_path: Path, image_format: str) -> None:
    found, disk = kernel(), image(tmp_path, image_format)
    disks = [{"path": str(disk), "format": image_format, "serial": "data"}]
    with vmm(tmp_path / "vm", found, initramfs(found, WRITE, modules=DISK), disks=disks) as vm:
        assert vm.ending()["code"] == 0, vm.trouble()
        written = sum_of(vm.log.read_text())
    if image_format == "qcow2":
        sh("qemu-img", "check", str(disk))
    drive = ("-drive", f"file={disk},format={image_format},if=none,id=d", "-device", "virtio-blk-device,drive=d")
    script = "mount -t ext4 -o ro /dev/vda /mnt && echo sum $(sha256sum </mnt/data)"
    modules = ("virtio_mmio", "virtio_blk", "ext4")
    assert sum_of(booted(found, tmp_path, script, modules=modules, devices=drive)) == written


@pytest.fixture
def network() -> Iterator[str]:
    """A TAP on a bridge that has addresses to give, of which the host's is 10.77.0.1."""
    sh("ip", "link", "add", "vmbr", "type", "bridge")
    sh("ip", "addr", "add", "10.77.0.1/24", "dev", "vmbr")
    sh("ip", "link", "set", "vmbr", "up")
    sh("ip", "tuntap", "add", "vmtap", "mode", "tap", "vnet_hdr")
    sh("ip", "link", "set", "vmtap", "master", "vmbr", "up")
    leases = subprocess.Popen(
        ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=vmbr",
         "--bind-interfaces", "--dhcp-range=10.77.0.50,10.77.0.60", "--dhcp-leasefile=/tmp/vmbr.leases",
         "--user=root", "--no-ping"]
    )  # fmt: skip
    yield "vmtap"
    leases.terminate()
    leases.wait(10)
    sh("ip", "link", "del", "vmtap")
    sh("ip", "link", "del", "vmbr")


SERVE = r"""
cat >/lease <<'END'
#!/bin/sh
[ "$1" = bound ] && ip addr add $ip/24 dev $interface
exit 0
END
chmod +x /lease
ip link set lo up; ip link set eth0 up
udhcpc -i eth0 -q -n -t 20 -T 1 -s /lease >/dev/null
mkdir /www; echo "a page of the guest" >/www/index.html
httpd -p 80 -h /www
echo "address $(ip -4 addr show eth0 | sed -n 's/.*inet \([0-9.]*\).*/\1/p') ready"
sleep 1000
"""


def page(address: str) -> bytes:
    """What it serves. What is sent there while its link comes up may be lost. Raises OSError."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/", timeout=30) as answer:
                content: bytes = answer.read()
                return content
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.mark.parametrize("vhost", ["on", "off"])
def test_a_guest_gets_an_address_and_serves_a_page(tmp_path: Path, network: str, vhost: str) -> None:
    found = kernel()
    nets = [{"interface": network, "mac": "52:54:00:77:00:01", "vhost": vhost}]
    initrd = initramfs(found, SERVE, modules=(*BASIC, "virtio_net", "af_packet"))
    with vmm(tmp_path / "vm", found, initrd, nets=nets) as vm:
        address = re.search(r"address (10\.77\.0\.\d+) ready", vm.await_log(" ready"))
        assert address is not None, vm.trouble()
        assert page(address[1]) == b"a page of the guest\n"
        caller = vm.connect()
        carried = caller.call("info")["carried_by"]["net0"]
        assert carried == ("vhost-net" if vhost == "on" else "the VMM (asked for)")
        # The TAP is made anew: the guest sees its link go and come, and is reached again.
        sh("ip", "link", "del", "vmtap")
        sh("ip", "tuntap", "add", "vmtap", "mode", "tap", "vnet_hdr")
        sh("ip", "link", "set", "vmtap", "master", "vmbr", "up")
        caller.call("net_attach", index=0)
        assert page(address[1]) == b"a page of the guest\n"
        caller.call("kill")


def test_a_directory_of_the_host_is_read_and_written(tmp_path: Path) -> None:
    found, shared, kept = kernel(), tmp_path / "shared", tmp_path / "kept"
    for folder in (shared, kept):
        folder.mkdir()
        (folder / "from-host").write_text("hello\n")
    script = """
    mkdir /kept
    mount -t virtiofs shared /mnt
    mount -t virtiofs kept /kept
    echo read $(cat /mnt/from-host /kept/from-host)
    echo answer >/mnt/from-guest
    echo no >/kept/from-guest || echo refused
    umount /mnt
    poweroff -f
    """
    shares = [
        {"tag": "shared", "path": str(shared)},
        {"tag": "kept", "path": str(kept), "read_only": True},
    ]
    initrd = initramfs(found, script, modules=(*BASIC, "virtiofs"))
    with vmm(tmp_path / "vm", found, initrd, shares=shares) as vm:
        assert vm.ending()["code"] == 0, vm.trouble()
    assert (shared / "from-guest").read_text() == "answer\n"
    assert "read hello hello" in vm.log.read_text()
    assert "refused" in vm.log.read_text()
    assert not (kept / "from-guest").exists()


def storage_daemon(disk: Path) -> int:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"qemu-storage-daemon" in words and os.fsencode(disk) in words:
                return int(entry.name)
    raise AssertionError("no storage daemon runs")


@pytest.mark.parametrize(
    ("image_format", "survives"), [pytest.param("vmdk", True, marks=pytest.mark.thorough), ("qcow2", False)]
)
def test_a_back_end_that_is_killed_is_told_of_and_the_vm_stays_up(
    tmp_path: Path, image_format: str, survives: bool
) -> None:
    """QEMU's daemon keeps a qcow2 image's tables to itself: what it had not written is lost, and the disk unusable."""
    found, disk = kernel(), image(tmp_path, image_format)
    script = """
    echo 0 >/proc/sys/kernel/hung_task_timeout_secs
    echo waiting
    while read -r word; do echo "said $word"; [ "$word" = disk ] && head -c 65536 /dev/vda | wc -c; done </dev/hvc0
    """
    disks = [{"path": str(disk), "format": image_format, "serial": "data"}]
    with vmm(tmp_path / "vm", found, initramfs(found, script, modules=DISK), disks=disks) as vm:
        vm.await_log("waiting")
        caller, typist = vm.connect(), vm.connect()
        os.kill(storage_daemon(disk), signal.SIGKILL)
        assert caller.await_event("backend_lost")["device"] == "blk0"
        typist.call("console", rows=24, columns=80)
        if survives:
            caller.await_event("backend_back")
            typist.socket.sendall(b"disk\n")
            vm.await_log("65536")
            assert caller.call("info")["needs_reset"] == {}
        else:
            caller.await_event("needs_reset")
            assert list(caller.call("info")["needs_reset"]) == ["blk0"]
        typist.socket.sendall(b"anything\n")
        vm.await_log("said anything")
        caller.call("kill")
        vm.ending()
