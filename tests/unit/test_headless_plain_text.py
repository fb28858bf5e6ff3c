"""Text that is safe to print, and quantities as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtui.headless import text


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("plain", "plain"),
        ("a\tb", "a    b"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPpayload\x1b\\after", "after"),
        ("\x1b]52;c;cGFzdGU=", ""),
        ("\x9b31mred", "red"),
        ("\x1b(Bx\x1b7y\x1bcz", "xyz"),
        ("over\rwrite\x08\x7f", "over write"),
        ("a\u202eb\u2066c\u200b", "abc"),
        ("\x00\x01\ud800", ""),
        ("grüße 日本 ✓", "grüße 日本 ✓"),
    ],
)
def test_clean(hostile: str, shown: str) -> None:
    assert text.clean(hostile) == shown


@given(st.text(st.characters()))
def test_clean_text_is_printable(hostile: str) -> None:
    assert text.clean(hostile).isprintable()
    assert all(line.isprintable() for line in text.clean_lines(hostile))


@given(st.text(st.sampled_from("\x1b[]P;0m\x07\\ab\x9b\x9d\r\n"), max_size=30))
def test_clean_is_done_after_one_pass(hostile: str) -> None:
    once = text.clean(hostile)
    assert text.clean(once) == once


def test_table() -> None:
    assert text.table(("A", "LONG"), [("1", "2\x1b[2J"), ("333", "")]) == ["A    LONG", "1    2", "333"]
    assert text.table(("A", "LONG"), [("1", "abcdefgh")], width=8) == ["A  LONG", "1  abcd…"]


@pytest.mark.parametrize(
    ("count", "shown"),
    [(None, ""), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (150 << 20, "150 MiB"), (3 << 40, "3.0 TiB")],
)
def test_size(count: int | None, shown: str) -> None:
    assert text.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0 ms"),
        (0.0123, "12 ms"),
        (1.25, "1.2 s"),
        (75, "75 s"),
        (120, "2 min"),
        (7300, "2 h"),
        (9 * 86400.0, "9 d"),
    ],
)
def test_span(seconds: float, shown: str) -> None:
    assert text.span(seconds) == shown
