"""What is typed into a field as a plain TOML value, and back. Pure.

A text in double quotes is read as TOML has it: so what cannot be typed, or would be read otherwise, can be written.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from vmtui.core.specs import decode
from vmtui.profile import rules, toml_text
from vmtui.tui.forms.fields import Field, Shape

UNSET = msgspec.UNSET
NEEDED = "this is needed"
NOTHING = {Shape.WORDS: "[]", Shape.LINES: "[]", Shape.PAIRS: "{}"}  # an empty one that is written down


def shown(field: Field, plain: Any) -> str:
    """A value as it is typed; "" for one that is not given."""
    if plain is UNSET or plain is None:
        return ""
    if field.shape in NOTHING and isinstance(plain, Sequence | Mapping) and not plain:
        return NOTHING[field.shape]
    if field.shape is Shape.PAIRS and isinstance(plain, Mapping):
        return "\n".join(f"{_quoted(str(key), '=')}={_quoted(str(value))}" for key, value in plain.items())
    if field.shape in (Shape.WORDS, Shape.LINES) and isinstance(plain, Sequence) and not isinstance(plain, str):
        between, ends = ("\n", "") if field.shape is Shape.LINES else (", ", ",")
        return between.join(_scalar(item, ends) for item in plain)
    if field.shape is Shape.TOML:
        return toml_text.value(plain, multiline=False)
    return _scalar(plain, "")


def _scalar(plain: Any, ends: str) -> str:
    return _quoted(plain, ends) if isinstance(plain, str) else toml_text.value(plain, multiline=False)


def _quoted(text: str, ends: str = "") -> str:
    """As it is, unless that would be read as something else."""
    plain = text.isprintable() and text == text.strip() and text not in ("", "[]", "{}") and not text.startswith('"')
    return text if plain and not any(end in text for end in ends) else toml_text.value(text, multiline=False)


def read(field: Field, text: str) -> Any:
    """The plain TOML value of what was typed, UNSET for nothing. Raises ValueError with a message for people."""
    text = text.strip()
    if not text:
        return UNSET
    if field.shape in NOTHING and text == NOTHING[field.shape]:
        return {} if field.shape is Shape.PAIRS else []
    if field.shape is Shape.PAIRS:
        return _pairs(text)
    if field.shape is Shape.LINES:
        return [_read_scalar(line.strip(), field.item) for line in text.splitlines() if line.strip()]
    if field.shape is Shape.WORDS:
        return [_read_scalar(word, field.item) for word in _words(text)]
    if field.choices == ("true", "false"):
        return {"true": True, "false": False}.get(text, text)
    return _read_scalar(text, field.shape)


def _read_scalar(text: str, shape: Shape) -> Any:
    if shape is Shape.TOML:
        return _toml(text, "a TOML value")
    if text.startswith('"'):
        return _toml(text, 'a text in quotes; write \\" for a quote in it')
    if shape in (Shape.NUMBER, Shape.QUANTITY):
        number = _number(text)
        if number is None and shape is Shape.NUMBER:
            raise ValueError(f"{text!r} is not a number")
        return text if number is None else number
    return text


def _number(text: str) -> int | float | None:
    try:
        value = tomllib.loads(f"x = {text}")["x"]
    except (tomllib.TOMLDecodeError, ValueError):
        return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _toml(text: str, what: str) -> Any:
    try:
        document = tomllib.loads(f"x = {text}")
    except (tomllib.TOMLDecodeError, ValueError, RecursionError):
        document = {}
    if list(document) != ["x"]:
        raise ValueError(f"not {what}")
    return document["x"]


def _words(text: str) -> list[str]:
    """Cut at commas; a word that begins with a quote ends with one."""
    found, word, inside, escaped = [], "", False, False
    for char in text:
        if char == "," and not inside:
            found.append(word.strip())
            word = ""
            continue
        if char == '"' and not escaped:
            inside = not inside and not word.strip()
        escaped = inside and char == "\\" and not escaped
        word += char
    return [word for word in [*found, word.strip()] if word]


def _pairs(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        key, value = _pair(line)
        if key in found:
            raise ValueError(f"{key!r} is there twice")
        found[key] = value
    return found


_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')  # a backslash takes the next character along, be it another one


def _pair(line: str) -> tuple[str, Any]:
    if line.startswith('"'):
        quoted = _QUOTED.match(line)
        end = quoted.end() if quoted else len(line)
        key, rest = _read_scalar(line[:end], Shape.TEXT), line[end:].lstrip()
    else:
        key, equals, rest = line.partition("=")
        key, rest = key.strip(), equals + rest
    if not rest.startswith("="):
        raise ValueError(f"{line!r} is not KEY=VALUE")
    return key, _read_scalar(rest[1:].strip(), Shape.TEXT) if rest[1:].strip() else ""


def wrong(field: Field, text: str) -> str:
    """What is wrong with what was typed, taken by itself; "" for nothing."""
    try:
        plain = read(field, text)
        if plain is UNSET:
            return NEEDED if field.required else ""
        if field.choices and field.shape is Shape.CHOICE and text.strip() not in field.choices:
            return f"use one of: {', '.join(field.choices)}"
        decode(plain, field.type)
    except msgspec.ValidationError as error:
        return rules.explain(str(error), plain)[0]
    except (ValueError, TypeError) as error:
        return str(error)
    return ""
