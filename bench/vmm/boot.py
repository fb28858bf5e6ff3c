"""The bundled VMM beside QEMU's microvm in one boot of the lab: the same kernel, initrd, command line and devices.

python -m bench.vmm.boot            boots the lab and prints the table
python -m bench.vmm.boot --inside   in the lab already: prints the rows as JSON, one a line
"""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.measure import Row, table
from tests.lab.support.guests import initramfs
from tests.lab.support.kernels import kernel
from tests.lab.support.vmm import Vmm
from vmtui.guests.kernel import Kernel

RUNS = 5
TIMEOUT_S = 90.0
LAB_TIMEOUT_S = 1500
MEMORY_BYTES = 256 << 20
# The console is hvc0 for both, once there is one. What the VMM adds by itself is given to QEMU as well.
CMDLINE = "console=ttyS0 console=hvc0 quiet panic=-1 pci=noearly 8250.nr_uarts=1"
MODULES = ("virtio_pci", "virtio_mmio", "virtio_console", "virtio_blk", "virtio_net")
UP = "user space is up"
SCRIPT = f"""
echo {UP}
now() {{ cut -d' ' -f1 /proc/uptime; }}
read_all() {{ began=$(now); dd if=/dev/vda of=/dev/null iflag=direct "$@" 2>/dev/null; echo "read $began $(now)"; }}
read_all bs=1M count=32
read_all bs=4k count=1024
echo measured
sleep 1000
"""


def main() -> None:
    if sys.argv[1:] == ["--inside"]:
        for row in _measure():
            print("row", json.dumps(dataclasses.asdict(row)), flush=True)
    else:
        print(table(rows()))


def rows() -> list[Row]:
    """Boots the lab for it."""
    inside = [sys.executable, "-m", "bench.vmm.boot", "--inside"]
    command = [sys.executable, "-m", "tests.lab.host", "--timeout", str(LAB_TIMEOUT_S), "--", *inside]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [json.loads(line.removeprefix("row ")) for line in done.stdout.splitlines() if line.startswith("row ")]
    if done.returncode != 0 or not found:
        raise RuntimeError(f"the lab ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return [Row(**row) for row in found]


class Boot:
    """What one boot showed."""

    def __init__(self, wall_s: float, log: str, private_bytes: int, exits: dict[str, int]) -> None:
        self.wall_s, self.private_bytes, self.exits = wall_s, private_bytes, exits
        took = [float(end) - float(begin) for begin, end in re.findall(r"read ([0-9.]+) ([0-9.]+)", log)]
        self.large_s, self.small_s = took


def _measure() -> list[Row]:
    found = kernel()
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        folder = Path(place)
        initrd = folder / "initrd"
        initrd.write_bytes(initramfs(found, SCRIPT, modules=MODULES))
        disk = folder / "disk.qcow2"
        raw = folder / "disk.raw"
        raw.write_bytes(b"x" * (64 << 20))
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, disk], check=True)
        raw.unlink()
        subprocess.run(["ip", "tuntap", "add", "bench0", "mode", "tap", "vnet_hdr"], check=True)
        subprocess.run(["ip", "link", "set", "bench0", "up"], check=True)
        ours, peers = [], []
        for run in range(RUNS):
            ours.append(_ours(folder / f"vm{run}", found, initrd, disk))
            peers.append(_qemu(folder, found, initrd, disk))
            print(run, vars(ours[-1]), vars(peers[-1]), file=sys.stderr, flush=True)
    return _rows(ours, peers)


