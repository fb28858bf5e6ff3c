"""Starts qemu-storage-daemon and virtiofsd, confined to the files that they serve.

They read what the guest writes into its rings, so they are held as it is. What a back-end does to its own VM is not:
it has all of the guest's memory.
"""

from __future__ import annotations

import os
import resource
import signal
import struct
from collections.abc import Callable
from typing import NamedTuple

from vmtui.vmm.confine import namespaces, owners, room
from vmtui.vmm.confine.fork import fork_apart
from vmtui.vmm.confine.room import Share
from vmtui.walls import calls, denials, landlock

OPEN_FILES = 1_000_000  # what virtiofsd wants: it holds one for each file that the guest's kernel remembers
# linux/capability.h: CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SETGID, SETUID, SETPCAP, SYS_CHROOT,
# SYS_ADMIN, MKNOD, SETFCAP. In a user namespace: over files that are mounted, and over nothing of the host's kernel.
FILE_CAPABILITIES = frozenset((0, 1, 2, 3, 4, 6, 7, 8, 18, 21, 27, 31))
# Of walls/denials.py, what they need all the same: to be executed once; buffers to share; a sandbox of its own.
STORAGE_CALLS = frozenset(("execve", "memfd_create"))
VIRTIOFSD_CALLS = frozenset(
    ("execve", "clone", "fork", "mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "mknod", "mknodat")
)
PT_INTERP = 3  # elf.h

Missing = list[str]


class Started(NamedTuple):
    """A back-end that runs. `missing` has a line for each wall that this host refuses, and why."""

    pid: int
    missing: tuple[str, ...]


def start_storage(
    argv: list[str], *, shares: tuple[Share, ...], keep: tuple[int, ...], uid: int | None, log: int
) -> Started:
    """Run qemu-storage-daemon, `argv[0]` being its path, as a child that dies with this process.

    It sees the programs and libraries of the host, its `shares` (images, with all their backing files), and nothing
    else: no network, no other process. `uid`: its own user, for root; the images need not belong to it. None: ours.
    `keep`: descriptors that it inherits under the same numbers, above 2: its listening socket (`addr.type=fd`), its
    monitor's. `log` becomes its output. It cannot open sockets by path: they must be given.
    Raises OSError with the step that failed, also where the program cannot be executed. Nothing runs then.
    """

    def confine(missing: Missing) -> None:
        who = os.geteuid(), os.getegid()
        try:
            namespaces.isolate()
            who = room.build(shares, uid=uid, processes=False)
        except OSError as error:
            if os.geteuid() == 0:
                raise
            missing.append(f"namespaces: {error.strerror}")
        calls.drop_bounding_set()
        if uid is not None:
            calls.become(*who)
        calls.drop_capabilities()
        calls.prctl(calls.PR_SET_NO_NEW_PRIVS, 1, "no_new_privs")
        calls.die_with_parent()
        executables = tuple(path for path in (argv[0], interpreter(argv[0])) if path)
        if landlock.restrict(room.rules(shares, executables)) == 0:
            missing.append("landlock: not in this kernel, or not enabled")
        denials.install(STORAGE_CALLS)

    return _start(argv, confine, keep, log)


def start_virtiofsd(argv: list[str], *, shared: Share, keep: tuple[int, ...], log: int) -> Started:
    """Run virtiofsd likewise, with its `--fd` among `keep`. Needs root, whose files it makes and gives away.

    It is root in a user namespace where every user is who they are outside: it has power over the files of its share,
    and none over the host. Landlock is left out: it would forbid the sandbox that virtiofsd builds for itself.
    """
    if os.geteuid() != 0:
        raise OSError("virtiofsd needs root")

    def confine(_: Missing) -> None:
        namespaces.isolate()
        room.build((shared,), uid=None, processes=True)
        calls.drop_bounding_set(FILE_CAPABILITIES)
        calls.prctl(calls.PR_SET_NO_NEW_PRIVS, 1, "no_new_privs")
        denials.install(VIRTIOFSD_CALLS)

    everybody = owners.make(owners.EVERYBODY, owners.EVERYBODY)
    try:
        return _start(argv, confine, keep, log, everybody)
    finally:
        os.close(everybody)


def _start(
    argv: list[str],
    confine: Callable[[Missing], None],
    keep: tuple[int, ...],
    log: int,
    user_namespace: int | None = None,
) -> Started:
    if not argv[0].startswith(room.SYSTEM):
        raise OSError(f"{argv[0]} is not in {', '.join(room.SYSTEM)}, which are all that a back-end sees of this host")
    told, tell = os.pipe2(os.O_CLOEXEC)
    try:
        pid = fork_apart(user_namespace)
    except BaseException:
        os.close(told)
        os.close(tell)
        raise
    if pid == 0:
        missing: Missing = []
        try:
            _set_up(tell, keep, log)
            confine(missing)
            os.write(tell, "".join(f"{line}\n" for line in missing).encode())
            os.execve(argv[0], argv, {})
        except BaseException as error:
            os.write(tell, f"\0{argv[0]}: {error}".encode())
        finally:
            os._exit(127)
    os.close(tell)
    with open(told, "rb") as file:
        lines, failed, why = file.read().decode(errors="replace").partition("\0")
    if failed:
        os.waitpid(pid, 0)
        raise OSError(why)
    return Started(pid, tuple(lines.splitlines()))


def _set_up(tell: int, keep: tuple[int, ...], log: int) -> None:
    """The descriptors and the limits that the program is to have."""
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    lowest = 3
    for fd in sorted({tell, *keep}):
        os.closerange(lowest, fd)
        lowest = fd + 1
    os.closerange(lowest, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for fd in keep:
        os.set_inheritable(fd, True)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, which is inherited
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = min(OPEN_FILES, most) if most != resource.RLIM_INFINITY else OPEN_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


def interpreter(program: str) -> str:
    """The dynamic linker that the kernel executes with it, "" for none. Raises OSError for what is no 64-bit ELF."""
    with open(program, "rb") as file:
        head = file.read(64)  # Elf64_Ehdr
        if head[:5] != b"\x7fELF\x02":
            raise OSError(f"{program} is not a 64-bit program")
        at, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
        for index in range(count):
            file.seek(at + index * size)
            kind, _, offset, _, _, length = struct.unpack("<IIQQQQ", file.read(40))  # Elf64_Phdr
            if kind == PT_INTERP:
                file.seek(offset)
                return os.fsdecode(file.read(length).rstrip(b"\0"))
    return ""
