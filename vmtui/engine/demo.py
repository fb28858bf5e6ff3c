"""The demo: a workspace of its own in which nothing is real, full of simulated resources, and moving."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

from vmtui.core.backend import Backend
from vmtui.core.errors import NotFound, OperationFailed
from vmtui.core.resource import Kind
from vmtui.core.simulation import Simulates
from vmtui.engine.estate import Estate
from vmtui.engine.moving import move
from vmtui.engine.planting import plant
from vmtui.engine.registry import FAKE, Registry
from vmtui.engine.store import DATABASE, Store, open_context
from vmtui.engine.workspace import Workspace
from vmtui.host.files import in_words, remedy
from vmtui.host.paths import Paths
from vmtui.host.process import ProcessId

DEFAULT_SIZE = 40
LARGEST = 500_000  # subnets of a /19 each in 10.0.0.0/8
SEED = 7


class DemoRegistry(Registry):
    """Only the simulated backends; `auto` takes them."""

    lowest_priority: ClassVar[int] = -1

    def every(self, kind: Kind) -> tuple[Backend[Any], ...]:
        return (self.get(kind, FAKE),)

    def get(self, kind: Kind, name: str) -> Backend[Any]:
        if name != FAKE:
            raise NotFound(f"the demo has no backend {name!r}", hint='write backend = "fake" or "auto"')
        new = (kind, name) not in self._made
        made = super().get(kind, name)
        if new:
            cast("Simulates", made).share(next(iter(self._made.values())))
        return made


class Demo(Workspace):
    """Removed with all its files by `aclose`."""

    def __init__(self, root: Path, registry: Registry, store: Store, estate: Estate) -> None:
        super().__init__(registry, store)
        self.estate = estate
        self._root = root
        self._mover: asyncio.Task[None] | None = None
        self._at_hang_up = _remove_at_hang_up(root)

    def backends(self) -> dict[Kind, tuple[str, ...]]:
        return dict.fromkeys(Kind, (FAKE,))

    def set_moving(self, change: float | None = None) -> None:
        """Let things happen by themselves until it is closed: see `move`."""
        self._mover = asyncio.create_task(move(self, self.estate, random.Random(SEED), change=change))

    async def aclose(self) -> None:
        if self._mover is not None:
            self._mover.cancel()
            await asyncio.wait([self._mover])
        await super().aclose()
        shutil.rmtree(self._root, ignore_errors=True)
        self._at_hang_up()


async def open_demo(paths: Paths, size: int = DEFAULT_SIZE, *, moving: bool = True, by: str = "") -> Demo:
    """A demo of `size` resources; the caller closes it. Raises OperationFailed, NotFound.

    It lives under `paths.runtime`, is named after this process, and what ended processes left there is removed.
    """
    if not 0 <= size <= LARGEST:
        raise OperationFailed(f"a demo has up to {LARGEST} resources", hint="vmtui --demo 10000")
    root = _new_root(paths.runtime / "demo")
    store = None
    try:
        inner = Paths(root / "state" / "vmtui", root / "cache" / "vmtui", root / "run" / "vmtui")
        context = open_context(inner)
        store = Store(inner.state / DATABASE, by=by)
        demo = Demo(root, DemoRegistry(context), store, Estate(size))
        await plant(demo, demo.estate, root / "profiles")
    except BaseException:
        if store is not None:
            store.close()
        shutil.rmtree(root, ignore_errors=True)
        raise
    if moving:
        demo.set_moving()
    return demo


def _remove_at_hang_up(root: Path) -> Callable[[], None]:
    """A terminal that goes away ends this process at once, as it would anyway, but not before the files are gone.

    The result ends that.
    """
    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL

    def end() -> None:
        if mine:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)

    def hung_up(*_: object) -> None:
        shutil.rmtree(root, ignore_errors=True)
        end()
        signal.raise_signal(signal.SIGHUP)

    if mine:
        signal.signal(signal.SIGHUP, hung_up)
    return end


def _new_root(parent: Path) -> Path:
    """Raises OperationFailed."""
    me = ProcessId.of(os.getpid())
    assert me is not None
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        sweep(parent)
        return Path(tempfile.mkdtemp(prefix=f"{me.pid}.{me.start_ticks}.{me.boot}.", dir=parent))
    except OSError as error:
        raise OperationFailed(f"no place for the demo: {in_words(error)}", hint=remedy(error, parent)) from None


def sweep(parent: Path) -> None:
    """Remove the demos of processes that are gone."""
    for entry in os.scandir(parent):
        pid, ticks, boot, *_ = [*entry.name.split("."), "", "", ""]
        if pid.isdecimal() and ticks.isdecimal() and not ProcessId(int(pid), int(ticks), boot).alive:
            shutil.rmtree(entry.path, ignore_errors=True)
