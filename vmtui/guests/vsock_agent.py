"""Exec sessions in a VM over vsock: the host's side of guest/vsock.S and guest/exec.

A session is three streams to the guest, which end with whoever opened them: there is nothing to hold or to release.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path

from vmtui.core.errors import OperationFailed
from vmtui.guests import agent
from vmtui.guests.agent import CHUNK, READY_S, GuestSession
from vmtui.guests.initramfs import Command

SOCKET = "vsock.sock"  # in the folder of the VM's sockets; as Firecracker's docs/vsock.md has it
EXEC_PORT = 1023  # guest/lib; a port of the guest's root alone
AGAIN_S = 0.1
LINE_S = 5.0  # within which a guest that listens has said where to connect
CLOSE_S = 2.0

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Streams:
    """An agent.Slot: stdin, stdout and stderr of one session."""

    def __init__(self) -> None:
        self.readers: list[asyncio.StreamReader] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self, sockets: Path) -> None:
        """Raises OSError, ValueError: the guest does not do as ours does."""
        reader = await self._add(sockets, EXEC_PORT)
        port = int(await reader.readuntil())
        await self._add(sockets, port)
        await self._add(sockets, port)
        await agent.heard_ready(self.readers[1])

    async def _add(self, sockets: Path, port: int) -> asyncio.StreamReader:
        reader, writer = await dial(sockets, port)
        self.readers.append(reader)
        self.writers.append(writer)
        return reader

    async def aclose(self) -> None:
        for writer in self.writers:
            writer.close()
        for writer in self.writers:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await writer.wait_closed()


async def dial(sockets: Path, port: int) -> Stream:
    """Connect to a port of the guest. Raises ConnectionRefusedError: nobody listens there; OSError: there is no VM."""
    reader, writer = await asyncio.open_unix_connection(sockets / SOCKET, limit=CHUNK)
    try:
        writer.write(b"CONNECT %d\n" % port)
        line = await reader.readline()
        if not line.startswith(b"OK "):
            raise ConnectionRefusedError(f"nothing in the VM listens on vsock port {port}")
    except BaseException:
        writer.close()
        raise
    return reader, writer


async def open_session(sockets: Path, command: Command, *, tty: bool, rows: int, columns: int) -> GuestSession:
    """Run a command in the guest. Raises InvalidInput, OperationFailed: there is no VM, or it does not answer."""
    return await agent.open_session(lambda: _connected(sockets), command, tty=tty, rows=rows, columns=columns)


async def _connected(sockets: Path) -> Streams:
    deadline = time.monotonic() + READY_S
    while True:
        streams = Streams()
        try:
            async with asyncio.timeout(LINE_S):
                await streams.connect(sockets)
            return streams
        except FileNotFoundError:
            raise OperationFailed("the VM is gone") from None
        except (OSError, ValueError, EOFError, TimeoutError, asyncio.LimitOverrunError):  # it may just be booting
            await streams.aclose()
        except BaseException:
            await streams.aclose()
            raise
        if time.monotonic() > deadline:
            raise OperationFailed("the VM's agent does not answer", hint="see its log: vmtui logs")
        await asyncio.sleep(AGAIN_S)
