"""A command with a terminal, as a Terminal."""

from __future__ import annotations

import asyncio

from vmtui.core.backend import ExecSession, Terminal

EXIT_WAIT_S = 2.0


class ExecTerminal:
    """A Terminal on a running command; `ending` says how it ended."""

    def __init__(self, session: ExecSession) -> None:
        self._session = session
        self.ending = ""

    async def read(self) -> bytes:
        piece = await self._session.read()
        if piece is not None:
            return piece[1]
        try:
            async with asyncio.timeout(EXIT_WAIT_S):
                self.ending = f"the command ended with code {await self._session.wait()}"
        except TimeoutError:
            self.ending = "the command ended"
        return b""

    async def write(self, data: bytes) -> None:
        await self._session.write(data)

    async def resize(self, rows: int, columns: int) -> None:
        await self._session.resize(rows, columns)

    async def aclose(self) -> None:
        await self._session.aclose()


def how_it_ended(terminal: Terminal) -> str:
    """What is known of the end of a stream."""
    return terminal.ending if isinstance(terminal, ExecTerminal) and terminal.ending else "the other side closed it"
