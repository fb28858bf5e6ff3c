"""Plans, progress and faults as lines of segments. What comes from outside is cleaned here."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.segment import Segment

from vmtui.core.errors import Fault, FileInvalid, ProfileInvalid
from vmtui.core.resource import Ref
from vmtui.engine import plan_text
from vmtui.engine.plan import Plan
from vmtui.engine.plan_text import EMPTY, MAX_VALUE, Part, Role
from vmtui.profile import load
from vmtui.tui.palette import ASCII, Palette
from vmtui.tui.profiles.progress import Row
from vmtui.tui.text import plain

Said = tuple[str, str]  # a text and its role in the palette
Line = Said | plan_text.Line | Row
ROLES = {
    Role.PLAIN: "text",
    Role.REASON: "dim",
    Role.NEW: "good",
    Role.OLD: "bad",
    Role.EDIT: "warn",
    Role.LOSS: "bad",
}
STATES = {
    "waiting": ("dot", "dim"),
    "running": ("right", "accent"),
    "done": ("done", "good"),
    "failed": ("failed", "bad"),
    "undone": ("up", "warn"),
}
ASCII_FOR = str.maketrans({"±": "x", "→": ">", "│": "|", "▸": ">"})
DIFF_ROLES = {"+": "good", "-": "bad", "@": "accent"}
AROUND = 3  # lines of a file that are shown before and after the one that is wrong
TAIL_LINES = 30
BAR = 10
LONGEST_LINE = 400


def segments(line: Line, palette: Palette, now: float) -> list[Segment]:
    """One line as it is drawn."""
    if isinstance(line, Row):
        return list(_progress(line, palette, now))
    if isinstance(line, plan_text.Line):
        return [Segment(_fit(text_of(part), palette), getattr(palette, ROLES[part.role])) for part in line.parts]
    text, role = line
    return [Segment(_fit(plain(text, LONGEST_LINE), palette), getattr(palette, role))]


def text_of(part: Part) -> str:
    """A part of a plan's line without what a terminal would obey."""
    return plain(part.text, MAX_VALUE) or EMPTY if part.is_value else plain(part.text, LONGEST_LINE)


def _fit(text: str, palette: Palette) -> str:
    return text.translate(ASCII_FOR) if palette.glyphs is ASCII else text


def _progress(row: Row, palette: Palette, now: float) -> Iterator[Segment]:
    sign, role = STATES.get(row.state, ("dot", "text"))
    glyph = "✓" if sign == "done" and palette.glyphs is not ASCII else "v" if sign == "done" else ""
    glyph = glyph or getattr(palette.glyphs, sign)
    style = getattr(palette, role)
    yield Segment(f" {glyph} {row.state:<8} ", style)
    yield Segment(f"{row.verb:<9} {row.ref.short}  ", palette.text)
    if row.fraction is not None:
        full, empty = palette.glyphs.bar
        filled = round(BAR * min(max(row.fraction, 0.0), 1.0))
        yield Segment(f"{full * filled}{empty * (BAR - filled)} {row.fraction * 100:3.0f}%  ", palette.accent)
    seconds = row.seconds(now)
    if seconds is not None:
        yield Segment(f"{seconds:.1f} s  ", palette.dim)
    if row.message:
        yield Segment(plain(row.message, LONGEST_LINE), palette.bad if row.state == "failed" else palette.dim)


def of_plan(plan: Plan) -> list[Line]:
    """The changes, the notes and the totals."""
    found: list[Line] = list(plan_text.lines(plan))
    if found:
        found.append(("", "text"))
    found += [(f"note  {ref.short}: {note}", "secondary") for ref, note in plan.notes]
    found.append((plan_text.totals(plan), "accent"))
    return found


def summary(plan: Plan, most: int = 150) -> list[str]:
    """A plan as plain lines, for a question; of a long one the beginning."""
    found = ["".join(map(text_of, line.parts)) for line in itertools.islice(plan_text.lines(plan), most + 1)]
    return [*found[:most], *(["and more"] if len(found) > most else []), plan_text.totals(plan)]


def of_difference(difference: str) -> list[Said]:
    """The lines of a unified diff."""
    return [(line, DIFF_ROLES.get(line[:1], "text")) for line in difference.splitlines()]


def of_fault(error: BaseException, doing: str = "") -> list[Said]:
    """What went wrong: of a file with the lines that are wrong, of a tool with what it said last, and the next step."""
    found: list[Said] = [(f"{doing} failed" if doing else "this profile cannot be used", "bad")]
    if isinstance(error, FileInvalid):
        found += [(part, "text") for part in (error.where, error.key) if part]
        found += [(error.message, "bad"), ("", "text"), *_source(error.where)]
    else:
        found.append((str(error) if isinstance(error, Fault) else f"{type(error).__name__}: {error}", "bad"))
    if isinstance(error, Fault) and error.details:
        found += [("", "text"), *((f"  │ {line}", "dim") for line in error.details.splitlines()[-TAIL_LINES:])]
    if isinstance(error, Fault) and error.hint:
        found += [("", "text"), (f"next: {error.hint}", "accent")]
    return found


def _source(where: str) -> list[Said]:
    name, _, number = where.rpartition(":")
    if not name or not number.isdigit():
        return []
    try:
        lines = load.read(Path(name)).splitlines()
    except ProfileInvalid:
        return []
    wrong = int(number)
    found: list[Said] = []
    for at in range(max(1, wrong - AROUND), min(len(lines), wrong + AROUND) + 1):
        mark = "▸" if at == wrong else " "
        found.append((f"{mark} {at:>5} │ {lines[at - 1]}", "warn" if at == wrong else "dim"))
    return [*found, ("", "text")] if found else []


def ref_of(line: Line) -> Ref | None:
    """The resource that a line is about."""
    return line.ref if isinstance(line, plan_text.Line | Row) else None


def losses(plan: Plan, sizes: Sequence[tuple[Ref, int | None]]) -> list[str]:
    """What is lost for good, object by object, and the bytes of all together."""
    known = dict(sizes)
    gone = [change.ref for change in plan.changes if change.data_loss]
    found = [f"{ref}  {'size unknown' if known.get(ref) is None else f'{known[ref]} bytes'}" for ref in gone]
    total = sum(known.get(ref) or 0 for ref in gone)
    return [*found, f"{total} bytes of data are lost for good"] if gone else []
