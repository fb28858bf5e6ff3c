"""Keeps logs current while they are looked at: files by inotify, the rest as streams."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from vmtui.core.backend import LogLine
from vmtui.core.errors import Fault
from vmtui.core.resource import Ref
from vmtui.engine.workspace import Workspace
from vmtui.host.inotify import Watch
from vmtui.tui.logs.files import FileLog
from vmtui.tui.logs.log import Log
from vmtui.tui.logs.stream import KEPT_LINES, StreamLog

GATHER_S = 0.1  # what comes together is looked at together
POLL_S = 1.0  # where nothing can be watched


class Sources:
    """Owns the logs of some resources. `run` keeps them current until it is cancelled, and may be called again."""

    def __init__(
        self, workspace: Workspace, refs: Sequence[Ref], *, opened: Callable[[], None], grown: Callable[[], None]
    ) -> None:
        self._workspace = workspace
        self.refs = tuple(refs)
        self.faults: dict[Ref, Fault | OSError] = {}
        self._opened, self._grown = opened, grown
        self._logs: dict[Ref, FileLog | StreamLog] = {}
        self._stirred = asyncio.Event()
        self._over: set[Ref] = set()  # streams that came to their end: the resource was deleted
        self._watched: dict[Path, tuple[int, int] | None] = {}  # None: not there yet

    @property
    def logs(self) -> dict[Ref, Log]:
        """Those that could be opened, in the order of the refs."""
        return {ref: self._logs[ref] for ref in self.refs if ref in self._logs}

    @property
    def streamed(self) -> bool:
        """Whether some of them begin with their last lines only."""
        return any(isinstance(log, StreamLog) for log in self._logs.values())

    def files(self, ref: Ref) -> FileLog | None:
        log = self._logs.get(ref)
        return log if isinstance(log, FileLog) else None

    async def run(self) -> None:
        """Open what is not open yet, tell so, and follow all of it."""
        self.faults.clear()
        self._over.clear()
        await self._open()
        self._opened()
        self._stirred.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look())
            group.create_task(self._watch())
            for ref, log in self._logs.items():
                if isinstance(log, StreamLog):
                    group.create_task(self._read(ref, log))

    def close(self) -> None:
        for log in self._logs.values():
            log.close()
        self._logs.clear()

    async def _open(self) -> None:
        for ref in self.refs:
            if ref in self._logs:
                continue
            try:
                source = await self._workspace.log_source(ref)
                name = str(ref)
                self._logs[ref] = StreamLog(name) if source is None else FileLog(name, source)
            except (Fault, OSError) as error:
                self.faults[ref] = error

    async def _look(self) -> None:
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            changes = [log.refresh() for log in self._logs.values()]
            if any(changes):
                self._grown()
            await asyncio.sleep(GATHER_S)

    async def _watch(self) -> None:
        """Directories, not files: a rotation makes new ones. One that is not there yet is waited for."""
        paths = {path for log in self._logs.values() if isinstance(log, FileLog) for path in log.paths}
        self._watched = {path.parent: None for path in paths}
        with contextlib.ExitStack() as stack:
            try:
                watch = stack.enter_context(contextlib.closing(Watch()))
                while not self._add(watch):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(POLL_S):
                            await self._stir(watch, paths)
            except OSError:
                await self._poll()
            await self._stir(watch, paths)

    def _add(self, watch: Watch) -> bool:
        """Whether all directories are watched now."""
        for folder, identity in self._watched.items():
            if identity is None and (found := _identity(folder)) is not None:
                watch.add(folder, writes=True)
                self._watched[folder] = found
                self._stirred.set()
        return None not in self._watched.values()

    def misled(self) -> bool:
        """Whether what is followed has been replaced by another: `run` has to be called again."""
        return bool(self._over) or any(
            identity not in (None, _identity(folder)) for folder, identity in self._watched.items()
        )

    async def _stir(self, watch: Watch, paths: set[Path]) -> None:
        async with contextlib.aclosing(watch.changes()) as changes:  # type: ignore[type-var]
            async for path in changes:
                if not self._stirred.is_set() and path in paths:
                    self._stirred.set()

    async def _poll(self) -> NoReturn:
        while True:
            self._stirred.set()
            await asyncio.sleep(POLL_S)

    async def _read(self, ref: Ref, log: StreamLog) -> None:
        known: Callable[[LogLine], bool] | None = log.resume()
        try:
            async with contextlib.aclosing(  # type: ignore[type-var]
                self._workspace.logs(ref, tail=KEPT_LINES, follow=True)
            ) as lines:
                async for line in lines:
                    if known is not None and known(line):
                        continue
                    known = None
                    log.feed([line])
                    self._stirred.set()
            self._over.add(ref)
        except (Fault, OSError) as error:
            self.faults[ref] = error
            self._opened()


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
