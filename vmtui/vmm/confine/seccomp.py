"""The system calls of a machine that runs: an allow-list, argument by argument where that matters. x86-64 alone.

What is not on it fails with EPERM, and the VM goes on: Python and the C library try calls that they can do without,
and code that opens a file by mistake is a fault of ours that shows as an exception, not as a dead guest. What only
a machine that has been taken over would try (FATAL) ends the process with SIGSYS: it is no longer ours, it shall not
get a second try, and its monitor can say what happened.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from vmtui.vmm.kvm import constants
from vmtui.walls import bpf
from vmtui.walls.bpf import JMP_JEQ, JMP_JSET, LD_W_ABS, RET, RET_ALLOW, Instruction

MACHINE = "x86_64"
DENY = bpf.RET_ERRNO | errno.EPERM

# fmt: off
# asm/unistd_64.h. Data in and out of what is open; memory; time; threads; signals among them; questions about oneself.
ALLOWED = {
    "read": 0, "write": 1, "readv": 19, "writev": 20, "pread64": 17, "pwrite64": 18, "preadv": 295, "pwritev": 296,
    "preadv2": 327, "pwritev2": 328, "lseek": 8, "fsync": 74, "fdatasync": 75, "ftruncate": 77, "fallocate": 285,
    "close": 3, "fstat": 5, "poll": 7, "ppoll": 271, "epoll_create1": 291, "epoll_ctl": 233, "epoll_wait": 232,
    "epoll_pwait": 281, "epoll_pwait2": 441, "eventfd2": 290, "timerfd_create": 283, "timerfd_settime": 286,
    "timerfd_gettime": 287, "recvfrom": 45, "sendmsg": 46, "recvmsg": 47, "shutdown": 48, "accept4": 288,
    "getsockname": 51, "getpeername": 52, "getsockopt": 55,
    "brk": 12, "munmap": 11, "mremap": 25, "madvise": 28,
    "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "nanosleep": 35, "gettimeofday": 96, "time": 201,
    "times": 100, "getrusage": 98,
    "futex": 202, "set_robust_list": 273, "rseq": 334, "membarrier": 324, "sched_yield": 24, "sched_getaffinity": 204,
    "getcpu": 309, "exit": 60, "exit_group": 231, "restart_syscall": 219,
    "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "rt_sigpending": 127, "rt_sigtimedwait": 128,
    "sigaltstack": 131, "getrandom": 318, "uname": 63,
    "getpid": 39, "gettid": 186, "getppid": 110, "getuid": 102, "geteuid": 107, "getgid": 104, "getegid": 108,
}
FATAL = {
    "execve": 59, "execveat": 322, "fork": 57, "vfork": 58, "ptrace": 101, "process_vm_readv": 310,
    "process_vm_writev": 311, "process_madvise": 440, "kcmp": 312, "pidfd_getfd": 438, "bpf": 321,
    "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "add_key": 248, "request_key": 249, "keyctl": 250, "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161,
    "mount_setattr": 442, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "fspick": 433, "setns": 308, "unshare": 272, "open_by_handle_at": 304, "init_module": 175, "finit_module": 313,
    "delete_module": 176, "kexec_load": 246, "kexec_file_load": 320, "reboot": 169, "swapon": 167, "swapoff": 168,
    "acct": 163, "iopl": 172, "ioperm": 173, "modify_ldt": 154, "personality": 135, "setuid": 105, "setgid": 106,
    "setreuid": 113, "setregid": 114, "setgroups": 116, "setresuid": 117, "setresgid": 119, "setfsuid": 122,
    "setfsgid": 123, "capset": 126, "memfd_secret": 447,
}
NR = {"ioctl": 16, "mmap": 9, "mprotect": 10, "clone": 56, "clone3": 435, "fcntl": 72, "sendto": 44, "newfstatat": 262,
      "prctl": 157, "prlimit64": 302, "tgkill": 234}
# fmt: on

# KVM's own are those that kvm/constants.py has a name for, but for the one that makes another VM
KVM = {value for name, value in vars(constants).items() if name.startswith("KVM_")} - {constants.KVM_CREATE_VM}
VHOST = (  # linux/vhost.h
    *(0x8008AF00, 0x4008AF00, 0xAF01, 0xAF02, 0x4008AF03),  # GET_, SET_FEATURES, SET_, RESET_OWNER, SET_MEM_TABLE
    *(0x4008AF10, 0x4028AF11, 0x4008AF12, 0xC008AF12),  # SET_VRING_NUM, _ADDR, SET_, GET_VRING_BASE
    *(0x4008AF20, 0x4008AF21, 0x4008AF22, 0x4008AF30),  # SET_VRING_KICK, _CALL, _ERR, NET_SET_BACKEND
)
TUN = (0x400454D0,)  # linux/if_tun.h: TUNSETOFFLOAD, what the guest can take is known when its driver starts
BLOCK = (0x80081272, 0x1277, 0x127F)  # linux/fs.h: BLKGETSIZE64, BLKDISCARD, BLKZEROOUT
FILES = (0x5421, 0x541B, 0x5450, 0x5451)  # asm-generic/ioctls.h: FIONBIO, FIONREAD, FIONCLEX, FIOCLEX
REQUESTS = (constants.KVM_RUN, *sorted(KVM - {constants.KVM_RUN}), *VHOST, *TUN, *BLOCK, *FILES)

FCNTL = (1, 2, 3, 4, 1030)  # linux/fcntl.h: F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC
PR_SET_NAME = 15  # linux/prctl.h
PROT_EXEC = 4  # asm-generic/mman-common.h
NEW_NAMESPACES = 0x7E020080  # linux/sched.h: every CLONE_NEW*

Check = list[Instruction]  # has no jump out of itself, and returns


def program(pid: int, requests: Iterable[int] = REQUESTS) -> bytes:
    """The filter as classic BPF. `pid` is the process's own, as it sees itself."""
    checks: dict[str, Check] = {
        "ioctl": _one_of(1, requests),
        "mmap": _without(2, PROT_EXEC),
        "mprotect": _without(2, PROT_EXEC),
        "clone": _without(0, NEW_NAMESPACES, bpf.RET_KILL, _with(0, bpf.CLONE_THREAD, bpf.RET_KILL)),
        # its flags are behind a pointer: as if the kernel had none, libc then uses clone
        "clone3": [(RET, 0, 0, bpf.RET_ERRNO | errno.ENOSYS)],
        "fcntl": _one_of(1, FCNTL),
        "sendto": _null(4),  # to where it is connected
        "newfstatat": _with(3, 0x1000),  # AT_EMPTY_PATH: of a descriptor
        "prctl": _one_of(0, (PR_SET_NAME,)),
        "prlimit64": _null(2),  # asking
        "tgkill": _one_of(0, (pid,)),
    }
    code: list[Instruction] = [
        (LD_W_ABS, 0, 0, bpf.DATA_ARCH),
        (JMP_JEQ, 1, 0, bpf.AUDIT_ARCH[MACHINE]),
        (RET, 0, 0, bpf.RET_KILL),
        (LD_W_ABS, 0, 0, bpf.DATA_NR),
        (bpf.JMP_JGE, 0, 1, bpf.X32_BIT),
        (RET, 0, 0, bpf.RET_KILL),
    ]
    # ioctl leads, and KVM_RUN in it. The kernel remembers which calls pass whatever their arguments, and asks no more.
    for name, check in checks.items():
        code += [(JMP_JEQ, 0, len(check), NR[name]), *check]
    for numbers, verdict in ((ALLOWED, RET_ALLOW), (FATAL, bpf.RET_KILL)):
        for number in sorted(numbers.values()):
            code += [(JMP_JEQ, 0, 1, number), (RET, 0, 0, verdict)]
    code.append((RET, 0, 0, DENY))
    return bpf.pack(code)


