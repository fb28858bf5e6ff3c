"""`python -m bench.ssh.soak --connects 10000`: connect, see the first bytes, leave; what the server keeps of that.

Every other one leaves without a word. What grows is told as a line fitted through what was seen after the first
round, which fills caches.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from dataclasses import astuple, dataclass
from pathlib import Path

from bench.ssh import tree
from bench.ssh.servers import Server, ours
from bench.ssh.visitor import Visitor

AT_ONCE = 4
EMPTY_S = 2.0
NAMES = ("server RSS", "fork server RSS", "server fds", "fork server fds", "processes")


@dataclass(frozen=True)
class Seen:
    """With nobody connected. Sizes in KiB."""

    server_kib: int
    forks_kib: int
    server_fds: int
    forks_fds: int
    processes: int

    @classmethod
    def of(cls, pid: int) -> Seen:
        found = tree.pids(pid)
        children = found[1:2] or [pid]  # the fork server is the server's only child when nobody is there
        forks, *_ = children
        sizes = tree.rss_bytes(pid) >> 10, tree.rss_bytes(forks) >> 10
        return cls(*sizes, tree.descriptors(pid), tree.descriptors(forks), len(found))


async def visit(server: Server, count: int) -> None:
    """`count` sessions, some at once."""
    left = iter(range(count))

    async def one_by_one() -> None:
        for number in left:
            async with Visitor(server.door, server.key) as visitor:
                await visitor.until(bool)
                if number % 2:
                    visitor.abort()

    await asyncio.gather(*(one_by_one() for _ in range(AT_ONCE)))


def growth(connects: list[int], seen: list[int]) -> float:
    """Of a thousand connects, by least squares."""
    return statistics.linear_regression(connects, seen).slope * 1000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ssh.soak")
    parser.add_argument("--connects", type=int, default=10_000)
    total = parser.parse_args().connects
    step = max(1, total // 10)
    with tempfile.TemporaryDirectory(prefix="vb-", dir="/tmp") as folder, ours(Path(folder)) as server:
        rounds: list[tuple[int, Seen]] = []
        print("connects  seconds  " + "  ".join(NAMES), flush=True)
        for done in range(step, total + 1, step):
            began = time.monotonic()
            asyncio.run(visit(server, step))
            taken = time.monotonic() - began
            time.sleep(EMPTY_S)
            rounds.append((done, Seen.of(server.pid)))
            cells = (f"{value:>{len(name)}}" for name, value in zip(NAMES, astuple(rounds[-1][1]), strict=True))
            print(f"{done:>8}  {taken:>7.1f}  " + "  ".join(cells), flush=True)
    later = rounds[1:]
    if len(later) > 1:
        connects = [done for done, _ in later]
        for at, name in enumerate(NAMES):
            values = [astuple(seen)[at] for _, seen in later]
            print(f"{name}: {growth(connects, values):+.2f} per 1,000 connects")


if __name__ == "__main__":
    os.nice(5)
    main()
