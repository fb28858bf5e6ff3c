"""How soon the panel is there, what a session costs, how fifty at once are served, and what is left of them."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Row, milliseconds
from bench.panel import DOWN, UP, Latency, frames, moved
from bench.ssh import tree
from bench.ssh.servers import SIZE, Server, ours, peer
from bench.ssh.visitor import Visitor

RUNS = 15
SESSIONS = 10
MANY = 50
KEYS = 5  # in each of many sessions
SETTLED_S = 2.0
LEFT_S = 1.0
FIRST = "Resources"
LOADED = f"Resources  {SIZE}"
NAMES = ("vmtui serve", "subprocess", "echo")


@dataclass
class Figures:
    """Of one server. `left` is what is there a second after all have gone; its `cpu_s` is of the second after."""

    first_frame_s: float
    session_bytes: float
    many_s: float
    keys: Latency
    left: tree.Use


def rows() -> Iterator[Row]:
    with ExitStack() as stack:
        servers = {name: stack.enter_context(_server(name, _folder(stack))) for name in NAMES}
        firsts = asyncio.run(first_frames(servers))
        found = {name: asyncio.run(figures(name, server, firsts[name])) for name, server in servers.items()}
    mine, subprocesses, echo = (found[name] for name in NAMES)

    def row(what: str, form: str, goal: str, *values: object) -> Row:
        mine_shown, *peers = (form.format(value) for value in values)
        return Row(
            what, mine_shown, ", ".join(f"{name} {at}" for name, at in zip(NAMES[1:], peers, strict=True)), None, goal
        )

    every = (mine, subprocesses, echo)
    yield row("ssh: connect to first frame", "{}", "<= 120 ms", *(milliseconds(each.first_frame_s) for each in every))
    yield row("ssh: PSS of a session", "{:.1f} MB", "<= 20 MB", *(each.session_bytes / 1e6 for each in every))
    yield row(f"ssh: {MANY} at once, all with a frame", "{:.2f} s", "<= 5 s", *(each.many_s for each in every))
    yield row(f"ssh: key to frame p50 / p95, {MANY} sessions", "{}", "p95 <= 50 ms", *(each.keys for each in every))
    yield row("ssh: processes 1 s after they left", "{}", "0", *(each.left.processes for each in every))
    yield row("ssh: CPU in the second after that", "{:.2f} s", "0", *(each.left.cpu_s for each in every))


def _folder(stack: ExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vb-", dir="/tmp")))


def _server(name: str, folder: Path) -> AbstractContextManager[Server]:
    return ours(folder) if name == NAMES[0] else peer(name, folder)


async def first_frames(servers: dict[str, Server]) -> dict[str, float]:
    """Medians, taken in turn, so that what else the machine does falls on all of them."""
    times: dict[str, list[float]] = {name: [] for name in servers}
    for run in range(RUNS + 1):
        for name, server in servers.items():
            async with Visitor(server.door, server.key) as visitor:
                taken = await visitor.shows(FIRST) - visitor.began
            if run:  # the first one warms caches
                times[name].append(taken)
    return {name: statistics.median(found) for name, found in times.items()}


async def figures(name: str, server: Server, first_frame_s: float) -> Figures:
    await asyncio.sleep(SETTLED_S)  # what has just left is gone
    before = tree.use(server.pid)
    async with together(server, SESSIONS):
        await asyncio.sleep(SETTLED_S)
        session_bytes = (tree.use(server.pid).pss_bytes - before.pss_bytes) / SESSIONS
    await asyncio.sleep(SETTLED_S)
    began = time.perf_counter()
    async with together(server, MANY) as visitors:
        many_s = time.perf_counter() - began
        await asyncio.sleep(SETTLED_S)
        press = echoed if name == "echo" else pressed
        keys = Latency([await press(visitor, turn) for turn in range(KEYS) for visitor in visitors])
        for visitor in visitors:
            visitor.abort()
    await asyncio.sleep(LEFT_S)
    left = tree.use(server.pid)
    await asyncio.sleep(LEFT_S)
    cpu_s = tree.use(server.pid).cpu_s - left.cpu_s
    more = left.processes - before.processes
    return Figures(first_frame_s, session_bytes, many_s, keys, tree.Use(more, left.pss_bytes, cpu_s, left.descriptors))


@asynccontextmanager
async def together(server: Server, count: int) -> AsyncIterator[list[Visitor]]:
    """So many sessions, asked for at once; each has its first frame."""
    async with AsyncExitStack() as stack:
        visitors = [Visitor(server.door, server.key) for _ in range(count)]
        await asyncio.gather(*(stack.enter_async_context(visitor) for visitor in visitors))
        await asyncio.gather(*(visitor.shows(FIRST) for visitor in visitors))
        yield visitors


async def pressed(visitor: Visitor, turn: int) -> float:
    """Seconds until a frame has ended in which the cursor moved."""
    since = len(visitor.raw)
    sent = visitor.send(UP if turn % 2 else DOWN)
    return await visitor.until(lambda raw: any(map(moved, frames(raw))), since=since) - sent


async def echoed(visitor: Visitor, turn: int) -> float:
    since = len(visitor.raw)
    sent = visitor.send(b"%d" % turn)
    return await visitor.until(bool, since=since) - sent
