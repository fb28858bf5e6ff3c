"""All that is known of one resource, as lines: a title, then sections. Pure but for what `Known` was asked."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.segment import Segment
from textual.strip import Strip

from vmtui.core.lifecycle import UP
from vmtui.core.resource import Ref, Status
from vmtui.tui.columns import exit_code, size, span
from vmtui.tui.exits import Exits
from vmtui.tui.model import Item, Load
from vmtui.tui.palette import Palette
from vmtui.tui.plot import nice, plot
from vmtui.tui.text import plain

Line = list[Segment]
LABEL = 11
INDENT = 4  # of what goes on from the line before
PLOT_ROWS = 3


@dataclass(frozen=True, slots=True)
class Known:
    """What the database says of a resource, or what is `wrong` with it. `events` are (time, text, failed)."""

    uses: Sequence[Ref] = ()
    used_by: Sequence[Ref] = ()
    spec: str = ""
    events: Sequence[tuple[float, str, bool]] = ()
    labels: Sequence[tuple[str, str]] = ()
    wrong: str = ""


def plots(load: Load | None, palette: Palette, width: int) -> Iterator[Line]:
    """CPU, memory, network and disk over time; nothing before the first measurement."""
    if load is None or load.last is None:
        return
    cells = max(8, width - LABEL - 1)
    limit = load.last.memory_limit_bytes
    rows = (
        ("cpu", load.cpu, None, lambda value: f"{value * 100:.0f}%"),
        ("memory", load.memory, limit, size),
        ("network/s", load.net, None, size),
        ("disk/s", load.block, None, size),
    )
    for name, values, fixed, show in rows:
        known = [float(value) for value in values if value is not None]
        if not known:
            continue
        top = float(fixed) if fixed else nice(max(known))
        drawn = plot([None if v is None else float(v) for v in values], cells, PLOT_ROWS, top, palette.glyphs.spark)
        labels = (name, show(known[-1]), f"of {show(top)}")
        for label, row in zip(labels, drawn, strict=True):
            yield [Segment(f"{label:<{LABEL}}", palette.dim), Segment(row, palette.secondary)]


def lines(item: Item, known: Known, palette: Palette, width: int, exits: Exits | None = None) -> list[Line]:
    """The whole pane. `exits` of a VM whose backend counts them."""
    status = item.status
    code = exit_code(item)
    out: list[Line] = [
        [Segment(str(status.ref), palette.accent)],
        [
            Segment(f"{palette.sign(status.phase, code)} {status.phase}", palette.of_phase(status.phase, code)),
            Segment(_since(status), palette.dim),
        ],
    ]
    out += _problems(status, palette)
    out += [[Segment(plain(known.wrong, 500), palette.warn)]] if known.wrong else []
    out += list(plots(item.load, palette, width))
    counted = [] if exits is None else exits.lines(palette, width)
    out += _section("exits from the guest", palette) + counted if counted else []
    facts = [("backend", status.backend), *_addresses(status)]
    facts += [("endpoint", endpoint.url) for endpoint in status.endpoints]
    facts += [("size", f"{size(status.size_bytes)} ({status.size_bytes} bytes)")] if status.size_bytes else []
    facts += [("pid", str(status.pid))] if status.pid else []
    facts += [("uses", str(ref)) for ref in known.uses] + [("used by", str(ref)) for ref in known.used_by]
    facts += [("label", f"{key}={value}") for key, value in known.labels]
    facts += [(fact.name, fact.value) for fact in status.facts]
    facts += [("log", status.log)] if status.log else []
    out += _section("facts", palette) + [_pair(name, value, palette) for name, value in facts]
    if known.events:
        out += _section("recent events", palette)
        for at, text, failed in known.events:
            clock = time.strftime("%d %b %H:%M:%S", time.localtime(at))
            out.append(
                [Segment(f"{clock}  ", palette.dim), Segment(plain(text, 300), palette.bad if failed else palette.text)]
            )
    out += spec_lines(known, palette)
    return out


def spec_lines(known: Known, palette: Palette) -> list[Line]:
    """The spec as TOML."""
    if not known.spec:
        return []
    return _section("spec", palette) + [[Segment(plain(line, 1000), palette.text)] for line in known.spec.splitlines()]


def wrapped(line: Line, width: int) -> list[Line]:
    """A line that is too wide, as several: nothing of a problem or a spec is cut off."""
    strip = Strip(line)
    if strip.cell_length <= width or width <= 2 * INDENT:
        return [line]
    rest = range(width, strip.cell_length, width - INDENT)
    return [
        list(strip.crop(0, width)),
        *([Segment(" " * INDENT), *strip.crop(start, start + width - INDENT)] for start in rest),
    ]


def _section(title: str, palette: Palette) -> list[Line]:
    return [[], [Segment(title.upper(), palette.head)]]


def _pair(name: str, value: str, palette: Palette) -> Line:
    return [Segment(f"{plain(name, 40):<{LABEL}}", palette.dim), Segment(plain(value, 1000), palette.text)]


def _since(status: Status) -> str:
    if status.phase in UP and status.started_at:
        return f"  for {span(time.time() - status.started_at)}"
    if status.exit is not None:
        why = f", {plain(status.exit.reason, 200)}" if status.exit.reason else ""
        ago = f", {span(time.time() - status.exit.at)} ago" if status.exit.at else ""
        return f"  code {status.exit.code}{why}{ago}"
    return ""


def _problems(status: Status, palette: Palette) -> list[Line]:
    out: list[Line] = []
    for problem in status.problems:
        out.append([Segment(f"{palette.glyphs.failed} {plain(problem.message, 500)}", palette.bad)])
        if problem.hint:
            out.append([Segment("  next: ", palette.dim), Segment(plain(problem.hint, 500), palette.accent)])
    return out


def _addresses(status: Status) -> list[tuple[str, str]]:
    return [
        ("address", f"{address.address} on {address.network}{f' ({address.mac})' if address.mac else ''}")
        for address in status.addresses
    ]
