"""/dev/kvm as a file: what it is, and what gives a host one that works."""

from __future__ import annotations

import os
from pathlib import Path

DEVICE = Path("/dev/kvm")


def mend() -> str:
    """The command, or the step, that gives this host a KVM."""
    if not DEVICE.exists():
        return "modprobe -a kvm-intel kvm-amd, and enable virtualization in the firmware"
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return "usermod -aG kvm $USER, and log in again"
    return "a host with VMX or SVM; in a cloud, an instance type with nested virtualization"


def stamp() -> str:
    """What it is, so that a KVM which appears later is tried."""
    try:
        node = DEVICE.stat()
    except OSError:
        return "none"
    return f"{node.st_rdev}:{node.st_mode:o}:{node.st_uid}:{node.st_gid}"
