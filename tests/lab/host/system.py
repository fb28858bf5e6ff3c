"""A small Debian with systemd on a disk, as people have them: made once, by mmdebstrap."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.lab.host import cache

SUITE = "bookworm"
PACKAGES = "systemd-sysv,udev"
DISK_BYTES = 640 << 20  # a file with holes
TIMEOUT_S = 600
# What makes it large and is of no use here; and nobody needs a password on this console.
SETTINGS = (
    '--dpkgopt=path-exclude=/usr/share/doc/*',
    '--dpkgopt=path-exclude=/usr/share/man/*',
    '--dpkgopt=path-exclude=/usr/share/locale/*',
    '--customize-hook=chroot "$1" passwd -d root',
    '--customize-hook=echo guest >"$1/etc/hostname"',
    '--customize-hook=chroot "$1" systemctl mask systemd-timesyncd apt-daily.timer apt-daily-upgrade.timer',
)  # fmt: skip


def disk() -> Path:
    """A raw image with one ext4 file system. Raises CalledProcessError (no network, no space)."""
    made = cache.folder() / f"systemd-{SUITE}.ext4"
    if made.exists():
        return made
    print("lab: making a Debian with systemd", file=sys.stderr)
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=made.parent) as work:
        root, fresh = Path(work) / "root", Path(work) / "disk"
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", *SETTINGS, SUITE, str(root)]
        subprocess.run([*command, cache.mirror()], check=True, timeout=TIMEOUT_S)
        fresh.touch()
        subprocess.run(["truncate", "-s", str(DISK_BYTES), fresh], check=True, timeout=TIMEOUT_S)
        subprocess.run(["mkfs.ext4", "-q", "-d", root, fresh], check=True, timeout=TIMEOUT_S)
        fresh.rename(made)
        shutil.rmtree(root)
    return made
