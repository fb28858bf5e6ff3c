"""How much of a stream is interpreted between two looks at the clock."""

from __future__ import annotations

import re

SLICE_S = 0.008  # of a turn of the loop, for a console that is shown
HIDDEN_SLICE_S = 0.002  # for one that is not
BULK_BYTES = 48 << 10  # plain lines go at 30 MB/s
COLOURED_BYTES = 24 << 10  # coloured ones at 5 MB/s
PIECE_BYTES = 4 << 10  # anything else at 1 MB/s or more
MOST_SEQUENCES = 32  # each may clear the whole screen, at 0.4 ms
ESC = b"\x1b"
SGR = re.compile(rb"\x1b\[[0-9;:]*m")


def next_piece(data: bytes | bytearray) -> int:
    """The length of the next piece of `data` that surely takes only a few milliseconds."""
    if len(data) > PIECE_BYTES:
        most = BULK_BYTES if data.find(ESC, 0, BULK_BYTES) < 0 else COLOURED_BYTES
        lines = data[: data.rfind(b"\n", 0, most) + 1]
        if len(lines) > PIECE_BYTES and _of_text(lines):
            return len(lines)
    end = min(len(data), PIECE_BYTES)
    at = -1
    for _ in range(MOST_SEQUENCES + 1):
        at = data.find(ESC, at + 1, end)
        if at < 0:
            return end
    return at


def _of_text(lines: bytes | bytearray) -> bool:
    """Whether these are ASCII and colours, in lines."""
    return (
        lines.isascii()
        and lines.count(b"\n") == lines.count(b"\r\n")
        and lines.count(ESC) == sum(1 for _ in SGR.finditer(lines))
    )
