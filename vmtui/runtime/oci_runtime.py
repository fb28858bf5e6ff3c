"""Drives the OCI runtime, runc or crun, and says which one is used and why. No other module calls either."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import msgspec

from vmtui.core.errors import CommandFailed, MissingCapability, OperationFailed
from vmtui.host.process import run, which

AUTO, RUNC, CRUN = "auto", "runc", "crun"
# The first releases without CVE-2025-31133, CVE-2025-52565 and CVE-2025-52881 (escapes through masked paths, /dev/pts
# and write gadgets), by the advisories of opencontainers/runc.
RUNC_FIXED = ((1, 2, 8), (1, 3, 3), (1, 4, 0))
COMMAND_TIMEOUT_S = 30.0
MAX_LOG_BYTES = 64 << 10


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """The chosen runtime."""

    name: str
    path: str
    reason: str


def require_root() -> None:
    """Raises MissingCapability."""
    if os.geteuid() != 0:
        message = "containers need root: namespaces, overlay mounts and cgroup limits"
        raise MissingCapability(message, hint="sudo -E vmtui")


def choose(preference: str, cgroup_mode: str) -> Runtime:
    """The runtime to use on a host with `cgroup_mode`. Raises MissingCapability."""
    if cgroup_mode == "none":
        raise MissingCapability("no cgroup file system is mounted", hint="mount -t cgroup2 none /sys/fs/cgroup")
    if preference == CRUN and cgroup_mode == "hybrid":
        # It starts only with the v2 tree bound over the v1 ones and its cgroup manager off: no limit would hold.
        raise MissingCapability(
            "crun refuses hosts with cgroup v1 and v2 side by side", hint='set runtime = "runc" or "auto"'
        )
    if preference != AUTO:
        return Runtime(name=preference, path=which(preference), reason="asked for by the profile")
    if cgroup_mode == "v2":
        with contextlib.suppress(MissingCapability):
            return Runtime(name=CRUN, path=which(CRUN), reason="cgroup v2, where crun is the lighter one")
        return Runtime(name=RUNC, path=which(RUNC), reason="crun is not installed")
    return Runtime(name=RUNC, path=which(RUNC), reason=f"cgroup {cgroup_mode}, which crun does not support")


async def version(runtime: Runtime) -> str:
    """Its version, as in "1.1.5+ds1". Raises CommandFailed, OperationFailed."""
    shown = await run([runtime.path, "--version"], timeout=10, reads=True)
    match = re.search(rb"version (\S+)", shown.stdout)
    if match is None:
        raise OperationFailed(f"{runtime.path} does not say its version")
    return match[1].decode("ascii", "replace")


def is_vulnerable(runtime: Runtime, version_text: str) -> bool:
    """Whether upstream's release of this number has the escapes of November 2025; distributions may have mended it."""
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version_text)
    if runtime.name != RUNC or numbers is None:
        return False
    found = tuple(int(number) for number in numbers.groups())
    return not any(found >= fixed and found[:2] == fixed[:2] for fixed in RUNC_FIXED) and found < RUNC_FIXED[-1]


class Containers:
    """The containers of one runtime below one state directory."""

    def __init__(self, runtime: Runtime, root: Path) -> None:
        self.runtime = runtime
        self._root = root

    @property
    def log(self) -> Path:
        return self._root.with_name("runtime.log")

    @property
    def global_arguments(self) -> list[str]:
        return self._arguments(self.log)

    def _arguments(self, log: Path) -> list[str]:
        return ["--root", str(self._root), "--log", str(log), "--log-format", "json"]

    def waits_for_start(self, name: str) -> bool:
        """Whether it is made and not started: both runtimes keep a FIFO until then."""
        return (self._root / name / "exec.fifo").exists()

    async def start(self, name: str) -> None:
        """Let the process of a made container run. Raises OperationFailed."""
        argv = [self.runtime.path, *self.global_arguments, "start", name]
        try:
            await run(argv, timeout=COMMAND_TIMEOUT_S)
        except CommandFailed as fault:
            raise OperationFailed(
                f"container {name} did not start", details=self.last_error() or fault.details
            ) from None

    def exec_argv(self, name: str, process: Path, pid_file: Path, log: Path) -> list[str]:
        """The command that runs `process` (JSON) inside, its stdio that of the command, its code the command's."""
        return [
            self.runtime.path,
            *self._arguments(log),
            "exec",
            "--process",
            str(process),
            "--pid-file",
            str(pid_file),
            name,
        ]

    def last_error(self) -> str:
        """The last error that it logged, "" if none."""
        return last_error(self.log)


class _Logged(msgspec.Struct):
    level: str = ""
    msg: str = ""


def last_error(log: Path) -> str:
    """The last line of level error or worse in a runtime's JSON log, printable, "" if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - MAX_LOG_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        with contextlib.suppress(msgspec.MsgspecError):
            logged = msgspec.json.decode(line, type=_Logged)
            if logged.level in ("error", "fatal", "panic"):
                return "".join(char if char.isprintable() else " " for char in logged.msg)[:2000]
    return ""
