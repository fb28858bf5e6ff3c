"""What the session of a role that only looks gives up for good, beside what the engine refuses it.

A second line, should a session run what it must not: nothing of the file system can be written, and of what only root
may read nothing is seen but the workspace; no process outside of it can be signalled or traced, no capability be used,
no TCP connection made. What it can still do is speak to unix sockets that its user may open, since Landlock does not
cover those: there the engine's check is the only one.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from vmtui.host.paths import Paths, config_dir
from vmtui.walls import calls, denials, landlock

READ = landlock.READ_FILE | landlock.READ_DIR | landlock.EXECUTE
WRITE = READ | landlock.WRITE_FILE | landlock.TRUNCATE | landlock.IOCTL_DEV
WRITABLE = ("/dev/null", "/dev/tty")
# Programs, what the kernel tells, and what libraries look up: nothing here is for root's eyes alone.
SYSTEM = (
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/sbin",
    "/opt",
    "/proc",
    "/sys",
    "/var/lib/dpkg",
    "/run/vmtui-tap",
)
CONFIGURATION = (
    "alternatives", "group", "host.conf", "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime",
    "nsswitch.conf", "os-release", "passwd", "protocols", "resolv.conf", "services", "ssl/certs", "subgid", "subuid",
    "timezone",
)  # fmt: skip
DEVICES = ("/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/pts")
CAP_DAC_READ_SEARCH = 2  # linux/capability.h
KEPT = frozenset({CAP_DAC_READ_SEARCH})  # containers' files belong to others
# Of what `denials` takes away: tools are run and ended, the host's sockets looked at.
NEEDED = frozenset(
    {
        "execve", "execveat", "fork", "vfork", "clone", "kill", "tkill", "pidfd_open", "pidfd_send_signal",
        "socket", "socketpair", "memfd_create",
    }
)  # fmt: skip


def enter(paths: Paths, hidden: Iterable[Path] = ()) -> list[str]:
    """For this process and all that it starts; what this kernel has no wall for is named. Raises OSError.

    `hidden` are files and folders of the workspace that it does not see; hiding needs root. The process must have one
    thread.
    """
    missing = []
    calls.prctl(calls.PR_SET_NO_NEW_PRIVS, 1, "no_new_privs")
    if os.geteuid() == 0:
        try:
            _hide([path for path in hidden if path.exists()])
        except OSError as error:
            missing.append(f"mount namespaces: {error}")
        with contextlib.suppress(OSError):  # not permitted: then there is nothing to drop from
            calls.drop_bounding_set(KEPT)
    calls.drop_capabilities(KEPT)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    version = landlock.restrict([*_present(_readable(paths), READ), *_present(WRITABLE, WRITE)])
    if version == 0:
        missing.append("landlock: not in this kernel, or not enabled")
    elif version < landlock.SCOPE_ABI:
        missing.append(f"landlock {version}: processes of the same user can be signalled")
    denials.install(NEEDED)
    return missing


def _hide(paths: list[Path]) -> None:
    """Cover them, in a mount namespace of one's own that still sees what the host mounts later."""
    calls.unshare(calls.CLONE_NEWNS, "mounts")
    calls.mount("none", "/", None, calls.MS_REC | calls.MS_SLAVE)
    quiet = calls.MS_NOSUID | calls.MS_NODEV | calls.MS_NOEXEC
    for path in paths:
        if path.is_dir():
            calls.mount("hidden", str(path), "tmpfs", quiet | calls.MS_RDONLY, "mode=700,size=4k")
        else:
            calls.mount("/dev/null", str(path), None, calls.MS_BIND)


def _readable(paths: Paths) -> list[str]:
    own = (paths.state, paths.cache, paths.runtime, config_dir(), sys.prefix, sys.base_prefix, *sys.path)
    return [*SYSTEM, *DEVICES, *(f"/etc/{name}" for name in CONFIGURATION), *map(str, own)]


def _present(paths: Iterable[str], rights: int) -> Iterator[tuple[str, int]]:
    return ((path, rights) for path in paths if path and os.path.exists(path))
