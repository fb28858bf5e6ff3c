"""The little that is said to a QEMU program over QMP (docs/interop/qmp-spec.rst): a command, and its answer."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

ANSWER_S = 10.0
MAX_LINE_BYTES = 64 << 10


class Qmp:
    """Owns the socket. The program is not trusted: what it sends is bounded, and waited for no longer than ANSWER_S."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._data = b""
        self._greeted = False

    def execute(self, command: str, arguments: dict[str, Any]) -> None:
        """Raises OSError: it refuses, is gone, or does not answer."""
        deadline = time.monotonic() + ANSWER_S
        if not self._greeted:
            self._line(deadline)
            self._ask("qmp_capabilities", {}, deadline)
            self._greeted = True
        self._ask(command, arguments, deadline)

    def _ask(self, command: str, arguments: dict[str, Any], deadline: float) -> None:
        self._socket.settimeout(ANSWER_S)
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = self._line(deadline)
            if "error" in answer:
                error = answer["error"]
                raise OSError(str(error.get("desc") if isinstance(error, dict) else error)[:500])
            if "return" in answer:
                return  # all else is an event

    def _line(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._data:
            if len(self._data) > MAX_LINE_BYTES:
                raise OSError("the storage daemon's answer has no end")
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the storage daemon does not answer")
            self._socket.settimeout(left)
            part = self._socket.recv(4096)
            if not part:
                raise OSError("the storage daemon is gone")
            self._data += part
        line, _, self._data = self._data.partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise OSError("the storage daemon does not speak QMP")
        return answer

    def close(self) -> None:
        self._socket.close()
