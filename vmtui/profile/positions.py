"""Where each key of a TOML file stands; tomllib gives values without positions."""

from __future__ import annotations

import contextlib
import re
from bisect import bisect_right

Path = tuple[str | int, ...]

SPACE = re.compile(r"[ \t]*")
BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# TOML 1.0: basic and literal strings, the multi-line ones first; up to two quotes may precede the closing three.
STRING = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', re.DOTALL)
SCALAR = re.compile(r"[^,\]}#\n]*")
SIMPLE = re.compile(r"(?:[A-Za-z0-9+_.:-]+|\"[^\"\\\n]*\"(?!\")|'[^'\n]*'(?!'))[ \t]*(?:#[^\n]*)?\r?\n")
ESCAPE = re.compile(r'\\(?:(["\\bfnrt])|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8}))')
ESCAPED = {'"': '"', "\\": "\\", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class Positions:
    """The lines of the keys of `text`, which tomllib has accepted.

    A path is the keys from the root, with numbers for places in arrays: ("vm", "guest", "disks", 0). A path that is
    not in the file gets the line of the longest part that is, 1 if there is none.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._starts = [match.end() for match in re.finditer("\n", text)]
        self._found: dict[Path, int] = {}
        with contextlib.suppress(IndexError, RecursionError):  # an unknown form: lines are then those of outer keys
            self._document()

    def line(self, *path: str | int) -> int:
        """The line of `path`, counted from 1."""
        for length in range(len(path), 0, -1):
            offset = self._found.get(path[:length])
            if offset is not None:
                return bisect_right(self._starts, offset) + 1
        return 1

    def _document(self) -> None:
        text, at = self._text, 0
        prefix: Path = ()
        arrays: dict[Path, int] = {}  # of tables: the place of the last one
        while True:
            at = self._skip(BLANK, at)
            if at >= len(text):
                return
            if text[at] == "[":
                start, array = at, text.startswith("[[", at)
                at = self._skip(SPACE, at + (2 if array else 1))
                prefix, at = self._key((), at)
                if array or arrays:
                    prefix = self._in_arrays(prefix, arrays, begin=array)
                self._found.setdefault(prefix, start)
                at = text.find("\n", at)
                if at < 0:
                    return
            else:
                at = self._pair(prefix, at)

    @staticmethod
    def _in_arrays(key: Path, arrays: dict[Path, int], *, begin: bool) -> Path:
        """The path of a table that is in arrays of tables, or begins a new one of them."""
        path: Path = ()
        for place, part in enumerate(key):
            path = (*path, part)
            if begin and place == len(key) - 1:
                arrays[path] = arrays.get(path, -1) + 1
            if path in arrays:
                path = (*path, arrays[path])
        return path

    def _skip(self, pattern: re.Pattern[str], at: int) -> int:
        match = pattern.match(self._text, at)
        return at if match is None else match.end()

    def _key(self, prefix: Path, at: int) -> tuple[Path, int]:
        """A dotted key from `at`; each part of it is noted."""
        path = prefix
        while True:
            at = self._skip(SPACE, at)
            start = at
            if self._text[at] in "\"'":
                at = self._skip(STRING, at)
                path = (*path, _unquote(self._text[start:at]))
            else:
                at = self._skip(BARE_KEY, at)
                path = (*path, self._text[start:at])
            if at == start:
                raise IndexError(at)
            self._found.setdefault(path, start)
            at = self._skip(SPACE, at)
            if self._text[at : at + 1] != ".":
                return path, at
            at += 1

    def _pair(self, prefix: Path, at: int) -> int:
        path, at = self._key(prefix, at)
        at = self._skip(SPACE, at + 1)
        simple = SIMPLE.match(self._text, at)
        return simple.end() if simple else self._value(path, at)

    def _value(self, path: Path, at: int) -> int:
        first = self._text[at]
        if first in "\"'":
            end = self._skip(STRING, at)
            if end == at:
                raise IndexError(at)
            return end
        if first == "[":
            at = self._skip(BLANK, at + 1)
            place = 0
            while self._text[at] != "]":
                item = (*path, place)
                self._found.setdefault(item, at)
                at = self._skip(BLANK, self._value(item, at))
                if self._text[at] == ",":
                    at = self._skip(BLANK, at + 1)
                place += 1
            return at + 1
        if first == "{":
            at = self._skip(BLANK, at + 1)
            while self._text[at] != "}":
                at = self._skip(BLANK, self._pair_inline(path, at))
                if self._text[at] == ",":
                    at = self._skip(BLANK, at + 1)
            return at + 1
        return max(self._skip(SCALAR, at), at + 1)

    def _pair_inline(self, prefix: Path, at: int) -> int:
        path, at = self._key(prefix, at)
        return self._value(path, self._skip(SPACE, at + 1))


def _unquote(quoted: str) -> str:
    if quoted.startswith("'"):
        return quoted[1:-1]

    def one(match: re.Match[str]) -> str:
        return ESCAPED[match[1]] if match[1] else chr(int(match[2] or match[3], 16))

    return ESCAPE.sub(one, quoted[1:-1])
