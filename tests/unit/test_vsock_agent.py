"""The host's side of exec sessions over vsock, with guests that are not there, not ready, or not ours."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from vmtui.core.errors import OperationFailed
from vmtui.guests import agent, vsock_agent
from vmtui.guests.agent import READY
from vmtui.guests.initramfs import Command
from vmtui.guests.vsock_agent import EXEC_PORT, SOCKET, dial, open_session

TRUE = Command(argv=("true",))
OTHER_PORT = 4000

Answer = Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def guest(folder: Path, answer: Answer) -> AsyncIterator[list[int]]:
    """A VM whose device hands each connection to `answer`, with the port; yields the ports that were asked for."""
    asked: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            word, number = (await reader.readline()).split()
            assert word == b"CONNECT"
            asked.append(int(number))
            await answer(int(number), reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, folder / SOCKET)
    async with server:
        yield asked


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vsock_agent, "READY_S", 2.0)
    monkeypatch.setattr(vsock_agent, "LINE_S", 0.15)


async def refuse(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As the device does where nobody listens: it hangs up."""


async def session(folder: Path) -> agent.GuestSession:
    return await open_session(folder, TRUE, tty=False, rows=1, columns=1)


async def test_a_vm_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(OperationFailed, match="the VM is gone"):
        await session(tmp_path)


async def test_a_port_that_nobody_listens_on(tmp_path: Path) -> None:
    async with guest(tmp_path, refuse) as asked:
        with pytest.raises(ConnectionRefusedError, match="port 80"):
            await dial(tmp_path, 80)
    assert asked == [80]


async def test_a_guest_that_is_not_ready_is_asked_again(tmp_path: Path) -> None:
    async with guest(tmp_path, refuse) as asked:
        with pytest.raises(OperationFailed, match="does not answer"):
            await session(tmp_path)
    assert set(asked) == {EXEC_PORT}
    assert len(asked) >= 2


@pytest.mark.parametrize(
    "said", [b"", b"\n", b"port\n", b"-1\n", b"9" * 5000 + b"\n", b"1" * 70000, b"\xff\0\n", b"99999999999999\n"]
)
async def test_a_guest_that_talks_nonsense(tmp_path: Path, said: bytes) -> None:
    async def answer(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if port == EXEC_PORT:
            writer.write(b"OK 1073741824\n" + said)
            await reader.read()

    async with guest(tmp_path, answer) as asked:
        with pytest.raises(OperationFailed, match="does not answer"):
            await session(tmp_path)
    assert asked.count(EXEC_PORT) >= 2


async def test_a_guest_that_says_nothing_is_left(tmp_path: Path) -> None:
    async def answer(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with guest(tmp_path, answer):
        with pytest.raises(OperationFailed, match="does not answer"):
            await session(tmp_path)


async def test_a_session_has_three_streams_in_this_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vsock_agent, "READY_S", 60.0)
    monkeypatch.setattr(vsock_agent, "LINE_S", 60.0)
    streams: list[asyncio.StreamWriter] = []
    nonce: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def answer(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"OK 1073741824\n")
        streams.append(writer)
        match len(streams):
            case 1:
                assert port == EXEC_PORT
                writer.write(b"%d\n" % OTHER_PORT)
                assert await reader.readline() == b"\n"  # a knock
                request = await reader.readline()
                nonce.set_result(base64.b64decode(request).split(b"\n")[0].removeprefix(b"nonce="))
                await reader.read()
            case 2:
                assert port == OTHER_PORT
                writer.write(b"\n" + READY)
                writer.write(b"\0%b out \0%b" % (await nonce, await nonce))
                await reader.read()
            case 3:
                writer.write(b"\0%b err \0%b5\n" % (await nonce, await nonce))
                await reader.read()

    async with guest(tmp_path, answer) as asked:
        made = await session(tmp_path)
        said = dict([await made.read() or ("", b""), await made.read() or ("", b"")])
        assert said == {"stdout": b" out ", "stderr": b" err "}
        assert await made.wait() == 5
        await made.aclose()
    assert asked == [EXEC_PORT, OTHER_PORT, OTHER_PORT]
