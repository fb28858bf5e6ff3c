"""The one gate through which text from outside reaches the screen."""

from __future__ import annotations

from textual.content import Content

LONGEST = 4096
BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def safe(text: str, *, longest: int = LONGEST) -> Content:
    """Plain content: no markup, no escapes, no direction overrides, bounded. Control characters become spaces."""
    cut = text[:longest]
    return Content("".join(char if char.isprintable() and char not in BIDI else " " for char in cut))
