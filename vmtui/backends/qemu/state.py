"""What the files of a VM's folder and /proc say of it. parent.sh writes most of them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Address, Exit, Fact, Port, Problem
from vmtui.guests import run as files
from vmtui.guests.run import EXIT, KILLED, LAUNCH, PARENT, PAUSED, PROCESS, RUN, STATUS, STOPPED
from vmtui.host.process import ProcessId, boot_id


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


def observe(folder: Path) -> Observed:
    """The phase of a VM that is made. Reads a few small files and /proc."""
    run = folder / RUN
    parent, process = files.identity(run / PARENT), files.identity(run / PROCESS)
    launch = files.load(run / LAUNCH, Launch)
    watched = parent is not None and parent.alive  # looked at before the files that it writes
    # A process that has just ended has not until its parent has noted how.
    ending_now = process is not None and watched and not (run / EXIT).exists()
    if process is not None and (process.alive or ending_now):
        return Observed(
            phase=Phase.PAUSED if (run / PAUSED).exists() else Phase.RUNNING,
            process=process,
            parent=parent,
            launch=launch,
            addresses=() if launch is None else files.addresses(run, launch.ports, launch.network),
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
