"""The VMM as a program: both of its processes, a guest of some bytes that any KVM runs, and every way to end."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.lab.support.vmm import ROOT, Vmm, vmm
from tests.support import tiny
from tests.support.dev_kvm import needs_kvm
from tests.support.kernels import vmlinux
from vmtui.guests.kernel import Kernel

pytestmark = [pytest.mark.real, needs_kvm, pytest.mark.timeout(300)]
BYTES = 32 << 20
END_S = 60.0
HELLO = tiny.printed(b"hello\n")
# mov edx, 0x3FD; in al, dx; test al, 1; jz; mov edx, 0x3F8; in al, dx; out dx, al; jmp
ECHO = bytes.fromhex("bafd030000 ec a801 74fb baf8030000 ec ee ebeb")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short: it has unix sockets in it."""
    made = Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


class Start:
    """Starts the program, one in a folder."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack

    def __call__(self, code: bytes, **config: Any) -> Vmm:
        """With a guest that runs `code`."""
        path = self._folder / "kernel"
        path.write_bytes(vmlinux(code))
        return self.of(path, **config)

    def of(self, path: Path, initrd: Path | None = None, **config: Any) -> Vmm:
        """With a kernel from a file."""
        told = {"memory_bytes": BYTES, **config}
        return self._stack.enter_context(vmm(self._folder / "vm", Kernel(path, "", None), initrd, **told))


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    with ExitStack() as stack:
        yield Start(folder, stack)


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def await_none(*pids: int) -> None:
    deadline = time.monotonic() + END_S
    while any(is_there(pid) for pid in pids):
        assert time.monotonic() < deadline, "a process stays"
        time.sleep(0.01)


def test_from_start_to_power_off(start: Start) -> None:
    made = start(HELLO + tiny.POWER_OFF)
    assert made.ending(END_S)["cause"] == "POWERED_OFF"
    assert made.process.returncode == 0
    assert made.log.read_bytes() == b"hello\n"
    ending = json.loads((made.run / "exit").read_text())
    assert (ending["code"], ending["reason"]) == (0, "the guest powered off")
    assert ending["exits_total"] == len(b"hello\n") + 1
    assert abs(ending["at"] - time.time()) < 60
    assert json.loads((made.run / "started").read_text())["walls_missing"] in ([], *[[text] for text in missing(made)])
    assert (made.run / "errors").read_text() == ""
    pid, ticks, boot = (made.run / "parent").read_text().split()
    assert (int(pid), int(ticks) > 0) == (made.process.pid, True)
    assert boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert not list(made.sockets.iterdir()), "its sockets go with it"
    assert {path.stat().st_mode & 0o077 for path in made.run.iterdir()} == {0}
    await_none(made.machine_pid)


def missing(made: Vmm) -> list[str]:
    """Landlock, on a kernel without."""
    return [line for line in json.loads((made.run / "started").read_text())["walls_missing"] if "landlock" in line]


def test_a_triple_fault(start: Start) -> None:
    made = start(HELLO + tiny.TRIPLE_FAULT)
    assert (made.ending(END_S)["cause"], made.ending()["code"]) == ("FAULT", 134)
    assert made.ending()["reason"] == "triple fault, on vCPU 0"
    assert made.log.read_bytes() == b"hello\n"
    assert made.process.returncode == 0


def test_what_was_said_last_tells_a_panic_from_a_restart(start: Start) -> None:
    vm = start(tiny.printed(b"Kernel panic - not syncing: no\x1b[31m root\n---[ end\n") + tiny.RESET + tiny.HALT)
    ended = vm.ending(END_S)
    assert (ended["code"], ended["cause"], ended["reason"]) == (1, "PANIC", "kernel panic: no[31m root")


def test_a_reset_ends_it(start: Start) -> None:
    made = start(HELLO + tiny.RESET)
    assert (made.ending(END_S)["cause"], made.ending()["code"]) == ("RESET", 0)


def test_a_reset_begins_anew(start: Start) -> None:
    """With `reboot`, as often as the guest asks for it; memory is new each time, the monitor the same."""
    made = start(HELLO + tiny.RESET, reboot=True)
    made.await_log("hello\n" * 4, END_S)
    assert made.process.poll() is None
    (made.run / "stopped").touch()
    assert made.ending(END_S)["cause"] == "RESET"
    assert set(made.log.read_bytes().split(b"\n")) == {b"hello", b""}


def test_a_reset_by_a_caller(start: Start) -> None:
    made = start(HELLO + tiny.HALT)
    made.await_log("hello\n", END_S)
    first, caller = made.machine_pid, made.connect()
    caller.call("reset")
    assert caller.await_event("shutdown")["reason"] == "asked for"
    made.await_log("hello\nhello\n", END_S)
    again = made.connect()
    assert again.call("info")["state"] == "running"
    assert made.machine_pid != first
    again.call("kill")
    assert (made.ending(END_S)["cause"], made.ending()["code"]) == ("KILLED", 137)


def test_it_answers_callers(start: Start) -> None:
    made = start(HELLO + tiny.HALT, cpus=2)
    made.await_log("hello\n", END_S)
    caller, other = made.connect(), made.connect()
    assert caller.greeting["service"] == "vmm"
    info = caller.call("info")
    assert (info["state"], info["cpus"], info["memory_bytes"], info["faults"]) == ("running", 2, BYTES, [])
    metrics = caller.call("metrics")
    assert metrics["exits"]["serial"] == len(b"hello\n")
    assert len(metrics["vcpu_s"]) == 2
    assert set(metrics["devices"]) == {"console", "rng", "balloon"}
    caller.call("pause")
    assert other.await_event("paused")
    assert other.call("info")["state"] == "paused"
    other.call("pause")
    other.call("resume")
    assert caller.await_event("resumed")
    caller.call("kill")
    for each in (caller, other):
        assert each.await_event("shutdown") == {"event": "shutdown", "reason": "killed", "code": 137}
    assert made.ending(END_S)["reason"] == "killed"


def test_a_paused_guest_does_nothing(start: Start) -> None:
    made = start(tiny.printed(b"x") + b"\xeb" + bytes((254 - len(tiny.printed(b"x")),)))  # again and again
    caller = made.connect()
    made.await_log("xx", END_S)
    for _ in range(5):
        caller.call("pause")
        before = caller.call("metrics")["exits_total"]
        time.sleep(0.02)
        assert caller.call("metrics")["exits_total"] == before
        caller.call("resume")
        deadline = time.monotonic() + END_S
        while caller.call("metrics")["exits_total"] == before:
            assert time.monotonic() < deadline, "it does not go on"
    caller.call("pause")
    caller.call("kill")  # as it stands
    assert made.ending(END_S)["cause"] == "KILLED"


@pytest.mark.parametrize("code", [tiny.SPIN, tiny.HALT], ids=["spins", "halts"])
def test_a_guest_that_listens_to_nobody_is_killed(start: Start, code: bytes) -> None:
    made = start(HELLO + code)
    made.await_log("hello\n", END_S)
    made.connect().call("kill")
    assert made.ending(END_S)["cause"] == "KILLED"


def test_the_machine_has_nothing_open_of_its_monitors(start: Start) -> None:
    vm = start(HELLO + tiny.HALT)
    vm.await_log("hello")
    folder = Path(f"/proc/{vm.machine_pid}/fd")
    opened = {int(entry.name): os.readlink(entry) for entry in folder.iterdir()}
    assert [opened[fd] for fd in range(3)] == ["/dev/null"] * 3
    assert not [
        place for place in opened.values() if place.startswith((str(vm.folder), "pidfd:", "anon_inode:[pidfd]"))
    ]
    pipes = [place for place in opened.values() if place.startswith("pipe:")]
    assert len(pipes) == 1  # the log


def test_a_machine_that_is_killed(start: Start) -> None:
    made = start(HELLO + tiny.HALT)
    made.await_log("hello\n", END_S)
    os.kill(made.machine_pid, signal.SIGKILL)
    assert (made.ending(END_S)["cause"], made.ending()["code"]) == ("KILLED", 137)
    assert made.ending()["reason"] == "the VMM was killed by SIGKILL"


@pytest.mark.parametrize("code", [tiny.SPIN, tiny.HALT], ids=["spins", "halts"])
def test_a_monitor_that_is_killed_takes_its_machine_along(start: Start, code: bytes) -> None:
    made = start(HELLO + code)
    made.await_log("hello\n", END_S)
    machine = made.machine_pid
    assert is_there(machine)
    made.process.kill()
    made.process.wait(END_S)
    await_none(machine)
    assert not (made.run / "exit").exists()


def test_nothing_begins_before_it_is_told_to(folder: Path) -> None:
    """Whoever started it died before it could note what it has started."""
    config = folder / "config.json"
    told = {"run": str(folder), "log": str(folder / "log"), "sockets": str(folder),
            "kernel": str(folder / "kernel"), "memory_bytes": BYTES}  # fmt: skip
    config.write_text(json.dumps(told))
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-m", "vmtui.vmm", config],
        stdin=subprocess.DEVNULL, env={"PYTHONPATH": str(ROOT)}, timeout=END_S, capture_output=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert {path.name for path in folder.iterdir()} == {"config.json", "parent"}


def refused(start: Start, path: Path, **config: Any) -> list[str]:
    made = start.of(path, **config)
    ending = made.ending(END_S)
    assert made.process.returncode == 1
    assert (ending["cause"], ending["code"]) == ("FAILED", 1)
    assert not (made.run / "started").exists()
    assert not list(made.sockets.iterdir())
    said: str = (made.run / "errors").read_text()
    assert said == f"{ending['reason']}\n"
    return said.splitlines()


def test_a_kernel_that_is_missing(start: Start, folder: Path) -> None:
    path = folder / "nowhere" / "vmlinuz"
    assert refused(start, path) == [f"{path}: no such file or directory", f"see what is there: ls -l {path.parent}"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"#!/bin/sh\n", "is not a kernel: neither a Linux bzImage nor an ELF file"),
        (b"\x1f\x8b" + bytes(100), "is not a kernel that can be started: it is compressed by gzip"),
        (b"", "is empty"),
        (vmlinux(owner=b"GNU\0"), "is an ELF file without a PVH entry"),
    ],
    ids=["script", "gzip", "empty", "no entry"],
)
def test_what_is_no_kernel(start: Start, folder: Path, content: bytes, said: str) -> None:
    path = folder / "vmlinuz"
    path.write_bytes(content)
    lines = refused(start, path)
    assert lines[0] == f"{path} {said}"
    assert len(lines) == 2, "what to do is said as well"


def test_too_little_memory(start: Start, folder: Path) -> None:
    path = folder / "vmlinuz"
    path.write_bytes(vmlinux())
    assert refused(start, path, memory_bytes=16 << 20)[1] == "give the VM more memory"


def test_an_initrd_that_is_missing(start: Start, folder: Path) -> None:
    path = folder / "vmlinuz"
    path.write_bytes(vmlinux())
    lines = refused(start, path, initrd=folder / "initrd")
    assert lines[0] == f"{folder / 'initrd'}: no such file or directory"


def test_a_disk_that_is_missing(start: Start, folder: Path) -> None:
    path = folder / "vmlinuz"
    path.write_bytes(vmlinux())
    disk = {"path": str(folder / "disk.raw"), "format": "raw", "serial": "x"}
    assert refused(start, path, disks=[disk]) == [f"{folder / 'disk.raw'}: no such file or directory"]


def test_a_log_that_cannot_be_written(start: Start, folder: Path) -> None:
    path = folder / "vmlinuz"
    path.write_bytes(vmlinux())
    log = folder / "nowhere" / "serial.log"
    assert refused(start, path, log=str(log)) == [f"{log}: no such file or directory"]


def test_a_full_disk_loses_lines_and_no_vm(start: Start, folder: Path) -> None:
    """A limit on the size of files stands for it: what is written fails as well."""
    made = start(HELLO + ECHO)
    made.await_log("hello\n", END_S)
    (made.run / "reap").write_text(f"mkdir {folder}/reaped\n")
    resource.prlimit(made.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    assert typed(made, b"lost\n").endswith(b"lost\n")
    made.connect().call("reset")  # of the next machine neither can be noted
    made.process.wait(END_S)
    await_none(made.machine_pid)
    assert made.log.read_bytes() == b"hello\n"
    assert (folder / "reaped").exists()


def test_what_is_to_run_at_its_end(start: Start, folder: Path) -> None:
    made = start(HELLO + tiny.until(tiny.DATA, 1))
    made.await_log("hello\n", END_S)
    (made.run / "reap").write_text(f"cat {made.run}/exit > {folder}/reaped\nexit 7\n")
    made.connect().call("kill")
    assert made.process.wait(END_S) == 7
    assert json.loads((folder / "reaped").read_text())["cause"] == "KILLED"


def typed(made: Vmm, text: bytes) -> bytes:
    """What somebody attached has seen once the guest has echoed `text`."""
    with socket.socket(socket.AF_UNIX) as attached:
        attached.settimeout(END_S)
        attached.connect(str(made.sockets / "control.sock"))
        attached.sendall(b'{"id": 1, "call": "console", "args": {"rows": 24, "columns": 80}}\n')
        heard = b""
        while heard.count(b"\n") < 2:  # the greeting and the answer
            heard += attached.recv(4096)
        attached.sendall(text)
        while not heard.endswith(text):
            more = attached.recv(4096)
            assert more, f"{heard!r}, and then it hung up"
            heard += more
        return heard.split(b"\n", 2)[2]


def test_the_console_is_a_terminal(start: Start) -> None:
    """What is typed comes to the guest's serial port, what it prints to whoever is attached."""
    made = start(HELLO + ECHO)
    made.await_log("hello\n", END_S)
    assert typed(made, b"typed") == b"hello\ntyped"
    assert typed(made, b" more") == b"hello\ntyped more"
    made.connect().call("kill")
    made.ending(END_S)
    assert made.log.read_bytes() == b"hello\ntyped more"
