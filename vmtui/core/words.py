"""The words of a query: plain text, regular expressions, and fuzzy ones. Each looks at one text."""

from __future__ import annotations

import re
import warnings
from typing import NoReturn, Protocol

from vmtui.core import fuzzy as letters
from vmtui.core.backtracking import explodes
from vmtui.core.errors import QueryError
from vmtui.core.required import required
from vmtui.core.searchable import LONGEST, Searchable

SPECIAL = re.compile(r"[\\.^$*+?{}\[\]|()]")
ESCAPED = re.compile(r"\\.", re.DOTALL)


class Words(Protocol):
    """A term that looks at text."""

    def seen(self, item: Searchable) -> bool:
        """Whether it is in what is known of a resource."""
        ...

    def found(self, line: str) -> bool:
        """Whether it is in one line."""
        ...

    def spans(self, line: str) -> list[tuple[int, int]]:
        """Where it is."""
        ...

    @property
    def needle(self) -> tuple[str, bool]:
        """A text that is in every line that it is found in, "" if there is none; whether its case counts."""
        ...


def of(term: str, position: int, *, fuzzy: bool) -> Words:
    """Reads a term that stands at `position` of its query. Raises QueryError."""
    exact = any(char.isupper() for char in ESCAPED.sub("", term))
    if fuzzy:
        return Fuzzy(term)
    if not SPECIAL.search(term):
        return Exact(term) if exact else Literal(term)
    flags = re.MULTILINE if exact else re.MULTILINE | re.IGNORECASE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python's coming changes; they would be printed over the panel
            pattern = re.compile(term, flags)
            endless = explodes(term, flags)
    except re.error as error:
        _refuse(error.msg, position + (error.pos or 0), term)
    except (OverflowError, RecursionError):
        _refuse("it is too large", position, term)
    if endless:
        hint = "say it with one loop: (a+)+ is a+"
        raise QueryError("a loop in a loop that could take forever", position=position, hint=hint)
    return Pattern(pattern)


def _refuse(message: str, position: int, term: str) -> NoReturn:
    hint = f"for the text itself write {re.escape(term)}"
    raise QueryError(f"not a regular expression: {message}", position=position, hint=hint) from None


class Literal:
    """Text without a capital letter: found whatever its case."""

    def __init__(self, text: str) -> None:
        self._text = text.lower()

    def seen(self, item: Searchable) -> bool:
        return self._text in item.folded

    def found(self, line: str) -> bool:
        return self._text in line.lower()

    def spans(self, line: str) -> list[tuple[int, int]]:
        folded = line.lower()
        if len(folded) == len(line):
            return _places(self._text, folded)
        # A few letters are longer in lower case.
        return _spans(re.compile(re.escape(self._text), re.IGNORECASE), line)

    @property
    def needle(self) -> tuple[str, bool]:
        return self._text, False


class Exact:
    """Text with a capital letter."""

    def __init__(self, text: str) -> None:
        self._text = text

    def seen(self, item: Searchable) -> bool:
        return self._text in item.text

    def found(self, line: str) -> bool:
        return self._text in line

    def spans(self, line: str) -> list[tuple[int, int]]:
        return _places(self._text, line)

    @property
    def needle(self) -> tuple[str, bool]:
        return self._text, True


class Pattern:
    """A regular expression; it looks at the first LONGEST characters."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern
        self._search = pattern.search

    def seen(self, item: Searchable) -> bool:
        return self._search(item.text, 0, LONGEST) is not None

    def found(self, line: str) -> bool:
        return self._search(line, 0, LONGEST) is not None

    def spans(self, line: str) -> list[tuple[int, int]]:
        return _spans(self._pattern, line)

    @property
    def needle(self) -> tuple[str, bool]:
        return required(self._pattern), not self._pattern.flags & re.IGNORECASE


class Fuzzy:
    """Letters in this order; of a resource its title is looked at."""

    def __init__(self, text: str) -> None:
        self._text = text

    def seen(self, item: Searchable) -> bool:
        return self.found(item.title)

    def found(self, line: str) -> bool:
        return letters.found(self._text, line)

    def score(self, line: str) -> int:
        return letters.score(self._text, line)

    def spans(self, line: str) -> list[tuple[int, int]]:
        return [(place, place + 1) for place in letters.places(self._text, line)]

    @property
    def needle(self) -> tuple[str, bool]:
        return "", False


def _places(needle: str, text: str) -> list[tuple[int, int]]:
    found, at = [], text.find(needle)
    while at >= 0:
        found.append((at, at + len(needle)))
        at = text.find(needle, at + len(needle))
    return found


def _spans(pattern: re.Pattern[str], line: str) -> list[tuple[int, int]]:
    return [match.span() for match in pattern.finditer(line, 0, LONGEST) if match.end() > match.start()]
