"""The wire: framing against hostile bytes, and a server with its client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtui.host.paths import Paths
from vmtui.wire.client import Client, connect
from vmtui.wire.lines import MAX_DEPTH, MAX_LINE_BYTES, Decoder, Message, WireError, channels, decode, encode
from vmtui.wire.server import MAX_CLIENTS, CallFailed, Server

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
messages = st.dictionaries(st.text(max_size=8), json_values, max_size=5)


@given(st.lists(messages, max_size=6), st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_however_a_stream_is_cut_the_messages_are_the_same(sent: list[Message], cuts: list[int]) -> None:
    stream, decoder, received = b"".join(map(encode, sent)), Decoder(), []
    at = 0
    while at < len(stream):
        size = cuts[at % len(cuts)]
        received += decoder.feed(stream[at : at + size])
        at += size
    assert received == sent
    assert not decoder.partial


@given(st.lists(st.binary(max_size=200) | st.sampled_from([b"\n", b"{", b"}", b"[" * 300, b'{"a":' * 50]), max_size=20))
def test_any_bytes_are_messages_or_a_wire_error(chunks: list[bytes]) -> None:
    decoder = Decoder()
    try:
        for chunk in chunks:
            assert all(isinstance(message, dict) for message in decoder.feed(chunk))
    except WireError:
        pass


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"1",
        b"null",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b"{" * 100,
        b"\xff",
        b'{"a":1} {"b":2}',
        b'{"a":' + b"9" * 5000 + b"}",
        b"[" * 60000,
        b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}",
        b'{"a":"' + b"x" * MAX_LINE_BYTES + b'"}',
    ],
    ids=range(13),
)
def test_what_is_no_message(line: bytes) -> None:
    with pytest.raises(WireError):
        decode(line)


def test_depth_up_to_the_bound() -> None:
    nested: Any = 1
    for _ in range(MAX_DEPTH - 1):
        nested = [nested]
    assert decode(encode({"a": nested})) == {"a": nested}


def test_a_line_without_end_is_refused_early() -> None:
    decoder = Decoder()
    for _ in range(MAX_LINE_BYTES // 1000):
        assert decoder.feed(b"x" * 1000) == []
    with pytest.raises(WireError):
        decoder.feed(b"x" * 1000)


def test_a_message_too_long_is_not_sent() -> None:
    with pytest.raises(WireError, match="longer than"):
        encode({"a": "x" * MAX_LINE_BYTES})


def test_a_channel_ends() -> None:
    ours, theirs = channels()
    theirs.send({"n": 1})
    theirs.send({"n": 2})
    assert (ours.receive(), ours.receive()) == ({"n": 1}, {"n": 2})
    theirs.close()
    assert ours.receive() is None
    with pytest.raises(WireError):
        ours.send({"n": 3})
    ours.close()


def test_a_channel_takes_up_what_receive_left() -> None:
    ours, theirs = channels()
    for n in range(3):
        theirs.send({"n": n})
    assert ours.receive() == {"n": 0}
    theirs.send({"n": 3})
    assert ours.available() == [{"n": 1}, {"n": 2}, {"n": 3}]
    theirs.close()
    assert ours.available() is None
    ours.close()


class Program:
    """A server in a thread, as a small program has it in its loop."""

    def __init__(self, path: Path) -> None:
        handlers = {"add": lambda args: args["a"] + args["b"], "fail": self.fail, "big": lambda _: "x" * 70000}
        self.server = Server(path, "test", handlers)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @staticmethod
    def fail(args: Message) -> None:
        raise CallFailed("no", f"because {args['why']}")

    def _run(self) -> None:
        while not self._ended.is_set():
            self.server.step(0.01)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self.server.close()


@pytest.fixture
def path(paths: Paths) -> Path:
    return paths.runtime / "wire"


@pytest.fixture
def program(path: Path) -> Iterator[Program]:
    made = Program(path)
    yield made
    made.close()
    assert not path.exists()


@pytest.fixture
async def client(program: Program, path: Path) -> AsyncIterator[Client]:
    async with await connect(path) as made:
        yield made


async def test_calls(client: Client) -> None:
    assert client.service == "test"
    assert await client.call("add", a=1, b=2) == 3
    assert await asyncio.gather(*(client.call("add", a=n, b=n) for n in range(50))) == [2 * n for n in range(50)]
    with pytest.raises(CallFailed, match="because of it") as caught:
        await client.call("fail", why="of it")
    assert caught.value.code == "no"
    with pytest.raises(CallFailed) as caught:
        await client.call("nonsense")
    assert caught.value.code == "unknown-call"


async def test_the_socket_is_private(program: Program, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


async def test_events_reach_all(program: Program, client: Client, path: Path) -> None:
    async with await connect(path) as other:
        program.server.broadcast("changed", n=1)
        for each in (client, other):
            async with asyncio.timeout(60):
                assert await anext(each.events()) == {"event": "changed", "n": 1}


async def test_the_end_of_the_server_fails_calls(program: Program, client: Client) -> None:
    assert await client.call("add", a=1, b=1) == 2
    program.close()
    with pytest.raises(WireError):
        await client.call("add", a=1, b=1)
    assert [event async for event in client.events()] == []
    program._ended.clear()  # the fixture closes it again
    program._thread = threading.Thread(target=lambda: None)
    program._thread.start()


async def test_an_answer_that_is_too_long_ends_the_connection_alone(client: Client, path: Path) -> None:
    with pytest.raises(WireError):
        await client.call("big")
    async with await connect(path) as other:
        assert await other.call("add", a=1, b=1) == 2


@pytest.mark.parametrize(
    "sent", [b"garbage\n", b'{"id":1}\n', b'{"id":"x","call":"add"}\n', b"x" * (MAX_LINE_BYTES + 1)]
)
async def test_who_breaks_the_protocol_is_dropped_alone(client: Client, path: Path, sent: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    assert json.loads(await reader.readline()) == {"wire": 1, "service": "test"}
    writer.write(sent)
    async with asyncio.timeout(60):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()
    assert await client.call("add", a=1, b=1) == 2


async def test_who_does_not_read_is_dropped_alone(program: Program, client: Client, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as lazy:
        lazy.connect(str(path))
        call = encode({"id": 1, "call": "fail", "args": {"why": "x" * 30000}})
        with pytest.raises(OSError):
            lazy.sendall(call * 1000)
    assert await client.call("add", a=1, b=1) == 2


async def test_there_is_a_bound_on_clients(client: Client, path: Path) -> None:
    others = [await connect(path) for _ in range(MAX_CLIENTS - 1)]
    with pytest.raises(WireError):
        await connect(path)
    for other in others:
        await other.aclose()
    assert await client.call("add", a=1, b=1) == 2


async def test_another_version_is_refused(path: Path) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"wire":2,"service":"later"}\n')

    server = await asyncio.start_unix_server(greet, path)
    with pytest.raises(WireError, match="version 2"):
        await connect(path)
    server.close()


async def test_nobody_listens(path: Path) -> None:
    with pytest.raises(OSError):
        await connect(path)


async def test_who_listens_and_is_silent(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        with pytest.raises(TimeoutError):
            await connect(path, timeout=0.05)
    os.unlink(path)


async def test_a_call_has_a_time_out(path: Path) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"wire":1,"service":"slow"}\n')

    server = await asyncio.start_unix_server(greet, path)
    async with await connect(path) as client:
        with pytest.raises(TimeoutError):
            await client.call("anything", timeout=0.05)
    server.close()
