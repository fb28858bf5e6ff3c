"""What the files of a VM's folder and /proc say of it. parent.sh writes most of them.

FOLDER/record.json  image.json  serial.log  serial.log.1  and while it starts: kernel initrd
FOLDER/run/         one start: launch.json parent process started status errors exit, marks: paused stopped
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TypeVar

import msgspec

from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Address, Exit, Fact, Port, Problem
from vmtui.host.files import read_tail
from vmtui.host.process import ProcessId, boot_id, tail

RUN, LOG, IMAGE, INITRD, KERNEL = "run", "serial.log", "image.json", "initrd", "kernel"
LAUNCH, PARENT, PROCESS, STARTED, STATUS, ERRORS, EXIT = (
    "launch.json", "parent", "process", "started", "status", "errors", "exit",
)  # fmt: skip
PAUSED, STOPPED, REAP = "paused", "stopped", "reap"
MAX_FILE_BYTES = 256 << 10
KILLED = 137  # 128 + SIGKILL
PANIC = re.compile(rb"Kernel panic - not syncing: ([^\r\n]{1,200})")
REPORTED = re.compile(r"address (\S{1,15}) ([0-9a-f:]{17}) ([0-9a-fA-F.:]{2,39})/(\d{1,3})")

T = TypeVar("T", bound=msgspec.Struct)


def socket_path(sockets: str, name: str) -> Path:
    return Path(sockets) / f"{name}.sock"


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """launch.json: what one start chose."""

    machine: str
    accelerator: str
    why: str
    qemu: str
    kernel: str = ""
    network: str = ""  # "user" or ""
    ports: tuple[Port, ...] = ()

    def facts(self) -> tuple[Fact, ...]:
        pairs = (
            ("accelerator", self.accelerator),
            ("why", self.why),
            ("machine", self.machine),
            ("kernel", self.kernel),
            ("qemu", self.qemu),
        )
        return tuple(Fact(name=name, value=value) for name, value in pairs if value)


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    phase: Phase
    process: ProcessId | None = None
    parent: ProcessId | None = None
    launch: Launch | None = None
    exit: Exit | None = None
    addresses: tuple[Address, ...] = ()
    problems: tuple[Problem, ...] = ()


def read(path: Path) -> bytes:
    """At most MAX_FILE_BYTES; b"" if it is not there."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES)
    except OSError:
        return b""


def load(path: Path, kind: type[T]) -> T | None:
    """None if it is not there or not whole."""
    try:
        return msgspec.json.decode(read(path), type=kind)
    except msgspec.MsgspecError:
        return None


def identity(path: Path) -> ProcessId | None:
    """The process that a file of parent.sh names, alive or not."""
    match read(path).split():
        case [pid, ticks, boot]:
            with contextlib.suppress(ValueError):
                return ProcessId(int(pid), int(ticks), boot.decode("ascii", "replace"))
    return None


def observe(folder: Path) -> Observed:
    """The phase of a VM that is made. Reads a few small files and /proc."""
    run = folder / RUN
    parent, process = identity(run / PARENT), identity(run / PROCESS)
    launch = load(run / LAUNCH, Launch)
    watched = parent is not None and parent.alive  # looked at before the files that it writes
    # A process that has just ended has not until its parent has noted how.
    ending_now = process is not None and watched and not (run / EXIT).exists()
    if process is not None and (process.alive or ending_now):
        return Observed(
            phase=Phase.PAUSED if (run / PAUSED).exists() else Phase.RUNNING,
            process=process,
            parent=parent,
            launch=launch,
            addresses=addresses(run, launch),
            problems=() if watched else (UNWATCHED,),
        )
    if process is None:
        # Either nothing was started, or it is being started just now.
        return Observed(phase=Phase.STOPPED, parent=parent if watched else None)
    ended = ending(folder, process)
    phase = Phase.STOPPED if (run / STOPPED).exists() else Phase.EXITED
    return Observed(phase=phase, process=process, parent=parent, launch=launch, exit=ended)


UNWATCHED = Problem(
    code="unwatched",
    message="the parent process of qemu is gone: nobody will note how it ends, or restart it",
    hint="restart the VM",
)


def ending(folder: Path, process: ProcessId) -> Exit:
    """How a VM ended: by what the guest reported, then by what it printed last, then by QEMU's own code."""
    run = folder / RUN
    code = read(run / EXIT).strip()
    reported = [line for line in _lines(run) if re.fullmatch(r"exit \d{1,3}", line)]
    if reported:
        number = int(reported[-1].removeprefix("exit ")) & 0xFF
        return Exit(code=number, reason=f"command exited with {number}", at=_time(run, EXIT, STATUS))
    if not code.isdigit():
        if process.boot != boot_id():
            return Exit(code=KILLED, reason="the host restarted while it ran", at=_time(run, PROCESS))
        return Exit(code=KILLED, reason="qemu ended unseen: its parent process was killed", at=_time(run, PROCESS))
    number, at = int(code), _time(run, EXIT)
    if number == 0:
        panic = PANIC.search(b"\n".join(read_tail(folder / LOG, 200)))
        if panic:
            return Exit(code=1, reason=f"kernel panic: {tail(panic[1])}", at=at)
        return Exit(code=0, reason="the guest powered off", at=at)
    if number > 128:
        return Exit(code=number, reason=f"qemu was killed by signal {number - 128}", at=at)
    said = errors(run).splitlines()
    return Exit(code=number, reason=said[-1] if said else f"qemu ended with code {number}", at=at)


def errors(run: Path) -> str:
    """What QEMU said last, safe to print."""
    return tail(read(run / ERRORS))


def booted(run: Path) -> bool:
    """Whether our init has come up."""
    return any(line.startswith("booted") for line in _lines(run))


def addresses(run: Path, launch: Launch | None) -> tuple[Address, ...]:
    """What the guest reports; of a network that we know, only with the card's own MAC; else what was leased to it."""
    if launch is None:
        return ()
    reported = {}
    for line in _lines(run):
        if match := REPORTED.fullmatch(line):
            reported[match[2]] = (match[1], match[3])
    found = []
    for port in launch.ports:
        interface, address = reported.pop(port.mac.lower(), ("", port.address))
        if address:
            found.append(Address(network=port.network.name, address=address, mac=port.mac, interface=interface))
    if launch.network:
        found += [
            Address(network=launch.network, address=address, mac=mac, interface=interface)
            for mac, (interface, address) in list(reported.items())[:1]
        ]
    return tuple(found)


def _lines(run: Path) -> list[str]:
    return read(run / STATUS).decode("ascii", "replace").splitlines()


def _time(run: Path, *names: str) -> float:
    for name in names:
        with contextlib.suppress(OSError):
            return (run / name).stat().st_mtime
    return 0.0
