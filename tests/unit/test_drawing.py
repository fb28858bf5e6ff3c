"""What of another's session reaches a terminal."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vmtui.headless.drawing import Drawing

PASSES = re.compile(
    r"(?:[^\x00-\x1f\x7f-\x9f]|[\x08-\x0f]"
    r"|\x1b\[[0-9;:]*[@-HJ-MPSTXZ`a-fmrsuI]|\x1b\[\?[0-9;]+[hl]|\x1b[78DEM]|\x1b[()][0B])*"
)
HOSTILE = st.text(st.one_of(st.characters(), st.sampled_from("\x1b\x9b\x9d[]?;:0123456789hlcnmJ$p\\\x07P_\x18")))


@pytest.mark.parametrize(
    "drawn",
    [
        "plain é ⠿ 🖥",
        "\x1b[1;31mred\x1b[0m\r\n",
        "\x1b[38:2::1:2:3m",
        "\x1b[2J\x1b[H\x1b[10;20Hx\x1b[K",
        "\x1b[?1049h\x1b[?25l",
        "\x1b7\x1b[3;5r\x1b8\x1b(0lqk\x1b(B",
    ],
)
def test_what_draws_passes(drawn: str) -> None:
    assert Drawing().feed(drawn) == drawn


@pytest.mark.parametrize(
    "hostile",
    [
        "\x1b]52;c;cm0gLXJmCg==\x07",
        "\x1b]0;title\x1b\\",
        "\x9d2;title\x9c",
        "\x1bP$qm\x1b\\",
        "\x1b_Gi=1;AAAA\x1b\\",
        "\x1b[c",
        "\x1b[>c",
        "\x1b[6n",
        "\x1b[?2026$p",
        "\x1b[?u",
        "\x1b[>1u",
        "\x1b[21t",
        "\x1b[5i",
        "\x1b[?1000h",
        "\x1b[?2004h",
        "\x1b[>4;2m",
        "\x1b[4h",
        "\x1bc",
        "\x1b=",
        "\x1b#8",
        "\x1bZ",
        "\x05",
        "\x07",
        "\x9bc",
        "\u202e",
    ],
)
def test_what_asks_sets_or_switches_does_not(hostile: str) -> None:
    assert Drawing().feed(f"a{hostile}b") == "ab"


def test_of_several_modes_those_that_draw_pass() -> None:
    assert Drawing().feed("\x1b[?1000;25;1006h") == "\x1b[?25h"


def test_a_string_that_never_ends_takes_no_memory() -> None:
    drawing = Drawing()
    assert drawing.feed("\x1b]0;") == ""
    for _ in range(1000):
        assert drawing.feed("x" * 1000) == ""
    assert drawing._begun == ""
    assert drawing.feed("\x1b\\after") == "after"


def test_what_was_begun_and_is_nothing_is_text() -> None:
    assert Drawing().feed("\x1b[1" + "\x00" + "2m") == "12m"
    assert Drawing().feed("\x1b[" + "1" * 5000 + "m").startswith(("\x1b[1", "1"))


@given(HOSTILE)
@example("\x1b]0;a\x1b[31mb")
def test_only_what_draws_passes(text: str) -> None:
    made = Drawing().feed(text)
    assert PASSES.fullmatch(made)
    assert Drawing().feed(made) == made


@given(HOSTILE, st.data())
@example("\x1b]0;a\x1b\\b", None)
@example("\x1b[31mred\x1b[?25l\x1b(0\x9b1m\x1b[1\x00m", None)
@example("\x1b[" + "1;" * 150 + "m", None)
def test_where_a_piece_ends_makes_no_difference(text: str, data: st.DataObject | None) -> None:
    places = range(len(text) + 1)
    cuts = list(places) if data is None else sorted(data.draw(st.lists(st.sampled_from(places), max_size=5)))
    drawing = Drawing()
    pieces = [drawing.feed(text[start:end]) for start, end in pairwise([0, *cuts, len(text)])]
    assert "".join(pieces) == Drawing().feed(text)
