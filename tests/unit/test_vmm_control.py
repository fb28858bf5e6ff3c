"""The control socket: calls, events, a connection that becomes the terminal; and whatever else is sent to it."""

from __future__ import annotations

import json
import os
import resource
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.consoles import Consoles, received, until
from vmtui.vmm.control import MOST_CLIENTS, MOST_OUTPUT_BYTES, Control, Refused, integer
from vmtui.vmm.terminal import MOST_CLIENTS as MOST_ATTACHED
from vmtui.wire.client import connect
from vmtui.wire.lines import MAX_LINE_BYTES
from vmtui.wire.server import CallFailed


class Served:
    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.path = Path(self._folder.name) / "control.sock"
        self.consoles = Consoles()
        self.sizes: list[tuple[int, int]] = []
        self.consoles.terminal.resized = lambda rows, columns: self.sizes.append((rows, columns))
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self.path))
        listener.listen(64)
        self.control = Control(self.consoles.loop, listener, self._calls(), self.consoles.terminal)
        self.ends: list[socket.socket] = []

    def _calls(self) -> dict[str, Any]:
        def refuse(args: dict[str, Any]) -> None:
            raise Refused("none", "there is none")

        def fail(args: dict[str, Any]) -> None:
            raise FileNotFoundError(2, "No such file or directory")

        def break_down(args: dict[str, Any]) -> None:
            raise RuntimeError("a defect")

        return {
            "echo": lambda args: args,
            "number": lambda args: integer(args, "n", 100),
            "large": lambda args: "x" * (2 * MAX_LINE_BYTES),
            "half": lambda args: "x" * (MAX_LINE_BYTES // 2),
            "refuse": refuse,
            "fail": fail,
            "break_down": break_down,
            "console_size": lambda args: self.control.resize(args),
        }

    def connect(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(60)
        self.ends.append(made)
        made.connect(str(self.path))
        return made

    def greeted(self) -> socket.socket:
        made = self.connect()
        assert line(made) == {"wire": 1, "service": "vmm"}
        return made

    @property
    def clients(self) -> int:
        return len(self.control._clients)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end in self.ends:
            end.close()
        self.consoles.loop.do(self.control.close, 5)
        self.consoles.__exit__(kind, error, trace)
        self._folder.cleanup()


@pytest.fixture
def served() -> Iterator[Served]:
    with Served() as made:
        yield made


def line(end: socket.socket) -> Any:
    """The next line, and not a byte more."""
    data = b""
    while not data.endswith(b"\n"):
        piece = end.recv(1)
        assert piece, f"it hung up after {data!r}"
        data += piece
    return json.loads(data)


def call(end: socket.socket, name: str, **args: Any) -> Any:
    end.sendall(json.dumps({"id": 7, "call": name, "args": args}).encode() + b"\n")
    answer = line(end)
    assert answer.pop("id") == 7
    return answer


async def test_the_client_of_the_front_ends_is_answered(served: Served) -> None:
    async with await connect(served.path) as client:
        assert client.service == "vmm"
        assert await client.call("echo", text="déjà") == {"text": "déjà"}
        with pytest.raises(CallFailed, match="there is none") as failed:
            await client.call("refuse")
        assert failed.value.code == "none"
        served.control.broadcast("booted", {"after_s": 1.5})
        async for event in client.events():
            assert event == {"event": "booted", "after_s": 1.5}
            break


@pytest.mark.parametrize(
    ("name", "args", "code", "message"),
    [
        ("sing", {}, "unknown", "there is no call 'sing'"),
        ("fail", {}, "failed", "No such file or directory"),
        ("number", {}, "invalid", "n is a number from 0 to 100"),
        ("number", {"n": True}, "invalid", "n is a number from 0 to 100"),
        ("number", {"n": -1}, "invalid", "n is a number from 0 to 100"),
        ("number", {"n": 1.0}, "invalid", "n is a number from 0 to 100"),
        ("console_size", {"rows": 24}, "invalid", "columns is a number from 0 to 65535"),
        ("console", {"rows": 24}, "invalid", "columns is a number from 0 to 65535"),
        ("console", {"rows": "24", "columns": 80}, "invalid", "rows is a number from 0 to 65535"),
    ],
)
def test_what_cannot_be_done_is_said(served: Served, name: str, args: dict[str, Any], code: str, message: str) -> None:
    end = served.greeted()
    assert call(end, name, **args) == {"error": {"code": code, "message": message}}
    assert call(end, "number", n=5) == {"result": 5}


def test_calls_may_come_in_pieces_and_together(served: Served) -> None:
    end = served.greeted()
    both = b'{"id":1,"call":"number","args":{"n":1}}\n{"id":2,"call":"number","args":{"n":2}}\n'
    for byte in both[:50]:
        end.sendall(bytes((byte,)))
    end.sendall(both[50:])
    assert [line(end)["result"], line(end)["result"]] == [1, 2]


def test_the_connection_becomes_the_terminal(served: Served) -> None:
    served.consoles.terminal.write(b"login: ")
    served.consoles.settled()
    end = served.greeted()
    assert call(end, "console", rows=50, columns=132) == {"result": {}}
    assert received(end, 7) == b"login: "
    assert served.sizes == [(50, 132)]
    end.sendall(b'{"id":1,"call":"echo"}\n')
    until(lambda: served.consoles.serial.read(5, 1) & 1)
    served.control.broadcast("booted", {})
    served.consoles.terminal.write(b"next")
    assert received(end, 4) == b"next"
    assert served.clients == 0


def test_terminals_are_bounded_too(served: Served) -> None:
    for _ in range(MOST_ATTACHED):
        assert call(served.greeted(), "console") == {"result": {}}
    assert call(served.greeted(), "console")["error"]["code"] == "busy"


@pytest.mark.parametrize(
    "junk",
    [
        b"\xff\xfe\n",
        b"[]\n",
        b'{"id":"1","call":"echo"}\n',
        b'{"id":1,"call":"echo","args":[]}\n',
        b'{"id":1}\n',
        b"{" * 2000 + b"\n",
        b"x" * (MAX_LINE_BYTES + 1),
        b'{"id":1,"call":"large"}\n',
    ],
)
def test_what_is_no_call_ends_the_connection(served: Served, junk: bytes) -> None:
    end = served.greeted()
    other = served.greeted()
    with suppress(OSError):
        end.sendall(junk)
    with suppress(ConnectionResetError):
        assert end.recv(1) == b""
    assert call(other, "number", n=1) == {"result": 1}
    assert served.clients == 1


def test_who_does_not_read_is_dropped(served: Served) -> None:
    end, other = served.greeted(), served.greeted()
    for _ in range(4 * MOST_OUTPUT_BYTES // MAX_LINE_BYTES):
        with suppress(BrokenPipeError):
            end.sendall(b'{"id":1,"call":"half"}\n')
        assert call(other, "number", n=1) == {"result": 1}
    for _ in range(200):
        served.control.broadcast("something", {"text": "y" * 4000})
        while not other.recv(1 << 16).endswith(b"\n"):
            pass
    until(lambda: served.clients == 1)


def test_the_number_of_clients_is_bounded(served: Served) -> None:
    for _ in range(MOST_CLIENTS):
        served.greeted()
    assert served.connect().recv(1) == b""
    served.ends[0].close()
    until(lambda: served.clients < MOST_CLIENTS)
    served.greeted()


def test_it_waits_when_descriptors_are_short(served: Served) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    made = served.connect()
    line(made)
    waiting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    waiting.settimeout(10)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard))
    filler = []
    try:
        with suppress(OSError):
            while True:
                filler.append(os.dup(0))
        waiting.connect(str(served.path))
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.15  # it does not turn in circles
        assert call(made, "number", n=1) == {"result": 1}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in filler:
            os.close(fd)
    assert line(waiting)["service"] == "vmm"
    waiting.close()


def test_a_defect_costs_its_caller_the_connection_alone(served: Served) -> None:
    end, other = served.greeted(), served.greeted()
    end.sendall(b'{"id":1,"call":"break_down"}\n')
    assert end.recv(1) == b""
    assert call(other, "number", n=1) == {"result": 1}
    assert served.clients == 1
    assert [str(error) for error in served.consoles.errors] == ["a defect"]
    served.consoles.errors.clear()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = ("echo", "number", "console_size", "refuse", "half", "")
calls = st.builds(
    lambda number, name, args: json.dumps({"id": number, "call": name, "args": args}).encode() + b"\n",
    st.integers() | json_values,
    st.sampled_from(NAMES) | st.text(max_size=60),
    st.dictionaries(st.sampled_from(("n", "rows", "columns", "x")), json_values, max_size=3) | json_values,
)
pieces = st.lists(st.binary(max_size=200) | calls, max_size=12)


@settings(max_examples=200, deadline=None)
@given(pieces)
def test_nothing_raises_whatever_is_sent(said: list[bytes]) -> None:
    served = _shared()
    end = served.connect()
    end.settimeout(0.02)
    with suppress(OSError):
        for piece in said:
            end.sendall(piece)
        end.shutdown(socket.SHUT_WR)
        while end.recv(1 << 16):
            pass
    end.close()
    served.ends.remove(end)
    until(lambda: served.clients == 0)
    assert call(served.greeted(), "number", n=3) == {"result": 3}
    served.ends.pop().close()
    assert served.consoles.errors == []
    until(lambda: served.clients == 0)


_kept: list[Served] = []


def _shared() -> Served:
    """One for all examples."""
    if not _kept:
        _kept.append(Served())
    return _kept[0]


@pytest.fixture(scope="module", autouse=True)
def _ended() -> Iterator[None]:
    yield
    for served in _kept:
        with served:
            pass
    _kept.clear()
