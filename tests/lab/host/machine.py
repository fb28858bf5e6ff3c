"""The lab itself: a QEMU that emulates a machine with SVM, and so with a KVM that works, on the host's own files.

The host's `/` is there read-only over 9p, under an overlay in memory; /tmp, /var/tmp and /run are memory. One job runs,
as root. It has no network but its loopback. /run/lab is a directory shared with the host, gone after the run.
"""

from __future__ import annotations

import compileall
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import termios
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.lab.host import cache, initramfs, monitor
from tests.lab.host.pulse import LOOK_S, Pulse, waited_s
from vmtui.guests.kernel import Kernel
from vmtui.host.process import which

ROOT = Path(__file__).resolve().parents[3]
GUEST = Path(__file__).parent / "guest"
HIDDEN = ("/run", "/tmp", "/var/tmp")  # memory, in the lab
SHARE = "/run/lab"
DISK_BYTES = 16 << 30  # sparse; what is written to it is gone after the run
# An oops is the emulator's: what runs on after it is no lab to prove anything in. An NMI is the monitor's, who wants to
# see the stacks of all processors (0x40).
APPEND = (
    "console=ttyS0 quiet panic=-1 oops=panic unknown_nmi_panic panic_print=0x40 mitigations=off random.trust_cpu=on"
)
# What the emulator has only slowly is not offered: `rep movsb` goes byte by byte, and each `stac` and `clac` ends a
# block of translated code.
CPU = "max,la57=off,erms=off,fsrm=off,smap=off,pku=off,umip=off"
CONSOLE_TAIL_CHARS = 16 << 10


class LabFailed(Exception):
    """The job did not come to an end; str() says why, and what the lab's console said."""

    console = ""

    def __str__(self) -> str:
        return super().__str__() + (f"; its console said:\n{self.console}" if self.console else "")


