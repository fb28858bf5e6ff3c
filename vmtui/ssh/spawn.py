"""What the server asks of the fork server, and what it hears of it: one packet a message, descriptors beside it."""

from __future__ import annotations

import array
import os
import socket
from typing import TypeVar

import msgspec

from vmtui.core.policy import Person, Role
from vmtui.core.specs import decode_unit, encode_unit

T = TypeVar("T")
MAX_PACKET_BYTES = 128 << 10  # within the default of net.core.wmem_max
MAX_FDS = 4
NO_USER = -1


class Spawn(msgspec.Struct, frozen=True, tag="spawn"):
    """Fork a session. Beside it: its terminal, or stdin, stdout and stderr; then its end of the control socket."""

    number: int
    person: Person
    role: Role
    argv: tuple[str, ...]
    environment: dict[str, str]
    terminal: bool
    panel: bool
    files: bool = False
    uid: int = NO_USER
    gid: int = NO_USER
    groups: tuple[int, ...] = ()


class Signal(msgspec.Struct, frozen=True, tag="signal"):
    """To the process group in front of its terminal, which `group` names; 0: to the session's own."""

    number: int
    signal: int
    group: int = 0


class HangUp(msgspec.Struct, frozen=True, tag="hang-up"):
    """SIGHUP now, and SIGKILL to all of the session after `grace_s`."""

    number: int
    grace_s: float


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """All is imported: forks are cheap from now on."""


class Spawned(msgspec.Struct, frozen=True, tag="spawned"):
    number: int
    pid: int


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """No process was made, and none of it is left."""

    number: int
    why: str


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """It is gone with all that belonged to it. `code` is 128+n for a signal."""

    number: int
    code: int


ToForks = Spawn | Signal | HangUp
FromForks = Ready | Spawned | Refused | Ended
_TO: msgspec.json.Decoder[ToForks] = msgspec.json.Decoder(ToForks, dec_hook=decode_unit)
_FROM: msgspec.json.Decoder[FromForks] = msgspec.json.Decoder(FromForks)


class Unfit(Exception):
    """A packet that is no message, or would be too long. The connection stays usable."""


def encode(message: ToForks | FromForks) -> bytes:
    """Raises Unfit."""
    try:
        packet = msgspec.json.encode(message, enc_hook=encode_unit)  # a role has a duration
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise Unfit(f"it cannot be written as JSON: {error}") from None
    if len(packet) > MAX_PACKET_BYTES:
        raise Unfit(f"it has {len(packet)} bytes, and {MAX_PACKET_BYTES} are allowed")
    return packet


def send(sock: socket.socket, packet: bytes, fds: tuple[int, ...] = ()) -> None:
    """Raises OSError, BlockingIOError among them; then nothing was sent."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([packet], rights)


def receive_asked(sock: socket.socket) -> tuple[ToForks, list[int]] | None:
    """For the fork server: the next message and its descriptors, which the caller owns; None when the server is gone.

    Without room for all descriptors it comes with none. Raises Unfit (they are closed then), OSError.
    """
    packet, ancillary, flags, _ = sock.recvmsg(MAX_PACKET_BYTES, socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize))
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if not packet and not fds:
        return None
    try:
        if flags & socket.MSG_TRUNC:
            raise Unfit("it is longer than allowed")
        message = _decoded(packet, _TO)
    except Unfit:
        close_all(fds)
        raise
    if flags & socket.MSG_CTRUNC:
        close_all(fds)
        return message, []
    return message, list(fds)


def receive_told(sock: socket.socket) -> FromForks | None:
    """For the server: the next message; None when the fork server is gone. Raises Unfit, OSError."""
    packet = sock.recv(MAX_PACKET_BYTES)
    return _decoded(packet, _FROM) if packet else None


def close_all(fds: list[int] | array.array[int]) -> None:
    for fd in fds:
        os.close(fd)


def _decoded(packet: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(packet)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unfit(f"it is no message: {error}") from None
