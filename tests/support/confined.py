"""Jobs for a process that is confined as a machine is, or behind one of its walls.

`python -m tests.support.confined JOB [UID]` runs one in a process of its own, and prints a line of JSON: how the
process ended, and what the job, a function of this module, returned. `enquire` does that from a test.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import mmap
import os
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vmtui.vmm.confine import landlock, limits, namespaces, seccomp
from vmtui.vmm.confine.enter import Walls, enter
from vmtui.vmm.confine.fork import fork_apart
from vmtui.vmm.devices.net.vhost import (
    GET_FEATURES,
    SET_FEATURES,
    SET_MEM_TABLE,
    SET_OWNER,
    SET_VRING_NUM,
    open_vhost,
)
from vmtui.vmm.eventfd import EventFd
from vmtui.vmm.kvm import constants as kvm
from vmtui.vmm.kvm import ioctl
from vmtui.vmm.loop import Loop
from vmtui.walls import bpf, calls

ROOT = Path(__file__).parents[2]
UID = 0x7FFF_0001
FILE_BYTES = 1 << 20


def enquire(job: str, user: int | None = None) -> Any:
    """What it returned, run as root or another user. Fails if its process did not end well."""
    argv = [sys.executable, "-m", "tests.support.confined", job, *(() if user is None else (str(user),))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["status"] == 0, answer
    return answer["said"]


def attempt(function: Callable[[], Any]) -> str:
    """The name of the error that it raised, or "worked"."""
    try:
        function()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except (MemoryError, RuntimeError, ImportError, ValueError) as error:
        return type(error).__name__
    return "worked"


def call(number: int, *arguments: Any) -> Callable[[], None]:
    def made() -> None:
        if calls.libc.syscall(number, *arguments) < 0:
            raise OSError(ctypes.get_errno(), "")

    return made


def uid() -> int | None:
    return UID if os.geteuid() == 0 else None


def lock_in() -> Walls:
    return enter(uid(), file_bytes=FILE_BYTES)


class Host:
    """What there is outside, made before the walls: a listener of each sort, a file, a process, an open file."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vmtui-confined-"))
        self.folder.chmod(0o755)
        self.secret = self.folder / "secret"
        self.secret.write_text("secret")
        self.secret.chmod(0o600)
        self.listeners = {
            "path": self._listen(socket.AF_UNIX, str(self.folder / "socket")),
            "abstract": self._listen(socket.AF_UNIX, f"\0{self.folder}"),
            "tcp": self._listen(socket.AF_INET, ("127.0.0.1", 0)),
        }
        self.pid = os.getpid()
        self.file = os.open(self.folder / "file", os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def _listen(self, family: int, address: Any) -> socket.socket:
        listener = socket.socket(family)
        listener.bind(address)
        listener.listen()
        return listener

    def clients(self) -> dict[str, Callable[[], None]]:
        """To each listener, over a socket that was made in time."""
        return {name: self._client(listener) for name, listener in self.listeners.items()}

    def _client(self, listener: socket.socket) -> Callable[[], None]:
        client, address = socket.socket(listener.family), listener.getsockname()
        return lambda: client.connect(address)

    def close(self) -> None:
        for listener in self.listeners.values():
            listener.close()
        os.close(self.file)
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()


HOST: Host


def everything() -> dict[str, Any]:
    """What the issue of a guest's escape would be after: all refused, and the process lives."""
    clients, host_pid = HOST.clients(), os.getppid() or HOST.pid
    plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    walls = lock_in()
    page = mmap.mmap(-1, 4096)
    return {
        "walls": walls._asdict(),
        **attacks("/etc/passwd", "/", host_pid, clients),
        "open root": attempt(lambda: os.open("/", os.O_RDONLY)),
        "stat": attempt(lambda: os.stat("/etc/passwd")),
        "sendto": attempt(lambda: plain.sendto(b"x", ("127.0.0.1", 9))),
        "socket": attempt(lambda: socket.socket(socket.AF_UNIX)),
        "socketpair": attempt(socket.socketpair),
        "kill all": attempt(lambda: os.kill(-1, signal.SIGKILL)),
        "tgkill": attempt(call(234, HOST.pid, HOST.pid, 0)),
        "memfd": attempt(lambda: os.memfd_create("x")),
        "executable": attempt(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)),
        "mprotect": attempt(call(10, ctypes.c_void_p(address(page)), ctypes.c_size_t(4096), 5)),
        "CREATE_VM": attempt(lambda: ioctl.call(HOST.file, kvm.KVM_CREATE_VM, "")),
        "TIOCSTI": attempt(lambda: ioctl.call(0, 0x5412, "")),
        "prctl": attempt(call(157, calls.PR_SET_DUMPABLE, 1, 0, 0, 0)),
        "setrlimit": attempt(lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0))),
        "import": attempt(lambda: __import__("wave")),
        "others": sorted({attempt(call(n, 0, 0, 0, 0, 0, 0)) for n in range(462) if n not in LISTED}),
    }


