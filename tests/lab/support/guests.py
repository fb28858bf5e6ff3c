"""Small guests for the lab: an initramfs that runs one script, and QEMU with KVM to boot it in."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from vmtui.guests import cpio
from vmtui.guests.kernel import Kernel
from vmtui.guests.modules import canonical, uncompressed

BUSYBOX = Path("/usr/bin/busybox")
BOOT_TIMEOUT_S = 60.0
APPEND = "console=ttyS0 quiet panic=-1 reboot=t"
INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module.ko"; done </modules/order
{script}
sync
reboot -f
"""


@cache
def _places(root: Path) -> dict[str, list[Path]]:
    """Where each module is, after what it needs, by what depmod has noted: thousands are not looked for over 9p."""
    places = {}
    for line in (root / "modules.dep").read_text().splitlines():
        path, _, needs = line.partition(":")
        name = canonical(Path(path).name.partition(".ko")[0])
        places[name] = [root / need for need in (*reversed(needs.split()), path)]
    return places


def _load_order(root: Path, names: Iterable[str]) -> list[Path]:
    """Built-in ones have no file: left out."""
    return list(dict.fromkeys(path for name in names for path in _places(root).get(canonical(name), ())))


def initramfs(kernel: Kernel, script: str, *, modules: Iterable[str] = ()) -> bytes:
    """An archive whose init loads the modules, runs the shell script with busybox's commands, and reboots."""
    assert kernel.modules is not None
    order = _load_order(kernel.modules, modules)
    names = [path.name.partition(".ko")[0] for path in order]
    entries = [cpio.directory(name) for name in ("bin", "dev", "proc", "sys", "mnt", "modules")]
    entries.append(cpio.file("bin/busybox", BUSYBOX.read_bytes(), mode=0o755))
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    entries += [cpio.link(f"bin/{applet}", "busybox") for applet in applets if applet != "busybox"]
    entries.append(cpio.file("modules/order", "".join(f"{name}\n" for name in names).encode()))
    entries += [cpio.file(f"modules/{name}.ko", uncompressed(path)) for name, path in zip(names, order, strict=True)]
    entries.append(cpio.file("init", INIT.format(script=script).encode(), mode=0o755))
    return cpio.archive(entries)


def booted(
    kernel: Kernel, folder: Path, script: str, *, modules: Iterable[str] = (), devices: Iterable[str] = ()
) -> str:
    """What the console says when QEMU's microvm boots it under KVM; it must end by itself."""
    initrd = folder / "initrd"
    initrd.write_bytes(initramfs(kernel, script, modules=modules))
    argv = [
        "qemu-system-x86_64", "-M", "microvm,rtc=on", "-accel", "kvm", "-cpu", "host", "-m", "256M",
        "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
        "-kernel", str(kernel.image), "-initrd", str(initrd), "-append", APPEND, *devices,
    ]  # fmt: skip
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BOOT_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
