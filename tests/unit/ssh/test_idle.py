"""The clock of a session without keys, with a loop's clock that the test moves."""

from __future__ import annotations

import asyncio

import pytest

from vmtui.ssh.idle import IdleClock


class Moved:
    """A loop's clock and its timers, by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.due: list[tuple[float, object, tuple[object, ...], list[bool]]] = []
        self.said: list[object] = []
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", lambda: self.now)
        monkeypatch.setattr(loop, "call_later", self.call_later)

    def call_later(self, delay: float, call: object, *args: object) -> object:
        cancelled = [False]
        self.due.append((self.now + delay, call, args, cancelled))

        class Handle:
            def cancel(self) -> None:
                cancelled[0] = True

        return Handle()

    def until(self, when: float) -> list[object]:
        """What was said until then."""
        self.said.clear()
        while True:
            ready = [each for each in self.due if each[0] <= when and not each[3][0]]
            if not ready:
                break
            first = min(ready, key=lambda each: each[0])
            self.due.remove(first)
            self.now = first[0]
            first[1](*first[2])  # type: ignore[operator]
        self.now = when
        return list(self.said)

    def clock(self, limit_s: float, warning_s: float = 60.0) -> IdleClock:
        return IdleClock(limit_s, warning_s, self.said.append, lambda: self.said.append("end"))


async def test_a_warning_and_then_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = Moved(monkeypatch)
    moved.clock(300)
    assert moved.until(239) == []
    assert moved.until(241) == [60]
    assert moved.until(299) == []
    assert moved.until(301) == ["end"]


async def test_a_key_puts_it_off_and_withdraws_the_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = Moved(monkeypatch)
    clock = moved.clock(300)
    moved.until(200)
    clock.touch()
    assert moved.until(439) == []
    assert moved.until(441) == [60]
    clock.touch()
    assert moved.said[-1] == 0
    assert moved.until(680) == []
    assert moved.until(742) == [60, "end"]


async def test_half_of_a_short_time_is_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = Moved(monkeypatch)
    moved.clock(10)
    assert moved.until(5) == [5]
    assert moved.until(10) == ["end"]


async def test_one_that_is_stopped_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = Moved(monkeypatch)
    moved.clock(10).stop()
    assert moved.until(100) == []