class LabCrashed(LabFailed):
    """The lab fell or stood still, under nothing that its job did: an emulated processor with SVM does that at times.

    `passed` and `failed` are what tests had noted by then: tests/lab/progress.py.
    """

    passed = ""
    failed = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`shown` are directories of the host below /tmp, /var/tmp or /run that are to be there too.

    `report` is where files go that the job puts into /run/lab/out; the directory is made. `still_s` is for how long one
    of its processors may do nothing that it was asked for.
    """

    argv: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    timeout_s: float = 480.0
    still_s: float = 60.0
    terminal: bool = False
    memory_mib: int = 4096
    shown: tuple[Path, ...] = ()
    report: Path | None = None


def run(job: Job, out: IO[bytes], *, timeout_s: float, passed: str = "") -> int:
    """Boot, run the job with its output going to `out` as it comes, and return its exit code.

    All that it needs is in the cache. `passed` is what an earlier lab with the same job left as that.
    Nothing of it runs any more when this returns or raises, or when this process is gone. Raises LabCrashed, LabFailed
    (it did not end in time), Fault (no QEMU).
    """
    kernel = cache.fetched("bookworm", "generic")
    for package in ("vmtui", "tests"):  # what is compiled here need not be, slowly, in there
        compileall.compile_dir(ROOT / package, quiet=2)
    share = Path(tempfile.mkdtemp(prefix="vmtui-lab-"))
    try:
        _prepare(share, job, kernel)
        if passed:
            (share / "out/passed").write_text(passed)
        argv = _command(share, job, kernel)
        try:
            if job.terminal:
                _foreground(argv, timeout_s)
            else:
                _piped(argv, Pulse(share, job.still_s), timeout_s, out)
            if not (share / "code").exists():
                raise LabCrashed("the lab went down under its job")
            return int((share / "code").read_text())
        finally:
            if job.report is not None:
                shutil.copytree(share / "out", job.report, dirs_exist_ok=True)
    except LabFailed as failure:
        failure.console = _tail(share / "console")
        if isinstance(failure, LabCrashed):
            failure.passed, failure.failed = (_read(share / "out" / name) for name in ("passed", "failed"))
        raise
    finally:
        shutil.rmtree(share, ignore_errors=True)


def _prepare(share: Path, job: Job, kernel: Kernel) -> None:
    assert kernel.modules is not None
    columns, rows = shutil.get_terminal_size()
    hidden = [place for place in (ROOT, cache.folder(), *job.shown) if str(place.resolve()).startswith(HIDDEN)]
    settings = {
        "release": kernel.release,
        "modules": str(kernel.modules),
        "terminal": "yes" if job.terminal else "",
        "size": f"{rows} {columns}",
    }
    variables = {
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PATH": os.environ.get("PATH", os.defpath),
        "TERM": os.environ.get("TERM", "dumb") if job.terminal else "dumb",
        "XDG_CACHE_HOME": "/var/tmp/cache",
        "XDG_STATE_HOME": "/var/tmp/state",
        "VMTUI_LAB": "1",
        cache.IN_THE_LAB: str(cache.folder()),
        **job.environment,
    }
    (share / "out").mkdir()
    with (share / "disk").open("wb") as disk:
        disk.truncate(DISK_BYTES)
    subprocess.run(
        [which("mkfs.ext4"), "-q", "-O", "^has_journal", share / "disk"], check=True, stdin=subprocess.DEVNULL
    )
    (share / "start").write_bytes((GUEST / "start").read_bytes())
    (share / "settings").write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items()))
    (share / "shown").write_text("".join(f"{place.resolve()}\n" for place in hidden))
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    (share / "job").write_text(
        f"{exports}mkdir -p $XDG_CACHE_HOME/vmtui $XDG_STATE_HOME\n"
        f"cd {shlex.quote(str(cache.place('bookworm')))}\n"
        "ln -s $PWD/kernels $XDG_CACHE_HOME/vmtui\ncp -a busybox images layers $XDG_CACHE_HOME/vmtui\n"
        f"cd {shlex.quote(str(ROOT))}\nexec {shlex.join(job.argv)}\n"
    )


def _command(share: Path, job: Job, kernel: Kernel) -> list[str]:
    port = "virtconsole" if job.terminal else "virtserialport,nr=1"
    return [
        "setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64",
        "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "2", "-m", f"{job.memory_mib}M",
        "-kernel", str(kernel.image), "-initrd", str(initramfs.built(kernel)), "-append", APPEND,
        "-nodefaults", "-display", "none", "-no-reboot",
        "-serial", f"file:{share}/console",
        "-device", "virtio-rng-pci",
        "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
        "-virtfs", f"local,path={share},mount_tag=lab,security_model=none",
        "-drive", f"if=none,id=disk,format=raw,cache=unsafe,file={share}/disk", "-device", "virtio-blk-pci,drive=disk",
        "-device", "virtio-serial-pci", "-chardev", "stdio,id=job,signal=off", "-device", f"{port},chardev=job",
    ]  # fmt: skip


def _piped(argv: list[str], pulse: Pulse, timeout_s: float, out: IO[bytes]) -> None:
    """Returns when it has gone down. A signal to our process group does not reach it: it ends with us."""
    ours, its = socket.socketpair()
    argv = [*argv, "-chardev", f"socket,id=monitor,fd={its.fileno()}", "-mon", "chardev=monitor,mode=control"]
    stdin = subprocess.PIPE  # silent, but open: at its end QEMU would close the port that the output goes through
    with (
        ours,
        its,
        subprocess.Popen(
            argv, stdin=stdin, stdout=subprocess.PIPE, start_new_session=True, pass_fds=[its.fileno()]
        ) as process,
    ):
        its.close()  # so that ours is at its end when QEMU is
        stdout = process.stdout
        assert stdout is not None

        def pump() -> None:
            while chunk := os.read(stdout.fileno(), 65536):
                out.write(chunk)
                out.flush()

        pumping = threading.Thread(target=pump)
        pumping.start()
        try:
            _watched(process, pulse, ours, timeout_s)
        finally:
            process.kill()
            pumping.join()


def _watched(process: subprocess.Popen[bytes], pulse: Pulse, qmp: socket.socket, timeout_s: float) -> None:
    """Raises LabCrashed, LabFailed; both say where its processors are."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            return _gone(process.wait(LOOK_S))
        except subprocess.TimeoutExpired:
            now = time.monotonic()
        if stands_still := pulse.look(now, waited_s(process.pid)):
            raise LabCrashed(f"the lab stands still, {stands_still}\n{monitor.state(qmp)}")
        if now > end:
            raise LabFailed(f"the job did not end within {timeout_s:.0f} s\n{monitor.state(qmp)}")


def _foreground(argv: list[str], timeout_s: float) -> None:
    """The same with our terminal for its own: QEMU puts it into raw mode, and we put it back."""
    before = termios.tcgetattr(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with subprocess.Popen(argv) as process:
            try:
                _gone(process.wait(timeout_s))
            except subprocess.TimeoutExpired:
                raise LabFailed(f"the job did not end within {timeout_s:.0f} s") from None
            finally:
                process.kill()
    finally:
        os.set_blocking(0, True)
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _gone(code: int) -> None:
    if code < 0:
        raise LabCrashed(f"QEMU was ended by {signal.Signals(-code).name}")
    if code > 0:
        raise LabFailed(f"QEMU ended with {code}")


def _read(file: Path) -> str:
    return file.read_text(errors="replace") if file.exists() else ""


def _tail(console: Path) -> str:
    text = _read(console)[-CONSOLE_TAIL_CHARS:].replace("\r", "")
    return "".join(char for char in text if char.isprintable() or char == "\n")
