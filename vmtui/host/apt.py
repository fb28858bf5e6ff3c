"""Debian packages as a source of kernels and files: downloaded and unpacked, never installed."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from vmtui.host.faults import CommandFailed, Fault
from vmtui.host.process import run

PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")  # Debian policy 5.6.7


async def candidate(package: str) -> str:
    """The version that apt would install, for use in cache keys. Raises Fault if apt knows no such package."""
    if not PACKAGE_NAME.fullmatch(package):
        raise Fault(f"{package!r} is not a Debian package name", hint="apt-cache search WORD")
    policy = await run(["apt-cache", "policy", package], reads=True)
    for line in policy.stdout.decode().splitlines():
        key, _, value = line.strip().partition(": ")
        if key == "Candidate" and value != "(none)":
            return value
    raise Fault(f"apt knows no package {package}", hint="apt-get update")


async def depends_on(package: str, pattern: str) -> str | None:
    """The first direct dependency whose name matches `pattern`: how a metapackage names its real one."""
    shown = await run(["apt-cache", "depends", "--important", package], reads=True)
    for line in shown.stdout.decode().splitlines():
        key, _, value = line.strip().partition(": ")
        if key == "Depends" and re.fullmatch(pattern, value):
            return value
    return None


async def unpack(package: str, into: Path) -> None:
    """Download `package` and unpack its files to `into`, which must not exist.

    The directory appears complete or not at all. Raises Fault (unknown package, no network, no space).
    """
    into.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{into.name}.", dir=into.parent))
    try:
        work.chmod(0o755)  # apt's sandbox user writes here where it exists
        try:
            await run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package], cwd=work, timeout=600)
        except CommandFailed as fault:
            raise Fault(f"cannot download {package}", hint="apt-get update", details=fault.details) from None
        archive = next(work.glob("*.deb"), None)
        if archive is None:
            raise Fault(f"apt downloaded nothing for {package}", hint="apt-get update")
        tree = work / "tree"
        await run(["dpkg-deb", "--extract", archive, tree], timeout=300)
        tree.rename(into)
    finally:
        shutil.rmtree(work, ignore_errors=True)
