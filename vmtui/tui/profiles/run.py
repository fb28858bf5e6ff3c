"""One plan carried out: until everything is ready, or all that was done is taken back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from vmtui.core.events import Event, StepProgressed, StepStarted
from vmtui.core.resource import Ref
from vmtui.core.specs import Spec
from vmtui.engine.operations import Outcome
from vmtui.engine.plan import Plan
from vmtui.engine.readiness import waits_for
from vmtui.engine.workspace import Workspace
from vmtui.host.tasks import uncancelled
from vmtui.tui.profiles.lines import Said, of_fault
from vmtui.tui.profiles.progress import Progress

CANNOT = "cannot take back"  # how the engine begins what it says of a step that stays


class Run:
    """`specs` are those of the resources that must become ready; empty for a plan that takes down.

    `changed` is called with the place of a row that changed, None for all of them.
    """

    def __init__(
        self, workspace: Workspace, plan: Plan, specs: Mapping[Ref, Spec], changed: Callable[[int | None], None]
    ) -> None:
        self.plan = plan
        self.progress = Progress(plan)
        self.error: Exception | None = None
        self.cancelled = False
        self.ended = False
        self.waits = ""  # for a second person, as the engine says it
        self._started = False
        self._workspace = workspace
        self._specs = {ref: spec for ref, spec in specs.items() if ref in plan.needs}
        self._changed = changed
        self._began = time.monotonic()

    async def carry_out(self) -> None:
        """Never raises but CancelledError, after all has been taken back."""
        try:
            outcome = await self._workspace.apply(
                self.plan, emit=self._emit, on_failure="keep" if self.plan.down else "rollback"
            )
            self.error = outcome.failure
            if outcome.failure is None and not self.plan.down:
                await self._wait(outcome)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        except Exception as error:
            self.error = error
        finally:
            self.ended = True
            self._changed(None)

    async def _wait(self, outcome: Outcome) -> None:
        conditions = {ref: waits_for(spec.ready) for ref, spec in self._specs.items() if spec.ready is not None}
        self.progress.wait_for(conditions, time.monotonic())
        self._changed(None)
        try:
            await self._workspace.wait_ready(list(self._specs), timeout=None, emit=self._emit)
        except BaseException:
            self.progress.stop_waiting()
            if outcome.changes:
                await uncancelled(self._workspace.roll_back(self.plan, outcome, emit=self._emit))
            raise

    def _emit(self, event: Event) -> None:
        self._hear(event)
        place = self.progress.take(event, time.monotonic())
        if place is not None:
            self._changed(place)

    def _hear(self, event: Event) -> None:
        """Before the first step there is nothing to be told but that a second person is waited for."""
        self._started = self._started or isinstance(event, StepStarted)
        waits = event.message if isinstance(event, StepProgressed) and not self._started else ""
        if waits != self.waits:
            self.waits = waits
            self._changed(None)

    @property
    def standing(self) -> str:
        """Where it is, for the title line."""
        if self.waits and not self.ended:
            return f"{self.waits}; ctrl+c withdraws"
        done, total = self.progress.count("done"), len(self.progress.rows)
        if not self.ended:
            return f"{done} of {total} steps, {self.progress.count('running')} at once; ctrl+c stops and takes back"
        return "stopped" if self.cancelled else "failed" if self.error else "done"

    def result(self) -> list[Said]:
        """How it ended, and what is left of it."""
        if not self.ended:
            return []
        name, seconds = self.plan.profile, time.monotonic() - self._began
        found: list[Said] = [("", "text")]
        if self.error is not None:
            found += of_fault(self.error, f"{'taking down' if self.plan.down else 'applying'} {name}")
        if self.cancelled or self.error is not None:
            return [*found, *self._taken_back()]
        count = len(self.plan.changes)
        said = f"{name}: {count} change{'' if count == 1 else 's'}, {seconds:.1f} s"
        return [*found, (said if self.plan.down else f"{said}, all ready", "good")]

    def _taken_back(self) -> list[Said]:
        if self.plan.down:
            return [("what is gone stays gone: D goes on from there", "warn")]
        undone = self.progress.count("undone")
        stuck = [row for row in self.progress.rows if row.message.startswith(CANNOT)]
        found: list[Said] = [(f"{undone} step{'' if undone == 1 else 's'} taken back", "warn")]
        return [*found, *((f"{row.ref.short}: {row.message}", "bad") for row in stuck)]
