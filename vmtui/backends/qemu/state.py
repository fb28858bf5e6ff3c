"""What the files of a VM's folder and /proc say of it. parent.sh writes most of them."""

from __future__ import annotations

from pathlib import Path

from vmtui.core.resource import Exit, Fact
from vmtui.guests import run as files
from vmtui.guests import state
from vmtui.guests.run import EXIT, KILLED, PROCESS, RUN, STATUS
from vmtui.guests.state import Observed
from vmtui.host.process import ProcessId, boot_id


class Launch(state.Launch, frozen=True, kw_only=True):
    """launch.json: what one start chose."""

    machine: str
    accelerator: str
    why: str
    qemu: str

    def facts(self) -> tuple[Fact, ...]:
        pairs = (
            ("accelerator", self.accelerator),
            ("why", self.why),
            ("machine", self.machine),
            ("kernel", self.kernel),
            ("qemu", self.qemu),
        )
        return tuple(Fact(name=name, value=value) for name, value in pairs if value)


def observe(folder: Path) -> Observed:
    """The phase of a VM that is made. Reads a few small files and /proc."""
    return state.observe(folder, Launch, ending)


def ending(folder: Path, process: ProcessId) -> Exit:
    """How a VM ended: by what the guest reported, then by what it printed last, then by QEMU's own code."""
    run = folder / RUN
    code = files.read(run / EXIT).strip()
    reported = files.reported_exit(run)
    if reported is not None:
        return Exit(code=reported, reason=f"command exited with {reported}", at=files.time_of(run, EXIT, STATUS))
    if not code.isdigit():
        at = files.time_of(run, PROCESS)
        if process.boot != boot_id():
            return Exit(code=KILLED, reason="the host restarted while it ran", at=at)
        return Exit(code=KILLED, reason="qemu ended unseen: its parent process was killed", at=at)
    number, at = int(code), files.time_of(run, EXIT)
    if number == 0:
        panic = files.panic(folder)
        if panic is not None:
            return Exit(code=1, reason=f"kernel panic: {panic}", at=at)
        return Exit(code=0, reason="the guest powered off", at=at)
    if number > 128:
        return Exit(code=number, reason=f"qemu was killed by signal {number - 128}", at=at)
    said = files.errors(run).splitlines()
    return Exit(code=number, reason=said[-1] if said else f"qemu ended with code {number}", at=at)
