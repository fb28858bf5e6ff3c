"""Loops: what runs in whose thread, and what ends when something fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from vmtui.vmm.eventfd import EventFd
from vmtui.vmm.loop import Loop


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
    assert watched.loop.do(lambda: ran.append(threading.get_ident()), 5.0)
    assert ran[0] != threading.get_ident()
    assert watched.loop.do(
        lambda: ran.append(int(watched.loop.do(lambda: ran.append(threading.get_ident()), 5.0))), 5.0
    )
    assert ran[1:] == [ran[0], True]


def test_do_waits_no_longer_than_it_is_told(watched: Watched) -> None:
    held = threading.Event()
    watched.loop.start()

    def hold() -> None:
        held.wait(5.0)

    watched.loop.call(hold)
    began = time.monotonic()
    assert not watched.loop.do(lambda: None, 0.05)
    assert time.monotonic() - began < 1
    held.set()


def test_do_where_no_loop_runs(watched: Watched) -> None:
    ran: list[int] = []
    assert watched.loop.do(lambda: ran.append(threading.get_ident()), 5.0)
    watched.loop.start()
    watched.loop.stop()
    assert watched.loop.do(lambda: ran.append(threading.get_ident()), 5.0)
    assert ran == [threading.get_ident()] * 2


def test_do_in_a_loop_that_runs_in_the_main_thread(watched: Watched) -> None:
    ran: list[int] = []

    def other() -> None:
        watched.loop.do(lambda: ran.append(threading.get_ident()), 5.0)
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
        assert heard.wait(5.0)
    assert [(name, str(error)) for name, error in watched.failures] == [("one", "bad")]
    good.close()
    bad.close()


def test_timers_run_in_their_order(watched: Watched) -> None:
    ran: list[int] = []
    done = threading.Event()
    for number, seconds in ((3, 0.03), (1, 0.01), (2, 0.02)):
        watched.loop.after(seconds, partial(ran.append, number))
    watched.loop.after(0.04, done.set)
    watched.loop.start()
    assert done.wait(5.0)
    assert ran == [1, 2, 3]
