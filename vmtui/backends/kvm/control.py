"""The control socket of a running VM: calls over `vmtui.wire`, and its terminal."""

from __future__ import annotations

import asyncio
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

from vmtui.core.errors import OperationFailed
from vmtui.guests.stream import StreamTerminal
from vmtui.host import trace
from vmtui.wire import client, lines
from vmtui.wire.lines import WireError
from vmtui.wire.server import CallFailed

READS = frozenset({"info", "metrics"})
TIMEOUT_S = 5.0


async def call(socket: Path, name: str, *, timeout: float = TIMEOUT_S, **args: Any) -> Any:
    """One call on a connection of its own. Raises OperationFailed: the VM is gone, does not answer, or says no."""
    with trace.begin(trace.Way.WIRE, lambda: _words(socket, name, args), reads=name in READS):
        try:
            async with await client.connect(socket, timeout=timeout) as connected:
                result = await connected.call(name, timeout=timeout, **args)
        except CallFailed as error:
            raise OperationFailed(f"the VMM refuses {name}: {error}") from None
        except TimeoutError:
            raise OperationFailed(f"the VMM does not answer on {socket} within {timeout:g} s") from None
        except (OSError, WireError) as error:
            raise OperationFailed(f"the VMM cannot be reached on {socket}: {error}") from None
    return result


def _words(socket: Path, name: str, args: dict[str, Any]) -> tuple[str, ...]:
    """What asks the VMM the same from a shell."""
    told = lines.encode({"id": 1, "call": name, "args": args}).decode().strip()
    return ("sh", "-c", f"echo {shlex.quote(told)} | socat - UNIX-CONNECT:{shlex.quote(str(socket))}")


class VmTerminal(StreamTerminal):
    """Several may be attached at once, and each first gets what the guest said before."""

    def __init__(self, socket: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._socket = socket

    async def resize(self, rows: int, columns: int) -> None:
        with suppress(OperationFailed):
            await call(self._socket, "console_size", rows=rows, columns=columns)


async def attach(socket: Path) -> VmTerminal:
    """Raises OperationFailed: the VM is gone, or too many are attached."""
    writer = None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(socket, limit=lines.MAX_LINE_BYTES)
            lines.decode(await reader.readuntil(b"\n"))
            writer.write(lines.encode({"id": 1, "call": "console", "args": {}}))
            while (answer := lines.decode(await reader.readuntil(b"\n"))).get("id") != 1:
                pass  # an event
    except (OSError, EOFError, WireError, asyncio.LimitOverrunError) as error:
        if writer is not None:
            writer.close()
        raise OperationFailed(f"cannot attach to the console: {error or 'no answer'}") from None
    except BaseException:
        if writer is not None:
            writer.close()
        raise
    if isinstance(refusal := answer.get("error"), dict):
        writer.close()
        raise OperationFailed(f"cannot attach to the console: {refusal.get('message')}")
    return VmTerminal(socket, reader, writer)
