"""How a module ended, as an exit code and plain words. Pure.

Codes are as a shell shows them: what the module returned (0 to 255), 124 for the time-out (as timeout(1)), 125 when it
could not be started (as container tools), 134 for a trap (128 + SIGABRT, as the wasmtime command), 143 for a stop, and
128 + N when signal N killed the process.
"""

from __future__ import annotations

import signal
from typing import Any, NamedTuple

TIMED_OUT = 124
NOT_STARTED = 125
TRAPPED = 134
STOPPED = 143
MAX_REASON_CHARS = 400

# wasmtime.TrapCode, in words; others by their own message
TRAPS = {
    "STACK_OVERFLOW": "stack overflow",
    "MEMORY_OUT_OF_BOUNDS": "memory access out of bounds",
    "TABLE_OUT_OF_BOUNDS": "table access out of bounds",
    "INDIRECT_CALL_TO_NULL": "indirect call to null",
    "BAD_SIGNATURE": "indirect call with a wrong signature",
    "INTEGER_OVERFLOW": "integer overflow",
    "INTEGER_DIVISION_BY_ZERO": "integer division by zero",
    "BAD_CONVERSION_TO_INTEGER": "bad conversion to integer",
    "UNREACHABLE": "unreachable instruction executed",
}


class Outcome(NamedTuple):
    code: int
    reason: str = ""
    trap: str = ""


class Ending(NamedTuple):
    """What the monitor asked for: `why` is "", "timeout" or "stop"."""

    why: str = ""
    timeout_s: float | None = None

    def outcome(self) -> Outcome:
        if self.why == "timeout":
            return Outcome(TIMED_OUT, f"timed out after {self.timeout_s:g}s", "timeout")
        return Outcome(STOPPED, "stopped", "stop")


def of_report(report: dict[str, Any], ending: Ending, fuel: int | None) -> Outcome:
    """From what the guest reported, which is not to be trusted beyond its own fate."""
    if report.get("kind") == "exit":
        code = report.get("code")
        return Outcome(code & 0xFF if isinstance(code, int) else NOT_STARTED)
    if report.get("kind") == "trap":
        trap = clean(report.get("trap"))
        if trap == "INTERRUPT" and ending.why:
            return ending.outcome()
        if trap == "OUT_OF_FUEL":
            return Outcome(TRAPPED, f"out of fuel after {fuel} units", "out-of-fuel")
        words = TRAPS.get(trap) or clean(report.get("message"))
        return Outcome(TRAPPED, words, trap.lower().replace("_", "-"))
    return Outcome(NOT_STARTED, clean(report.get("message")), "not-started")


def of_death(signal_number: int, code: int, ending: Ending) -> Outcome:
    """From how the guest's process died without a report (`signal_number` 0: it exited with `code`)."""
    if ending.why:
        return ending.outcome()
    if signal_number:
        try:
            name = signal.Signals(signal_number).name
        except ValueError:
            name = f"signal {signal_number}"
        return Outcome(128 + signal_number, f"killed by {name}", "signal")
    return Outcome(NOT_STARTED, f"the sandbox process ended with code {code} and no report", "not-started")


def clean(value: object) -> str:
    """Text from the guest as one bounded line without control characters; wasmtime's own cause, without backtrace."""
    text = value if isinstance(value, str) else ""
    _, _, cause = text.partition("Caused by:")
    line = " ".join((cause or text).split()).removeprefix("wasm trap: ")
    return "".join(char if char.isprintable() else "?" for char in line)[:MAX_REASON_CHARS]
