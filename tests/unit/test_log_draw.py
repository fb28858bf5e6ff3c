"""How a row of a log becomes lines of the screen."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.style import Style

from vmtui.core.backend import LogLine
from vmtui.core.query import parse
from vmtui.tui.logs.draw import CLOCK, DATE, Look, clean, clock, level, strips
from vmtui.tui.logs.log import bare
from vmtui.tui.palette import palette_of
from vmtui.tui.themes import quickly

PALETTE = palette_of(quickly("vmtui-dark")[0])
hostile = st.text(st.one_of(st.characters(), st.sampled_from("a \t\x1b[m日e\u0301\u202e\r\x9b]\x07")), max_size=120)


def look(**more: object) -> Look:
    return Look(**{"palette": PALETTE, "width": 40, **more})  # type: ignore[arg-type]


@settings(max_examples=300, deadline=None)
@given(hostile, st.integers(8, 40))
def test_wrapped_lines_have_all_of_it(text: str, width: int) -> None:
    made = strips(LogLine(text=text), 0, look(width=width, wrap=True), 0)
    assert all(strip.cell_length <= width for strip in made)
    assert "".join(strip.text for strip in made) == clean(bare(text))
    assert "".join(strip.text for strip in made).isprintable()


@settings(max_examples=200, deadline=None)
@given(hostile, st.sampled_from(["a", "e", "日", "a|e", "."]))
def test_matches_are_marked_and_nothing_else(text: str, query: str) -> None:
    wanted = parse(query)
    (strip,) = strips(LogLine(text=text), 0, look(spans=wanted.spans), 1000)
    marked = [segment.text for segment in strip if segment.style and segment.style.bgcolor]
    assert [clean(bare(text)[start:end]) for start, end in wanted.spans(bare(text))] == marked or "\t" in text
    assert strip.text == clean(bare(text))


def test_tabs_stop_where_they_should() -> None:
    assert clean("a\tb\t日本\tc") == "a       b       日本    c"
    (strip,) = strips(LogLine(text="ab\tc"), 0, look(spans=parse("b").spans), 0)
    assert strip.text == "ab      c"


@pytest.mark.parametrize(
    ("text", "style"),
    [
        ("2026-01-01 ERROR it", "bad"),
        ("level=error msg=x", "bad"),
        ('{"level":"fatal"}', "bad"),
        ("kernel panic", "bad"),
        ("E0102 03:04:05 klog", "bad"),
        ("<3>kernel", "bad"),
        ("[crit] 1#1", "bad"),
        ("W0102 klog", "warn"),
        ("<4>kernel", "warn"),
        ("Warning: x", "warn"),
        ("INFO no error", "text"),
        ("DEBUG error", "dim"),
        ("trace", "dim"),
        ("errors: 0", "text"),
        ("e1234 is hex", "text"),
        ("nothing", "text"),
        ("x" * 400 + " error", "text"),
    ],
)
def test_levels(text: str, style: str) -> None:
    wanted: Style = getattr(PALETTE, style)
    assert level(text, PALETTE) == wanted


def test_what_stands_before_the_text() -> None:
    line = LogLine(text="hello", at=0.5, stream="stderr", partial=True)
    names = ("vm/guest", "container/a-name-that-is-much-too-long")
    more = PALETTE.glyphs.more
    (strip,) = strips(line, 1, look(times=CLOCK, streams=True, names=names, width=80), 0)
    assert strip.text == f"{clock(0.5, dated=False)} container/a-name-that-i{more} 2>hello{more}"
    (strip,) = strips(line, 0, look(names=names), 0)
    assert strip.text == f"{'vm/guest':<24} hello{more}"
    whole = LogLine(text="hello there", at=0.5)
    first, second = strips(whole, 0, look(names=names, width=10, wrap=True), 0)
    assert (first.text, second.text) == (f"{'vm/guest':<24} hello th", " " * 25 + "ere")


@pytest.mark.parametrize("at", [None, 0.0, 1e300, -1e300, float("nan"), float("inf"), 1769860800.9999])
def test_any_time_has_one_width(at: float | None) -> None:
    assert cell_len(clock(at, dated=False)) == 12
    assert cell_len(clock(at, dated=True)) == 23
    assert strips(LogLine(text="x", at=at), 0, look(times=DATE), 0)[0].text.endswith("x")
