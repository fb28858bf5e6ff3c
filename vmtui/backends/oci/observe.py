"""What the host shows of a container: from files, /proc and cgroups, without a command."""

from __future__ import annotations

from vmtui.backends.oci.places import Places, RunState
from vmtui.backends.records import Record
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Exit, Fact, Problem, Status
from vmtui.core.specs import ContainerSpec
from vmtui.host.process import ProcessId

BACKEND = "oci"
KILLED = 137  # 128 + SIGKILL


def container_process(places: Places) -> ProcessId | None:
    """The container's first process, if it lives: proven by its cgroup."""
    process = places.conmon.container()
    return process if process is not None and places.cgroup.contains(process.pid) else None


def observe(places: Places, record: Record[ContainerSpec] | None) -> Status:
    """The status. Faults are in its problems; never raises."""
    facts, problems = _constant(places, record)
    state = places.read_state()
    phase, exited, process = Phase.STOPPED, None, None
    if record is None or not record.complete:
        phase = Phase.BROKEN
        problems.append(
            Problem(code="half-made", message="its making was cut short", hint=f"vmtui rm {places.ref}")
            if record is not None
            else Problem(code="no-record", message="its record cannot be read", hint=f"vmtui rm {places.ref}")
        )
    elif state is not None:
        facts += _of_run(state)
        phase, exited, process, problem = _running(places, state)
        if problem is not None:
            problems.append(problem)
        if state.shared_ids_because:
            problems.append(
                Problem(
                    code="no-user-namespace",
                    message=f"its root is the host's: {state.shared_ids_because}",
                    hint="a kernel of 5.19 or newer, and a file system with idmapped mounts",
                )
            )
    if process is not None:
        facts.append(Fact(name="cgroup", value=f"/{places.name}"))
    return Status(
        ref=places.ref,
        backend=BACKEND,
        phase=phase,
        spec_hash=record.desired.spec_hash if record is not None else "",
        pid=process.pid if process is not None else None,
        started_at=process.started_at if process is not None else _began(places) if exited is not None else None,
        exit=exited,
        facts=tuple(facts),
        problems=tuple(problems),
        log=str(places.log),
    )


def _began(places: Places) -> float | None:
    try:
        return places.conmon.container_pid.stat().st_mtime
    except OSError:
        return None


def _constant(places: Places, record: Record[ContainerSpec] | None) -> tuple[list[Fact], list[Problem]]:
    image = places.read_image()
    if image is not None:
        return [Fact(name="image", value=image.reference), Fact(name="digest", value=image.digest)], []
    if record is not None and record.complete:
        hint = f"vmtui rm {places.ref}"
        return [], [Problem(code="no-image", message=f"{places.image} is gone or damaged", hint=hint)]
    return [], []


def _of_run(state: RunState) -> list[Fact]:
    ids = "the host's" if state.id_base is None else f"0-65535 → {state.id_base}-{state.id_base + 65535}"
    return [
        Fact(name="runtime", value=f"{state.runtime.name} ({state.runtime.reason})"),
        Fact(name="user ids", value=ids),
    ]


def _running(places: Places, state: RunState) -> tuple[Phase, Exit | None, ProcessId | None, Problem | None]:
    """From the processes and what conmon wrote, read in this order: conmon writes the exit code before it ends."""
    process, parent = container_process(places), places.conmon.conmon()
    exited = places.conmon.exit()
    begun = not places.containers(state).waits_for_start(places.name)
    again = f"vmtui start {places.ref}"
    if exited is None and not (places.runtime_root / places.name).exists():
        problem = Problem(code="half-started", message="its start was cut short", hint=again)
        return Phase.STOPPED, None, None, problem
    if process is not None and exited is None:
        if not begun:
            return Phase.STOPPED, None, process, Problem(code="half-started", message="it waits to start", hint=again)
        if parent is None:
            message = "its parent process conmon was killed: what it writes is lost, and its end will not be noticed"
            return Phase.BROKEN, None, process, Problem(code="parent-lost", message=message, hint=again)
        return Phase.PAUSED if places.cgroup.frozen else Phase.RUNNING, None, process, None
    if exited is None and parent is not None:
        return (Phase.RUNNING if begun else Phase.STOPPED), None, None, None  # conmon is about to write the code
    if not begun:
        return Phase.STOPPED, None, None, Problem(code="half-started", message="it never started", hint=again)
    if places.stopping.exists():
        return Phase.STOPPED, exited, None, None
    if exited is None:
        lost = Exit(code=KILLED, reason="it and its parent process conmon were killed; the code is a guess")
        return Phase.EXITED, lost, None, Problem(code="parent-lost", message=lost.reason, hint=again)
    if exited.code == KILLED and (places.oom.exists() or places.cgroup.oom_kills() > 0):
        exited = Exit(code=exited.code, at=exited.at, reason="killed: it used more memory than its limit")
    return Phase.EXITED, exited, None, None
