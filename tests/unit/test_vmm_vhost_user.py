"""The front-end of vhost-user, against back-ends that say what they should not, or nothing."""

from __future__ import annotations

import gc
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.virtqueue import Driver
from vmtui.vmm.backends.directory import virtiofsd_argv
from vmtui.vmm.backends.storage import storage_argv
from vmtui.vmm.devices.fs import Fs
from vmtui.vmm.devices.vhost_user import connection, device
from vmtui.vmm.devices.vhost_user import messages as m
from vmtui.vmm.devices.vhost_user.blk import VhostUserBlk
from vmtui.vmm.loop import Loop

FEATURES = m.PROTOCOL_FEATURES | 1 << 32 | 1 << 9 | 1 << 11 | 1 << 12  # VERSION_1, FLUSH, CONFIG_WCE, MQ
ALL = m.F_MQ | m.F_REPLY_ACK | m.F_BACKEND_REQ | m.F_CONFIG
PATIENCE_S = 60.0
SILENCE_S = 0.2  # how long is waited for what never comes
DISK = struct.pack("<Q", 2048).ljust(34, b"\0") + struct.pack("<H", 2) + bytes(24)

Answer = Callable[[bytes], bytes | None]


class BackEnd:
    """The other end of the protocol, in a thread. `answers` replaces what it says to a request; None: nothing."""

    def __init__(self, *, features: int = FEATURES, protocol: int = ALL) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.answers: dict[int, Answer] = {}
        self.heard: list[int] = []
        self.channel: socket.socket | None = None
        self.fds: list[int] = []
        self._plain = {
            m.GET_FEATURES: struct.pack("<Q", features),
            m.GET_PROTOCOL_FEATURES: struct.pack("<Q", protocol),
            m.GET_QUEUE_NUM: struct.pack("<Q", 2),
            m.GET_VRING_BASE: bytes(8),
            m.GET_CONFIG: m.CONFIG.pack(0, 60, 0) + DISK,
        }
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                data, fds, *_ = socket.recv_fds(self.theirs, m.HEADER.size, 8)
                if len(data) < m.HEADER.size:
                    return
                request, flags, size = m.HEADER.unpack(data)
                body = self.theirs.recv(size, socket.MSG_WAITALL) if size else b""
                self.heard.append(request)
                if request == m.SET_BACKEND_REQ_FD:
                    self.channel = socket.socket(fileno=fds[0])
                else:
                    self.fds += fds
                answer = self._answer(request, flags, body)
                if answer is not None:
                    self.theirs.sendall(answer)
            except OSError:
                return

    def _answer(self, request: int, flags: int, body: bytes) -> bytes | None:
        if request in self.answers:
            return self.answers[request](body)
        if request in self._plain:
            return m.message(request, self._plain[request], flags=m.REPLY)
        return m.message(request, bytes(8), flags=m.REPLY) if flags & m.NEED_REPLY else None

    def close(self) -> None:
        self.theirs.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    failures: list[BaseException] = []
    loop = Loop("vhost", lambda _, error: failures.append(error))
    loop.start()
    yield loop
    loop.stop()
    loop.close()
    assert failures == []


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine what comes may take its time. Where nothing does, tests shorten it."""
    monkeypatch.setattr(connection, "REPLY_S", PATIENCE_S)
    monkeypatch.setattr(connection, "FIRST_REPLY_S", PATIENCE_S)
    monkeypatch.setattr(device, "STOP_S", PATIENCE_S)
    for ask in (connection.Connection.ask, connection.Connection.ask_u64):  # they have REPLY_S as it was
        monkeypatch.setattr(ask, "__kwdefaults__", {"timeout_s": PATIENCE_S})


class Disk:
    def __init__(self, loop: Loop, back_end: BackEnd) -> None:
        self.lost: list[str] = []
        self.device = VhostUserBlk("blk0", loop, back_end.ours, durable=True, lost=self.lost.append, back=lambda: None)
        self.driver = Driver(self.device)

    def close(self) -> None:
        self.driver.close()
        self.device.close()


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(2e-3)


def test_what_is_said_in_what_order(loop: Loop) -> None:
    back_end = BackEnd()
    disk = Disk(loop, back_end)
    assert disk.device.features == 1 << 9 | 1 << 11 | 1 << 12
    assert disk.device.capacity_bytes == 1 << 20
    assert len(disk.device.queue_sizes) == 2
    begun = [
        *(m.SET_OWNER, m.GET_FEATURES, m.GET_PROTOCOL_FEATURES, m.SET_PROTOCOL_FEATURES),
        *(m.GET_QUEUE_NUM, m.SET_BACKEND_REQ_FD, m.GET_CONFIG),
    ]
    assert back_end.heard == begun
    disk.driver.start()
    queue = [
        *(m.SET_VRING_NUM, m.SET_VRING_BASE, m.SET_VRING_ADDR),
        *(m.SET_VRING_CALL, m.SET_VRING_KICK, m.SET_VRING_ENABLE),
    ]
    activated = [m.SET_FEATURES, m.SET_MEM_TABLE, m.SET_CONFIG, *queue, *queue]
    eventually(lambda: back_end.heard[len(begun) :] == activated)
    assert len(back_end.fds) == 5  # the memory, and two for each queue
    disk.driver.reset()
    assert back_end.heard[-4:] == [m.SET_VRING_ENABLE, m.GET_VRING_BASE] * 2
    assert disk.lost == []
    disk.close()


@pytest.mark.parametrize(
    ("request_number", "answer", "why"),
    [
        (m.GET_FEATURES, m.message(m.GET_FEATURES, bytes(8), flags=m.REPLY), "no protocol features"),
        (m.GET_FEATURES, m.message(m.GET_FEATURES, bytes(8)), "answers 1 to 1"),
        (m.GET_FEATURES, m.message(m.GET_CONFIG, bytes(8), flags=m.REPLY), "answers 24 to 1"),
        (m.GET_FEATURES, m.message(m.GET_FEATURES, bytes(4), flags=m.REPLY), "by 4 bytes"),
        (m.GET_FEATURES, m.HEADER.pack(1, 5, 1 << 31), "2147483648 bytes"),
        (m.GET_FEATURES, m.HEADER.pack(1, 6, 8) + bytes(8), "flags 0x6"),
        (m.GET_FEATURES, b"", "does not answer"),
        (m.GET_FEATURES, m.HEADER.pack(1, 5, 8) + bytes(3), "does not answer"),
        (m.GET_CONFIG, m.message(m.GET_CONFIG, bytes(12), flags=m.REPLY), "by 12 bytes"),
        (m.SET_BACKEND_REQ_FD, m.message(m.SET_BACKEND_REQ_FD, b"\1" * 8, flags=m.REPLY), "refuses message 21"),
    ],
)
def test_a_back_end_that_is_none(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, request_number: int, answer: bytes, why: str
) -> None:
    if why == "does not answer":
        monkeypatch.setattr(connection, "FIRST_REPLY_S", SILENCE_S)
    back_end = BackEnd()
    back_end.answers[request_number] = lambda _: answer
    with pytest.raises(OSError, match=why):
        Disk(loop, back_end)
    assert back_end.ours.fileno() == -1


def test_one_without_a_configuration(loop: Loop) -> None:
    with pytest.raises(OSError, match="does not tell the disk's configuration"):
        Disk(loop, BackEnd(protocol=m.F_MQ))


def test_one_that_falls_silent_when_a_driver_comes(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "STOP_S", SILENCE_S)
    back_end = BackEnd()
    back_end.answers[m.SET_MEM_TABLE] = lambda _: None
    disk = Disk(loop, back_end)
    disk.driver.start()
    assert not disk.lost  # the vCPU does not wait for the answer, or for its time to be over
    eventually(lambda: m.SET_MEM_TABLE in back_end.heard)
    disk.driver.reset()
    eventually(lambda: disk.lost)
    disk.close()


def test_one_that_falls_silent_for_good_is_waited_for_no_longer(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    back_end = BackEnd()
    back_end.answers[m.SET_MEM_TABLE] = lambda _: None
    disk = Disk(loop, back_end)
    with monkeypatch.context() as silent:
        silent.setattr(connection, "REPLY_S", SILENCE_S)
        disk.driver.start()
        eventually(lambda: disk.lost == ["the back-end does not answer"])
    assert disk.driver.failures == []  # it never began: another can take over
    other = BackEnd()
    disk.device.reconnected(other.ours)
    eventually(lambda: m.SET_VRING_ENABLE in other.heard)
    disk.close()


def test_one_that_does_not_finish_what_it_took(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "STOP_S", SILENCE_S)
    back_end = BackEnd()
    back_end.answers[m.GET_VRING_BASE] = lambda _: m.message(m.GET_VRING_BASE, m.VRING_STATE.pack(0, 3), flags=m.REPLY)
    disk = Disk(loop, back_end)
    disk.driver.start()
    eventually(lambda: m.SET_VRING_ENABLE in back_end.heard)
    disk.driver.reset()
    eventually(lambda: disk.lost)
    assert "does not finish" in disk.lost[0] or "does not answer" in disk.lost[0] or "gone" in disk.lost[0]
    disk.close()


def test_one_that_speaks_unasked(loop: Loop) -> None:
    back_end = BackEnd()
    disk = Disk(loop, back_end)
    back_end.theirs.send(b"x")
    eventually(lambda: disk.lost == ["the back-end speaks unasked"])
    disk.close()


def test_a_configuration_that_changes(loop: Loop) -> None:
    back_end = BackEnd()
    disk = Disk(loop, back_end)
    disk.driver.start()
    larger = struct.pack("<Q", 4096) + DISK[8:]
    back_end.answers[m.GET_CONFIG] = lambda _: m.message(m.GET_CONFIG, m.CONFIG.pack(0, 60, 0) + larger, flags=m.REPLY)
    assert back_end.channel is not None
    said = m.message(m.BACKEND_CONFIG_CHANGE, flags=m.NEED_REPLY)
    for part in (said[:5], said[5:]):
        back_end.channel.send(part)
    back_end.channel.settimeout(PATIENCE_S)
    assert back_end.channel.recv(64) == m.message(m.BACKEND_CONFIG_CHANGE, bytes(8), flags=m.REPLY)
    eventually(lambda: disk.driver.config_changes)
    assert disk.device.capacity_bytes == 2 << 20
    back_end.channel.send(m.message(m.BACKEND_CONFIG_CHANGE))  # the same again is nothing to tell
    time.sleep(0.05)
    assert disk.driver.config_changes == 1
    disk.close()


@settings(max_examples=50, deadline=None)
@given(
    said=st.one_of(st.binary(min_size=12, max_size=100), st.binary(max_size=2000).map(lambda data: m.message(9, data)))
)
def test_whatever_it_says_on_the_side(said: bytes) -> None:
    failures: list[BaseException] = []
    loop = Loop("vhost", lambda _, error: failures.append(error))
    loop.start()
    disk = Disk(loop, back_end := BackEnd())
    assert back_end.channel is not None
    back_end.channel.send(said)
    loop.do(lambda: None, 1.0)
    disk.close()
    loop.stop()
    loop.close()
    assert failures == []


def test_it_cannot_fill_us_with_descriptors(loop: Loop) -> None:
    """What comes along with a reply or on the side is closed."""
    back_end = BackEnd()
    disk = Disk(loop, back_end)
    assert back_end.channel is not None
    gc.collect()  # what other tests left open
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        socket.send_fds(back_end.channel, [m.message(m.BACKEND_CONFIG_CHANGE)], [0, 1, 2])
    loop.do(lambda: None, 1.0)
    time.sleep(0.05)  # it has read some by now, and the rest of them soon
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)
    disk.close()


@pytest.mark.parametrize("tag", ["", "x" * 37, "ä" * 19, "a\0b"])
def test_tags(loop: Loop, tag: str) -> None:
    with pytest.raises(ValueError, match="not a tag"):
        Fs("fs0", loop, BackEnd().ours, tag, lost=print, back=print)


def test_the_longest_tag(loop: Loop) -> None:
    fs = Fs("fs0", loop, BackEnd(protocol=m.F_MQ).ours, "ä" * 18, lost=print, back=print)
    assert fs.config() == ("ä" * 18).encode() + struct.pack("<I", 1)
    fs.close()


def test_command_lines() -> None:
    argv = storage_argv("/p", "/a,b=c", "qcow2", writable=False, queues=2, listener=5, monitor=6)
    assert '"filename": "/a,b=c"' in argv[2]
    assert argv[2].count('"read-only": true') == 2
    assert '"str": "5"' in argv[4]
    assert virtiofsd_argv("/usr/libexec/virtiofsd", "/a,b", listener=5)[2] == "--shared-dir=/a,b"
    with pytest.raises(OSError, match="comma"):
        virtiofsd_argv("/usr/lib/qemu/virtiofsd", "/a,b", listener=5)
