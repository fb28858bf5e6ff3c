"""What a machine's system call filter says of every call, read by an interpreter of its instructions."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from tests.support.filters import verdict
from vmtui.vmm.confine import seccomp
from vmtui.vmm.kvm import constants as kvm
from vmtui.walls import bpf, landlock

PID = 7
HIGH = 1 << 32
NR = seccomp.NR
DENIED, ALLOWED, KILLED = bpf.RET_ERRNO | errno.EPERM, bpf.RET_ALLOW, bpf.RET_KILL
PROGRAM = seccomp.program(PID)


def said(number: int, *arguments: int) -> int:
    return verdict(PROGRAM, bpf.AUDIT_ARCH["x86_64"], number, *arguments)


def test_every_call_that_needs_no_look_at_its_arguments() -> None:
    for number in range(600):
        if number in NR.values():
            continue
        expected = DENIED
        if number in seccomp.ALLOWED.values():
            expected = ALLOWED
        elif number in seccomp.FATAL.values():
            expected = KILLED
        assert said(number) == expected, number


def test_calls_of_other_architectures_end_the_process() -> None:
    assert verdict(PROGRAM, bpf.AUDIT_ARCH["aarch64"], seccomp.ALLOWED["read"]) == KILLED
    assert said(bpf.X32_BIT | seccomp.ALLOWED["read"]) == KILLED


@pytest.mark.parametrize("request_", seccomp.REQUESTS)
def test_device_requests(request_: int) -> None:
    assert said(NR["ioctl"], 3, request_) == ALLOWED
    assert said(NR["ioctl"], 3, request_ | HIGH) == ALLOWED  # the kernel takes the low half as well


def test_what_kvm_is_asked_is_kvms() -> None:
    assert kvm.KVM_CREATE_VCPU in seccomp.KVM
    assert {request >> 8 & 0xFF for request in seccomp.KVM} == {kvm.KVMIO}


@pytest.mark.parametrize("request_", [kvm.KVM_CREATE_VM, 0x5412, 0x400454CA, 0, 0xAEFF, 0xAF0F])  # TIOCSTI, TUNSETIFF
def test_requests_of_nobody(request_: int) -> None:
    assert said(NR["ioctl"], 3, request_) == DENIED


def test_the_run_of_a_vcpu_is_decided_first() -> None:
    instructions = list(struct.iter_unpack("HBBI", PROGRAM))
    assert next(value for code, _, _, value in instructions[8:] if code == bpf.JMP_JEQ) == kvm.KVM_RUN


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("mmap", (0, 4096, 3), ALLOWED),
        ("mmap", (0, 4096, 5), DENIED),
        ("mprotect", (0, 4096, 3), ALLOWED),
        ("mprotect", (0, 4096, 4), DENIED),
        ("clone", (0x3D0F00,), ALLOWED),  # pthread_create of glibc
        ("clone", (0x7D0F00,), ALLOWED),  # and of musl
        ("clone", (17,), KILLED),  # fork
        ("clone", (0x4111,), KILLED),  # vfork
        ("clone", (0x10010F00,), KILLED),  # a thread in a user namespace
        ("clone3", (), bpf.RET_ERRNO | errno.ENOSYS),
        ("fcntl", (3, 4), ALLOWED),
        ("fcntl", (3, 8), DENIED),  # F_SETOWN
        ("fcntl", (3, 1031), DENIED),  # F_SETPIPE_SZ
        ("sendto", (3, 0, 0, 0, 0), ALLOWED),
        ("sendto", (3, 0, 0, 0, 1), DENIED),
        ("sendto", (3, 0, 0, 0, HIGH), DENIED),
        ("newfstatat", (3, 0, 0, 0x1000), ALLOWED),
        ("newfstatat", (3, 0, 0, 0), DENIED),
        ("prctl", (15,), ALLOWED),
        ("prctl", (4,), DENIED),
        ("prlimit64", (0, 7, 0), ALLOWED),
        ("prlimit64", (0, 7, HIGH), DENIED),
        ("tgkill", (PID, 9, 10), ALLOWED),
        ("tgkill", (PID + 1, 9, 10), DENIED),
    ],
)
def test_arguments(name: str, arguments: tuple[int, ...], expected: int) -> None:
    assert said(NR[name], *arguments) == expected


def test_no_call_stands_twice() -> None:
    numbers = [*seccomp.ALLOWED.values(), *seccomp.FATAL.values(), *NR.values()]
    assert len(numbers) == len(set(numbers))


def test_the_document_counts_them() -> None:
    document = (Path(__file__).parents[2] / "docs/security.md").read_text()
    assert f"an allow-list of {len(seccomp.ALLOWED)} calls, and of {len(NR)} by their arguments" in document


def test_numbers_are_the_kernels() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("the kernel's headers are not installed (linux-libc-dev)")
    known = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", header.read_text())}
    for name, number in (seccomp.ALLOWED | seccomp.FATAL | NR).items():
        assert known.get(name, number) == number, name


@pytest.mark.parametrize(
    ("abi", "rights"), [(1, 0x1FFF), (2, 0x3FFF), (3, 0x7FFF), (4, 0x7FFF), (5, 0xFFFF), (6, 0xFFFF), (7, 0xFFFF)]
)
def test_rights_that_a_kernel_knows(abi: int, rights: int) -> None:
    assert landlock.rights(abi) == rights
