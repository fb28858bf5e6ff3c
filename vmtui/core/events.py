"""What the engine tells while it works. Tagged structs: their JSON is the NDJSON of `--json`, schemas in docs/."""

from __future__ import annotations

import msgspec

from vmtui.core.resource import Endpoint, Fact, Problem, Ref


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """`at` is Unix time in seconds."""

    at: float


class Version(Event, frozen=True, kw_only=True, tag="version"):
    """Always the first line of a stream."""

    vmtui: str
    schema: int = 1


class FieldDifference(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    before: str
    after: str


class PlannedChange(msgspec.Struct, frozen=True, kw_only=True):
    ref: Ref
    action: str
    reason: str
    fields: tuple[str, ...] = ()
    backend: str = ""
    differences: tuple[FieldDifference, ...] = ()
    data_loss: bool = False


class Planned(Event, frozen=True, kw_only=True, tag="plan"):
    profile: str
    changes: tuple[PlannedChange, ...]
    unchanged: int


class StepStarted(Event, frozen=True, kw_only=True, tag="step.start"):
    ref: Ref
    action: str
    step: int
    steps: int


class StepProgressed(Event, frozen=True, kw_only=True, tag="step.progress"):
    ref: Ref
    action: str
    message: str
    fraction: float | None = None


class StepEnded(Event, frozen=True, kw_only=True, tag="step.end"):
    """`result` is done, failed or undone."""

    ref: Ref
    action: str
    result: str
    elapsed_s: float
    message: str = ""


class ReadyReached(Event, frozen=True, kw_only=True, tag="ready"):
    ref: Ref
    elapsed_s: float
    endpoints: tuple[Endpoint, ...] = ()


class Diagnostic(Event, frozen=True, kw_only=True, tag="diagnostic"):
    """`level` is info, warning or error."""

    level: str
    message: str
    ref: Ref | None = None
    code: str = ""
    hint: str = ""
    details: str = ""
    where: str = ""


class LogEmitted(Event, frozen=True, kw_only=True, tag="log"):
    """A line of a workload's log, while a run stays in the foreground. Hostile text."""

    ref: Ref
    text: str
    stream: str = "stdout"


class ResourceSummary(msgspec.Struct, frozen=True, kw_only=True):
    ref: Ref
    backend: str
    phase: str
    ready: bool
    change: str = ""
    addresses: tuple[str, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    facts: tuple[Fact, ...] = ()
    problems: tuple[Problem, ...] = ()


class Summary(Event, frozen=True, kw_only=True, tag="summary"):
    """Always the last line of a stream."""

    profile: str
    result: str
    exit_code: int
    changes: int
    elapsed_s: float
    resources: tuple[ResourceSummary, ...] = ()


AnyEvent = (
    Version | Planned | StepStarted | StepProgressed | StepEnded | ReadyReached | LogEmitted | Diagnostic | Summary
)
