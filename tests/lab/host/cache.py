"""What the lab keeps between its runs: kernels of Debian's suites, unpacked, and its own initramfs. Safe to delete."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import IO

from vmtui.core.backend import Progress
from vmtui.core.errors import Fault
from vmtui.guests import kernel, packages
from vmtui.guests.kernel import Kernel
from vmtui.host.files import write_atomic
from vmtui.host.process import which
from vmtui.runtime.images import ImageStore

SUITES = ("bookworm", "trixie")
SORTS = ("cloud", "generic")
PACKAGES = {"cloud": "linux-image-cloud-amd64", "generic": "linux-image-amd64"}
IMAGE = "deb:busybox-static"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
IN_THE_LAB = "VMTUI_LAB_CACHE"
UPDATE_TIMEOUT_S = 300
_up_to_date: set[str] = set()  # suites, in this process


def folder() -> Path:
    """The host's, in the lab too."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get(IN_THE_LAB) or home / "vmtui-lab")


def place(suite: str) -> Path:
    """Laid out as a cache of vmtui's."""
    return folder() / suite


def fetched(suite: str, sort: str) -> Kernel:
    """Debian's kernel of that sort, with modules that modprobe can load. Raises Fault (no network, no space)."""
    missing = packages.remembered(PACKAGES[sort], place(suite) / "kernels") is None
    with _apt_of(suite) if missing else nullcontext():
        found = asyncio.run(kernel.resolve(kernel.DEB + PACKAGES[sort], place(suite), _say))
    if found.modules is not None and not (found.modules / "modules.dep").exists():
        root = found.modules.parents[2]
        subprocess.run([which("depmod"), "-b", root, found.release], check=True, timeout=UPDATE_TIMEOUT_S)
    return found


def all_fetched() -> list[Kernel]:
    """All that tests need, for the lab cannot fetch anything: kernels, an image, busybox. Raises Fault."""
    with _held(["fetching"], "is fetching what it needs"):
        images = ImageStore(place(SUITES[0]))
        asyncio.run(images.ensure(IMAGE, _say))
        busybox()
        return [fetched(suite, sort) for suite in SUITES for sort in SORTS]


def turn() -> AbstractContextManager[None]:
    """Wait until there is a processor for it: more labs of this user than those would run into all their time-outs."""
    return _held([f"lock-{number}" for number in range(len(os.sched_getaffinity(0)))], "is running")


@contextmanager
def _held(names: Sequence[str], does: str) -> Iterator[None]:
    """One of these locks, whichever is free first."""
    folder().mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        locks = [stack.enter_context((folder() / name).open("w")) for name in names]
        told = False
        while not any(map(_taken, locks)):
            if not told:
                print(f"lab: another one {does}; this one goes on when it has ended", file=sys.stderr, flush=True)
            told = True
            time.sleep(0.2)
        yield


def _taken(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def busybox() -> Path:
    """Debian's static busybox. Raises Fault."""
    return asyncio.run(packages.busybox(place(SUITES[0]), _say))


def _say(progress: Progress) -> None:
    print(f"lab: {progress.message}", file=sys.stderr)


@contextmanager
def _apt_of(suite: str) -> Iterator[None]:
    """Let apt see that suite alone, with lists of its own; the machine's configuration of apt is left as it is."""
    root = folder() / "apt" / suite
    (root / "lists/partial").mkdir(parents=True, exist_ok=True)
    (root / "archives/partial").mkdir(parents=True, exist_ok=True)
    write_atomic(root / "sources.list", f"deb [signed-by={KEYRING}] {mirror()} {suite} main\n".encode())
    settings = {
        "Dir::Etc::sourcelist": root / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": root / "lists",
        "Dir::Cache": root,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    write_atomic(root / "apt.conf", "".join(f'{name} "{value}";\n' for name, value in settings.items()).encode())
    before = os.environ.get("APT_CONFIG")
    os.environ["APT_CONFIG"] = str(root / "apt.conf")
    try:
        if suite not in _up_to_date:
            _update(suite)
        yield
    finally:
        del os.environ["APT_CONFIG"]
        if before is not None:
            os.environ["APT_CONFIG"] = before


def _update(suite: str) -> None:
    print(f"lab: reading the package lists of {suite}", file=sys.stderr)
    argv = ["apt-get", "-q", "update"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=UPDATE_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise Fault(f"cannot read the package lists of {suite}", hint="apt-get update", details=done.stderr)
    _up_to_date.add(suite)


def mirror() -> str:
    """Where this machine has Debian from. Raises Fault."""
    shown = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Label: Debian", "Component: main"],
        capture_output=True, text=True, timeout=UPDATE_TIMEOUT_S, check=False,
    )  # fmt: skip
    for line in shown.stdout.splitlines():
        return line
    raise Fault("apt knows no archive of Debian", hint="apt-get update")
