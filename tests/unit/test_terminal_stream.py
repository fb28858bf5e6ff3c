"""The judge of what programs write to terminals finds what is hostile, in one piece or cut anywhere."""

from __future__ import annotations

import pytest

from tests.support.terminal import Stream

GOOD = (
    "\x1b[?1049h\x1b[?25l\x1b[?2026$p\x1b[>1u\x1b[?2026h\x1b[3;1H\x1b[1;38;2;1;2;3;48;2;4;5;6m▾ shöp 中\x1b[0m\r\n"
    "\x1b[?2026l\x1b[<u\x1b[?1049l"
).encode()
BAD = {
    "title": b"\x1b]0;owned\x07",
    "clipboard": b"\x1b]52;c;b3duZWQ=\x1b\\",
    "clear": b"\x1b[2J",
    "reset": b"\x1bc",
    "device control": b"\x1bP+q544e\x1b\\",
    "report": b"\x1b[6n",
    "mode": b"\x1b[?47h",
    "c1": "\x9b2J".encode(),
    "raw c1": b"\x9b2J",
    "override": "\u202e".encode(),
    "isolate": "\u2066".encode(),
    "surrogate": b"\xed\xa0\x80",
}


def judged(data: bytes, size: int) -> list[str]:
    stream = Stream()
    for start in range(0, len(data), size):
        stream.feed(data[start : start + size])
    return stream.wrong


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_what_textual_writes_is_right(size: int) -> None:
    assert judged(GOOD, size) == []


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("name", BAD)
def test_what_is_hostile_is_found(name: str, size: int) -> None:
    assert judged(GOOD + b"text" + BAD[name] + b"more" + GOOD, size)


def test_bells_are_counted() -> None:
    stream = Stream()
    stream.feed(b"a\x07b\x07" + GOOD)
    assert (stream.bells, stream.wrong) == (2, [])


def test_a_string_that_never_ends_is_found() -> None:
    assert judged(b"\x1b]52;c;" + b"A" * 10_000, 1000)
