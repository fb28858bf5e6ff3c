"""How far an apply has got: one row a step, then one for each resource that is waited for. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vmtui.core.events import Event, ReadyReached, StepEnded, StepProgressed, StepStarted
from vmtui.core.resource import Ref
from vmtui.engine.plan import Plan, make_steps

READY = "ready"
WORDS = {"cancelled": "failed"}  # results of a step, by the word of its state


@dataclass(slots=True)
class Row:
    """`state` is waiting, running, done, failed or undone. Times are those of the clock that is given to `take`."""

    ref: Ref
    verb: str
    state: str = "waiting"
    message: str = ""
    fraction: float | None = None
    began: float | None = None
    elapsed_s: float | None = None

    def seconds(self, now: float) -> float | None:
        """How long it took, or has taken until now."""
        if self.elapsed_s is not None or self.began is None:
            return self.elapsed_s
        return now - self.began


class Progress:
    """The rows of one run of one plan."""

    def __init__(self, plan: Plan) -> None:
        self.rows = [Row(step.change.ref, step.verb) for step in make_steps(plan)]
        self._places = {(row.ref, row.verb): place for place, row in enumerate(self.rows)}
        self._count = Counter({"waiting": len(self.rows)})

    def wait_for(self, conditions: Mapping[Ref, str], now: float) -> None:
        """The steps are done; these are waited for, each until what is said of it."""
        for ref, text in conditions.items():
            self._places[ref, READY] = len(self.rows)
            self.rows.append(Row(ref, READY, "running", f"waits for {text}", began=now))
            self._count["running"] += 1

    def take(self, event: Event, now: float) -> int | None:
        """The place of the row that an event changed."""
        if not isinstance(event, StepStarted | StepProgressed | StepEnded | ReadyReached):
            return None
        verb = READY if isinstance(event, ReadyReached) else event.action
        place = self._places.get((event.ref, verb))
        if place is None:
            return None
        row = self.rows[place]
        if isinstance(event, StepStarted):
            self._move(row, "running")
            row.began = now
        elif isinstance(event, StepProgressed):
            row.message, row.fraction = event.message, event.fraction
        elif isinstance(event, ReadyReached):
            self._move(row, "done")
            row.elapsed_s, row.message = event.elapsed_s, ""
        else:
            self._move(row, WORDS.get(event.result, event.result))
            row.message, row.elapsed_s, row.fraction = event.message, event.elapsed_s, None
        return place

    def stop_waiting(self) -> None:
        """What is not ready by now is not waited for any more."""
        for row in self.rows:
            if row.verb == READY and row.state == "running":
                self._move(row, "failed")

    def _move(self, row: Row, state: str) -> None:
        self._count[row.state] -= 1
        self._count[state] += 1
        row.state = state

    def running(self) -> Iterator[int]:
        """The places of those that run."""
        return (place for place, row in enumerate(self.rows) if row.state == "running")

    def count(self, state: str) -> int:
        return self._count[state]
