"""What a terminal is told of another's session: to draw, and nothing else.

A session shows what its guests say. Played on another terminal that must not set its title or clipboard, ask it for
anything (it would answer as if somebody typed), or leave it in a mode. So only what is known to draw passes; sequences
are those of ECMA-48 and of xterm's "Control Sequences" (ctlseqs).
"""

from __future__ import annotations

import re

PIECE = re.compile(
    r"(?P<text>[^\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]+)"
    r"|(?:\x1b\[|\x9b)(?P<parameters>[0-?]{0,200})(?P<between>[ -/]{0,8})(?P<final>[@-~])"
    r"|(?P<string>\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])"
    r"|(?P<escape>\x1b(?:[ -/]{1,8}[0-~]|[0-OQ-WYZ\\`-~]))"
    r"|(?P<control>[\x00-\x1a\x1c-\x1f\x7f-\x9a\x9c-\x9f\u202a-\u202e\u2066-\u2069])"
)
# What may yet become one of them when more comes.
BEGUN = re.compile(r"(?:\x1b\[|\x9b)[0-?]{0,200}[ -/]{0,8}|\x1b[ -/]{0,8}")
STRING_END = re.compile(r"\x1b\\|\x9c|\x07|[\x18\x1a]|\x1b(?=[^\\])")  # ST, BEL (xterm), or what aborts it
CONTROLS = frozenset("\b\t\n\v\f\r\x0e\x0f")
# Cursor, erasing, inserting, scrolling, repetition, colours, margins, saving the cursor. Not: reports, modes, windows.
FINALS = frozenset("@ABCDEFGHIJKLMPSTXZ`abdefmrsu")
PRIVATE_MODES = frozenset({"6", "7", "25", "47", "1047", "1048", "1049", "2026"})  # origin, wrap, cursor, screens, sync
ESCAPES = frozenset({"\x1b7", "\x1b8", "\x1bD", "\x1bE", "\x1bM", "\x1b(0", "\x1b(B", "\x1b)0", "\x1b)B"})
# The main screen, colours, margins, wrap and cursor as they are in a terminal that a shell uses.
AFTERWARDS = "\x1b[?1049l\x1b[r\x1b[?6l\x1b[?7h\x1b[?25h\x1b(B\x0f\x1b[0m\r\n"


class Drawing:
    """Text comes in pieces that may end anywhere; what passes does not depend on where."""

    def __init__(self) -> None:
        self._begun = ""
        self._in_string = False

    def feed(self, text: str) -> str:
        """What of it may be written now."""
        text = self._begun + text
        self._begun = ""
        made: list[str] = []
        at = 0
        while at < len(text):
            if self._in_string:
                at = self._skip(text, at)
            elif (piece := PIECE.match(text, at)) is not None:
                made.append(self._allowed(piece))
                at = piece.end()
            else:
                begun = BEGUN.match(text, at)
                if begun is not None and begun.end() == len(text):
                    self._begun = text[at:]
                    break
                at += 2 if text.startswith("\x1b[", at) else 1  # an introducer of nothing: what follows is text
        return "".join(made)

    def _skip(self, text: str, at: int) -> int:
        end = STRING_END.search(text, at)
        if end is None:
            self._begun = "\x1b" if text.endswith("\x1b") else ""
            return len(text)
        self._in_string = False
        aborted = end[0] == "\x1b"  # by the sequence that begins here
        return end.start() if aborted else end.end()

    def _allowed(self, piece: re.Match[str]) -> str:
        if piece["text"]:
            return piece["text"]
        if piece["string"]:
            self._in_string = True
            return ""
        if piece["escape"]:
            return piece[0] if piece[0] in ESCAPES else ""
        if piece["control"]:
            return piece[0] if piece[0] in CONTROLS else ""
        return _sequence(piece["parameters"], piece["between"], piece["final"])


def _sequence(parameters: str, between: str, final: str) -> str:
    if final in "hl" and not between and parameters.startswith("?"):
        modes = [mode for mode in parameters[1:].split(";") if mode in PRIVATE_MODES]
        return f"\x1b[?{';'.join(modes)}{final}" if modes else ""
    if final in FINALS and not between and re.fullmatch(r"[0-9;:]*", parameters):
        return f"\x1b[{parameters}{final}"
    return ""
