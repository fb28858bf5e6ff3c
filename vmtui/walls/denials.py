"""A seccomp filter that takes away what a program that only computes, or serves files, has no use for.

No programs, sockets, mounts, keys. System calls beyond the list stay: large programs and their libraries choose among
many. It is the last of several walls (namespaces, a small root, no capabilities), and keeps the kernel's larger
surfaces out of reach.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Container

from vmtui.walls import bpf
from vmtui.walls.bpf import JMP_JEQ, JMP_JGE, JMP_JSET, LD_W_ABS, RET, RET_ALLOW, RET_ERRNO, RET_KILL

# fmt: off
# asm/unistd_64.h
X86_64 = {
    "execve": 59, "execveat": 322, "fork": 57, "vfork": 58, "ptrace": 101, "process_vm_readv": 310,
    "process_vm_writev": 311, "kcmp": 312, "kill": 62, "tkill": 200, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297,
    "pidfd_open": 434, "pidfd_send_signal": 424, "pidfd_getfd": 438, "mount": 165, "umount2": 166, "pivot_root": 155,
    "chroot": 161, "mount_setattr": 442, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431,
    "fsmount": 432, "fspick": 433, "setns": 308, "unshare": 272, "name_to_handle_at": 303, "open_by_handle_at": 304,
    "socket": 41, "socketpair": 53, "add_key": 248, "request_key": 249, "keyctl": 250, "bpf": 321,
    "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "memfd_create": 319, "fanotify_init": 300, "init_module": 175, "finit_module": 313, "delete_module": 176,
    "kexec_load": 246, "kexec_file_load": 320, "reboot": 169, "swapon": 167, "swapoff": 168, "acct": 163,
    "quotactl": 179, "syslog": 103, "settimeofday": 164, "clock_settime": 227, "clock_adjtime": 305, "adjtimex": 159,
    "sethostname": 170, "setdomainname": 171, "vhangup": 153, "iopl": 172, "ioperm": 173, "personality": 135,
    "mknod": 133, "mknodat": 259, "shmget": 29, "msgget": 68, "semget": 64,
}
# asm-generic/unistd.h
AARCH64 = {
    "execve": 221, "execveat": 281, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272,
    "kill": 129, "tkill": 130, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240, "pidfd_open": 434,
    "pidfd_send_signal": 424, "pidfd_getfd": 438, "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51,
    "mount_setattr": 442, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "fspick": 433, "setns": 268, "unshare": 97, "name_to_handle_at": 264, "open_by_handle_at": 265, "socket": 198,
    "socketpair": 199, "add_key": 217, "request_key": 218, "keyctl": 219, "bpf": 280, "perf_event_open": 241,
    "userfaultfd": 282, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "memfd_create": 279,
    "fanotify_init": 262, "init_module": 105, "finit_module": 273, "delete_module": 106, "kexec_load": 104,
    "kexec_file_load": 294, "reboot": 142, "swapon": 224, "swapoff": 225, "acct": 89, "quotactl": 60, "syslog": 116,
    "settimeofday": 170, "clock_settime": 112, "clock_adjtime": 266, "adjtimex": 171, "sethostname": 161,
    "setdomainname": 162, "vhangup": 58, "personality": 92, "mknodat": 33, "shmget": 194, "msgget": 186, "semget": 190,
}
# fmt: on
# machine → (numbers of clone and clone3, what is denied)
MACHINES = {"x86_64": (56, 435, X86_64), "aarch64": (220, 435, AARCH64)}


def program(machine: str, allow: Container[str] = ()) -> bytes:
    """The filter as classic BPF. `allow`: what this program does need of the list; "clone" is to fork.

    Raises KeyError for a machine that it does not know.
    """
    clone, clone3, denied = MACHINES[machine]
    deny = RET_ERRNO | errno.EPERM
    code = [
        (LD_W_ABS, 0, 0, bpf.DATA_ARCH),
        (JMP_JEQ, 1, 0, bpf.AUDIT_ARCH[machine]),
        (RET, 0, 0, RET_KILL),
        (LD_W_ABS, 0, 0, bpf.DATA_NR),
        (JMP_JGE, 0, 1, bpf.X32_BIT),
        (RET, 0, 0, deny),
        (JMP_JEQ, 0, 1, clone3),  # its flags are behind a pointer: as if the kernel had none, libc then uses clone
        (RET, 0, 0, RET_ERRNO | errno.ENOSYS),
    ]
    for number in sorted(number for name, number in denied.items() if name not in allow):
        code += [(JMP_JEQ, 0, 1, number), (RET, 0, 0, deny)]
    if "clone" not in allow:
        code += [
            (JMP_JEQ, 0, 3, clone),  # threads, and no processes
            (LD_W_ABS, 0, 0, bpf.DATA_ARG0),
            (JMP_JSET, 1, 0, bpf.CLONE_THREAD),
            (RET, 0, 0, deny),
        ]
    code.append((RET, 0, 0, RET_ALLOW))
    return bpf.pack(code)


def install(allow: Container[str] = ()) -> None:
    """For this process and all that it starts; needs no_new_privs. Raises OSError."""
    bpf.install(program(os.uname().machine, allow))
