"""The telnet protocol as far as a terminal needs it: RFC 854, and the window size of RFC 1073."""

from __future__ import annotations

IAC, DONT, DO, WONT, WILL, SB, SE = 255, 254, 253, 252, 251, 250, 240
NAWS = 31


def escape(data: bytes) -> bytes:
    """What is typed, as it is sent. A bare CR would swallow a newline or zero byte that follows it."""
    return data.replace(b"\xff", b"\xff\xff").replace(b"\r", b"\r\0")


def window_size(rows: int, columns: int) -> bytes:
    """The option; a byte of 255 would have to be doubled, which busybox does not undo: one less then."""
    numbers = [_tame(columns), _tame(rows)]
    return bytes([IAC, SB, NAWS]) + b"".join(number.to_bytes(2, "big") for number in numbers) + bytes([IAC, SE])


def _tame(number: int) -> int:
    bounded = max(1, min(number, 1000))
    return bounded - 1 if bounded & 0xFF == IAC else bounded


class Decoder:
    """Takes the commands out of what comes; commands may be cut anywhere."""

    def __init__(self) -> None:
        self._state = "data"

    def feed(self, data: bytes) -> bytes:
        if self._state == "data" and IAC not in data:
            return data
        out = bytearray()
        for byte in data:
            match self._state:
                case "data" if byte == IAC:
                    self._state = "command"
                case "data":
                    out.append(byte)
                case "command" if byte == IAC:
                    out.append(byte)
                    self._state = "data"
                case "command":
                    self._state = "option" if byte in (WILL, WONT, DO, DONT) else "sub" if byte == SB else "data"
                case "option":
                    self._state = "data"
                case "sub":
                    self._state = "sub-command" if byte == IAC else "sub"
                case "sub-command":
                    self._state = "data" if byte == SE else "sub"
        return bytes(out)