# uretprobe and uprobe, which Linux lets pass any filter: but from its own trampolines they raise SIGILL
UNFILTERED = {335, 336}
LISTED = {*seccomp.ALLOWED.values(), *seccomp.FATAL.values(), *seccomp.NR.values(), *UNFILTERED}


def address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def work() -> dict[str, str]:
    """All that a machine does once it is locked in."""
    ours, theirs = socket.socketpair()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(HOST.folder / "mine"))
    listener.listen()
    other = socket.socket(socket.AF_UNIX)
    other.connect(listener.getsockname())
    socket.send_fds(theirs, [b"x"], [HOST.file])
    walls = lock_in()

    def threads() -> None:
        done: list[int] = []
        started = [threading.Thread(target=done.append, args=(i,)) for i in range(64)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
        assert len(done) == 64

    def kicks() -> None:
        caught = threading.Event()
        signal.signal(signal.SIGUSR1, lambda *_: caught.set())
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        assert caught.wait(5)

    def loops() -> None:
        loop, event, heard = Loop("test", lambda *_: None), EventFd(), threading.Event()
        loop.start()
        loop.watch(event.fd, lambda *_: heard.set())
        event.signal()
        assert heard.wait(5)
        heard.clear()
        loop.after(0.01, heard.set)
        assert heard.wait(5)
        loop.stop()
        loop.close()

    def memory() -> None:
        block = bytearray(64 << 20)
        block.extend(bytes(64 << 20))
        with mmap.mmap(-1, 64 << 20) as area:
            area[:4] = b"abcd"
            area.madvise(mmap.MADV_DONTNEED)

    def files() -> None:
        os.pwritev(HOST.file, [b"abc"], 0)
        assert os.preadv(HOST.file, [bytearray(3)], 0) == 3
        os.fdatasync(HOST.file)
        os.posix_fallocate(HOST.file, 0, 4096)
        os.ftruncate(HOST.file, 100)
        os.fstat(HOST.file)

    def sockets() -> None:
        assert len(socket.recv_fds(ours, 1, 1)[1]) == 1
        client, _ = listener.accept()
        client.settimeout(5)
        client.sendall(b"hello")
        assert other.recv(5) == b"hello"
        client.shutdown(socket.SHUT_RDWR)
        client.close()

    def errors() -> None:
        try:
            raise ValueError("on purpose")
        except ValueError:
            assert "on purpose" in traceback.format_exc()

    def sleep() -> None:
        time.sleep(0.001)
        threading.Event().wait(0.001)

    jobs = (threads, kicks, loops, memory, files, sockets, errors, sleep)
    return {"missing": "; ".join(walls.missing), **{job.__name__: attempt(job) for job in jobs}}


def guest() -> Any:
    """A vCPU in real mode adds two numbers and tells a port, before the walls, and halts behind them, in a thread."""
    system = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    vm = ioctl.call(system, kvm.KVM_CREATE_VM, "KVM_CREATE_VM")
    run_bytes = ioctl.call(system, kvm.KVM_GET_VCPU_MMAP_SIZE, "KVM_GET_VCPU_MMAP_SIZE")
    memory = mmap.mmap(-1, 0x1000, mmap.MAP_SHARED)
    memory[:] = bytes.fromhex("b003 0404 e642 f4").ljust(0x1000, b"\xf4")  # mov al, 3; add al, 4; out 0x42, al; hlt
    region = struct.pack("<IIQQQ", 0, 0, 0x1000, 0x1000, address(memory))
    ioctl.give(vm, kvm.KVM_SET_USER_MEMORY_REGION, "KVM_SET_USER_MEMORY_REGION", region)
    vcpus = [Vcpu(vm, number, run_bytes) for number in range(2)]
    seen = [vcpus[0].run(), len(os.listdir("/proc/self/task")) > 1]  # KVM keeps a thread in the process from now on
    lock_in()

    def rest() -> None:
        seen.append(vcpus[0].run())
        late = Vcpu(vm, 2, run_bytes)
        seen.extend(vcpu.run() for vcpu in (vcpus[1], vcpus[1], late, late))

    thread = threading.Thread(target=rest)
    thread.start()
    thread.join()
    return seen


class Vcpu:
    def __init__(self, vm: int, number: int, run_bytes: int) -> None:
        self.fd = ioctl.call(vm, kvm.KVM_CREATE_VCPU, "KVM_CREATE_VCPU", number)
        self.shared = mmap.mmap(self.fd, run_bytes)
        sregs = bytearray(ioctl.give(self.fd, kvm.KVM_GET_SREGS, "KVM_GET_SREGS", bytes(312)))
        sregs[0:8], sregs[12:14] = bytes(8), bytes(2)  # struct kvm_segment cs: base, selector
        ioctl.give(self.fd, kvm.KVM_SET_SREGS, "KVM_SET_SREGS", sregs)
        regs = bytearray(144)
        struct.pack_into("<QQ", regs, 128, 0x1000, 2)  # struct kvm_regs: rip, rflags
        ioctl.give(self.fd, kvm.KVM_SET_REGS, "KVM_SET_REGS", regs)

    def run(self) -> Any:
        """What it came out for: a port and what was written to it, or a name."""
        ioctl.call(self.fd, kvm.KVM_RUN, "KVM_RUN")
        reason = struct.unpack_from("<I", self.shared, 8)[0]  # struct kvm_run
        if reason == kvm.EXIT_IO:
            _, _, port, _, offset = struct.unpack_from("<BBHIQ", self.shared, 32)
            return [port, self.shared[offset]]
        return kvm.EXIT_NAMES[reason]


def vhost() -> str:
    """The kernel's worker for a network card, started behind the walls."""
    fd, memory = open_vhost(), mmap.mmap(-1, 1 << 20)
    lock_in()
    ioctl.call(fd, SET_OWNER, "SET_OWNER")
    (features,) = struct.unpack("<Q", ioctl.give(fd, GET_FEATURES, "GET_FEATURES", bytes(8)))
    ioctl.give(fd, SET_FEATURES, "SET_FEATURES", struct.pack("<Q", features & 1 << 32))
    ioctl.give(fd, SET_MEM_TABLE, "SET_MEM_TABLE", struct.pack("<II4Q", 1, 0, 0, 1 << 20, address(memory), 0))
    thread = threading.Thread(target=ioctl.give, args=(fd, SET_VRING_NUM, "SET_VRING_NUM", struct.pack("<II", 0, 256)))
    thread.start()
    thread.join()
    return "worked"


def attacks(secret: str, folder: str, pid: int, clients: dict[str, Callable[[], None]]) -> dict[str, str]:
    return {
        "open": attempt(lambda: os.open(secret, os.O_RDONLY)),
        "create": attempt(lambda: os.mkdir(f"{folder}/new")),
        "kill": attempt(lambda: os.kill(pid, 0)),
        **{f"connect {name}": attempt(client) for name, client in clients.items()},
    }


def fatal() -> dict[str, str]:
    """How a process of its own ends for each fatal call."""
    ends = {}
    numbers = {**seccomp.FATAL, "clone of a process": 56, "clone into a namespace": 56, "x32": 0x40000000 | 39}
    flags = {"clone of a process": signal.SIGCHLD, "clone into a namespace": calls.CLONE_NEWUSER | bpf.CLONE_THREAD}
    for name, number in numbers.items():
        pid = fork_apart()
        if pid == 0:
            try:
                lock_in()
                calls.libc.syscall(number, flags.get(name, 0), 0, 0, 0, 0, 0)
            finally:
                os._exit(9)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        ends[name] = signal.Signals(-status).name if status < 0 else f"lived: {status}"
    return ends


def less() -> dict[str, dict[str, str]]:
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
            clients = HOST.clients()
            lock_in()
            if name == "seccomp":  # then it can make sockets of its own
                clients = HOST.clients()
            answers = attacks(str(HOST.secret), str(HOST.folder), os.getppid() or HOST.pid, clients)
            os.write(tell, json.dumps(answers).encode())
            os._exit(0)
        os.close(tell)
        with open(told, "rb") as file:
            said[name] = json.loads(file.read())
        os.waitpid(pid, 0)
    return said


def unprivileged() -> dict[str, Any]:
    """Where the host allows no user namespaces."""
    user, group = os.geteuid(), os.getegid()
    calls.unshare(calls.CLONE_NEWUSER, "user")
    calls.map_user(user, group)
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    calls.drop_capabilities()
    told, tell = os.pipe()
    if (pid := fork_apart()) == 0:
        clients = HOST.clients()
        walls = lock_in()
        answers = attacks(str(HOST.secret), str(HOST.folder), HOST.pid, clients)
        os.write(tell, json.dumps({**answers, "missing": walls.missing, "pid": os.getpid()}).encode())
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    said: dict[str, Any] = json.loads(os.read(told, 4096))
    assert said.pop("pid") == pid
    return said


def times() -> dict[str, float]:
    """Of each phase, in ms."""
    marks = [("", time.perf_counter())]
    enter(uid(), file_bytes=FILE_BYTES, phase=lambda name: marks.append((name, time.perf_counter())))
    return {name: (end - start) * 1e3 for (_, start), (name, end) in itertools.pairwise(marks)}


def monitor() -> str:
    """How long the machine outlives its monitor; both are children of this process."""
    told, tell = os.pipe()
    if (middle := os.fork()) == 0:
        if fork_apart() == 0:
            lock_in()
            time.sleep(60)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(tell)
    os.waitpid(middle, 0)
    return "gone" if select.select([told], [], [], 5)[0] else "alive"


def attached() -> dict[str, str]:
    """What another process of the same user can do to a machine."""
    told, tell = os.pipe()
    if (pid := os.fork()) == 0:
        lock_in()
        os.write(tell, b"1")
        time.sleep(60)
    os.read(told, 1)
    if os.geteuid() == 0:
        calls.become(UID, UID)
    said = {
        "ptrace": attempt(call(101, 16, pid, 0, 0)),  # PTRACE_ATTACH
        "memory": attempt(lambda: os.open(f"/proc/{pid}/mem", os.O_RDWR)),
        "files": attempt(lambda: os.listdir(f"/proc/{pid}/fd")),
    }
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return said


def wall_no_new_privs() -> dict[str, int]:
    """The effective user of a set-user-ID program that another one starts, without and with the wall."""
    program = HOST.folder / "id"
    shutil.copy("/usr/bin/id", program)
    program.chmod(0o4755)
    calls.become(UID, UID)
    before = int(subprocess.check_output([program, "-u"]))
    calls.prctl(calls.PR_SET_NO_NEW_PRIVS, 1, "no_new_privs")
    return {"before": before, "after": int(subprocess.check_output([program, "-u"]))}


# Each wall alone, as root: what it refuses without the others.


def wall_namespaces() -> dict[str, str]:
    names = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
    before = [os.readlink(f"/proc/{HOST.pid}/ns/{name}") for name in names]
    namespaces.isolate()
    after = [os.readlink(f"/proc/self/ns/{name}") for name in names]
    clients = HOST.clients()
    namespaces.empty_root()
    return {
        **attacks(str(HOST.secret), "/", HOST.pid, clients),
        "root": " ".join(os.listdir("/")),
        "new": " ".join(name for name, old, new in zip(names, before, after, strict=True) if old != new),
    }


def wall_user() -> dict[str, str]:
    calls.drop_bounding_set()
    calls.become(UID, UID)
    calls.drop_capabilities()
    return {
        "open": attempt(lambda: os.open(HOST.secret, os.O_RDONLY)),
        "kvm": attempt(lambda: os.open("/dev/kvm", os.O_RDWR)),
        "setuid": attempt(lambda: os.setuid(0)),
        "setgroups": attempt(lambda: os.setgroups([0])),
        "mount": attempt(lambda: calls.mount("x", "/tmp", "tmpfs", 0)),
        "chroot": attempt(lambda: os.chroot("/tmp")),
        "kill": attempt(lambda: os.kill(HOST.pid, 0)),
        "groups": str(os.getgroups()),
    }


def wall_limits() -> dict[str, str]:
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
        "file": attempt(lambda: os.ftruncate(HOST.file, FILE_BYTES + 1)),
        "memory": attempt(lambda: bytearray(2 * limits.PRIVATE_BYTES)),
        "threads": attempt(threads),
        "core": str(resource.getrlimit(resource.RLIMIT_CORE)),
        "raise": attempt(lambda: resource.setrlimit(resource.RLIMIT_CORE, (1, 1))),
        "lock": attempt(call(149, ctypes.c_void_p(address(mmap.mmap(-1, 4096))), ctypes.c_size_t(4096))),
    }