def _rows(ours: list[Boot], peers: list[Boot]) -> list[Row]:
    def both(take: Callable[[Boot], float]) -> tuple[float, float]:
        return statistics.median(map(take, ours)), statistics.median(map(take, peers))

    (mine, theirs), first = both(lambda boot: boot.wall_s), ours[0].exits
    table_rows = [Row("power-on to user space", f"{mine:.2f} s", f"microvm {theirs:.2f} s", mine / theirs, "1.0x")]
    total = statistics.median(sum(boot.exits.values()) for boot in ours)
    by_cause = ", ".join(f"{name} {count}" for name, count in sorted(first.items(), key=lambda pair: -pair[1])[:8])
    table_rows.append(Row("exits to user space until then", f"{total:.0f} ({by_cause})", goal="3000"))
    mine, theirs = both(lambda boot: boot.private_bytes)
    ours_text, peer_text = f"{mine / (1 << 20):.1f} MiB", f"microvm {theirs / (1 << 20):.1f} MiB"
    table_rows.append(Row("private memory beside the guest's RAM", ours_text, peer_text, mine / theirs, "16 MiB, 0.6x"))
    for what, take in (
        ("guest reads a qcow2 disk, 1 MiB each", lambda boot: boot.large_s),
        ("guest reads a qcow2 disk, 4 KiB each", lambda boot: boot.small_s),
    ):
        mine, theirs = both(take)
        speed = theirs / mine if mine else 0.0
        table_rows.append(Row(f"{what} (speed)", f"{mine:.2f} s", f"virtio-blk {theirs:.2f} s", speed, "1.0x"))
    return table_rows


def _ours(folder: Path, found: Kernel, initrd: Path, disk: Path) -> Boot:
    began = time.monotonic()
    vm = Vmm(
        folder,
        found,
        initrd,
        memory_bytes=MEMORY_BYTES,
        cmdline=CMDLINE,
        disks=[{"path": str(disk), "format": "qcow2", "serial": "d"}],
        nets=[{"interface": "bench0", "mac": "52:54:00:00:00:01"}],
    )
    try:
        _wait(vm.log, UP)
        wall_s = time.monotonic() - began
        exits = dict(vm.connect().call("metrics")["exits"])
        _wait(vm.log, "measured")
        private = _private(vm.process.pid) + _private(vm.machine_pid)
        return Boot(wall_s, vm.log.read_text(), private, exits)
    finally:
        vm.close()


def _qemu(folder: Path, found: Kernel, initrd: Path, disk: Path) -> Boot:
    log = folder / "qemu.log"
    log.unlink(missing_ok=True)
    argv = [
        "qemu-system-x86_64", "-M", "microvm,memory-backend=ram,acpi=on,isa-serial=on,auto-kernel-cmdline=off",
        "-object", f"memory-backend-memfd,id=ram,size={MEMORY_BYTES}", "-m", str(MEMORY_BYTES >> 20),
        "-accel", "kvm", "-cpu", "host", "-smp", "1", "-nodefaults", "-no-user-config", "-display", "none",
        "-global", "virtio-mmio.force-legacy=false",
        "-kernel", str(found.image), "-initrd", str(initrd), "-append", CMDLINE,
        "-chardev", f"file,id=log,path={log}", "-serial", "chardev:log",
        "-device", "virtio-serial-device", "-chardev", f"file,id=hvc,path={log},append=on",
        "-device", "virtconsole,chardev=hvc",
        "-blockdev", f"driver=qcow2,node-name=d,file.driver=file,file.filename={disk}",
        "-device", "virtio-blk-device,drive=d",
        "-netdev", "tap,id=n,ifname=bench0,script=no,downscript=no,vhost=on", "-device", "virtio-net-device,netdev=n",
        "-device", "virtio-rng-device", "-device", "virtio-balloon-device",
    ]  # fmt: skip
    began = time.monotonic()
    process = subprocess.Popen(argv)
    try:
        _wait(log, UP)
        wall_s = time.monotonic() - began
        _wait(log, "measured")
        return Boot(wall_s, log.read_text(errors="replace"), _private(process.pid), {})
    finally:
        process.kill()
        process.wait()


def _wait(log: Path, text: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not log.exists() or text not in log.read_text(errors="replace"):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {text!r}: {log.read_text(errors='replace')[-1000:] if log.exists() else ''}")
        time.sleep(0.01)


def _private(pid: int) -> int:
    """Bytes that are this process's alone, but for shared memory (the guest's RAM is a memfd in both)."""
    rollup = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE))
    return int(rollup["Pss_Anon"]) << 10


if __name__ == "__main__":
    main()
