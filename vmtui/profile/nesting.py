"""How deeply the keys of a TOML file nest, found in one pass: tomllib's time grows with the square of it."""

from __future__ import annotations

import re

MAX_PARTS = 64
PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*+"?|'[^'\n]*+'?)"""
# Multi-line strings and comments first, since what looks like a key in them is none. All alternatives match in one go,
# with or without their end, so that no text makes this slow.
TOKEN = re.compile(
    rf"""\"\"\"(?>(?:[^\\]|\\.)*?(?:"{{3,5}}|\Z))|'''(?>.*?(?:'{{3,5}}|\Z))|\#[^\n]*"""
    rf"""|(?P<key>{PART}(?:[ \t]*\.[ \t]*{PART})*+)|[^"'\#A-Za-z0-9_-]+""",
    re.DOTALL,
)
PARTS = re.compile(PART)


def too_deep(text: str) -> int | None:
    """The line of the first key of more than MAX_PARTS parts, None if there is none. Never raises."""
    for token in TOKEN.finditer(text):
        key = token["key"]
        if key is not None and len(key) > MAX_PARTS and sum(1 for _ in PARTS.finditer(key)) > MAX_PARTS:
            return text.count("\n", 0, token.start()) + 1
    return None