def wall_landlock() -> dict[str, Any]:
    clients = HOST.clients()
    calls.prctl(calls.PR_SET_NO_NEW_PRIVS, 1, "no_new_privs")
    return {
        "abi": landlock.restrict(),
        **attacks(str(HOST.secret), str(HOST.folder), HOST.pid, clients),
        "list": attempt(lambda: os.listdir("/")),
        "unlink": attempt(lambda: os.unlink(HOST.secret)),
        "execute": attempt(lambda: os.execv("/bin/true", ["true"])),
        "write": attempt(lambda: os.pwrite(HOST.file, b"x", 0)),
    }


def wall_seccomp() -> dict[str, str]:
    clients = HOST.clients()
    calls.prctl(calls.PR_SET_NO_NEW_PRIVS, 1, "no_new_privs")
    ready, go, said = threading.Event(), threading.Event(), []

    def early() -> None:
        ready.set()
        go.wait()
        said.append(attempt(lambda: os.open(HOST.secret, os.O_RDONLY)))

    thread = threading.Thread(target=early)  # before the filter: it reaches this one as well
    thread.start()
    ready.wait()
    bpf.install(seccomp.program(os.getpid()))
    go.set()
    thread.join()
    return {
        **attacks(str(HOST.secret), str(HOST.folder), HOST.pid, clients),
        "open early": said[0],
        "socket": attempt(lambda: socket.socket(socket.AF_UNIX)),
    }


# These start in no process namespace, with all that there is.
OUTSIDE = ("wall_user", "wall_landlock", "wall_seccomp", "fatal", "less", "unprivileged", "monitor", "attached")


def run(name: str) -> dict[str, Any]:
    global HOST
    job = globals()[name]
    HOST = Host()
    told, tell = os.pipe()
    pid = os.fork() if name in OUTSIDE else fork_apart()
    if pid == 0:
        try:
            os.close(told)
            os.write(tell, json.dumps(job()).encode())
            os._exit(0)
        except BaseException:
            os.write(tell, json.dumps(traceback.format_exc()).encode())
            os._exit(1)
    os.close(tell)
    with open(told, "rb") as file:
        said = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    HOST.close()
    return {"status": status, "said": json.loads(said or b"null")}


def main() -> None:
    if sys.argv[2:]:
        calls.become(int(sys.argv[2]), int(sys.argv[2]))
        calls.prctl(calls.PR_SET_DUMPABLE, 1, "dumpable")  # as after an execve, for which the user may lack the rights
    print(json.dumps(run(sys.argv[1])))


if __name__ == "__main__":
    main()
