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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path


def test_a_lab_that_beats_does_not_stand_still(folder: Path) -> None:
    pulse = Pulse(folder, 2)
    for second in range(100):
        beat(folder, 0, second // 2)
        beat(folder, 1, second // 2)
        assert pulse.look(second, 0) is None


def test_one_processor_that_stands_still_is_enough(folder: Path) -> None:
    pulse = Pulse(folder, 20)
    for second in range(21):
        beat(folder, 0, second)
        beat(folder, 1, 7)
        assert pulse.look(second, 0) is None
    assert pulse.look(21, 0) == "beat-1 for 21 s: 7"


def test_a_lab_that_never_begins_is_seen(folder: Path) -> None:
    pulse = Pulse(folder, 30)
    assert [pulse.look(second, 0) for second in range(91)] == [None] * 91
    assert pulse.look(91, 0) == f"{BOOT} for 91 s: "


def test_a_lab_that_begins_late_is_not_held_to_that(folder: Path) -> None:
    pulse = Pulse(folder, 30)
    for second in range(100):
        if second >= 90:
            beat(folder, 0, second)
        assert pulse.look(second, 0) is None


def test_a_beat_that_is_just_written_is_not_there_yet(folder: Path) -> None:
    pulse = Pulse(folder, 3)
    beat(folder, 0, 1)
    for second in range(4):
        assert pulse.look(second, 0) is None
        (folder / "beat-0").write_text("")
    assert pulse.look(4, 0) == "beat-0 for 4 s: 1"


def test_a_host_that_slept_is_no_standstill(folder: Path) -> None:
    pulse = Pulse(folder, 2 * LOOK_S)
    beat(folder, 0, 1)
    assert pulse.look(0, 0) is None
    assert pulse.look(3600, 0) is None
    assert pulse.look(7200, 0) is not None


def test_what_it_waited_for_a_processor_is_no_standstill(folder: Path) -> None:
    pulse = Pulse(folder, 25)
    beat(folder, 0, 1)
    for second in range(101):
        assert pulse.look(second, 5.0 + second * 0.75) is None
    assert pulse.look(102, 5.0 + 101 * 0.75) == "beat-0 for 26 s: 1"


def test_a_test_that_its_own_time_out_did_not_end_is_a_standstill(folder: Path) -> None:
    pulse, running = Pulse(folder, 10), folder / "out/running"
    running.write_text("50 test_a\n")
    for second in range(200):
        beat(folder, 0, second)
        if second == 60:
            running.write_text("50 test_b\n")
        assert pulse.look(second, 0) is None or second > 120
    assert pulse.look(200, 0) == "out/running for 140 s: 50 test_b"
    running.unlink()
    assert pulse.look(201, 0) is None


@pytest.mark.parametrize("said", ["", "\n", "test_a", "5"])
def test_what_is_running_may_be_half_written(folder: Path, said: str) -> None:
    pulse = Pulse(folder, 10)
    (folder / "out/running").write_text(said)
    for second in range(11):
        beat(folder, 0, second)
        assert pulse.look(second, 0) is None


def test_the_host_says_how_long_a_process_waited() -> None:
    assert waited_s(os.getpid()) >= 0.0
    assert waited_s(2**22 + 1) == 0.0  # no such process


ALL = 1 + len(monitor.QUESTIONS) + 1  # to begin with, and the NMI


@pytest.mark.parametrize("answered", [0, 1, 3, ALL - 1, ALL])
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
    assert ("QEMU does not answer" in said) == (answered < ALL)
    assert ("an NMI ended it" in said) == (answered == ALL)
    assert "XMM" not in said


def test_a_monitor_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "TIMEOUT_S", 0.05)
    ours, its = socket.socketpair()
    with ours, its:
        assert "QEMU does not answer: timed out" in monitor.state(ours)


def test_a_machine_that_no_nmi_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "LAST_WORDS_S", 0.05)
    ours, its = socket.socketpair()
    with ours, its:
        its.sendall(b'{"QMP": {}}\n' + b'{"return": {}}\n' * ALL)
        assert monitor.state(ours).endswith("an NMI does not end it\n")


def test_a_monitor_that_speaks_something_else_is_given_up() -> None:
    ours, its = socket.socketpair()
    with ours, its:
        its.sendall(b"hello\nhello\n")
        assert "QEMU does not answer" in monitor.state(ours)
