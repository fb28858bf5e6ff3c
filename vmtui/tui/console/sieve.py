"""What a guest writes, cut down to what the emulator behind may see.

Control strings (OSC, DCS, APC, PM, SOS) end here: titles, clipboards, downloads and pictures have no meaning in the
panel, and an emulator would buffer them for as long as the guest likes. What is left are characters, C0 controls and
complete escape sequences of bounded length with bounded numbers.
"""

from __future__ import annotations

import codecs
import re

ESC = "\x1b"
LONGEST_SEQUENCE = 128
LARGEST = "9999"  # a number in a sequence; above any screen and any mode
# C1 controls (UTF-8 terminals do not act on them), directions, line separators, invisible marks and tags: the
# categories Cc, Cf, Zl and Zp of Unicode. The zero width joiner stays: it makes one picture of several.
UNWANTED = re.compile(
    "[\x80-\x9f\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b\u200c\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\U000110bd\U000110cd\U00013430-\U0001345f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# The start of anything that cannot go on as it is; all other sequences are passed over at the speed of the search.
SUSPECT = re.compile(
    rf"\x1b(?:[]P_^Xk]|\[(?![0-?]{{0,{LONGEST_SEQUENCE}}}[ -/]{{0,2}}[@-~])|\[(?=[0-?]*[0-9]{{5}})|\Z)"
)
SEQUENCE = re.compile(r"\x1b\[([0-?]*)([ -/]*[@-~])")
NUMBER = re.compile(r"[0-9]{5,}")
# A line end also ends an OSC: none that is meant contains one, and a lost terminator must not swallow the console.
LINE_STRING_END = re.compile(r"\x07|\x18|\x1a|\x1b\\|(?=\x1b[^\\])|(?=[\r\n])")
BLOCK_STRING_END = re.compile(r"\x18|\x1a|\x1b\\|(?=\x1b[^\\])")
LINE_STRINGS = "]k"
# The Linux console's palette sequences use the introducer of OSC and have no terminator (console_codes(4)).
LINUX_PALETTE = re.compile(r"\x1b\](?:R|P[0-9A-Fa-f]{7})")
LINUX_PALETTE_BEGUN = re.compile(r"\x1b\](?:P[0-9A-Fa-f]{0,6})?\Z")


class Sieve:
    """Takes any bytes in any pieces."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # the begin of a sequence whose rest has not come
        self._inside = ""  # the introducer of the string that is being dropped

    def pass_on(self, data: bytes) -> str:
        """The part of `data`, and of what was held back, that is harmless."""
        text = self._held + self._decoder.decode(data)
        self._held = ""
        if not text.isascii():
            text = UNWANTED.sub("", text)
        if not self._inside and ESC not in text:
            return text
        parts: list[str] = []
        at = self._leave_string(text, 0) if self._inside else 0
        while (match := SUSPECT.search(text, at)) is not None:
            start = match.start()
            parts.append(text[at:start])
            match text[start + 1 : start + 2]:
                case "":
                    self._held = ESC
                    at = len(text)
                case "[":
                    at = self._sequence(text, start, parts)
                case introducer:
                    at = self._string(text, start, introducer)
        parts.append(text[at:])
        return "".join(parts)

    def _string(self, text: str, start: int, introducer: str) -> int:
        if introducer == "]":
            if (palette := LINUX_PALETTE.match(text, start)) is not None:
                return palette.end()
            if LINUX_PALETTE_BEGUN.match(text, start):
                self._held = text[start:]
                return len(text)
        self._inside = introducer
        return self._leave_string(text, start + 2)

    def _leave_string(self, text: str, at: int) -> int:
        """Where the string ends that `at` is in; the end of the text if it goes on."""
        pattern = LINE_STRING_END if self._inside in LINE_STRINGS else BLOCK_STRING_END
        if (end := pattern.search(text, at)) is not None:
            self._inside = ""
            return end.end()
        if text.endswith(ESC) and len(text) > at:
            self._held = ESC
        return len(text)

    def _sequence(self, text: str, start: int, parts: list[str]) -> int:
        """One that is long, unfinished, or has controls in it; those act at once, as in a VT."""
        body: list[str] = []
        for at in range(start + 2, len(text)):
            char = text[at]
            if char in "\x18\x1a":
                return at + 1
            if char == ESC or not char.isascii():
                return at
            if char < " ":
                parts.append(char)
            elif char != "\x7f":
                if len(body) <= LONGEST_SEQUENCE:
                    body.append(char)
                if char >= "@":
                    parts.append(self._bounded("".join(body)))
                    return at + 1
        self._held = f"{ESC}[{''.join(body)}"
        return len(text)

    @staticmethod
    def _bounded(body: str) -> str:
        match = SEQUENCE.fullmatch(f"{ESC}[{body}")
        if match is None or len(body) > LONGEST_SEQUENCE:
            return ""
        return f"{ESC}[{NUMBER.sub(LARGEST, match[1])}{match[2]}"
