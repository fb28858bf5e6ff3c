"""A lab that stands still is told from one that is slow, and QEMU is asked about it however it is."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path

import pytest

from tests.lab.host import monitor
from tests.lab.host.pulse import BOOT, LOOK_S, Pulse, waited_s


def beat(folder: Path, cpu: int, number: int) -> None:
    (folder / f"beat-{cpu}").write_text(f"{number}\n")


def test_a_lab_that_beats_does_not_stand_still(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path)
    for second in range(100):
        beat(tmp_path, 0, second // 2)
        beat(tmp_path, 1, second // 2)
        assert pulse.look(second, 0)[1] <= 2


def test_one_processor_that_stands_still_is_enough(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path)
    for second in range(21):
        beat(tmp_path, 0, second)
        beat(tmp_path, 1, 7)
        found = pulse.look(second, 0)
    assert found == ("beat-1", 20.0)


def test_a_lab_that_never_begins_is_seen(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path)
    looks = [pulse.look(second, 0) for second in range(31)]
    assert looks[-1] == (BOOT, 30.0)
    beat(tmp_path, 0, 1)
    assert pulse.look(31, 0) == ("beat-0", 0.0)


def test_a_beat_that_is_just_written_is_not_there_yet(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path)
    beat(tmp_path, 0, 1)
    pulse.look(0, 0)
    (tmp_path / "beat-0").write_text("")
    assert pulse.look(1, 0) == ("beat-0", 1.0)


def test_a_host_that_slept_is_no_standstill(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path)
    beat(tmp_path, 0, 1)
    pulse.look(0, 0)
    assert pulse.look(3600, 0) == ("beat-0", 2 * LOOK_S)


def test_what_it_waited_for_a_processor_is_no_standstill(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path)
    beat(tmp_path, 0, 1)
    pulse.look(0, 5.0)
    for second in range(1, 101):
        found = pulse.look(second, 5.0 + second * 0.75)
    assert found == ("beat-0", 25.0)


def test_the_host_says_how_long_a_process_waited() -> None:
    assert waited_s(os.getpid()) >= 0.0
    assert waited_s(2**22 + 1) == 0.0  # no such process


@pytest.mark.parametrize("answered", [0, 1, 3, 100])
def test_what_the_monitor_says_until_it_says_no_more(answered: int) -> None:
    ours, its = socket.socketpair()

    def serve() -> None:
        with its, its.makefile("rb") as asked:
            its.sendall(b'{"QMP": {}}\n')
            for _ in range(answered):
                line = asked.readline()
                if not line:
                    return
                told = json.loads(line)["arguments"].get("command-line", "")
                its.sendall(b'{"event": "STOP"}\n' + json.dumps({"return": f"XMM00=1\r\n{told}!\r\n"}).encode() + b"\n")

    serving = threading.Thread(target=serve)
    serving.start()
    with ours:
        said = monitor.state(ours)
    serving.join()
    assert said.count("!") == min(max(answered - 1, 0), len(monitor.QUESTIONS))
    assert ("QEMU does not answer" in said) == (answered <= len(monitor.QUESTIONS))
    assert "XMM" not in said


def test_a_monitor_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "TIMEOUT_S", 0.05)
    ours, its = socket.socketpair()
    with ours, its:
        assert "QEMU does not answer: timed out" in monitor.state(ours)


def test_a_monitor_that_speaks_something_else_is_given_up() -> None:
    ours, its = socket.socketpair()
    with ours, its:
        its.sendall(b"hello\nhello\n")
        assert "QEMU does not answer" in monitor.state(ours)
