"""What is known of resources and backends as tables. Pure: the time and the width come from the caller."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

from vmtui.core.backend import Probe
from vmtui.core.lifecycle import UP, Phase
from vmtui.core.resource import Ref, Sample, Status
from vmtui.headless import text

BAR_CELLS = 20
PHASE_STYLES = {
    Phase.RUNNING: text.GREEN,
    Phase.AVAILABLE: text.GREEN,
    Phase.PAUSED: text.YELLOW,
    Phase.BROKEN: text.RED,
}


def state(status: Status) -> str:
    """The phase in a word, with the exit code of what ended."""
    return f"exited {status.exit.code}" if status.phase is Phase.EXITED and status.exit else str(status.phase)


def backend(status: Status) -> str:
    """Which backend has it and, where it had a choice to make, what it chose; `inspect` says why."""
    accelerator = status.fact("accelerator")
    return f"{status.backend} ({accelerator})" if accelerator else status.backend


def resources(
    statuses: Iterable[Status],
    *,
    now: float,
    width: int | None = None,
    paint: text.Paint = text.plain,
    ranked: bool = False,
) -> list[str]:
    """One line a resource, its problems below it; by name, or as given if they are `ranked`."""
    shown = list(statuses) if ranked else sorted(statuses, key=lambda status: status.ref)
    head = ("RESOURCE", "BACKEND", "STATE", "UP", "ADDRESS", "ENDPOINT")
    rows = [
        (
            str(status.ref),
            backend(status),
            state(status),
            text.span(now - status.started_at) if status.started_at and status.phase in UP else "",
            ", ".join(address.address for address in status.addresses),
            ", ".join(endpoint.url for endpoint in status.endpoints),
        )
        for status in shown
    ]
    first, *lines = text.table(head, rows, width=width)
    made = [paint(first, text.BOLD)]
    for status, line in zip(shown, lines, strict=True):
        word = state(status)
        made.append(line.replace(f"  {word}", f"  {paint(word, PHASE_STYLES.get(status.phase, ''))}", 1))
        for problem in status.problems:
            hint = f" ({text.clean(problem.hint)})" if problem.hint else ""
            made.append(text.cut(f"  ! {text.clean(problem.message)}{hint}", width))
    return made


def detail(status: Status, desired: Iterable[tuple[str, str]] = ()) -> Iterator[str]:
    """All that was observed of one resource, and the spec it was made from."""
    rows: list[tuple[str, str]] = [("resource", str(status.ref)), ("backend", status.backend), ("state", state(status))]
    if status.exit is not None and status.exit.reason:
        rows.append(("reason", status.exit.reason))
    if status.pid is not None:
        rows.append(("pid", str(status.pid)))
    if status.started_at is not None:
        rows.append(("started", moment(status.started_at)))
    if status.size_bytes is not None:
        rows.append(("size", text.size(status.size_bytes)))
    rows += [("address", f"{item.address} on {item.network}") for item in status.addresses]
    rows += [
        ("port", f"{port.interface} for {port.consumer.short}{'' if port.present else ', missing'}")
        for port in status.ports
    ]
    rows += [("endpoint", f"{item.url}  {item.about}".rstrip()) for item in status.endpoints]
    rows += [(fact.name, fact.value) for fact in status.facts]
    rows += [("log", status.log)] if status.log else []
    rows += [("problem", f"{item.message}  {item.hint}".rstrip()) for item in status.problems]
    yield from _pairs(rows)
    given = list(desired)
    if given:
        yield "made from"
        yield from _pairs(given, indent="  ")


def exits(counted: Sequence[tuple[str, int]]) -> Iterator[str]:
    """What a guest was left for, how often, and its part of all; nothing without any."""
    if not counted:
        return
    total = sum(count for _, count in counted)
    yield f"exits from the guest  {total}"
    widest = max(len(str(count)) for _, count in counted)
    causes = [text.clean(cause) for cause, _ in counted]
    wide = max(map(len, causes))
    for cause, (_, count) in zip(causes, counted, strict=True):
        bar = "#" * round(BAR_CELLS * count / total) if total else ""
        yield f"  {cause.ljust(wide)}  {count:>{widest}}  {count / max(total, 1):4.0%}  {bar}".rstrip()


def _pairs(rows: list[tuple[str, str]], indent: str = "") -> Iterator[str]:
    widest = max(len(name) for name, _ in rows)
    for name, value in rows:
        yield f"{indent}{text.clean(name).ljust(widest)}  {text.clean(value)}".rstrip()


def probes(found: Iterable[Probe], *, width: int | None = None, paint: text.Paint = text.plain) -> Iterator[str]:
    """What trying each backend showed, with the command that mends it."""
    shown = list(found)
    head = ("KIND", "BACKEND", "USABLE", "WHAT IT SAYS")
    rows = [(probe.kind, probe.backend, "yes" if probe.usable else "no", probe.summary) for probe in shown]
    first, *lines = text.table(head, rows, width=width)
    yield paint(first, text.BOLD)
    for probe, line in zip(shown, lines, strict=True):
        yield line if probe.usable else paint(line, text.RED)
        for problem in probe.problems:
            yield text.cut(f"  ! {text.clean(problem.message)}", width)
            if problem.hint:
                yield text.cut(f"    mend it: {text.clean(problem.hint)}", width)


def samples(
    measured: Iterable[tuple[Ref, Sample | None, Sample]], *, width: int | None = None, paint: text.Paint = text.plain
) -> list[str]:
    """Measurements, each with the one before it, from which the load of the processor follows."""
    head = ("RESOURCE", "CPU", "MEMORY", "LIMIT", "NET IN", "NET OUT", "READ", "WRITTEN", "PROCESSES")
    rows = [
        (
            str(ref),
            _load(before, now),
            text.size(now.memory_bytes),
            text.size(now.memory_limit_bytes),
            text.size(now.net_rx_bytes),
            text.size(now.net_tx_bytes),
            text.size(now.block_read_bytes),
            text.size(now.block_write_bytes),
            "" if now.processes is None else str(now.processes),
        )
        for ref, before, now in measured
    ]
    first, *lines = text.table(head, rows, width=width)
    return [paint(first, text.BOLD), *lines]


def _load(before: Sample | None, now: Sample) -> str:
    if before is None or before.cpu_s is None or now.cpu_s is None or now.at <= before.at:
        return ""
    return f"{max(0.0, now.cpu_s - before.cpu_s) / (now.at - before.at) * 100:.0f} %"


def moment(at: float) -> str:
    """Unix time as local time to a second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
