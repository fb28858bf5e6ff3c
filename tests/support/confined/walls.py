"""Jobs for each wall alone, as root: what it refuses without the others; and for all but one."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import shutil
import socket
import subprocess
import threading
from typing import Any

from tests.support.confined.host import FILE_BYTES, UID, Host, address, attacks, attempt, call, lock_in
from vmtui.vmm.confine import limits, namespaces, seccomp
from vmtui.vmm.confine.fork import fork_apart
from vmtui.walls import bpf, calls, landlock


def less(host: Host) -> dict[str, dict[str, str]]:
    """The attacks when one wall is missing: that none stands alone."""
    removable = {
        "namespaces": [(namespaces, "isolate"), (namespaces, "empty_root")],
        "user": [(calls, "become")],
        "landlock": [(landlock, "restrict")],
        "seccomp": [(bpf, "install")],
    }
    said = {}
    for name, functions in removable.items():
        told, tell = os.pipe()
        pid = fork_apart()
        if pid == 0:
            for module, function in functions:
                setattr(module, function, lambda *_: 1)
            clients = host.clients()
            lock_in()
            if name == "seccomp":  # then it can make sockets of its own
                clients = host.clients()
            answers = attacks(str(host.secret), str(host.folder), os.getppid() or host.pid, clients)
            os.write(tell, json.dumps(answers).encode())
            os._exit(0)
        os.close(tell)
        with open(told, "rb") as file:
            said[name] = json.loads(file.read())
        os.waitpid(pid, 0)
    return said


def wall_namespaces(host: Host) -> dict[str, str]:
    names = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
    before = [os.readlink(f"/proc/{host.pid}/ns/{name}") for name in names]
    namespaces.isolate()
    after = [os.readlink(f"/proc/self/ns/{name}") for name in names]
    clients = host.clients()
    namespaces.empty_root()
    return {
        **attacks(str(host.secret), "/", host.pid, clients),
        "root": " ".join(os.listdir("/")),
        "new": " ".join(name for name, old, new in zip(names, before, after, strict=True) if old != new),
    }


def wall_user(host: Host) -> dict[str, str]:
    calls.drop_bounding_set()
    calls.become(UID, UID)
    calls.drop_capabilities()
    return {
        "open": attempt(lambda: os.open(host.secret, os.O_RDONLY)),
        "kvm": attempt(lambda: os.open("/dev/kvm", os.O_RDWR)),
        "setuid": attempt(lambda: os.setuid(0)),
        "setgroups": attempt(lambda: os.setgroups([0])),
        "mount": attempt(lambda: calls.mount("x", "/tmp", "tmpfs", 0)),
        "chroot": attempt(lambda: os.chroot("/tmp")),
        "kill": attempt(lambda: os.kill(host.pid, 0)),
        "groups": str(os.getgroups()),
    }


def wall_no_new_privs(host: Host) -> dict[str, int]:
    """The effective user of a set-user-ID program that another one starts, without and with the wall."""
    program = host.folder / "id"
    shutil.copy("/usr/bin/id", program)
    program.chmod(0o4755)
    calls.become(UID, UID)
    before = int(subprocess.check_output([program, "-u"]))
    calls.prctl(calls.PR_SET_NO_NEW_PRIVS, 1, "no_new_privs")
    return {"before": before, "after": int(subprocess.check_output([program, "-u"]))}


# Each wall alone, as root: what it refuses without the others.


def wall_limits(host: Host) -> dict[str, str]:
    limits.limit(file_bytes=FILE_BYTES)
    if os.geteuid() == 0:
        os.setresuid(UID, UID, UID)
    limits.limit_threads()

    def files() -> None:
        kept = [os.dup(0) for _ in range(limits.OPEN_FILES)]
        assert not kept

    opened = attempt(files)
    for fd in range(10, limits.OPEN_FILES):
        try:
            os.close(fd)
        except OSError:
            continue

    def threads() -> None:
        gate = threading.Event()
        try:
            for _ in range(limits.THREADS + 1):
                threading.Thread(target=gate.wait, daemon=True).start()
        finally:
            gate.set()

    return {
        "files": opened,
        "file": attempt(lambda: os.ftruncate(host.file, FILE_BYTES + 1)),
        "memory": attempt(lambda: bytearray(2 * limits.PRIVATE_BYTES)),
        "threads": attempt(threads),
        "core": str(resource.getrlimit(resource.RLIMIT_CORE)),
        "raise": attempt(lambda: resource.setrlimit(resource.RLIMIT_CORE, (1, 1))),
        "lock": attempt(call(149, ctypes.c_void_p(address(mmap.mmap(-1, 4096))), ctypes.c_size_t(4096))),
    }


def wall_landlock(host: Host) -> dict[str, Any]:
    clients = host.clients()
    calls.prctl(calls.PR_SET_NO_NEW_PRIVS, 1, "no_new_privs")
    return {
        "abi": landlock.restrict(),
        **attacks(str(host.secret), str(host.folder), host.pid, clients),
        "list": attempt(lambda: os.listdir("/")),
        "unlink": attempt(lambda: os.unlink(host.secret)),
        "execute": attempt(lambda: os.execv("/bin/true", ["true"])),
        "write": attempt(lambda: os.pwrite(host.file, b"x", 0)),
    }


def wall_seccomp(host: Host) -> dict[str, str]:
    clients = host.clients()
    calls.prctl(calls.PR_SET_NO_NEW_PRIVS, 1, "no_new_privs")
    ready, go, said = threading.Event(), threading.Event(), []

    def early() -> None:
        ready.set()
        go.wait()
        said.append(attempt(lambda: os.open(host.secret, os.O_RDONLY)))

    thread = threading.Thread(target=early)  # before the filter: it reaches this one as well
    thread.start()
    ready.wait()
    bpf.install(seccomp.program(os.getpid()))
    go.set()
    thread.join()
    return {
        **attacks(str(host.secret), str(host.folder), host.pid, clients),
        "open early": said[0],
        "socket": attempt(lambda: socket.socket(socket.AF_UNIX)),
    }


# These start in no process namespace, with all that there is.
