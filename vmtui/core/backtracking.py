"""Regular expressions that Python's engine may need exponential time for, told by their form.

The engine backtracks: `(a+)+b` tries each way of cutting a run of a's into pieces before it gives up, and nothing can
stop it meanwhile. A loop is harmless when the next character always says which way its body goes on (the body is
LL(1)); any other is refused, a few harmless ones among them. What is left can still be slow by the power of the
number of its repetitions in a row, which is why texts are bounded.
"""

from __future__ import annotations

import importlib
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

_parser: Any = importlib.import_module("re._parser")  # private, but the only reader of this grammar there is
_compiler: Any = importlib.import_module("re._compiler")

FEW = 4  # a body repeated at most this often has few ways
# Character classes are compared on these and on what the pattern itself names.
SAMPLE = frozenset(map(chr, range(128))) | frozenset("éßя中٣\u00a0\u2028\U0001f600")
REPEATS = frozenset({"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"})
SETS = frozenset({"LITERAL", "NOT_LITERAL", "ANY", "IN"})
First = tuple[frozenset[str], bool]  # the characters it can begin with; whether it can be empty


class _Ambiguous(Exception):
    pass


def explodes(pattern: str, flags: int = 0) -> bool:
    """Whether a loop of `pattern`, which re.compile has accepted, has two ways for the same text."""
    tree = _parser.parse(pattern, flags)
    try:
        _Reader(tree, SAMPLE | set(pattern)).sequence(tree, frozenset(), looped=False)
    except _Ambiguous:
        return True
    return False


class _Reader:
    def __init__(self, tree: Any, sample: frozenset[str]) -> None:
        self._state = tree.state
        self._sample = sample
        self._firsts: dict[int, frozenset[str]] = {}  # by identity: bodies nest, and each is asked for at each level

    def sequence(self, nodes: Iterable[Any], follow: frozenset[str], *, looped: bool) -> First:
        """The first set of `nodes`, which `follow` comes after. Raises _Ambiguous."""
        first: frozenset[str] = frozenset()
        empty = True
        for node in reversed(list(nodes)):
            begin, skips = self._node(node, first | follow if empty else first, looped)
            first = begin | first if skips else begin
            empty = empty and skips
        return first, empty

    def _node(self, node: Any, follow: frozenset[str], looped: bool) -> First:
        name, value = str(node[0]), node[1]
        if name in SETS:
            return self._characters(node), False
        if name in REPEATS:
            least, most, body = value
            return self._repeat(name, least, most, body, follow, looped)
        if name == "BRANCH":
            return self._branch(value[1], follow, looped)
        if name == "SUBPATTERN":
            return self.sequence(value[3], follow, looped=looped)
        if name == "ATOMIC_GROUP":
            return self.sequence(value, follow, looped=False)
        if name in ("ASSERT", "ASSERT_NOT"):
            self.sequence(value[1], frozenset(), looped=False)
            return frozenset(), True
        if name == "GROUPREF_EXISTS":
            return self._branch([value[1], value[2] or ()], follow, looped)
        return (self._sample if name == "GROUPREF" else frozenset()), True  # else an anchor

    def _repeat(self, name: str, least: int, most: int, body: Any, follow: frozenset[str], looped: bool) -> First:
        again = self._first(body) if most > 1 else frozenset()
        inner = looped or most > FEW
        first, empty = self.sequence(body, follow | again, looped=inner and name != "POSSESSIVE_REPEAT")
        if looped and least != most and name != "POSSESSIVE_REPEAT" and first & follow:
            raise _Ambiguous
        return first, empty or least == 0

    def _first(self, body: Any) -> frozenset[str]:
        if id(body) not in self._firsts:
            self._firsts[id(body)] = self.sequence(body, frozenset(), looped=False)[0]
        return self._firsts[id(body)]

    def _branch(self, choices: Sequence[Any], follow: frozenset[str], looped: bool) -> First:
        found = [self.sequence(choice, follow, looped=looped) for choice in choices]
        union: frozenset[str] = frozenset()
        empty = any(skips for _, skips in found)
        prefixes = _prefix_free(choices)
        for first, _ in found:
            if looped and not prefixes and first & (union | follow if empty else union):
                raise _Ambiguous
            union |= first
        return union, empty

    def _characters(self, node: Any) -> frozenset[str]:
        one: re.Pattern[str] = _compiler.compile(_parser.SubPattern(self._state, [node]), self._state.flags)
        return frozenset(char for char in self._sample if one.fullmatch(char))


def _prefix_free(choices: Sequence[Any]) -> bool:
    """Whether they are plain words of which none begins another: then at most one of them fits."""
    if any(str(name) != "LITERAL" for choice in choices for name, _ in choice):
        return False
    words = sorted("".join(chr(value) for _, value in choice).lower() for choice in choices)
    return all(word and not after.startswith(word) for word, after in itertools.pairwise(words)) and bool(words[-1])
