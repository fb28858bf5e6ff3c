"""What the guest gives up before it looks at the module. Every step is required: what fails, fails the start.

Namespaces of its own (network without interfaces, mounts, IPC, host name, cgroup; processes when root made it), a root
that holds the module's volumes and nothing else, no capabilities, no way to gain any, limits, a system call filter.
"""

from __future__ import annotations

import os
import resource

from vmtui.sandbox.config import Config, Volume
from vmtui.walls import calls, denials

ALL = calls.CLONE_NEWNS | calls.CLONE_NEWNET | calls.CLONE_NEWIPC | calls.CLONE_NEWUTS | calls.CLONE_NEWCGROUP
RUNTIME_BYTES = 512 << 20  # what Python, wasmtime and the code of a module may need beside the linear memory
COMPILER_BYTES = 4 << 30
COMPILE_CPU_S = 600  # of all threads together; the launcher counts real time
FILE_BYTES = 4 << 30  # one file that a module writes
OPEN_FILES = 256


def open_volumes(volumes: tuple[Volume, ...]) -> list[int]:
    """Each source, found before the root changes. Raises OSError."""
    return [os.open(volume.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for volume in volumes]


def identity(config: Config, volumes: list[int]) -> tuple[int, int]:
    """Whom root becomes: the owner of the first writable volume, else of the first one, else a user of its own.

    A folder that belongs to root leaves the guest user 0, without any capability.
    """
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    writable = [fd for fd, volume in zip(volumes, config.volumes, strict=True) if not volume.read_only]
    for fd in writable or volumes:
        owner = os.fstat(fd)
        return owner.st_uid, owner.st_gid
    return config.uid, config.uid


def enter_namespaces() -> None:
    """Raises OSError, as where the host forbids user namespaces to a plain user."""
    uid, gid = os.geteuid(), os.getegid()
    calls.unshare(ALL if uid == 0 else ALL | calls.CLONE_NEWUSER, "namespaces")
    if uid != 0:
        calls.map_user(uid, gid)
    calls.set_host_name("sandbox")


def change_root(base: str, volumes: list[int], config: Config) -> list[str]:
    """Make an empty root over the folder `base`, volumes in it, and enter it; returns each volume's path there."""
    quiet = calls.MS_NOSUID | calls.MS_NODEV | calls.MS_NOEXEC
    calls.mount("none", "/", None, calls.MS_REC | calls.MS_PRIVATE)
    calls.mount("sandbox", base, "tmpfs", quiet, "mode=755,size=64k")
    paths = []
    for index, (fd, volume) in enumerate(zip(volumes, config.volumes, strict=True)):
        os.mkdir(f"{base}/{index}")
        calls.mount(f"/proc/self/fd/{fd}", f"{base}/{index}", None, calls.MS_BIND | calls.MS_REC)
        calls.set_mount_attributes(f"{base}/{index}", quiet | (calls.MS_RDONLY if volume.read_only else 0))
        os.close(fd)
        paths.append(f"/{index}")
    calls.change_root(base)
    calls.mount("none", "/", None, calls.MS_REMOUNT | calls.MS_BIND | calls.MS_RDONLY | quiet)
    return paths


def limit(config: Config, *, compiling: bool) -> None:
    """Raises OSError."""
    data = COMPILER_BYTES if compiling else config.memory_bytes + RUNTIME_BYTES
    writes = compiling or any(not volume.read_only for volume in config.volumes)
    limits = {
        # Not RLIMIT_AS: wasmtime reserves 4 GiB of addresses for a memory, so that it need not check bounds in code.
        resource.RLIMIT_DATA: data,
        resource.RLIMIT_FSIZE: FILE_BYTES if writes else 0,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    if compiling:
        limits[resource.RLIMIT_CPU] = COMPILE_CPU_S
    elif config.timeout_s is not None:
        limits[resource.RLIMIT_CPU] = int(config.timeout_s) + 10  # the monitor's clock comes first
    for which, value in limits.items():
        _, hard = resource.getrlimit(which)
        bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (bounded, bounded))


def drop(uid: int, gid: int) -> None:
    """Give up identity, capabilities and system calls, for good. The process must have one thread. Raises OSError."""
    if os.geteuid() == 0:
        calls.drop_bounding_set()
        calls.become(uid, gid)
    calls.drop_capabilities()
    calls.prctl(calls.PR_SET_NO_NEW_PRIVS, 1, "no_new_privs")
    calls.die_with_parent()  # a change of user cancelled it
    denials.install()
