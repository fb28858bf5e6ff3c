"""Network namespaces for tests: one for the test itself, in place of the host's, and some for members and peers."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from vmtui.core.resource import Port
from vmtui.host.netns import CLONE_NEWNET, plug_veth

T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def fresh_namespace() -> Iterator[None]:
    """This thread, and all threads and processes that it starts, have a network of their own, with lo up."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _check(_libc.unshare(CLONE_NEWNET))
        ip("link set lo up")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
        try:
            yield
        finally:
            for pid in processes_here():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            _check(_libc.setns(home, CLONE_NEWNET))
    finally:
        os.close(home)


def _check(code: int) -> None:
    if code != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def ip(arguments: str) -> str:
    """Run ip(8). Raises CalledProcessError."""
    return subprocess.run(["ip", *arguments.split()], capture_output=True, check=True, text=True, timeout=90).stdout


def nft(script: str) -> None:
    """Run nft(8) with a script. Raises CalledProcessError."""
    subprocess.run(["nft", "-f", "-"], input=script, check=True, text=True, capture_output=True, timeout=90)


def processes_here() -> list[int]:
    """The processes of this network namespace but our own; zombies have none."""
    here = os.stat("/proc/thread-self/ns/net").st_ino
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if (entry / "ns/net").stat().st_ino == here:
                    found.append(int(entry.name))
    return found


def snapshot() -> dict[str, Any]:
    """What a network namespace has, by the tools' own words. Equal before and after: nothing was left."""
    links = json.loads(ip("-j -d link"))
    rules = subprocess.run(["nft", "-j", "list", "ruleset"], capture_output=True, check=True, timeout=90).stdout
    return {
        "links": sorted((link["ifname"], link.get("ifalias", ""), link.get("master", "")) for link in links),
        "addresses": sorted(
            (link["ifname"], found["local"]) for link in json.loads(ip("-4 -j addr")) for found in link["addr_info"]
        ),
        "rules": [_without_handle(item) for item in json.loads(rules)["nftables"] if "metainfo" not in item],
        "processes": sorted(filter(None, map(_command, processes_here()))),
        "ip_forward": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
    }


def _command(pid: int) -> str:
    """Of a process that may have ended just now: "" then."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def _without_handle(item: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rules that were replaced by the same ones have another number, and say the same."""
    return {kind: {key: value for key, value in entry.items() if key != "handle"} for kind, entry in item.items()}


class Place:
    """A network namespace of its own, held by a process: a container that does nothing, or a neighbour host."""

    def __init__(self) -> None:
        here = os.stat("/proc/thread-self/ns/net").st_ino
        self._process = subprocess.Popen(["unshare", "--net", "sleep", "600"])
        self.pid = self._process.pid
        deadline = time.monotonic() + 60
        while self._comm() != "sleep" or os.stat(f"/proc/{self.pid}/ns/net").st_ino == here:
            assert time.monotonic() < deadline, "unshare took no namespace"
            time.sleep(0.002)

    def _comm(self) -> str:
        return Path(f"/proc/{self.pid}/comm").read_text().strip()

    async def plug(self, port: Port, name: str = "eth0") -> None:
        """As the backend of a container does."""
        await plug_veth(
            self.pid,
            port.peer,
            name=name,
            address=port.address,
            prefix=port.prefix,
            gateway=port.gateway,
            mac=port.mac,
            mtu=port.mtu,
        )

    def run(self, *argv: str, timeout: float = 90) -> str:
        """A command inside; its output. Raises CalledProcessError."""
        inside = ["nsenter", "--net", f"--target={self.pid}", *argv]
        return subprocess.run(inside, capture_output=True, check=True, text=True, timeout=timeout).stdout

    def do(self, act: Callable[[], T]) -> T:
        """Call something inside, such as the making of a socket, which then stays inside."""
        results: list[T] = []

        def enter() -> None:
            namespace = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
            try:
                _check(_libc.setns(namespace, CLONE_NEWNET))
                results.append(act())
            finally:
                os.close(namespace)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        return results[0]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _socket(place: Place | None, kind: int) -> socket.socket:
    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, kind)
        made.setblocking(False)
        return made

    return make() if place is None else place.do(make)


@asynccontextmanager
async def serving(place: Place | None, port: int, greeting: str, address: str = "0.0.0.0") -> AsyncIterator[None]:
    """An HTTP server that answers with its greeting and the address that the client shows; TCP and UDP."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        body = f"{greeting} {writer.get_extra_info('peername')[0]}"
        writer.write(f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert hasattr(transport, "sendto")
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.transport.sendto(f"{greeting} {addr[0]}".encode(), addr)

    stream, datagrams = _socket(place, socket.SOCK_STREAM), _socket(place, socket.SOCK_DGRAM)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for each in (stream, datagrams):
        each.bind((address, port))
    server = await asyncio.start_server(answer, sock=stream)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Echo, sock=datagrams)
    try:
        yield
    finally:
        transport.close()
        server.close()
        await server.wait_closed()


async def fetch(place: Place | None, address: str, port: int, *, timeout: float = 30.0) -> str:
    """GET / from inside `place`; the body. Raises OSError, TimeoutError."""
    loop = asyncio.get_running_loop()
    with _socket(place, socket.SOCK_STREAM) as client:
        async with asyncio.timeout(timeout):
            await loop.sock_connect(client, (address, port))
            await loop.sock_sendall(client, b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while chunk := await loop.sock_recv(client, 4096):
                answer += chunk
    return answer.decode().partition("\r\n\r\n")[2]


async def ask_udp(place: Place | None, address: str, port: int, data: bytes = b"?", *, timeout: float = 30.0) -> bytes:
    """One datagram there and one back. Raises TimeoutError, OSError."""
    loop = asyncio.get_running_loop()
    with _socket(place, socket.SOCK_DGRAM) as client:
        async with asyncio.timeout(timeout):
            await loop.sock_connect(client, (address, port))
            await loop.sock_sendall(client, data)
            return await loop.sock_recv(client, 4096)


async def reaches(place: Place | None, address: str, port: int, *, timeout: float = 0.6) -> bool:
    """Whether a TCP connection is answered, by an acceptance or by a reset."""
    try:
        await fetch(place, address, port, timeout=timeout)
    except ConnectionRefusedError:
        return True
    except (OSError, TimeoutError):
        return False
    return True


async def resolve(place: Place | None, server: str, name: str) -> tuple[int, list[str]]:
    """Ask a name server for A records (RFC 1035 4.1): the response code and the addresses."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = struct.pack(">6H", 0x1234, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)
    answer = await ask_udp(place, server, 53, question)
    _, flags, _, answers, _, _ = struct.unpack_from(">6H", answer)
    offset, addresses = len(question), []
    for _ in range(answers):
        assert answer[offset] & 0xC0, "an answer's name is a pointer"
        kind, _, _, length = struct.unpack_from(">HHIH", answer, offset + 2)
        if kind == 1:
            addresses.append(socket.inet_ntoa(answer[offset + 12 : offset + 12 + length]))
        offset += 12 + length
    return flags & 0xF, addresses
