"""What the files of a VM's folder and /proc say of it. The VMM's monitor writes most of them."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from vmtui.backends.kvm import casualty
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Exit, Fact, Problem
from vmtui.guests import run as files
from vmtui.guests import state
from vmtui.guests.run import EXIT, KILLED, LOG, PROCESS, RUN, STATUS
from vmtui.guests.state import Observed
from vmtui.host.files import read_tail
from vmtui.host.process import ProcessId, boot_id, tail

LAST_LINES = 3
BY_ITSELF, WAS_KILLED = frozenset({"POWERED_OFF", "RESET"}), "KILLED"  # vmtui/vmm/machine.py, Cause
COMMAND_EXITED = re.compile(rb"vmtui: command exited with (\d{1,3})\b")  # our init says it on its console as well


class Launch(state.Launch, frozen=True, kw_only=True):
    """launch.json: what one start chose."""

    why: str
    console: str

    def facts(self) -> tuple[Fact, ...]:
        pairs = (("accelerator", "kvm"), ("why", self.why), ("kernel", self.kernel), ("console", self.console))
        return tuple(Fact(name=name, value=value) for name, value in pairs if value)


class Noted(msgspec.Struct, frozen=True, kw_only=True):
    """RUN/exit: how the monitor saw it end."""

    code: int
    cause: str
    reason: str
    at: float
    exits_total: int = 0


def observe(folder: Path) -> Observed:
    """The phase of a VM that is made. One that ended in this boot, and nobody noted how, is broken."""
    seen = state.observe(folder, Launch, ending)
    if seen.phase is not Phase.EXITED or seen.process is None or seen.process.boot != boot_id():
        return seen
    if files.load(folder / RUN / EXIT, Noted) is not None:
        return seen
    return msgspec.structs.replace(seen, phase=Phase.BROKEN, exit=None, problems=(_vanished(folder, seen.process),))


def ending(folder: Path, process: ProcessId) -> Exit:
    """How a VM ended: by what the guest reported, else by what the monitor saw."""
    run = folder / RUN
    noted = files.load(run / EXIT, Noted)
    if noted is None:
        reason = "the host restarted while it ran" if process.boot != boot_id() else "its process vanished"
        return Exit(code=KILLED, reason=reason, at=files.time_of(run, PROCESS))
    if noted.cause in BY_ITSELF and (reported := _reported(folder)) is not None:
        return Exit(code=reported, reason=f"command exited with {reported}", at=files.time_of(run, EXIT, STATUS))
    reason = tail(noted.reason.encode()) or noted.cause.lower()
    if noted.cause == WAS_KILLED and casualty.of_memory(process):
        reason = f"{reason}: the host had no memory left"
    return Exit(code=noted.code & 0xFF, reason=reason, at=noted.at)


def _reported(folder: Path) -> int | None:
    """What our init says that the command ended with: to us, or if that did not get through, on its console."""
    reported = files.reported_exit(folder / RUN)
    if reported is not None or not (folder / files.IMAGE).exists():
        return reported
    said = COMMAND_EXITED.findall(b"\n".join(read_tail(folder / LOG, files.PANIC_LINES)))
    return int(said[-1]) & 0xFF if said else None


def _vanished(folder: Path, process: ProcessId) -> Problem:
    """Of one whose monitor is gone as well, so that nobody noted how it ended."""
    panic, said = files.panic(folder), files.errors(folder / RUN).splitlines()
    if casualty.of_memory(process):
        cause = "the host had no memory left, and killed it"
    elif panic is not None:
        cause = f"its kernel had panicked: {panic}"
    elif said:
        cause = f"its VMM said: {said[-1]}"
    else:
        cause = "it and its monitor were killed, and nobody noted by whom"
    last = [tail(line) for line in read_tail(folder / LOG, LAST_LINES) if line.strip()]
    shown = f"; its last lines: {' | '.join(last)}" if last else ""
    message = f"its process vanished: {cause}{shown}"
    return Problem(code="vanished", message=message, hint=f"vmtui rm {'/'.join(folder.parts[-3:])}")
