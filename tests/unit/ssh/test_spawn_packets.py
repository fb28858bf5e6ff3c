"""Packets between the server and the fork server, and lines between it and a session: any bytes, in any pieces."""

from __future__ import annotations

import contextlib
import gc
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtui.core.policy import BUILTIN, Allow, Person, Role, Verb
from vmtui.core.units import Duration
from vmtui.ssh import spawn
from vmtui.ssh.spawn import HangUp, Signal, Spawn, Unfit
from vmtui.wire import served
from vmtui.wire.lines import MAX_LINE_BYTES, WireError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def a_spawn(**other: object) -> Spawn:
    given = {"argv": (), "environment": {}, "terminal": True, "panel": True, "role": BUILTIN["viewer"], **other}
    return Spawn(number=1, person=Person(name="ann"), **given)  # type: ignore[arg-type]


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@given(st.lists(TEXT, max_size=5), st.dictionaries(TEXT, TEXT, max_size=5))
def test_what_is_asked_arrives_with_its_descriptors(argv: list[str], environment: dict[str, str]) -> None:
    role = Role(name="idle", allow=(Allow(verbs=("*",), labels={"a": "b"}),), approval=(Verb.STOP,), idle=Duration(0.5))
    message = a_spawn(argv=tuple(argv), environment=environment, role=role)
    ours, theirs = pair()
    with ours, theirs, open(os.devnull) as null:
        spawn.send(ours, spawn.encode(message), (null.fileno(), null.fileno()))
        asked = spawn.receive_asked(theirs)
        assert asked is not None
        assert asked[0] == message
        assert [os.fstat(fd).st_rdev for fd in asked[1]] == [os.fstat(null.fileno()).st_rdev] * 2
        spawn.close_all(asked[1])


@pytest.fixture(scope="module")
def _collected() -> None:
    """What is garbage already may hold descriptors. Once: it takes too long for each example."""
    gc.collect()


@pytest.mark.usefixtures("_collected")
@given(st.binary(min_size=1, max_size=300))
def test_any_packet_is_refused_without_losing_a_descriptor(packet: bytes) -> None:
    ours, theirs = pair()
    with ours, theirs, open(os.devnull) as null:
        before = len(os.listdir("/proc/self/fd"))
        spawn.send(ours, packet, (null.fileno(),))
        with pytest.raises(Unfit):
            spawn.receive_asked(theirs)
        assert len(os.listdir("/proc/self/fd")) == before
        spawn.send(ours, spawn.encode(HangUp(1, 1.0)))
        assert spawn.receive_asked(theirs) == (HangUp(1, 1.0), [])


def test_the_end_of_the_server_is_heard() -> None:
    ours, theirs = pair()
    with theirs:
        ours.close()
        assert spawn.receive_asked(theirs) is None


@pytest.mark.parametrize("argv", [("x" * spawn.MAX_PACKET_BYTES,), ("a\udc80b",)])
def test_what_cannot_be_passed_on_is_refused_before_it_is_sent(argv: tuple[str, ...]) -> None:
    with pytest.raises(Unfit):
        spawn.encode(a_spawn(argv=argv))


@given(st.integers(0, 2**31), st.integers(1, 64))
def test_messages_come_back_as_they_were(number: int, which: int) -> None:
    ours, theirs = pair()
    with ours, theirs:
        spawn.send(ours, spawn.encode(Signal(number, which)))
        assert spawn.receive_asked(theirs) == (Signal(number, which), [])
        spawn.send(theirs, spawn.encode(spawn.Ended(number, which)))
        assert spawn.receive_told(ours) == spawn.Ended(number, which)


@given(st.lists(st.binary(max_size=100) | st.just(b'{"type":"audited","verb":"stop"}\n')))
def test_a_session_may_say_any_bytes_to_the_server(pieces: list[bytes]) -> None:
    reader = served.ToServerReader()
    with contextlib.suppress(WireError):
        for piece in pieces:
            for told in reader.feed(piece):
                assert isinstance(told, served.Audited)


@given(st.data())
def test_lines_may_be_cut_anywhere(data: st.DataObject) -> None:
    messages: list[served.ToSession] = [
        served.Watched(("ann observes",)),
        served.Idle(3.5),
        served.Repaint(),
        served.Ending("so"),
    ]
    stream = b"".join(served.encode(message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    reader = served.ToSessionReader()
    found = [m for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) for m in reader.feed(stream[a:b])]
    assert found == messages


def test_an_endless_line_is_given_up() -> None:
    reader = served.ToServerReader()
    assert reader.feed(b"x" * MAX_LINE_BYTES) == []
    with pytest.raises(WireError, match="longer"):
        reader.feed(b"x")


def test_an_audit_record_is_cut_to_what_a_line_holds() -> None:
    line = served.encode(served.Audited("stop", ("a" * 1000,) * 9000, "done", "\x01" * 10**6))
    assert len(line) <= MAX_LINE_BYTES
    assert served.ToServerReader().feed(line)[0].message == "\x01" * served.MAX_TEXT


def test_bytes_of_a_command_line_that_are_no_text_can_be_audited() -> None:
    line = served.encode(served.Audited("exec", (), "denied", "\udcff is no verb"))
    assert served.ToServerReader().feed(line)[0].message == "? is no verb"
