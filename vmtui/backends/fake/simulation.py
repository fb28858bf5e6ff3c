"""What a simulated workload shows: load, memory and traffic over time, and its log. Pure and the same for a seed."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from vmtui.backends.fake.options import FakeOptions
from vmtui.core.resource import Kind, Ref, Sample

LOG_EVERY_S = 4.0
LOG_LINES_KEPT = 2000  # of one run; a workload that runs for days has a log that was rotated

BOOT = {
    Kind.VM: (
        "[    0.000000] Linux version 6.1.0-simulated (vmtui) #1 SMP PREEMPT_DYNAMIC",
        "[    0.000000] Command line: console=ttyS0",
        "[    0.004193] Hypervisor detected: simulation",
        "[    0.131072] virtio_blk virtio0: [vda] simulated",
        "[    0.262144] Run /init as init process",
        "{name} login: ",
    ),
    Kind.CONTAINER: (
        "{date} [notice] 1#1: using the event method",
        "{date} [notice] 1#1: start worker processes",
        "{date} [notice] 1#1: listening",
    ),
    Kind.SANDBOX: ("hello from {name}",),
}
LATER = {
    Kind.VM: ("systemd[1]: Started session {n} of user guest.", "kernel: simulated interrupt {n} handled"),
    Kind.CONTAINER: (
        '10.88.0.{host} - - [{date}] "GET /item/{n} HTTP/1.1" 200 {size}',
        '10.88.0.{host} - - [{date}] "GET / HTTP/1.1" 304 0',
        '10.88.0.{host} - - [{date}] "POST /login HTTP/1.1" 302 {size}',
    ),
    Kind.SANDBOX: ("step {n}: {size} items",),
}


def number(ref: Ref, options: FakeOptions, *more: str) -> int:
    """A 64-bit number that stands for the resource (and `more`); the seed changes it."""
    text = "\0".join((str(options.seed), str(ref), *more))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@dataclass(frozen=True, slots=True)
class Wave:
    """A load between 0 and 1 over time, made of three sines, whose integral is known."""

    base: float
    parts: tuple[tuple[float, float, float], ...]  # amplitude, period in s, phase

    @classmethod
    def of(cls, seed: int) -> Wave:
        rng = random.Random(seed)
        base = rng.uniform(0.15, 0.6)
        share = min(base, 1 - base) / 3
        periods = (rng.uniform(3, 9), rng.uniform(20, 60), rng.uniform(200, 900))
        return cls(
            base, tuple((share * rng.uniform(0.3, 1), period, rng.uniform(0, 2 * math.pi)) for period in periods)
        )

    def at(self, t: float) -> float:
        return self.base + sum(a * math.sin(2 * math.pi * t / period + phase) for a, period, phase in self.parts)

    def until(self, t: float) -> float:
        """The integral from 0 to t; never falls."""
        return self.base * t + sum(
            a * period / (2 * math.pi) * (math.cos(phase) - math.cos(2 * math.pi * t / period + phase))
            for a, period, phase in self.parts
        )


def sample(ref: Ref, options: FakeOptions, *, at: float, up_s: float, cpus: float, memory_limit: int) -> Sample:
    """The measurement of a workload that has been up for `up_s` seconds."""
    processes, (cpu, memory, *traffic) = _loads(ref, options)
    rx, tx, read, write = (int(wave.until(up_s) * (1 << 20)) for wave in traffic)
    return Sample(
        at=at,
        cpu_s=cpu.until(up_s) * cpus,
        memory_bytes=int(memory_limit * memory.at(up_s)),
        memory_limit_bytes=memory_limit,
        net_rx_bytes=rx,
        net_tx_bytes=tx,
        block_read_bytes=read,
        block_write_bytes=write,
        processes=processes,
    )


@lru_cache(maxsize=256)
def _loads(ref: Ref, options: FakeOptions) -> tuple[int, tuple[Wave, ...]]:
    """What does not change with time; kept for those that somebody looks at."""
    waves = tuple(Wave.of(number(ref, options, what)) for what in ("cpu", "memory", "rx", "tx", "read", "write"))
    return 1 + number(ref, options, "processes") % 12, waves


def log_of_run(ref: Ref, options: FakeOptions, started_at: float, until: float) -> Iterator[tuple[float, str]]:
    """The lines that a run has written until `until`, oldest first, each with its time."""
    first = options.log or BOOT[ref.kind]
    step = options.boot_time / max(1, len(first) - 1)
    lines = [(started_at + i * step, _fill(text, ref, options, started_at, i)) for i, text in enumerate(first)]
    if options.ready_line:
        lines.append((started_at + options.ready_after, options.ready_line))
    lines.sort(key=lambda line: line[0])
    yield from (line for line in lines if line[0] <= until)
    if not options.log:
        count = int((until - started_at) / LOG_EVERY_S)
        for n in range(max(1, count - LOG_LINES_KEPT), count + 1):
            yield started_at + n * LOG_EVERY_S, _later(ref, options, started_at, n)


def _later(ref: Ref, options: FakeOptions, started_at: float, n: int) -> str:
    templates: Sequence[str] = LATER[ref.kind]
    return _fill(templates[number(ref, options, "line", str(n)) % len(templates)], ref, options, started_at, n)


def _fill(text: str, ref: Ref, options: FakeOptions, started_at: float, n: int) -> str:
    """Only the templates of this file have fields; a line from the options is taken as it is."""
    if options.log:
        return text
    draw = number(ref, options, "fill", str(n))
    date = datetime.fromtimestamp(started_at + n * LOG_EVERY_S, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
    return text.format(name=ref.name, date=date, n=n, host=2 + draw % 250, size=100 + draw % 9900)
