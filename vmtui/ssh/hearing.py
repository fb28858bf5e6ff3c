"""What a session process says of its acts: read no faster than can be written down, and all of it in the end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from vmtui.wire import served
from vmtui.wire.lines import WireError

PIECE_BYTES = 4 << 10  # what is read at once is written down at once: others wait for so long
AT_ONCE, A_SECOND = 1000.0, 100.0  # records; a session that says more has to wait, and the server has not


class Hearing:
    """Listens until `rest` or `close`. `heard` gets each record, `wrong` what is none: nothing is heard after that.

    The socket stays its owner's.
    """

    def __init__(
        self, control: socket.socket, heard: Callable[[served.ToServer], None], wrong: Callable[[WireError], None]
    ) -> None:
        self._control = control
        self._heard, self._wrong = heard, wrong
        self._reader = served.ToServerReader()
        self._loop = asyncio.get_running_loop()
        self._credit, self._since = AT_ONCE, self._loop.time()
        self._later: asyncio.TimerHandle | None = None
        self._listen()

    def _listen(self) -> None:
        self._loop.add_reader(self._control, self._hear)

    def _hear(self) -> None:
        try:
            count = self._read()
        except BlockingIOError:
            return
        if count is None:
            self.close()
            return
        now = self._loop.time()
        self._credit = min(AT_ONCE, self._credit + (now - self._since) * A_SECOND) - count
        self._since = now
        if self._credit < 0:
            self.close()
            self._later = self._loop.call_later(-self._credit / A_SECOND, self._listen)

    def _read(self) -> int | None:
        """How many records came; None if no more can. Raises BlockingIOError."""
        try:
            data = self._control.recv(PIECE_BYTES)
            told = self._reader.feed(data)
        except BlockingIOError:
            raise
        except OSError:
            return None
        except WireError as error:
            self._wrong(error)
            return None
        for record in told:
            self._heard(record)
        return len(told) if data else None

    async def rest(self) -> None:
        """What it said before it ended: what it has done is not less so since it has."""
        self.close()
        with contextlib.suppress(BlockingIOError):
            while self._read() is not None:  # noqa: ASYNC110 - others have their turn
                await asyncio.sleep(0)

    def close(self) -> None:
        self._loop.remove_reader(self._control)
        if self._later is not None:
            self._later.cancel()
            self._later = None