def _low(argument: int) -> Instruction:
    return (LD_W_ABS, 0, 0, bpf.DATA_ARG0 + 8 * argument)


def _one_of(argument: int, values: Iterable[int]) -> Check:
    """The low 32 bits, which are all that the kernel looks at where this is used."""
    code: Check = [_low(argument)]
    for value in values:
        code += [(JMP_JEQ, 0, 1, value), (RET, 0, 0, RET_ALLOW)]
    return [*code, (RET, 0, 0, DENY)]


def _without(argument: int, bits: int, refusal: int = DENY, then: Check | None = None) -> Check:
    allow: Check = [(RET, 0, 0, RET_ALLOW)]
    return [_low(argument), (JMP_JSET, 0, 1, bits), (RET, 0, 0, refusal), *(then or allow)]


def _with(argument: int, bit: int, refusal: int = DENY) -> Check:
    return [_low(argument), (JMP_JSET, 1, 0, bit), (RET, 0, 0, refusal), (RET, 0, 0, RET_ALLOW)]


def _null(argument: int) -> Check:
    high = (LD_W_ABS, 0, 0, bpf.DATA_ARG0 + 8 * argument + 4)
    return [_low(argument), (JMP_JEQ, 0, 2, 0), high, (JMP_JEQ, 1, 0, 0), (RET, 0, 0, DENY), (RET, 0, 0, RET_ALLOW)]
