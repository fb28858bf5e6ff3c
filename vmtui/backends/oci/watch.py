"""Tells which containers may have changed, as events: inotify on their files, pidfds on their conmons."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from pathlib import Path

from vmtui.backends.oci.places import Places
from vmtui.core.backend import Context
from vmtui.core.resource import Kind, Ref
from vmtui.host.inotify import Watch
from vmtui.host.process import ProcessId


class Watcher:
    """One watch over all containers of a workspace. `refs` lists those there are."""

    def __init__(self, context: Context, refs: Callable[[], Iterable[Ref]]) -> None:
        self._context = context
        self._refs = refs
        self._changed: asyncio.Queue[Ref] = asyncio.Queue()
        self._pidfds: dict[int, ProcessId] = {}
        self._tokens: dict[str, Ref] = {}

    async def changes(self) -> AsyncIterator[Ref]:
        """Until closed. A ref may come more often than it changes."""
        watch = Watch()
        follower = asyncio.create_task(self._follow(watch))
        try:
            while True:
                yield await self._changed.get()
        finally:
            follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await follower
            watch.close()
            for fd in list(self._pidfds):
                self._release(fd)

    async def _follow(self, watch: Watch) -> None:
        paths = self._context.paths
        for root in (paths.runtime, paths.state / "resources", paths.state):
            watch.add(root)
        self._look(watch)
        async with aclosing(watch.changes()) as changes:  # type: ignore[type-var]
            async for path in changes:
                self._look(watch)
                ref = self._ref_of(path)
                if ref is not None:
                    self._changed.put_nowait(ref)

    def _ref_of(self, path: Path) -> Ref | None:
        """Whose file it is."""
        paths = self._context.paths
        if path.is_relative_to(paths.runtime):
            below = path.relative_to(paths.runtime).parts
            return self._tokens.get(below[0]) if below else None
        if path.is_relative_to(paths.state / "resources"):
            with contextlib.suppress(ValueError):
                ref = Ref.parse("/".join(path.relative_to(paths.state / "resources").parts[:3]))
                return ref if ref.kind is Kind.CONTAINER else None
        return None

    def _look(self, watch: Watch) -> None:
        """Watch what is there now; adding a directory twice changes nothing."""
        resources = self._context.paths.state / "resources"
        watch.add(resources)
        followed = set(self._pidfds.values())
        for ref in self._refs():
            places = Places(self._context, ref, ())
            self._tokens[places.runtime.name] = ref
            for directory in (
                places.resource.parent.parent,
                places.resource.parent,
                places.resource,
                places.runtime,
                places.conmon.exits,
            ):
                watch.add(directory)
            parent = places.conmon.conmon()
            if parent is not None and parent not in followed:
                self._await_end(parent, ref)

    def _await_end(self, process: ProcessId, ref: Ref) -> None:
        try:
            fd = os.pidfd_open(process.pid)
        except OSError:
            self._changed.put_nowait(ref)
            return
        self._pidfds[fd] = process

        def ended() -> None:
            self._release(fd)
            self._changed.put_nowait(ref)

        asyncio.get_running_loop().add_reader(fd, ended)

    def _release(self, fd: int) -> None:
        if self._pidfds.pop(fd, None) is not None:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)
