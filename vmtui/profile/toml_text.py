"""TOML values and tables as text, the way the profiles that ship are written. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
SHORT = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}
MAX_WIDTH = 100  # of a line that an array or a table of texts is put on


def key(*path: str) -> str:
    """A dotted key; what is not bare is quoted."""
    return ".".join(part if BARE_KEY.fullmatch(part) else _quoted(part) for part in path)


def value(plain: Any, *, room: int = MAX_WIDTH, multiline: bool = True) -> str:
    """One value. A text of several lines gets three quotes, unless not `multiline` (as in a file with CRLF)."""
    if isinstance(plain, bool):
        return "true" if plain else "false"
    if isinstance(plain, int | float):
        return repr(plain)
    if isinstance(plain, str):
        return _block(plain) if multiline and "\n" in plain.rstrip("\n") else _quoted(plain)
    if isinstance(plain, Mapping):
        items = [f"{key(str(name))} = {value(item, multiline=False)}" for name, item in plain.items()]
        return f"{{ {', '.join(items)} }}" if items else "{}"
    if isinstance(plain, Sequence):
        texts = [value(item, multiline=multiline) for item in plain]
        line = f"[{', '.join(texts)}]"
        if len(line) <= room or "\n" in line:
            return line
        return "[\n" + "".join(f"  {text},\n" for text in texts) + "]"
    raise TypeError(f"TOML has no {type(plain).__name__}")


def pair(name: str, plain: Any, *, multiline: bool = True) -> str:
    """One line, or several of a value that needs them."""
    start = f"{key(name)} = "
    return f"{start}{value(plain, room=MAX_WIDTH - len(start), multiline=multiline)}\n"


def table(path: Sequence[str], plain: Mapping[str, Any], *, multiline: bool = True) -> str:
    """A table with its header; tables in it that do not fit on a line become tables of their own below it."""
    return "\n".join(_tables(path, plain, multiline=multiline))


def _tables(path: Sequence[str], plain: Mapping[str, Any], *, multiline: bool) -> Iterator[str]:
    below = {name: item for name, item in plain.items() if isinstance(item, Mapping) and not _fits(name, item)}
    pairs = "".join(pair(name, item, multiline=multiline) for name, item in plain.items() if name not in below)
    if pairs or not below:
        yield f"[{key(*path)}]\n{pairs}"
    for name, item in below.items():
        yield from _tables((*path, name), item, multiline=multiline)


def _fits(name: str, plain: Mapping[str, Any]) -> bool:
    return len(pair(name, plain)) <= MAX_WIDTH


def _quoted(text: str) -> str:
    return f'"{_escaped(text, SHORT)}"'


def _block(text: str) -> str:
    kept = _escaped(text, {char: escape for char, escape in SHORT.items() if char not in '"\n'}, keep="\n")
    return f'"""\n{_SEVERAL.sub(_apart, kept)}"""'


_SEVERAL = re.compile(r'""+|"$')


def _apart(quotes: re.Match[str]) -> str:
    return '\\"' * len(quotes[0])


def _escaped(text: str, short: Mapping[str, str], keep: str = "") -> str:
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(
        short[char] if char in short else char if char.isprintable() or char in keep else _code(char) for char in text
    )


def _code(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
