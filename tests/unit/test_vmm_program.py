"""What the VMM is told, how its two processes speak, what it keeps of a guest's output."""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtui.vmm import config
from vmtui.vmm.bus import MmioBus, PortBus
from vmtui.vmm.channel import MESSAGE_BYTES, Channel, channels
from vmtui.vmm.config import Config, ConfigError, Disk, Net, Share
from vmtui.vmm.log import LOG_BYTES, Log

LEAST: dict[str, Any] = {
    "run": "/run", "log": "/log", "sockets": "/sockets", "kernel": "/vmlinuz", "memory_bytes": 1 << 28,
}  # fmt: skip
ROOT = Path(__file__).parents[2]


# The configuration


def told(folder: Path, plain: object) -> Config:
    path = folder / "config.json"
    path.write_text(json.dumps(plain))
    return config.read(str(path))


def refused(folder: Path, plain: object) -> str:
    with pytest.raises(ConfigError) as caught:
        told(folder, plain)
    return str(caught.value).replace(str(folder / "config.json"), "FILE")


def test_what_must_be_said_is_enough(tmp_path: Path) -> None:
    made = told(tmp_path, LEAST)
    assert (made.run, made.cpus, made.initrd, made.disks, made.reboot) == ("/run", 1, None, [], False)


def test_everything_can_be_said(tmp_path: Path) -> None:
    more = {
        "cpus": 4, "initrd": "/initrd", "cmdline": "quiet", "hugepages": True, "uid": 1000, "vsock_cid": 3,
        "disks": [{"path": "/a", "format": "raw", "serial": "x", "backing": ["/b", "/c"]}],
        "nets": [{"interface": "tap0", "mac": "02:00:00:00:00:01", "mtu": 9000, "vhost": "on"}],
        "shares": [{"tag": "t", "path": "/d", "read_only": True}],
    }  # fmt: skip
    made = told(tmp_path, LEAST | more)
    assert made.disks == [Disk("/a", "raw", "x", False, ["/b", "/c"])]
    assert made.nets == [Net("tap0", "02:00:00:00:00:01", 9000, "on")]
    assert made.shares == [Share("t", "/d", True)]
    assert (made.cpus, made.cmdline, made.uid) == (4, "quiet", 1000)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"colour": 1}, "FILE has the unknown key 'colour'"),
        ({"cpus": "2"}, "FILE: cpus is '2', not int"),
        ({"cpus": True}, "FILE: cpus is True, not int"),
        ({"cpus": 1.5}, "FILE: cpus is 1.5, not int"),
        ({"cpus": None}, "FILE: cpus is null, not int"),
        ({"cpus": 0}, "FILE: cpus is 0, not 1 to 32"),
        ({"cpus": 33}, "FILE: cpus is 33, not 1 to 32"),
        ({"reboot": 1}, "FILE: reboot is 1, not bool"),
        ({"initrd": 5}, "FILE: initrd is 5, not str or null"),
        ({"disks": {}}, "FILE: disks is {}, not a list"),
        ({"disks": ["/a"]}, "FILE: disks[0] is not an object"),
        ({"disks": [{"path": "/a", "format": "raw"}]}, "FILE: disks[0] lacks 'serial'"),
        (
            {"disks": [{"path": "/a", "format": "raw", "serial": 7}]},
            "FILE: disks[0]: serial is 7, not str",
        ),
        (
            {"disks": [{"path": "/a", "format": "raw", "serial": "x", "backing": "/b"}]},
            "FILE: disks[0]: backing is '/b', not a list",
        ),
        (
            {"disks": [{"path": "/a", "format": "raw", "serial": "x", "backing": ["/b", 1]}]},
            "FILE: disks[0]: backing[1] is 1, not str",
        ),
        (
            {"nets": [{"interface": "a", "mac": "b"}, {"interface": "a", "mac": "b", "mut": 1}]},
            "FILE: nets[1] has the unknown key 'mut'",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    assert refused(tmp_path, LEAST | more) == said


@pytest.mark.parametrize("key", sorted(LEAST))
def test_what_is_missing_is_named(tmp_path: Path, key: str) -> None:
    assert refused(tmp_path, {name: value for name, value in LEAST.items() if name != key}) == f"FILE lacks {key!r}"


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a": 1e999', "\x00"])
def test_what_is_no_json(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="is not JSON"):
        config.read(str(path))


@pytest.mark.parametrize("plain", [[], 1, "x", None])
def test_what_is_no_object(tmp_path: Path, plain: object) -> None:
    assert refused(tmp_path, plain) == "FILE is not an object"


LEAF = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
ANY = st.recursive(LEAF, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner), max_leaves=6)


