"""The line from the server of a session: what it says, as calls of the panel, on its loop."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from vmtui.wire.lines import WireError
from vmtui.wire.served import Ending, Idle, Repaint, ToSession, ToSessionReader, Watched

if TYPE_CHECKING:
    from vmtui.tui.served import Served

READ_BYTES = 1 << 16


class ServerLine:
    """Hears until it is stopped or the server is gone. The flags of the descriptor stay: others write into it."""

    def __init__(self, fd: int, panel: Served) -> None:
        self._socket = socket.socket(fileno=fd)
        self._reader = ToSessionReader()
        self._panel = panel
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._read)

    def _read(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES, socket.MSG_DONTWAIT)
            messages = self._reader.feed(data)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, WireError):
            data, messages = b"", []
        for message in messages:
            self._hear(message)
        if not data:
            self.stop()
            self._panel.server_lost()

    def _hear(self, message: ToSession) -> None:
        if isinstance(message, Watched):
            self._panel.watched(message.names)
        elif isinstance(message, Idle):
            self._panel.idle(message.left_s)
        elif isinstance(message, Ending):
            self._panel.ends(message.reason)
        elif isinstance(message, Repaint):
            self._panel.repaint()

    def stop(self) -> None:
        """Hear no more; the descriptor stays open, as it was."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.detach())
