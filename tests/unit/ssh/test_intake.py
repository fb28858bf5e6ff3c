"""What a client has sent on a channel has a bound, however slowly it is taken, and all of it comes, in order."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import asyncssh

from tests.support.ssh_clients import HOST
from vmtui.ssh.channel import WINDOW_BYTES
from vmtui.ssh.intake import Intake

SENT = bytes(range(256)) * (8 << 12)  # 8 MiB
PACKET_BYTES = 32 << 10


class Slow(asyncssh.SSHServerSession[bytes]):
    """Takes a piece, and lets all that is there come in before the next."""

    def __init__(self) -> None:
        self.intake = Intake()
        self.got = hashlib.sha256()
        self.most = 0
        self._here = 0

    def connection_made(self, chan: Any) -> None:
        self.channel = self.intake.channel = chan

    def exec_requested(self, command: str) -> bool:
        return True

    def session_started(self) -> None:
        self.task = asyncio.create_task(self._run())

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._here += len(data)
        self.intake.put(data)

    def eof_received(self) -> bool:
        self.intake.end()
        return True

    async def _run(self) -> None:
        while data := await self.intake.take():
            self.got.update(data)
            for _ in range(5):
                await asyncio.sleep(0.001)
                kept_back = sum(len(piece) for piece, _ in self.channel._recv_buf)
                self.most = max(self.most, self._here + kept_back)
            self._here -= len(data)
        self.channel.exit(0)


async def test_it_has_a_bound_and_loses_nothing() -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    slow = Slow()

    class Server(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return False

        def session_requested(self) -> Slow:
            return slow

    listener = await asyncssh.listen(
        HOST, 0, server_factory=Server, server_host_keys=[key], window=WINDOW_BYTES, encoding=None
    )
    async with listener, asyncssh.connect(HOST, listener.get_port(), known_hosts=None, config=None) as connection:
        done = await asyncio.wait_for(connection.run("take", input=SENT, encoding=None), 120)
    assert done.exit_status == 0
    assert slow.got.digest() == hashlib.sha256(SENT).digest()
    assert WINDOW_BYTES < slow.most <= 2 * WINDOW_BYTES + PACKET_BYTES