@given(st.dictionaries(st.sampled_from(Config._fields), ANY))
def test_anything_is_a_configuration_or_refused(tmp_path_factory: pytest.TempPathFactory, more: dict[str, Any]) -> None:
    try:
        made = told(tmp_path_factory.getbasetemp(), LEAST | more)
    except ConfigError:
        return
    assert all(isinstance(path, str) for disk in made.disks for path in disk.backing)
    assert type(made.memory_bytes) is int


@pytest.mark.parametrize("words", [[], ["--help"], ["a", "b"], ["-x"]])
def test_a_wrong_call(words: list[str]) -> None:
    done = call(*words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"usage: python -m vmtui.vmm CONFIG.json | --prove\n"


def test_a_wrong_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LEAST | {"colour": 1}))
    for file, said in (
        (path, f"vmtui.vmm: {path} has the unknown key 'colour'\n"),
        (tmp_path / "none", f"vmtui.vmm: [Errno 2] No such file or directory: '{tmp_path}/none'\n"),
    ):
        done = call(str(file))
        assert (done.returncode, done.stdout, done.stderr.decode()) == (2, b"", said)


def call(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-S", "-P", "-m", "vmtui.vmm", *words],
        env={"PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL, capture_output=True, timeout=120,
    )  # fmt: skip


# Between monitor and machine


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    pair = channels()
    yield pair
    for end in pair:
        end.close()


@pytest.fixture
def raw() -> Iterator[tuple[Channel, socket.socket]]:
    """An end, and what somebody who has been taken over sends through the other."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    channel = Channel(left)
    yield channel, right
    channel.close()
    right.close()


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_messages_come_one_by_one_with_what_they_carry(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    reading, writing = os.pipe()
    ours.send({"give": "first"}, writing)
    ours.send({"give": "second", "size": 1 << 40})
    os.close(writing)
    received = theirs.receive()
    assert received is not None
    message, fd = received
    assert message == {"give": "first"}
    assert fd is not None
    os.write(fd, b"through")
    assert os.read(reading, 20) == b"through"
    os.close(fd)
    os.close(reading)
    assert theirs.receive() == ({"give": "second", "size": 1 << 40}, None)
    with pytest.raises(BlockingIOError):
        theirs.receive()


def test_an_end_that_is_gone(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.send({"last": "word"})
    ours.close()
    assert theirs.receive() == ({"last": "word"}, None)
    assert theirs.receive() is None
    with pytest.raises(OSError, match="pipe"):
        theirs.send({})


def test_one_that_does_not_listen_holds_up_nobody(ends: tuple[Channel, Channel]) -> None:
    def flood() -> None:
        for _ in range(100_000):
            ends[0].send({"say": "lost", "name": "blk0"})

    with pytest.raises(BlockingIOError):
        flood()


@pytest.mark.parametrize(
    "data",
    [b"x", b"[]", b"1", b"{", b"\xff", b'"' * 100, b"[" * 10_000, b'{"a": "' + b"x" * MESSAGE_BYTES + b'"}',
     b'{"a": ' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_what_is_no_message(raw: tuple[Channel, socket.socket], data: bytes) -> None:
    channel, other = raw
    gc.collect()  # what is garbage already may hold some
    before = open_fds()
    socket.send_fds(other, [data], [0])
    with pytest.raises(ValueError, match="not a message"):
        channel.receive()
    assert open_fds() == before, "what came along is closed"
    other.send(b'{"say": "good"}')
    assert channel.receive() == ({"say": "good"}, None)


def test_more_descriptors_than_a_message_has(raw: tuple[Channel, socket.socket]) -> None:
    channel, other = raw
    gc.collect()  # what is garbage already may hold some
    before = open_fds()
    socket.send_fds(other, [b"{}"], [0] * 20)
    received = channel.receive()
    assert received is not None
    assert received[1] is not None
    os.close(received[1])
    socket.send_fds(other, [b""], [0])  # no message, and not the end either
    with pytest.raises(ValueError, match="not a message"):
        channel.receive()
    assert open_fds() == before


# The log


def test_a_log_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "serial.log"
    path.write_bytes(b"before\n")
    log = Log(str(path))
    log.write(b"after\n")
    log.close()
    log.close()
    assert path.read_bytes() == b"before\nafter\n"


def test_two_at_most_are_kept(tmp_path: Path) -> None:
    path, old = tmp_path / "serial.log", tmp_path / "serial.log.1"
    log = Log(str(path))
    piece = bytes(64 << 10)
    for n in range(3 * LOG_BYTES // len(piece)):
        log.write(bytes((n & 0xFF,)) * len(piece))
        assert path.stat().st_size <= LOG_BYTES
    assert {made.name for made in tmp_path.iterdir()} == {path.name, old.name}
    assert path.stat().st_mode & 0o777 == 0o600
    assert LOG_BYTES - len(piece) < old.stat().st_size <= LOG_BYTES
    last = path.read_bytes()[-1]
    assert last == (3 * LOG_BYTES // len(piece) - 1) & 0xFF
    log.close()


def test_a_log_that_was_full_when_it_began(tmp_path: Path) -> None:
    path = tmp_path / "serial.log"
    path.write_bytes(bytes(LOG_BYTES))
    log = Log(str(path))
    log.write(b"new")
    log.close()
    assert path.read_bytes() == b"new"
    assert (tmp_path / "serial.log.1").stat().st_size == LOG_BYTES


def test_a_log_that_somebody_removed_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "serial.log"
    log = Log(str(path))
    log.write(bytes(LOG_BYTES))
    path.unlink()
    log.write(b"new")
    log.write(b"er")
    log.close()
    assert path.read_bytes() == b"newer"


def test_a_log_that_cannot_be_begun_anew_goes_on_later(tmp_path: Path) -> None:
    """The folder is away for a time; nothing is raised."""
    folder = tmp_path / "logs"
    folder.mkdir()
    log = Log(str(folder / "serial.log"))
    log.write(bytes(LOG_BYTES))
    folder.rename(tmp_path / "away")
    log.write(b"lost")
    (tmp_path / "away").rename(folder)
    log.write(b"kept")
    log.close()
    assert (folder / "serial.log").read_bytes() == b"kept"


def test_a_log_is_no_way_to_another_file(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("precious")
    (tmp_path / "serial.log").symlink_to(other)
    with pytest.raises(OSError, match="symbolic"):
        Log(str(tmp_path / "serial.log"))


# Buses


class Device:
    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []

    def read(self, offset: int, size: int) -> int:
        return offset

    def write(self, offset: int, size: int, value: int) -> None:
        self.seen.append((offset, size, value))


def test_ports_have_one_device(tmp_path: Path) -> None:
    bus, device = PortBus(), Device()
    bus.add(0x100, 4, device)
    for base, length in ((0x100, 4), (0x103, 1), (0xFF, 2), (0xF0, 0x100)):
        with pytest.raises(ValueError, match="is taken"):
            bus.add(base, length, Device())
    assert set(bus.ports) == set(range(0x100, 0x104)), "nothing is left of what was refused"
    assert bus.ports[0x103] == (0x100, device)


def test_memory_that_nobody_answers_for() -> None:
    bus, device = MmioBus(), Device()
    assert bus.add(0xC0000000, 0x20000, device)
    assert (bus.read(0xBFFFFFFF, 1), bus.read(0xC0020000, 2)) == (0xFF, 0xFFFF)
    assert (bus.read(0x10000, 8), bus.read((1 << 64) - 8, 4)) == ((1 << 64) - 1, 0xFFFFFFFF)
    assert bus.read(0xC0012345, 4) == 0x12345
    bus.write(0xC001FFFF, 8, 7)
    bus.write(0xC0020000, 8, 7)
    assert device.seen == [(0x1FFFF, 8, 7)]
    bus.remove(0xC0000000, 0x20000)
    assert bus.slots == {}
