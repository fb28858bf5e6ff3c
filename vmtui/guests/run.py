"""The files of a VM and of one start of it, as its parent process and its guest write them. Any of them may be hostile.

FOLDER/record.json  image.json  serial.log  serial.log.1  and while it starts: kernel initrd
FOLDER/run/         one start: launch.json parent process started status errors exit, marks: paused stopped
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from vmtui.core.resource import Address, Port
from vmtui.host.files import read_tail
from vmtui.host.process import ProcessId, tail

RUN, LOG, IMAGE, INITRD, KERNEL = "run", "serial.log", "image.json", "initrd", "kernel"
LAUNCH, PARENT, PROCESS, STARTED, STATUS, ERRORS, EXIT = (
    "launch.json", "parent", "process", "started", "status", "errors", "exit",
)  # fmt: skip
PAUSED, STOPPED, REAP = "paused", "stopped", "reap"
MAX_FILE_BYTES = 256 << 10
KILLED = 137  # 128 + SIGKILL
PANIC = re.compile(rb"Kernel panic - not syncing: ([^\r\n]{1,200})")
PANIC_LINES = 200  # of the log's end: a kernel prints its stack after the word
REPORTED = re.compile(r"address (\S{1,15}) ([0-9a-f:]{17}) ([0-9a-fA-F.:]{2,39})/(\d{1,3})")

T = TypeVar("T", bound=msgspec.Struct)


def socket_path(sockets: str, name: str) -> Path:
    return Path(sockets) / f"{name}.sock"


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
    """The process that such a file names, alive or not."""
    match read(path).split():
        case [pid, ticks, boot]:
            with contextlib.suppress(ValueError):
                return ProcessId(int(pid), int(ticks), boot.decode("ascii", "replace"))
    return None


def errors(run: Path) -> str:
    """What its program said last, safe to print."""
    return tail(read(run / ERRORS))


def reported_exit(run: Path) -> int | None:
    """What our init says that the command ended with."""
    codes = [line for line in lines(run) if re.fullmatch(r"exit \d{1,3}", line)]
    return int(codes[-1].removeprefix("exit ")) & 0xFF if codes else None


def panic(folder: Path) -> str | None:
    """What the kernel printed when it gave up, safe to print."""
    found = PANIC.search(b"\n".join(read_tail(folder / LOG, PANIC_LINES)))
    return tail(found[1]) if found else None


def booted(run: Path) -> bool:
    """Whether our init has come up."""
    return any(line.startswith("booted") for line in lines(run))


def addresses(run: Path, ports: Sequence[Port], network: str = "") -> tuple[Address, ...]:
    """What the guest reports; of a network that we know, only with the card's own MAC; else what was leased to it.

    `network` names what the first card of no port is on, "" where there is none.
    """
    reported = {}
    for line in lines(run):
        if match := REPORTED.fullmatch(line):
            reported[match[2]] = (match[1], match[3])
    found = []
    for port in ports:
        interface, address = reported.pop(port.mac.lower(), ("", port.address))
        if address:
            found.append(Address(network=port.network.name, address=address, mac=port.mac, interface=interface))
    if network:
        found += [
            Address(network=network, address=address, mac=mac, interface=interface)
            for mac, (interface, address) in list(reported.items())[:1]
        ]
    return tuple(found)


def lines(run: Path) -> list[str]:
    """What the guest reported."""
    return read(run / STATUS).decode("ascii", "replace").splitlines()


def time_of(run: Path, *names: str) -> float:
    """When the first of these files that is there was written; 0 without any."""
    for name in names:
        with contextlib.suppress(OSError):
            return (run / name).stat().st_mtime
    return 0.0
