"""What the files of a VM's folder and /proc say of it, whatever runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Address, Exit, Fact, Port, Problem
from vmtui.guests import run as files
from vmtui.guests.run import EXIT, LAUNCH, PARENT, PAUSED, PROCESS, RUN, STOPPED
from vmtui.host.process import ProcessId

UNWATCHED = "unwatched"


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """launch.json: what one start chose. A backend adds to it what it chooses."""

    kernel: str = ""
    network: str = ""  # "user" or ""
    ports: tuple[Port, ...] = ()

    def facts(self) -> tuple[Fact, ...]:
        return (Fact(name="kernel", value=self.kernel),) if self.kernel else ()


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    phase: Phase
    process: ProcessId | None = None
    parent: ProcessId | None = None
    launch: Launch | None = None
    exit: Exit | None = None
    addresses: tuple[Address, ...] = ()
    problems: tuple[Problem, ...] = ()


def observe(folder: Path, launch_type: type[Launch], ending: Callable[[Path, ProcessId], Exit]) -> Observed:
    """The phase of a VM that is made. Reads a few small files and /proc. `ending` says how one ended."""
    run = folder / RUN
    parent, process = files.identity(run / PARENT), files.identity(run / PROCESS)
    launch = files.load(run / LAUNCH, launch_type)
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
            problems=() if watched else (unwatched(),),
        )
    if process is None:
        # Either nothing was started, or it is being started just now.
        return Observed(phase=Phase.STOPPED, parent=parent if watched else None)
    phase = Phase.STOPPED if (run / STOPPED).exists() else Phase.EXITED
    return Observed(phase=phase, process=process, parent=parent, launch=launch, exit=ending(folder, process))


def unwatched() -> Problem:
    message = "the parent of its process is gone: nobody will note how it ends, or restart it"
    return Problem(code=UNWATCHED, message=message, hint="restart the VM")
