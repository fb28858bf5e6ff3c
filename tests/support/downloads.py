"""What the tests with VMs download: once for all workers, then copied, since traces are looked for in a cache."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from vmtui.core.backend import silent
from vmtui.guests import kernel, packages
from vmtui.runtime.images import ImageStore

KERNEL = "deb:linux-image-cloud-amd64"
IMAGE = "deb:busybox-static"


def cache(factory: pytest.TempPathFactory, name: str = "cache") -> Path:
    """The cache directory of that name, of this worker alone, with the kernel and busybox in it. Raises Fault."""
    base = factory.getbasetemp()
    made = base / name / "vmtui"
    if not made.exists():
        whole = _fetched(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)
        made.parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "-a", whole, made], check=True, timeout=120)  # owners and all
    return made


def _fetched(base: Path) -> Path:
    """Where it all is. Who comes while another one fetches it, waits."""
    place, filling = base / "downloads", base / "downloading"
    with (base / "downloads.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            shutil.rmtree(filling, ignore_errors=True)
            asyncio.run(_fetch(filling))
            filling.rename(place)
    return place


async def _fetch(place: Path) -> None:
    await kernel.resolve(KERNEL, place, silent)
    await packages.busybox(place, silent)
    await ImageStore(place).ensure(IMAGE, silent)
