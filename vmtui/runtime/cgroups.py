"""Control groups of containers: v1, v2, and hosts that have both. Reads measurements, freezes, ends, removes.

Limits are not written here: the OCI runtime does that from config.json.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vmtui.core.errors import OperationFailed
from vmtui.core.resource import Sample
from vmtui.host import trace

UNLIMITED = 1 << 62  # v1 says "no limit" with the largest multiple of a page (mm/page_counter.c)
GONE_TIMEOUT_S = 30.0
AFRESH_S = 0.5
ESCAPE = re.compile(r"\\([0-7]{3})")  # how mountinfo writes blanks, proc(5)


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted cgroup tree. `controllers` is empty for v2 and for v1 trees that only have a name."""

    mountpoint: Path
    version: int
    controllers: frozenset[str]


def hierarchies(mountinfo: Path = Path("/proc/self/mountinfo")) -> tuple[Hierarchy, ...]:
    """All cgroup trees of the host, by proc(5) /proc/PID/mountinfo."""
    found = {}
    for line in mountinfo.read_text(errors="replace").splitlines():
        before, separator, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if not separator or len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        mountpoint = ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
        version = 2 if kind[0] == "cgroup2" else 1
        names = frozenset(kind[2].split(",")) - {"rw", "ro"} if version == 1 else frozenset[str]()
        controllers = frozenset(name for name in names if "=" not in name and name not in ("xattr", "noprefix"))
        found[mountpoint] = Hierarchy(Path(mountpoint), version, controllers)
    return tuple(found.values())


def mode(trees: tuple[Hierarchy, ...]) -> str:
    """ "v2", "v1", "hybrid" (v1 controllers beside a v2 tree) or "none"."""
    versions = {tree.version for tree in trees}
    return {frozenset({1}): "v1", frozenset({2}): "v2", frozenset({1, 2}): "hybrid"}.get(frozenset(versions), "none")


