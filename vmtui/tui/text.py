"""The one gate through which text from outside reaches the screen."""

from __future__ import annotations

from textual.content import Content

LONGEST = 4096


def plain(text: str, longest: int = LONGEST) -> str:
    """No escapes, no direction overrides, no surrogates, bounded: what is not printable becomes a space.

    `str.isprintable` is false for the categories Other and Separator of Unicode, but for the space: that has C0, C1,
    the bidirectional controls and lone surrogates.
    """
    cut = text if len(text) <= longest else f"{text[: longest - 1]}…"
    if cut.isprintable():
        return cut
    return "".join(char if char.isprintable() else " " for char in cut)


def safe(text: str, *, longest: int = LONGEST) -> Content:
    """The same as content without markup, for widgets that would read markup in a string."""
    return Content(plain(text, longest))


def safe_lines(text: str, *, longest: int = LONGEST) -> Content:
    """The same for several lines."""
    return Content("\n".join(plain(line, longest) for line in text.splitlines()))
