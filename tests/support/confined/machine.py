"""Jobs: each gets the host, locks itself in as a machine does, and returns what it then could do."""

from __future__ import annotations

import ctypes
import itertools
import json
import mmap
import os
import resource
import select
import signal
import socket
import struct
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from tests.support.confined.host import FILE_BYTES, UID, Host, address, attacks, attempt, call, lock_in, uid
from vmtui.vmm.confine import seccomp
from vmtui.vmm.confine.enter import enter
from vmtui.vmm.confine.fork import fork_apart
from vmtui.vmm.devices.net.vhost import open_vhost
from vmtui.vmm.devices.net.vhost_kernel import GET_FEATURES, SET_FEATURES, SET_MEM_TABLE, SET_OWNER, SET_VRING_NUM
from vmtui.vmm.eventfd import EventFd
from vmtui.vmm.kvm import constants as kvm
from vmtui.vmm.kvm import ioctl
from vmtui.vmm.loop import Loop
from vmtui.walls import bpf, calls

WAIT_S = 45.0  # less than `enquire` gives a job, and than a machine that outlives its monitor goes on
UNFILTERED = {335, 336}
LISTED = {*seccomp.ALLOWED.values(), *seccomp.FATAL.values(), *seccomp.NR.values(), *UNFILTERED}


def everything(host: Host) -> dict[str, Any]:
    """What the issue of a guest's escape would be after: all refused, and the process lives."""
    clients, host_pid = host.clients(), os.getppid() or host.pid
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
        "tgkill": attempt(call(234, host.pid, host.pid, 0)),
        "memfd": attempt(lambda: os.memfd_create("x")),
        "executable": attempt(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)),
        "mprotect": attempt(call(10, ctypes.c_void_p(address(page)), ctypes.c_size_t(4096), 5)),
        "CREATE_VM": attempt(lambda: ioctl.call(host.file, kvm.KVM_CREATE_VM, "")),
        "TIOCSTI": attempt(lambda: ioctl.call(0, 0x5412, "")),
        "prctl": attempt(call(157, calls.PR_SET_DUMPABLE, 1, 0, 0, 0)),
        "setrlimit": attempt(lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0))),
        "import": attempt(lambda: __import__("wave")),
        "others": sorted({attempt(call(n, 0, 0, 0, 0, 0, 0)) for n in range(462) if n not in LISTED}),
    }


# uretprobe and uprobe, which Linux lets pass any filter: but from its own trampolines they raise SIGILL


def fatal(_: Host) -> dict[str, str]:
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


def work(host: Host) -> dict[str, str]:
    """All that a machine does once it is locked in."""
    ours, theirs = socket.socketpair()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(host.folder / "mine"))
    listener.listen()
    other = socket.socket(socket.AF_UNIX)
    other.connect(listener.getsockname())
    socket.send_fds(theirs, [b"x"], [host.file])
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
        assert caught.wait(WAIT_S)

    def loops() -> None:
        loop, event, heard = Loop("test", lambda *_: None), EventFd(), threading.Event()
        loop.start()
        loop.watch(event.fd, lambda *_: heard.set())
        event.signal()
        assert heard.wait(WAIT_S)
        heard.clear()
        loop.after(0.01, heard.set)
        assert heard.wait(WAIT_S)
        loop.stop()
        loop.close()

    def memory() -> None:
        block = bytearray(64 << 20)
        block.extend(bytes(64 << 20))
        with mmap.mmap(-1, 64 << 20) as area:
            area[:4] = b"abcd"
            area.madvise(mmap.MADV_DONTNEED)

    def files() -> None:
        os.pwritev(host.file, [b"abc"], 0)
        assert os.preadv(host.file, [bytearray(3)], 0) == 3
        os.fdatasync(host.file)
        os.posix_fallocate(host.file, 0, 4096)
        os.ftruncate(host.file, 100)
        os.fstat(host.file)

    def sockets() -> None:
        assert len(socket.recv_fds(ours, 1, 1)[1]) == 1
        client, _ = listener.accept()
        client.settimeout(WAIT_S)
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


def guest(_: Host) -> Any:
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


def vhost(_: Host) -> str:
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


def unprivileged(host: Host) -> dict[str, Any]:
    """Where the host allows no user namespaces."""
    user, group = os.geteuid(), os.getegid()
    calls.unshare(calls.CLONE_NEWUSER, "user")
    calls.map_user(user, group)
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    calls.drop_capabilities()
    told, tell = os.pipe()
    if (pid := fork_apart()) == 0:
        clients = host.clients()
        walls = lock_in()
        answers = attacks(str(host.secret), str(host.folder), host.pid, clients)
        os.write(tell, json.dumps({**answers, "missing": walls.missing, "pid": os.getpid()}).encode())
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    said: dict[str, Any] = json.loads(os.read(told, 4096))
    assert said.pop("pid") == pid
    return said


def times(_: Host) -> dict[str, float]:
    """Of each phase, in ms of the processor: making namespaces waits for others who do."""
    marks = [("", time.process_time())]
    enter(uid(), file_bytes=FILE_BYTES, phase=lambda name: marks.append((name, time.process_time())))
    return {name: (end - start) * 1e3 for (_, start), (name, end) in itertools.pairwise(marks)}


def monitor(_: Host) -> str:
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
    return "gone" if select.select([told], [], [], WAIT_S)[0] else "alive"


def attached(_: Host) -> dict[str, str]:
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
