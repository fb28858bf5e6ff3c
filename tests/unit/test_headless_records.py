"""JSON for programs, which may end up on a terminal."""

from __future__ import annotations

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from vmtui.headless.output import record


class Text(msgspec.Struct):
    text: str


@given(st.text())
def test_a_record_says_what_it_is_given_and_nothing_to_a_terminal(text: str) -> None:
    line = record(Text(text))
    assert json.loads(line) == {"text": text}
    assert not set(line) & {*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), "\u202e", "\u2066"}


def test_controls_of_eight_bits_and_turns_of_direction_are_escapes() -> None:
    assert record(Text("\x9b31m\x7f\u202eé")) == '{"text":"\\u009b31m\\u007f\\u202eé"}'
