"""Ends a process by SIGKILL at a chosen point of its work, so that tests can do so at every one of them."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Protocol, cast

from vmtui.core.backend import Context, Progress
from vmtui.core.events import Event
from vmtui.engine.store import Store

MOST_POINTS = 2000  # far above any act here: a loop that never ends is a defect of the test
PRELOAD = [__name__, "tests.support.fakes", "pytest"]  # imported once, for all the processes that are killed


class Tick(Protocol):
    """Counts one point of the work: any event, or nothing at all."""

    def __call__(self, what: Event | Progress | None = None) -> None: ...


Act = Callable[..., Awaitable[None]]  # act(tick, *args), a function of a module: it runs in another process


def killed_at(point: int, act: Act, *args: Any, timeout_s: float = 120.0) -> bool:
    """Run `act(tick, *args)` in a process that gets SIGKILL in its `point`-th tick.

    False if it came to its end before. Raises AssertionError when it failed instead (its traceback is on stderr).
    """
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(PRELOAD)
    process = processes.Process(target=_child, args=(point, act, args))
    process.start()
    process.join(timeout_s)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"it did not end within {timeout_s:g} s after its point {point}")
    code = process.exitcode
    process.close()
    assert code in (0, -signal.SIGKILL), f"it failed with code {code} before its point {point}"
    return code != 0


def every_point(act: Act, *args: Any, timeout_s: float = 120.0) -> Iterator[int]:
    """Yields after each kill, at the first tick, the second, and so on, until `act` comes to its end."""
    for point in itertools.count(1):
        assert point <= MOST_POINTS, f"no end after {MOST_POINTS} points"
        if not killed_at(point, act, *args, timeout_s=timeout_s):
            return
        yield point


class TickingStore(Store):
    """A store in which every write to the database is a point at which the process may end."""

    def __init__(self, context: Context, tick: Tick) -> None:
        super().__init__(context.paths.state / "state.db")
        self._db = ticking(self._db, tick)


def ticking(database: sqlite3.Connection, tick: Tick) -> sqlite3.Connection:
    """The same database, in which every write is a point."""
    return cast("sqlite3.Connection", _TickingDatabase(database, tick))


class _TickingDatabase:
    def __init__(self, database: Any, tick: Tick) -> None:
        self._database = database
        self._tick = tick

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def execute(self, statement: str, *args: Any) -> Any:
        result = self._database.execute(statement, *args)
        if not statement.lstrip().startswith("select"):
            self._tick()
        return result

    def executemany(self, statement: str, *args: Any) -> Any:
        result = self._database.executemany(statement, *args)
        self._tick()
        return result


def _child(point: int, act: Act, args: tuple[Any, ...]) -> None:
    left = point

    def tick(what: Event | Progress | None = None) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(_run(act, tick, args))


async def _run(act: Act, tick: Tick, args: tuple[Any, ...]) -> None:
    await act(tick, *args)
