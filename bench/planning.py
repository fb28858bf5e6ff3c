"""Plans over ten thousand simulated resources, in a process of their own so that its memory can be read."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.measure import Row
from bench.workspace import scratch
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import ContainerSpec, NetworkSpec, Spec
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.profile.schema import Declared, Profile

MANY = 10_000


def profile(count: int) -> Profile:
    """One network and `count` containers on it."""
    specs: dict[Ref, Spec] = {Ref("many", Kind.NETWORK, "lab"): NetworkSpec(backend="fake", subnet="10.64.0.0/14")}
    for number in range(count):
        ref = Ref("many", Kind.CONTAINER, f"c{number}")
        specs[ref] = ContainerSpec(backend="fake", image="x", networks=("lab",))
    declared = tuple(Declared(ref=ref, spec=spec) for ref, spec in specs.items())
    return Profile(name="many", path=Path("many.toml"), resources=declared)


async def measure(paths: Paths) -> dict[str, Any]:
    """Seconds per act, the calls of `inspect` that adding one costs, and the peak memory."""
    found: dict[str, Any] = {}
    async with await Workspace.open(paths) as workspace:
        everything = profile(MANY)
        began = time.perf_counter()
        plan = await workspace.plan(everything)
        found["first plan"] = time.perf_counter() - began
        assert len(plan.changes) == MANY + 1
        found["planning MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        await workspace.apply(plan, emit=lambda _: None)
        began = time.perf_counter()
        plan = await workspace.plan(everything)
        found["second plan"] = time.perf_counter() - began
        assert plan.empty
        more = profile(MANY + 1)
        backend = workspace.registry.get(Kind.CONTAINER, "fake")
        inspected: list[Ref] = []
        original = backend.inspect

        async def counting(ref: Ref) -> Any:
            inspected.append(ref)
            return await original(ref)

        backend.inspect = counting  # type: ignore[method-assign]
        began = time.perf_counter()
        plan = await workspace.plan(more)
        assert len(plan.changes) == 1
        await workspace.apply(plan, emit=lambda _: None)
        found["add one"] = time.perf_counter() - began
        found["inspected"] = len([ref for ref in inspected if ref != plan.changes[0].ref])
        found["all MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def rows() -> Iterator[Row]:
    with scratch() as paths:
        argv = [sys.executable, "-m", "bench.planning"]
        done = subprocess.run(argv, env=os.environ | paths.environment(), capture_output=True, check=True)
    found = json.loads(done.stdout)
    goal = "<= 1 s, <= 200 MiB"
    for name in ("first plan", "second plan"):
        yield Row(
            f"{name} of {MANY:,} resources", f"{found[name]:.2f} s", f"{found['planning MiB']:.0f} MiB", None, goal
        )
    others = f"{found['inspected']} others inspected"
    yield Row(f"adding one to {MANY:,}, plan and apply", f"{found['add one']:.2f} s", others, None, "0 others")


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(Paths.from_environment()))))
