"""What the files of a sandbox's folder and /proc say of it. The program writes process.json and result.json."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TypeVar

import msgspec

from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Exit, Sample
from vmtui.host.files import write_atomic
from vmtui.host.process import ProcessId, boot_id

MODULE, MODULE_FACTS = "module", "module.json"
PROCESS, RESULT, LOG = "process.json", "result.json", "log"
KILLED = 137  # 128 + SIGKILL
MAX_FILE_BYTES = 64 << 10

T = TypeVar("T", bound=msgspec.Struct)


class Identity(msgspec.Struct, frozen=True):
    pid: int
    start_ticks: int
    boot: str

    @property
    def process(self) -> ProcessId:
        return ProcessId(self.pid, self.start_ticks, self.boot)


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """process.json: the last start."""

    monitor: Identity
    guest: Identity
    started_at: float
    user: str = ""
    cache: str = ""


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """result.json: the last end; of the last start only if `monitor` is the same."""

    monitor: Identity
    code: int
    at: float
    reason: str = ""
    trap: str = ""
    stopped: bool = False
    peak_bytes: int | None = None
    fuel_used: int | None = None
    memory_bytes: int | None = None
    log_failure: str = ""


class ModuleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """module.json: the copy of the module, as it was made."""

    sha256: str
    size_bytes: int
    source: str
    wasmtime: str


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    phase: Phase
    running: Running | None = None
    result: Result | None = None
    exit: Exit | None = None


def load(path: Path, kind: type[T]) -> T | None:
    """None if it is not there or not whole."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(MAX_FILE_BYTES), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None


def observe(directory: Path) -> Observed:
    """The phase of a sandbox that is made. Reads two small files and /proc."""
    running = load(directory / PROCESS, Running)
    if running is None:
        return Observed(phase=Phase.STOPPED)
    alive = running.monitor.process.alive  # before the result: it ends after it has written that
    result = load(directory / RESULT, Result)
    if result is not None and result.monitor == running.monitor:
        phase = Phase.STOPPED if result.stopped else Phase.EXITED
        end = Exit(code=result.code, reason=result.reason, at=result.at)
        return Observed(phase=phase, running=running, result=result, exit=end)
    if alive:
        phase = Phase.PAUSED if state_letter(running.guest.pid) == "T" else Phase.RUNNING
        return Observed(phase=phase, running=running)
    if running.monitor.boot != boot_id():
        end = Exit(code=KILLED, reason="the host restarted while it ran")
        return Observed(phase=Phase.EXITED, running=running, exit=end)
    return Observed(phase=Phase.BROKEN, running=running, exit=Exit(code=KILLED, reason="its process vanished"))


def write_result(directory: Path, running: Running, reason: str, *, stopped: bool) -> None:
    """In place of a monitor that had to be killed. Raises OSError."""
    result = Result(monitor=running.monitor, code=KILLED, at=time.time(), reason=reason, stopped=stopped)
    write_atomic(directory / RESULT, msgspec.json.encode(result))


def state_letter(pid: int) -> str:
    """Field 3 of /proc/PID/stat (proc(5)); "" if there is no such process."""
    fields = _stat(pid)
    return fields[0] if fields else ""


def sample(running: Running, limit_bytes: int) -> Sample:
    """What the process uses now; all unknown when it is gone."""
    pid, now = running.guest.pid, time.time()
    fields = _stat(pid)
    if not fields or not running.guest.process.alive:
        return Sample(at=now)
    ticks: int = os.sysconf("SC_CLK_TCK")
    io = _counters(Path(f"/proc/{pid}/io"))
    return Sample(
        at=now,
        cpu_s=(int(fields[11]) + int(fields[12])) / ticks,
        memory_bytes=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
        memory_limit_bytes=limit_bytes,
        block_read_bytes=io.get("read_bytes"),
        block_write_bytes=io.get("write_bytes"),
        processes=1,
    )


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def _counters(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    return {name: int(value) for name, _, value in (line.partition(": ") for line in lines)}
