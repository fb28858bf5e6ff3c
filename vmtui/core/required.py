"""The longest text that every match of a regular expression has in it: looked for first, it spares most of the work."""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Iterable
from typing import Any

_parser: Any = importlib.import_module("re._parser")  # private, but the only reader of this grammar there is


def required(pattern: re.Pattern[str]) -> str:
    """In lower case if the pattern takes both cases; "" if there is none."""
    runs = [""]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # told when it was compiled
        tree = _parser.parse(pattern.pattern, pattern.flags)
    _collect(tree, runs)
    folded = [run.lower() if pattern.flags & re.IGNORECASE else run for run in runs]
    return max(folded, key=len)


def _collect(nodes: Iterable[Any], runs: list[str]) -> None:
    """Appends the texts to `runs`; the last of them goes on with what comes next."""
    for node in nodes:
        name, value = str(node[0]), node[1]
        if name == "LITERAL":
            runs[-1] += chr(value)
        elif name == "SUBPATTERN" and not value[1] and not value[2]:  # no flags of its own
            _collect(value[3], runs)
        elif name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT") and value[0] > 0:
            _collect(value[2], runs)
            runs.append("")
        elif name not in ("AT", "ASSERT", "ASSERT_NOT"):  # those take no room
            runs.append("")
