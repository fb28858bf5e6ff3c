"""The one query language: of the panel's filter, of the search in logs, and of `vmtui ls`.

    kind:vm,container state:running -profile:dev label:tier=web 10\\.88 nginx

Terms are separated by white space and all must match. KEY:VALUE asks for a field: the value is meant whole, `*` and
`?` stand for any characters and one, a comma for "or"; of a kind or state the beginning is enough. Everything else is
a regular expression that is searched in the text; without a capital letter it takes both cases. `!` or `-` before a
term negates it, `!` before the first one inverts the whole, `-f` before the first one makes the words fuzzy.

A word with a colon is a key only if it could be one: `10.88.0.2:80`, `12:30`, `web:8080`, `http://x`, `error:` and
`Error:x` are text, and `\\:` is a colon that makes no key.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from vmtui.core import words
from vmtui.core.errors import QueryError
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Kind
from vmtui.core.searchable import Searchable
from vmtui.core.words import Fuzzy, Words

LONGEST_QUERY = 1000
TROUBLED = "problem"
STATES = (*(phase.value for phase in Phase), TROUBLED)
KINDS = tuple(kind.value for kind in Kind)
KEYS: dict[str, str] = {
    "kind": "vm, container, sandbox, network or disk",
    "state": "running, paused, stopped, exited, broken, available, or problem for all that has one",
    "profile": "the profile it belongs to",
    "name": "its name",
    "backend": "the backend that has it",
    "address": "one of its addresses",
    "label": "KEY for any value, or KEY=VALUE",
}
TERM = re.compile(r"\S+")
KEYED = re.compile(r"([a-z]+):(.*)", re.DOTALL)
NO_VALUE = re.compile(r"$|[\d/:]")  # after a colon: nothing, a port or time, a URL, a C++ name
FUZZY = "-f"

S = TypeVar("S", bound=Searchable)
Test = Callable[[Searchable], bool]


class Query:
    """A parsed query. False if it restricts nothing, which is so of "", "!" and "-f"."""

    __slots__ = ("_fields", "_tests", "_words", "inverted", "matches", "ranked", "text")

    def __init__(self, text: str, *, inverted: bool, ranked: bool) -> None:
        self.text = text
        self.inverted = inverted
        self.ranked = ranked  # `select` then puts the best first
        self._fields: list[Test] = []
        self._words: list[tuple[Words, bool]] = []
        self._tests: list[Test] = []
        self.matches: Test = _everything
        """Whether a resource is meant."""

    def __bool__(self) -> bool:
        return bool(self._tests)

    def select(self, items: Iterable[S]) -> list[S]:
        """Those that match, in their order, of a fuzzy query the best first."""
        matches = self.matches
        found = [item for item in items if matches(item)]
        if self.ranked and not self.inverted and self._words:
            found.sort(key=self.score, reverse=True)
        return found

    def score(self, item: Searchable) -> int:
        """How well a resource fits a fuzzy query; 0 for every other query."""
        wanted = [word for word, negated in self._words if not negated]
        return sum(word.score(item.title) for word in wanted if isinstance(word, Fuzzy))

    def lines(self, of: Searchable | None) -> Callable[[str], bool]:
        """The test for lines of the log of a resource: its keys ask for the resource, its words for the line."""
        if not self:
            return lambda _: True
        meant = all(test(of) for test in self._fields) if of is not None else not self._fields
        found_by = [(word.found, negated) for word, negated in self._words]
        inverted = self.inverted
        if len(found_by) == 1 and meant:
            ((found, negated),) = found_by
            return (lambda line: not found(line)) if negated != inverted else found
        return lambda line: (meant and all(found(line) != negated for found, negated in found_by)) != inverted

    def spans(self, line: str) -> list[tuple[int, int]]:
        """The parts of a text to mark as found, in order and apart from each other."""
        if self.inverted:
            return []
        found = sorted(span for word, negated in self._words if not negated for span in word.spans(line))
        merged: list[tuple[int, int]] = []
        for start, end in found:
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    def needle(self) -> tuple[str, bool]:
        """A text that every line which matches has, "" if there is none; whether its case counts."""
        if self.inverted:
            return "", False
        return max((word.needle for word, negated in self._words if not negated), key=_length, default=("", False))

    def _close(self) -> None:
        tests = self._tests = [*self._fields, *(_negated(word.seen, negated) for word, negated in self._words)]
        if tests:
            self.matches = _negated(_every(tests), self.inverted)


def parse(text: str) -> Query:
    """Raises QueryError, and nothing else."""
    if len(text) > LONGEST_QUERY:
        raise QueryError(f"a filter has at most {LONGEST_QUERY} characters", position=LONGEST_QUERY)
    start = len(text) - len(text.lstrip())
    inverted = text.startswith("!", start)
    terms = [(match[0], match.start()) for match in TERM.finditer(text, start + inverted)]
    ranked = bool(terms) and terms[0][0] == FUZZY
    query = Query(text, inverted=inverted, ranked=ranked)
    for term, position in terms[ranked:]:
        negated = term[0] in "!-" and len(term) > 1
        term, position = term[negated:], position + negated
        keyed = KEYED.fullmatch(term)
        if keyed and (keyed[1] in KEYS or not NO_VALUE.match(keyed[2])):
            query._fields.append(_negated(_field(keyed[1], keyed[2], position), negated))
        else:
            query._words.append((words.of(term, position, fuzzy=ranked), negated))
    query._close()
    return query


def _length(needle: tuple[str, bool]) -> int:
    return len(needle[0])


def _everything(_: Searchable) -> bool:
    return True


def _every(tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]

    def matches(item: Searchable) -> bool:
        for test in tests:  # noqa: SIM110 - `all` makes a generator for each resource: four times the time
            if not test(item):
                return False
        return True

    return matches


def _negated(test: Test, negated: bool) -> Test:
    return (lambda item: not test(item)) if negated else test


# KEY:VALUE


def _field(key: str, value: str, position: int) -> Test:
    if key not in KEYS:
        close = difflib.get_close_matches(key, KEYS, 1)
        meant = f"did you mean {close[0]}:{value}? " if close else ""
        hint = f"{meant}for the text itself write {key}\\:{value}"
        raise QueryError(f"there is no key {key!r}", position=position, hint=hint)
    position += len(key) + 1
    values = [choice for choice in value.split(",") if choice]
    if not values:
        raise QueryError(f"a value is missing after {key}:", position=position, hint=f"{key}: {KEYS[key]}")
    if key == "kind":
        kinds = _members(values, KINDS, key, position)
        return lambda item: item.kind in kinds
    if key == "state":
        states = _members(values, STATES, key, position)
        troubled = TROUBLED in states
        return lambda item: item.state in states or (troubled and item.troubled)
    if key == "label":
        parts = [choice.partition("=") for choice in values]
        labels = [(name, _whole([wanted]) if equals else _anything) for name, equals, wanted in parts]
        return lambda item: any(name in item.labels and wanted(item.labels[name]) for name, wanted in labels)
    fits = _whole(values)
    if key == "address":
        return lambda item: any(fits(address) for address in item.addresses)
    if key == "profile":
        return lambda item: fits(item.profile)
    if key == "name":
        return lambda item: fits(item.name)
    return lambda item: fits(item.backend)


def _members(values: Iterable[str], known: tuple[str, ...], key: str, position: int) -> frozenset[str]:
    found: set[str] = set()
    for value in values:
        fits = [member for member in known if member.startswith(value.lower())]
        if not fits:
            close = difflib.get_close_matches(value.lower(), known, 1)
            hint = f"did you mean {key}:{close[0]}?" if close else f"known: {', '.join(known)}"
            raise QueryError(f"there is no {key} {value!r}", position=position, hint=hint)
        found.update([value.lower()] if value.lower() in fits else fits)
    return frozenset(found)


def _anything(_: str) -> bool:
    return True


def _whole(values: Iterable[str]) -> Callable[[str], bool]:
    plain, patterns = set(), []
    for value in values:
        if "*" in value or "?" in value:
            patterns.append(re.compile(fnmatch.translate(value.lower().replace("[", "[[]"))))  # does not backtrack
        else:
            plain.add(value.lower())
    if not patterns:
        return lambda text: text.lower() in plain
    return lambda text: text.lower() in plain or any(pattern.match(text.lower()) for pattern in patterns)
