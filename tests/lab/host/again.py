"""Brings a job to its end though the lab falls under it: in a fresh one, without the tests that have passed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import IO, Protocol

from tests.lab.host import machine
from tests.lab.host.machine import Job, LabCrashed, LabFailed

BOOTS = 3
LEAST_S = 60.0  # with less left it is not worth a boot


class Boot(Protocol):
    def __call__(self, job: Job, out: IO[bytes], *, timeout_s: float, passed: str) -> int:
        """The contract is machine.run's."""


def run(
    job: Job,
    out: IO[bytes],
    say: Callable[[str], None],
    boot: Boot = machine.run,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Run it, all boots together within its time, and return its exit code.

    A test that failed is never run again: its lab having fallen after that, the job has. Raises LabFailed (that, its
    time is over, the lab fell each time), Fault.
    """
    end = clock() + job.timeout_s
    passed = ""
    for left in reversed(range(BOOTS)):
        try:
            return boot(job, out, timeout_s=end - clock(), passed=passed)
        except LabCrashed as crash:
            if crash.failed:
                raise LabFailed(f"tests failed before the lab did:\n{crash.failed}\n{crash}") from None
            if not left or job.terminal or end - clock() < LEAST_S:
                raise
            passed = crash.passed
            count = len(passed.splitlines())
            more = f"{count} passed before and are not run again" if count else "from the beginning"
            say(f"{crash}\nbegun once more, in a fresh lab: {more}")
    raise AssertionError("the last boot returns or raises")
