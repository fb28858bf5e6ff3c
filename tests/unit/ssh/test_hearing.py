"""What a session says of its acts, however much of it there is."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from vmtui.ssh import hearing
from vmtui.ssh.hearing import Hearing
from vmtui.wire import served
from vmtui.wire.lines import WireError
from vmtui.wire.served import Audited


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def line(number: int, padding: str = "") -> bytes:
    return served.encode(Audited("stop", (), "done", f"{number}{padding}"))


async def test_all_that_was_said_before_the_end_is_heard(ends: tuple[socket.socket, socket.socket]) -> None:
    """More than is read at once, and the longest that there can be."""
    ours, theirs = ends
    heard: list[Audited] = []
    wrong: list[WireError] = []
    listening = Hearing(ours, heard.append, wrong.append)
    refs = tuple("\x00" * served.MAX_REF for _ in range(20))
    theirs.sendall(b"".join(line(number) for number in range(200)) + served.encode(Audited("stop", refs)) + line(200))
    theirs.close()
    await listening.rest()
    listening.close()
    assert [told.message for told in heard] == [*map(str, range(200)), "", "200"]
    assert not wrong


async def test_who_says_more_than_can_be_written_waits(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "AT_ONCE", 20.0)
    monkeypatch.setattr(hearing, "A_SECOND", 0.001)
    ours, theirs = ends
    heard: list[Audited] = []
    wrong: list[WireError] = []
    listening = Hearing(ours, heard.append, wrong.append)
    theirs.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            for _ in range(50):
                sent += theirs.send(line(0, "x" * 1000)) > 0
            await asyncio.sleep(0.01)
    few = 20 + hearing.PIECE_BYTES // 1000
    assert len(heard) <= few < sent
    await listening.rest()
    listening.close()
    assert (len(heard), wrong) == (sent, [])


async def test_nothing_is_heard_of_who_says_what_it_must_not(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    heard: list[Audited] = []
    wrong: list[WireError] = []
    listening = Hearing(ours, heard.append, wrong.append)
    theirs.sendall(line(1))
    await asyncio.sleep(0.05)
    theirs.sendall(b"x\n" + line(2))
    await asyncio.sleep(0.05)
    listening.close()
    assert ([told.message for told in heard], len(wrong)) == (["1"], 1)
