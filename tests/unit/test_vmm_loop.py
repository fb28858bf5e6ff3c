"""Loops: what runs in whose thread, and what ends when something fails."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from vmtui.vmm.eventfd import EventFd
from vmtui.vmm.loop import EPOLLIN, EPOLLOUT, Loop


class Watched:
    def __init__(self) -> None:
        self.failures: list[tuple[str, BaseException]] = []
        self.loop = Loop("one", lambda name, error: self.failures.append((name, error)))


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.loop.stop()
    watched.loop.close()


def test_do_runs_in_the_loops_thread(watched: Watched) -> None:
    ran: list[int] = []
    watched.loop.start()
    assert watched.loop.do(lambda: ran.append(threading.get_ident()), 60.0)
    assert ran[0] != threading.get_ident()
    assert watched.loop.do(
        lambda: ran.append(int(watched.loop.do(lambda: ran.append(threading.get_ident()), 60.0))), 60.0
    )
    assert ran[1:] == [ran[0], True]


def test_do_waits_no_longer_than_it_is_told(watched: Watched) -> None:
    held, over = threading.Event(), threading.Event()
    watched.loop.start()

    def hold() -> None:
        held.wait(30.0)
        over.set()

    watched.loop.call(hold)
    assert not watched.loop.do(lambda: None, 0.05)
    assert not over.is_set()
    held.set()


def test_do_where_no_loop_runs(watched: Watched) -> None:
    ran: list[int] = []
    assert watched.loop.do(lambda: ran.append(threading.get_ident()), 60.0)
    watched.loop.start()
    watched.loop.stop()
    assert watched.loop.do(lambda: ran.append(threading.get_ident()), 60.0)
    assert ran == [threading.get_ident()] * 2


def test_do_in_a_loop_that_runs_in_the_main_thread(watched: Watched) -> None:
    ran: list[int] = []

    def other() -> None:
        watched.loop.do(lambda: ran.append(threading.get_ident()), 60.0)
        watched.loop.stop()

    watched.loop.call(lambda: threading.Thread(target=other).start())
    watched.loop.run()
    assert ran == [threading.get_ident()]


def test_a_watch_that_raises_ends_alone(watched: Watched) -> None:
    good, bad, heard = EventFd(), EventFd(), threading.Event()

    def fail(_: int) -> None:
        raise ValueError("bad")

    def hear(_: int) -> None:
        good.drain()
        heard.set()

    watched.loop.watch(bad.fd, fail)
    watched.loop.watch(good.fd, hear)
    watched.loop.start()
    bad.signal()
    for _ in range(3):
        heard.clear()
        good.signal()
        assert heard.wait(60.0)
    assert [(name, str(error)) for name, error in watched.failures] == [("one", "bad")]
    good.close()
    bad.close()


def test_timers_run_in_their_order(watched: Watched) -> None:
    ran: list[int] = []
    done = threading.Event()
    for number, seconds in ((3, 0.6), (1, 0.2), (2, 0.4)):
        watched.loop.after(seconds, partial(ran.append, number))
    watched.loop.after(0.8, done.set)
    watched.loop.start()
    assert done.wait(60.0)
    assert ran == [1, 2, 3]


def test_a_call_or_a_timer_that_raises_ends_nothing(watched: Watched) -> None:
    def fail() -> None:
        raise ValueError("bad")

    done = threading.Event()
    watched.loop.call(fail)
    watched.loop.after(0.001, fail)
    watched.loop.after(0.01, done.set)
    watched.loop.start()
    assert done.wait(60.0)
    assert [str(error) for _, error in watched.failures] == ["bad", "bad"]


def test_what_is_not_watched_is_not_called(watched: Watched) -> None:
    """Not even if it was ready already, beside what took its watch away."""
    events = [EventFd() for _ in range(4)]
    ran: list[int] = []

    def hear(number: int, _: int) -> None:
        ran.append(number)
        for event in events:
            watched.loop.unwatch(event.fd)

    for number, event in enumerate(events):
        watched.loop.watch(event.fd, partial(hear, number))
        event.signal()
    watched.loop.turn(0)
    watched.loop.turn(0)
    assert len(ran) == 1
    for event in events:
        watched.loop.unwatch(event.fd)
        event.close()


def test_a_watch_that_cannot_be_leaves_nothing(watched: Watched, tmp_path: Path) -> None:
    """A regular file cannot be waited for; its number may be a socket's next."""
    file = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    with pytest.raises(PermissionError):
        watched.loop.watch(file, lambda _: None)
    event = EventFd()
    heard: list[int] = []
    os.dup2(event.fd, file)
    watched.loop.watch(file, heard.append)
    event.signal()
    watched.loop.turn(1.0)
    assert heard == [EPOLLIN]
    watched.loop.unwatch(file)
    os.close(file)
    event.close()


def test_a_watch_again_changes_what_is_waited_for(watched: Watched) -> None:
    heard: list[str] = []
    ours, theirs = socket.socketpair()
    watched.loop.watch(ours.fileno(), lambda _: heard.append("in"))
    watched.loop.turn(0)
    watched.loop.watch(ours.fileno(), lambda _: heard.append("out"), EPOLLOUT)
    watched.loop.turn(0)
    assert heard == ["out"]
    watched.loop.unwatch(ours.fileno())
    watched.loop.turn(0)
    assert heard == ["out"]
    ours.close()
    theirs.close()


def test_calls_come_in_their_order_from_any_thread(watched: Watched) -> None:
    ran: list[tuple[int, int]] = []

    def send(thread: int) -> None:
        for number in range(200):
            watched.loop.call(partial(ran.append, (thread, number)))

    threads = [threading.Thread(target=send, args=(thread,)) for thread in range(4)]
    watched.loop.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert watched.loop.do(lambda: None, 60.0)
    assert len(ran) == 800
    for own in range(4):
        assert [number for sender, number in ran if sender == own] == list(range(200))


def test_a_call_that_calls_again_does_not_hold_up_what_is_watched(watched: Watched) -> None:
    event, heard = EventFd(), threading.Event()

    def again() -> None:
        if not heard.is_set():
            watched.loop.call(again)

    watched.loop.watch(event.fd, lambda _: heard.set())
    watched.loop.call(again)
    watched.loop.start()
    event.signal()
    assert heard.wait(60.0)
    watched.loop.unwatch(event.fd)
    event.close()
