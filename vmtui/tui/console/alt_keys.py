"""Alt with a key, where the terminal sends an escape before it.

Textual's table reads some of these as what macOS terminals send for Option (`ESC 1` as an inverted exclamation mark,
`ESC b` as Ctrl+Left), and drops the Alt of punctuation. In a guest, `ESC` typed in vi and then `1` quickly would be
another character. With this table they are Alt keys, which `keys.encode` turns into the same two bytes again.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from textual import _ansi_sequences
from textual.keys import KEY_NAME_REPLACEMENTS, _character_to_key

BEGIN_SEQUENCES = "[O]P_^X"  # an escape and one of these goes on


class AltKey(NamedTuple):
    """As an item of `textual.keys.Keys`."""

    value: str


def teach() -> None:
    """Have Textual's input parser know every Alt key. Done once, before the first console takes keys."""
    table = cast("dict[str, Any]", _ansi_sequences.ANSI_SEQUENCES_KEYS)
    for code in range(0x20, 0x7F):
        char = chr(code)
        if char not in BEGIN_SEQUENCES:
            table[f"\x1b{char}"] = (AltKey(f"alt+{_name(char)}"),)
    for code in range(0x01, 0x1B):
        table[f"\x1b{chr(code)}"] = (AltKey(f"alt+ctrl+{chr(code + 0x60)}"),)
    table.update(
        {"\x1b\t": (AltKey("shift+tab"),), "\x1b\r": (AltKey("alt+enter"),), "\x1b\x7f": (AltKey("alt+backspace"),)}
    )


def _name(char: str) -> str:
    if char.isupper():
        return f"shift+{char.lower()}"
    name = char if char.isalnum() else _character_to_key(char)
    return KEY_NAME_REPLACEMENTS.get(name, name)
