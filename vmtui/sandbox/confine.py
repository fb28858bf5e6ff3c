"""What the guest gives up before it looks at the module. Every step is required: what fails, fails the start.

Namespaces of its own (network without interfaces, mounts, IPC, host name, cgroup; processes when root made it), a root
that holds the module's volumes and nothing else, no capabilities, no way to gain any, limits, a system call filter.
"""

from __future__ import annotations

import ctypes
import os
import resource

from vmtui.sandbox import seccomp
from vmtui.sandbox.config import Config, Volume

# linux/sched.h, linux/mount.h, linux/fcntl.h, linux/prctl.h, linux/capability.h
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
AT_EMPTY_PATH, AT_RECURSIVE = 0x1000, 0x8000
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
SYS_MOUNT_SETATTR = 442  # the same on all machines
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
LINUX_CAPABILITY_VERSION_3 = 0x20080522
SIGKILL = 9

ALL = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
RUNTIME_BYTES = 512 << 20  # what Python, wasmtime and the code of a module may need beside the linear memory
COMPILER_BYTES = 4 << 30
COMPILE_CPU_S = 600  # of all threads together; the launcher counts real time
FILE_BYTES = 4 << 30  # one file that a module writes
OPEN_FILES = 256

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd"))


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def die_with_parent(*, wanted: bool = True) -> None:
    """SIGKILL when the parent ends, or no longer. Children do not inherit it."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, SIGKILL if wanted else 0, 0, 0, 0), "prctl")


def unshare(flags: int, what: str) -> None:
    """Raises OSError."""
    _check(_libc.unshare(flags), f"unshare {what}")


def fork_in_pid_namespace() -> int:
    """Like os.fork, the child alone in a process namespace. Needs root. Raises OSError."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWPID, "pid")
        pid = os.fork()
        if pid:
            _check(_libc.setns(own, CLONE_NEWPID), "setns")  # later children are ordinary ones
        return pid
    finally:
        os.close(own)


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
    unshare(ALL if uid == 0 else ALL | CLONE_NEWUSER, "namespaces")
    if uid != 0:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    _check(_libc.sethostname(b"sandbox", 7), "sethostname")


def change_root(base: str, volumes: list[int], config: Config) -> list[str]:
    """Make an empty root over the folder `base`, volumes in it, and enter it; returns each volume's path there."""
    quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount("sandbox", base, "tmpfs", quiet, "mode=755,size=64k")
    paths = []
    for index, (fd, volume) in enumerate(zip(volumes, config.volumes, strict=True)):
        os.mkdir(f"{base}/{index}")
        _mount(f"/proc/self/fd/{fd}", f"{base}/{index}", None, MS_BIND | MS_REC)
        _set_attributes(f"{base}/{index}", quiet | (MS_RDONLY if volume.read_only else 0))  # MOUNT_ATTR_* are equal
        os.close(fd)
        paths.append(f"/{index}")
    os.chdir(base)
    _check(_libc.syscall(SYS_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")
    _mount("none", "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | quiet)
    return paths


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    result = _libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    _check(result, f"mount {target}")


def _set_attributes(path: str, flags: int) -> None:
    attributes = _MountAttributes(set=flags)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    result = _libc.syscall(
        SYS_MOUNT_SETATTR, -100, os.fsencode(path), AT_RECURSIVE, ctypes.byref(attributes), size
    )  # -100: AT_FDCWD
    _check(result, f"mount_setattr {path}")


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
        capability = 0
        while _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
            capability += 1
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _check(_libc.syscall(SYS_CAPSET[os.uname().machine], header, nothing), "capset")
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    die_with_parent()  # a change of user cancelled it
    seccomp.install(_libc)
