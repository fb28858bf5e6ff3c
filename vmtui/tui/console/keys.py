"""Keys as xterm sends them, from the names and characters that Textual has for them."""

from __future__ import annotations

import re

from vmtui.tui.console.engine import Modes

ESC = "\x1b"
SHIFT, ALT, CTRL, META = 1, 2, 4, 8  # xterm's modifier parameter is one more than their sum
MODIFIERS = {"shift": SHIFT, "alt": ALT, "ctrl": CTRL, "meta": META, "super": META, "hyper": META}
CURSOR = {"up": "A", "down": "B", "right": "C", "left": "D", "home": "H", "end": "F", "kp_begin": "E"}
FIRST_FUNCTION = {"f1": "P", "f2": "Q", "f3": "R", "f4": "S"}
TILDE = {
    "insert": 2, "delete": 3, "pageup": 5, "pagedown": 6, "f5": 15, "f6": 17, "f7": 18, "f8": 19, "f9": 20, "f10": 21,
    "f11": 23, "f12": 24,
}  # fmt: skip
SHIFTED_FUNCTION = re.compile(r"f(1[3-9]|2[0-4])")  # F13 to F24 are Shift F1 to F12
# Keys with a character of their own that Textual gives by name, or not at all when there are modifiers.
NAMED = {
    "space": " ", "enter": "\r", "tab": "\t", "escape": ESC, "backspace": "\x7f", "at": "@", "underscore": "_",
    "backslash": "\\", "slash": "/", "minus": "-", "plus": "+", "exclamation_mark": "!", "quotation_mark": '"',
    "number_sign": "#", "dollar_sign": "$", "percent_sign": "%", "ampersand": "&", "apostrophe": "'",
    "left_parenthesis": "(", "right_parenthesis": ")", "asterisk": "*", "comma": ",", "full_stop": ".", "colon": ":",
    "semicolon": ";", "less_than_sign": "<", "equals_sign": "=", "greater_than_sign": ">", "question_mark": "?",
    "left_square_bracket": "[", "right_square_bracket": "]", "circumflex_accent": "^", "grave_accent": "`",
    "left_curly_bracket": "{", "vertical_line": "|", "right_curly_bracket": "}", "tilde": "~",
    "decimal": ".", "divide": "/", "multiply": "*", "subtract": "-", "add": "+", "equal": "=", "separator": ",",
}  # fmt: skip
# What Ctrl makes of what is not a letter: the keys that send those codes on a VT220 (table 3-5 of its manual).
CONTROLS = {
    " ": "\x00", "@": "\x00", "2": "\x00", "`": "\x00", "[": "\x1b", "3": "\x1b", "{": "\x1b", "\\": "\x1c",
    "4": "\x1c", "|": "\x1c", "]": "\x1d", "5": "\x1d", "}": "\x1d", "^": "\x1e", "6": "\x1e", "~": "\x1e",
    "_": "\x1f", "7": "\x1f", "/": "\x1f", "-": "\x1f", "?": "\x7f", "8": "\x7f",
}  # fmt: skip


def encode(key: str, character: str | None, modes: Modes) -> bytes:
    """The bytes for a key press; none for a key that sends nothing, as a modifier alone."""
    *names, base = key.split("+") if key not in ("+", "<ignore>") else [key]
    held = 0
    for name in names:
        held |= MODIFIERS.get(name, 0)
    if (sequence := _function(base, held, modes)) is not None:
        return sequence.encode()
    if not held and character is not None and len(character) == 1 and base not in ("enter", "backspace"):
        return character.encode(errors="ignore")
    return _text(base, character, held, modes).encode(errors="ignore")


def _function(base: str, held: int, modes: Modes) -> str | None:
    """Keys that send a sequence."""
    if (match := SHIFTED_FUNCTION.fullmatch(base)) is not None:
        base, held = f"f{int(match[1]) - 12}", held | SHIFT
    if base in CURSOR:
        if held:
            return f"{ESC}[1;{held + 1}{CURSOR[base]}"
        return f"{ESC}{'O' if modes.application_cursor else '['}{CURSOR[base]}"
    if base in FIRST_FUNCTION:
        return f"{ESC}[1;{held + 1}{FIRST_FUNCTION[base]}" if held else f"{ESC}O{FIRST_FUNCTION[base]}"
    if base in TILDE:
        return f"{ESC}[{TILDE[base]};{held + 1}~" if held else f"{ESC}[{TILDE[base]}~"
    if base == "tab" and held & SHIFT:
        return f"{ESC * bool(held & ALT)}{ESC}[Z"
    return None


def _text(base: str, character: str | None, held: int, modes: Modes) -> str:
    """Keys that send a character, with what Ctrl makes of it, after an escape for Alt."""
    char = base if len(base) == 1 else NAMED.get(base, "")
    if base == "enter":
        char = "\r\n" if modes.newline else "\r"
    elif base == "backspace":
        # A terminal that has both keys sends BS for Ctrl+H; its character says so.
        erase, other = ("\b", "\x7f") if modes.backspace_is_bs else ("\x7f", "\b")
        char = "\b" if character == "\b" else other if held & CTRL else erase
    elif not char:
        char = character if character is not None and character.isprintable() else ""
    elif held & CTRL:
        char = chr(ord(char.upper()) & 0x1F) if char.isascii() and char.isalpha() else CONTROLS.get(char, char)
    elif held & SHIFT and len(char) == 1:
        char = char.upper()
    return f"{ESC}{char}" if held & (ALT | META) and char else char


def paste(text: str, modes: Modes) -> bytes:
    """Pasted text: line ends as Enter sends them, and no control that could end the paste or act in the guest."""
    lines = text.replace("\r\n", "\r").replace("\n", "\r")
    clean = "".join(char for char in lines if char in "\r\t" or char.isprintable())
    if not modes.bracketed_paste:
        return clean.encode(errors="ignore")
    return f"{ESC}[200~{clean}{ESC}[201~".encode(errors="ignore")


def focus(gained: bool) -> bytes:
    """What a guest that asked for focus events gets."""
    return b"\x1b[I" if gained else b"\x1b[O"
