"""A connection as asyncssh has it, with what is ours to decide: who is let in, and how much is kept for a slow client.

Only names that asyncssh has without an underscore are used, but for the session's id, which the signature of a login
is over, the transport, whose buffer asyncssh does not look at, and what is said with the key exchange.
"""

from __future__ import annotations

import asyncio

import asyncssh
from asyncssh.packet import PacketDecodeError, SSHPacket, String

from vmtui.ssh.channel import WINDOW_BYTES, Channel
from vmtui.ssh.gate import Login
from vmtui.ssh.visitor import Visitor

BEHIND_BYTES = 1 << 20  # of what a client has not read: from here on nothing more of it is read either
PACKET_BYTES = 32 << 10
# dropbear's clients send their key exchange on a guess. asyncssh judges the guess by this rule and not by that of
# RFC 4253, section 7, so it has to say so (dropbear's common-algo.h); without it they are not understood.
KEX_GUESS = b"kexguess2@matt.ucc.asn.au"
SHA1 = b"ssh-rsa"  # RFC 8332: the signature algorithm that is no longer to be used


class Connection(asyncssh.SSHServerConnection):
    """One client."""

    _owner: Visitor

    async def reload_config(self) -> None:
        """There is no sshd_config that could say something else of one user."""

    def _get_extra_kex_algs(self) -> list[bytes]:
        return [*super()._get_extra_kex_algs(), KEX_GUESS]

    async def validate_public_key(self, username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        """Whether this key, or its signature if there is one, lets in."""
        visitor = self._owner
        login = Login(key_data, username, visitor.address, visitor.port)
        signed = String(self._session_id) + msg if msg else b""
        if signed and _algorithm(signature) in (SHA1, b""):
            return await visitor.refuse("a signature over SHA-1, or none")
        return await visitor.shows_key(login, signed, signature)

    def create_server_channel(
        self, encoding: str | None = None, errors: str = "strict", window: int = 0, max_pktsize: int = 0
    ) -> asyncssh.SSHServerChannel[bytes]:
        """Of bytes, whatever is asked for: no line editor, no decoder, and little is kept."""
        return Channel(
            self, asyncio.get_running_loop(), True, False, False, 0, 0, None, "strict", WINDOW_BYTES, PACKET_BYTES
        )

    def create_tcp_channel(
        self, encoding: str | None = None, errors: str = "strict", window: int = 0, max_pktsize: int = 0
    ) -> asyncssh.SSHTCPChannel[bytes]:
        """With the same window."""
        return super().create_tcp_channel(encoding, errors, WINDOW_BYTES, PACKET_BYTES)

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        if (visitor := self._owner) is not None:
            visitor.spoke()
        super().data_received(data, datatype)
        transport = self._transport
        if transport is not None and transport.get_write_buffer_size() > BEHIND_BYTES:
            transport.pause_reading()

    def pause_writing(self) -> None:
        if (visitor := self._owner) is not None:
            visitor.writable.clear()

    def resume_writing(self) -> None:
        if (visitor := self._owner) is not None:
            visitor.writable.set()
        if self._transport is not None:
            self._transport.resume_reading()


def _algorithm(signature: bytes) -> bytes:
    """By which it was made; b"" for what is no signature."""
    try:
        return SSHPacket(signature).get_string()
    except PacketDecodeError:
        return b""
