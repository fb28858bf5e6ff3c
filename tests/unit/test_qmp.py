"""The QEMU machine protocol, towards a QEMU that ends at any moment."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

from vmtui.backends.qemu import qmp
from vmtui.core.errors import OperationFailed

GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\r\n'
)
NOTHING = b'{"return": {}}\r\n'


@pytest.mark.parametrize("said", [b"", GREETING[:20], GREETING, GREETING + NOTHING[:5], GREETING + NOTHING])
async def test_one_that_ends_while_it_is_asked_does_not_answer(said: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        writer.close()

    with tempfile.TemporaryDirectory(prefix="vt-", dir="/tmp") as folder:
        socket = Path(folder) / "qmp.sock"
        server = await asyncio.start_unix_server(serve, str(socket))
        for _ in range(20):
            with pytest.raises(OperationFailed, match="qemu does not answer on"):
                await qmp.status(socket, timeout=60.0)
        server.close()
