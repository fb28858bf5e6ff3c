"""The text that is looked for first is in whatever matches."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vmtui.core.errors import QueryError
from vmtui.core.query import parse
from vmtui.core.required import required

atoms = st.sampled_from(
    ["a", "b", "ab", "A", ".", "[ab]", "^", "$", r"\d", "a?", "(?:ab)", "(?=a)", "(?!b)", "(?i:b)", "1"]
)
ends = st.sampled_from(["", "", "", "*", "+", "{2}", "{0,2}"])
simple = st.lists(st.tuples(atoms, ends).map("".join), min_size=1, max_size=4).map("".join)
patterns = st.one_of(
    simple,
    st.tuples(simple, simple).map("|".join),
    st.tuples(simple, ends, simple).map(lambda p: f"({p[0]}){p[1]}{p[2]}"),
)


@settings(max_examples=500, deadline=None)
@given(patterns, st.text("abAB1 ", max_size=12), st.booleans())
def test_every_match_has_it(text: str, line: str, both_cases: bool) -> None:
    try:
        pattern = re.compile(text, re.IGNORECASE if both_cases else 0)
    except re.error:
        assume(False)
        raise
    needle = required(pattern)
    if (found := pattern.search(line)) is not None:
        assert needle in (found[0].lower() if both_cases else found[0])


@pytest.mark.parametrize(
    ("text", "needle", "exact"),
    [
        ("error", "error", False),
        ("Error", "Error", True),
        ("short longer", "longer", False),
        ("-not this", "this", False),
        ("!not", "", False),
        ("-f fuzzy", "", False),
        ("a|b", "", False),
        ("GET.*timeout", "timeout", True),
        ("get.*timeout", "timeout", False),
        ("(ab)+c", "ab", False),
        ("kind:vm", "", False),
    ],
)
def test_of_queries(text: str, needle: str, exact: bool) -> None:
    found = parse(text).needle()
    assert found[0] == needle
    assert not needle or found[1] == exact


@settings(max_examples=300, deadline=None)
@given(st.text("abAB1.*+|()[] !-", max_size=12), st.text("abAB1 .", max_size=20))
def test_of_any_query(text: str, line: str) -> None:
    try:
        query = parse(text)
    except QueryError:
        return
    needle, exact = query.needle()
    if query.lines(None)(line):
        assert needle in (line if exact else line.lower())
