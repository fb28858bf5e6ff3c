"""How much of a stream is interpreted between two looks at the clock."""

from __future__ import annotations

SLICE_S = 0.008  # of a turn of the loop, for a console that is shown
HIDDEN_SLICE_S = 0.002  # for one that is not
BULK_BYTES = 48 << 10  # plain lines go at 30 MB/s
PIECE_BYTES = 4 << 10  # anything else at 1 MB/s or more
MOST_SEQUENCES = 32  # each may clear the whole screen, at 0.4 ms
ESC, NEWLINE, LINE_END = b"\x1b", b"\n", b"\r\n"


def next_piece(data: bytes | bytearray) -> int:
    """The length of the next piece of `data` that surely takes only a few milliseconds."""
    if len(data) <= 64:
        return len(data)
    bulk = data[:BULK_BYTES]
    escape = bulk.find(ESC)
    plain = bulk if escape < 0 else bulk[:escape]
    if len(plain) > PIECE_BYTES and plain.isascii() and plain.count(NEWLINE) == plain.count(LINE_END):
        return len(plain)
    end = min(len(data), PIECE_BYTES)
    at = -1
    for _ in range(MOST_SEQUENCES):
        at = data.find(ESC, at + 1, end)
        if at < 0:
            return end
    return max(at, 1)
