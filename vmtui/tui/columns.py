"""The columns of the resource list: what each shows, how wide, and how it sorts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec
from rich.segment import Segment
from rich.style import Style

from vmtui.core.lifecycle import UP, Phase
from vmtui.tui.model import Item, Load
from vmtui.tui.palette import Palette
from vmtui.tui.text import plain

SPARK = 5  # cells of a sparkline
NAME_LEAST = 4  # a list without names is none
ORDER = {phase: number for number, phase in enumerate((
    Phase.BROKEN, Phase.EXITED, Phase.PAUSED, Phase.RUNNING, Phase.STOPPED, Phase.AVAILABLE, Phase.ABSENT,
))}  # fmt: skip
UNITS = ((1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K"))

Cell = tuple[str, Style]
Key = tuple[object, ...]


def size(value: float | None) -> str:
    """Bytes in at most five cells."""
    if value is None:
        return ""
    for unit, letter in UNITS:
        if value >= unit:
            shown = value / unit
            return f"{shown:.0f}{letter}" if shown >= 100 else f"{shown:.1f}{letter}"
    return f"{value:.0f}B"


def span(seconds: float) -> str:
    """An age in at most four cells."""
    for unit, letter in ((86400 * 365, "y"), (86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= unit:
            return f"{int(seconds // unit)}{letter}"
    return f"{max(0, int(seconds))}s"


def spark(values: Sequence[float | None], top: float, glyphs: str, cells: int = SPARK) -> str:
    """The last `cells` values as levels of `top`; unknown ones are blank."""
    shown = list(values)[-cells:]
    drawn = [
        " " if value is None else glyphs[max(0, min(len(glyphs) - 1, int(value / top * len(glyphs))))]
        for value in shown
    ]
    return "".join(drawn).rjust(cells)


def exit_code(item: Item) -> int:
    exit_ = item.status.exit
    return exit_.code if exit_ is not None and item.status.phase is Phase.EXITED else 0


def _state(item: Item, palette: Palette) -> Cell:
    phase, code = item.status.phase, exit_code(item)
    word = f"{phase} {code}" if phase is Phase.EXITED else str(phase)
    return f"{palette.sign(phase, code)} {word}", palette.of_phase(phase, code)


def _of(text: Callable[[Item], str], role: str = "text", longest: int = 200) -> Callable[[Item, Palette], Cell]:
    def cell(item: Item, palette: Palette) -> Cell:
        return plain(text(item), longest), getattr(palette, role)

    return cell


def _last(item: Item, name: str) -> float | None:
    values = getattr(item.load, name) if item.load is not None else ()
    return values[-1] if values else None


def _cpu(item: Item, palette: Palette) -> Cell:
    load = item.load
    if load is None:
        return "", palette.dim
    now = _last(item, "cpu")
    top = max(1.0, *(value for value in load.cpu if value is not None), 0.0)
    percent = "" if now is None else f"{now * 100:.0f}%"
    style = palette.warn if now is not None and now >= 0.9 * top and now > 0.9 else palette.text
    return f"{percent:>5} {spark(load.cpu, top, palette.glyphs.spark)}", style


def _memory(item: Item, palette: Palette) -> Cell:
    load = item.load
    if load is None:
        return "", palette.dim
    now, limit = _last(item, "memory"), _limit(load)
    full = limit is not None and now is not None and now >= 0.9 * limit
    values = [None if value is None else float(value) for value in load.memory]
    known = [value for value in values if value is not None]
    top = limit or max(known, default=1.0) or 1.0
    return f"{size(now):>5} {spark(values, top, palette.glyphs.spark)}", palette.warn if full else palette.text


def _limit(load: Load) -> int | None:
    return load.last.memory_limit_bytes if load.last is not None else None


def _rate(name: str) -> Callable[[Item, Palette], Cell]:
    def cell(item: Item, palette: Palette) -> Cell:
        now = _last(item, name)
        return ("" if now is None else f"{size(now)}/s").rjust(7), palette.text if now else palette.dim

    return cell


def age_s(item: Item) -> float | None:
    """How long it has been up, or ended for."""
    status = item.status
    if status.phase in UP and status.started_at:
        return time.time() - status.started_at
    if status.exit is not None and status.exit.at:
        return time.time() - status.exit.at
    return None


def _age(item: Item, palette: Palette) -> Cell:
    age = age_s(item)
    return ("" if age is None else span(age)).rjust(4), palette.dim


def _address(item: Item) -> str:
    return item.status.addresses[0].address if item.status.addresses else ""


def _problem(item: Item, palette: Palette) -> Cell:
    status = item.status
    if status.problems:
        return plain(status.problems[0].message, 200), palette.bad
    if exit_code(item):
        reason = status.exit.reason if status.exit else ""
        return plain(reason or f"it ended with code {exit_code(item)}", 200), palette.bad
    if status.endpoints and status.phase in UP:
        return plain(status.endpoints[0].url, 200), palette.secondary
    return "", palette.dim


class Column(msgspec.Struct, frozen=True):
    """`weight` orders by importance: lower ones are left out last. `moving` values change without the status."""

    name: str
    title: str
    width: int
    weight: int
    cell: Callable[[Item, Palette], Cell]
    key: Callable[[Item], Key]
    moving: bool = False
    grows: int = 0  # how much wider it may become


COLUMNS: dict[str, Column] = {
    column.name: column
    for column in (
        Column("state", "STATE", 11, 0, _state, lambda i: (ORDER[i.status.phase], -exit_code(i))),
        Column("kind", "KIND", 9, 2, _of(lambda i: i.ref.kind), lambda i: (i.ref.kind,)),
        Column("name", "NAME", 14, 1, _of(lambda i: i.ref.name), lambda i: (i.ref.name,), grows=26),
        Column(
            "profile", "PROFILE", 10, 4, _of(lambda i: i.ref.profile, "secondary"), lambda i: (i.ref.profile,), grows=8
        ),
        Column("backend", "BACKEND", 8, 8, _of(lambda i: i.status.backend, "dim"), lambda i: (i.status.backend,)),
        Column("address", "ADDRESS", 15, 5, _of(_address), lambda i: (_address(i),)),
        Column("cpu", "  CPU", 11, 6, _cpu, lambda i: (-(_last(i, "cpu") or 0.0),), moving=True),
        Column("memory", "  MEM", 11, 7, _memory, lambda i: (-(_last(i, "memory") or 0),), moving=True),
        Column("net", "  NET/s", 7, 9, _rate("net"), lambda i: (-(_last(i, "net") or 0.0),), moving=True),
        Column("disk", " DISK/s", 7, 10, _rate("block"), lambda i: (-(_last(i, "block") or 0.0),), moving=True),
        Column("age", " AGE", 4, 6, _age, lambda i: (age_s(i) is None, age_s(i) or 0.0)),
        Column(
            "problem", "PROBLEM / ENDPOINT", 22, 3,
            _problem, lambda i: (not i.status.problems, not exit_code(i)), grows=60,
        ),
    )
}  # fmt: skip


def choose(width: int, wanted: Sequence[str] = (), without: str = "") -> list[tuple[Column, int]]:
    """The columns that fit into `width` cells and their widths; one cell lies between two.

    `without` is left out unless it is wanted by name: the headings have it.
    """
    names = [name for name in wanted if name in COLUMNS] or [name for name in COLUMNS if name != without]
    room = width - 1
    chosen: list[Column] = []
    widths: dict[str, int] = {}
    for column in sorted((COLUMNS[name] for name in names), key=lambda column: column.weight):
        least = NAME_LEAST if column.name == "name" else column.width
        if least + 1 <= room:
            chosen.append(column)
            widths[column.name] = min(column.width, room - 1)
            room -= widths[column.name] + 1
    chosen.sort(key=lambda column: names.index(column.name))
    for name in ("name", "problem", "profile"):
        if name in widths and room > 0:
            more = min(room, COLUMNS[name].grows)
            widths[name] += more
            room -= more
    return [(column, widths[column.name]) for column in chosen]


def segments(cells: Sequence[Cell], columns: Sequence[tuple[Column, int]], more: str) -> list[Segment]:
    """One line of the list, without the mark at its left: a segment for each run of one style."""
    drawn: list[Segment] = []
    for (text, style), (_, width) in zip(cells, columns, strict=True):
        shown = f"{fit(text, width, more)} "
        if drawn and (not text or style == drawn[-1].style):
            drawn[-1] = Segment(drawn[-1].text + shown, drawn[-1].style)
        else:
            drawn.append(Segment(shown, style))
    return drawn


def fit(text: str, width: int, more: str) -> str:
    """Exactly `width` cells; what does not fit ends in `more`. Wide characters count as two."""
    if text.isascii():
        return text.ljust(width) if len(text) <= width else text[: width - 1] + more
    from rich.cells import cell_len, set_cell_size

    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + more