class Cgroup:
    """The cgroup `/NAME` in every tree of the host; it need not exist."""

    def __init__(self, name: str, trees: tuple[Hierarchy, ...] | None = None) -> None:
        self.name = name
        self._trees = hierarchies() if trees is None else trees

    def directory(self, controller: str) -> Path | None:
        """Where the files of a controller are, None if the host has no such controller."""
        v2 = None
        for tree in self._trees:
            if controller in tree.controllers:
                return tree.mountpoint / self.name
            if tree.version == 2:
                v2 = tree.mountpoint / self.name
        return v2

    def _directories(self) -> Iterator[Path]:
        for tree in self._trees:
            directory = tree.mountpoint / self.name
            if directory.is_dir():
                yield directory

    def exists(self) -> bool:
        return next(self._directories(), None) is not None

    def contains(self, pid: int) -> bool:
        """Whether a live process is in it. A container cannot leave its cgroup, so this proves whose it is."""
        try:
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        except OSError:
            return False
        paths = [line.split(":", 2)[2] for line in lines if line.count(":") >= 2]
        return any(path == f"/{self.name}" or path.startswith(f"/{self.name}/") for path in paths)

    def pids(self) -> set[int]:
        """The processes in it and below it."""
        found: set[int] = set()
        for top in self._directories():
            for directory, _, files in os.walk(top):
                if "cgroup.procs" in files:
                    with contextlib.suppress(OSError):  # a threaded v2 group, or one just gone
                        found.update(int(pid) for pid in Path(directory, "cgroup.procs").read_text().split())
        return found - {0}

    @property
    def frozen(self) -> bool:
        directory = self.directory("freezer")
        if directory is None:
            return False
        if (directory / "freezer.state").exists():
            return _text(directory / "freezer.state") in ("FROZEN", "FREEZING")
        return _text(directory / "cgroup.freeze") == "1"

    async def freeze(self, frozen: bool) -> None:
        """Stop or continue all processes in it; returns when that is so. Raises OSError, OperationFailed.

        A freeze that fails is taken back: they run on.
        """
        directory = self.directory("freezer")
        if directory is None:
            raise OperationFailed("the host has no freezer cgroup", hint="vmtui doctor")
        v1 = (directory / "freezer.state").exists()
        file = directory / ("freezer.state" if v1 else "cgroup.freeze")
        thaw, freeze = ("THAWED", "FROZEN") if v1 else ("0", "1")
        with trace.write(file, freeze if frozen else thaw):
            file.write_text(freeze if frozen else thaw)
        now = time.monotonic()
        deadline, afresh = now + GONE_TIMEOUT_S, now + AFRESH_S
        while not self._settled(directory, frozen, v1):
            await asyncio.sleep(0.005)
            now = time.monotonic()
            if now > deadline:
                file.write_text(thaw)
                raise OperationFailed(f"cgroup {self.name} did not {'freeze' if frozen else 'thaw'}")
            if v1 and frozen:  # it may wait for ever for a process that was just being made, unless asked again
                if now > afresh:
                    file.write_text(thaw)
                    await asyncio.sleep(0.01)
                    afresh = now + AFRESH_S
                file.write_text(freeze)

    @staticmethod
    def _settled(directory: Path, frozen: bool, v1: bool) -> bool:
        if v1:
            return _text(directory / "freezer.state") == ("FROZEN" if frozen else "THAWED")
        return _keyed(directory / "cgroup.events").get("frozen", int(frozen)) == int(frozen)

    async def end(self) -> None:
        """Kill what is in it, then remove it from every tree. Absent is success. Raises OperationFailed."""
        directories = " ".join(shlex.quote(str(directory)) for directory in self._directories())
        if directories:
            script = f"for d in {directories}; do kill -s KILL $(cat $d/cgroup.procs); rmdir $d; done"
            with trace.begin(trace.Way.FILE, ("sh", "-c", script)):
                await self._end()

    async def _end(self) -> None:
        deadline = time.monotonic() + GONE_TIMEOUT_S
        while self.exists():
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for top in self._directories():
                freezer = top / "freezer.state"
                if freezer.exists():  # v1: a frozen process does not die
                    with contextlib.suppress(OSError):
                        freezer.write_text("THAWED")
                for directory, _, _ in os.walk(top, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(directory)
            if self.exists() and time.monotonic() > deadline:
                left = sorted(self.pids())
                raise OperationFailed(f"cgroup {self.name} cannot be removed; processes in it: {left or 'none'}")
            if self.exists():
                await asyncio.sleep(0.005)

    def sample(self) -> Sample:
        """What it has used; None for what the host does not count."""
        memory, limit = self._memory()
        read, written = self._block()
        return Sample(
            at=time.time(),
            cpu_s=self._cpu(),
            memory_bytes=memory,
            memory_limit_bytes=limit,
            block_read_bytes=read,
            block_write_bytes=written,
            processes=self._number("pids", "pids.current"),
        )

    def _number(self, controller: str, *names: str) -> int | None:
        directory = self.directory(controller)
        if directory is None:
            return None
        texts = [_text(directory / name) for name in names]
        return next((int(text) for text in texts if text.isdecimal()), None)

    def _cpu(self) -> float | None:
        nanoseconds = self._number("cpuacct", "cpuacct.usage")
        if nanoseconds is not None:
            return nanoseconds / 1e9
        directory = self.directory("cpu")
        usage = None if directory is None else _keyed(directory / "cpu.stat").get("usage_usec")
        return None if usage is None else usage / 1e6

    def _memory(self) -> tuple[int | None, int | None]:
        """Use without the page cache that can be dropped at once (as docker and kubelet count), and the limit."""
        directory = self.directory("memory")
        used = self._number("memory", "memory.usage_in_bytes", "memory.current")
        limit = self._number("memory", "memory.limit_in_bytes", "memory.max")
        if directory is not None and used is not None:
            stat = _keyed(directory / "memory.stat")
            used = max(0, used - stat.get("total_inactive_file", stat.get("inactive_file", 0)))
        return used, None if limit is None or limit >= UNLIMITED else limit

    def _block(self) -> tuple[int | None, int | None]:
        directory = self.directory("blkio")
        v1 = None if directory is None else _text(directory / "blkio.throttle.io_service_bytes_recursive")
        if v1:
            rows = [line.split() for line in v1.splitlines()]
            totals = {word: sum(int(row[2]) for row in rows if row[1:2] == [word]) for word in ("Read", "Write")}
            return totals["Read"], totals["Write"]
        directory = self.directory("io")
        v2 = None if directory is None else _text(directory / "io.stat")
        if v2 is None or directory is None or not (directory / "io.stat").exists():
            return None, None
        pairs = [pair.partition("=") for line in v2.splitlines() for pair in line.split()[1:]]
        return (
            sum(int(value) for key, _, value in pairs if key == "rbytes"),
            sum(int(value) for key, _, value in pairs if key == "wbytes"),
        )

    def oom_kills(self) -> int:
        """How many processes in it were killed for want of memory."""
        directory = self.directory("memory")
        if directory is None:
            return 0
        return _keyed(directory / "memory.oom_control").get("oom_kill", 0) or _keyed(directory / "memory.events").get(
            "oom_kill", 0
        )


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _keyed(path: Path) -> dict[str, int]:
    """A file of "key number" lines."""
    rows = (line.split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()}
