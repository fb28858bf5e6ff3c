"""Which processes end with a session, in real trees of processes: tools do, what was set up to live on does not."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from vmtui.ssh import kin

PATIENCE_S = 60.0


class Tree:
    """A shell that leads a session and says what it starts, one a line: an ordinal, and the number of the process."""

    def __init__(self, script: str, count: int) -> None:
        self.leader = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
        assert self.leader.stdout is not None
        said = sorted(self.leader.stdout.readline().split() for _ in range(count))
        self.pids = [int(pid) for _, pid in said]
        self.started = {pid: seen for pid in self.pids if (seen := kin.look(pid)) is not None}

    def alive(self, pid: int) -> bool:
        now, then = kin.look(pid), self.started[pid]
        return now is not None and now.start_ticks == then.start_ticks and not now.over

    def end(self) -> None:
        for pid, seen in self.started.items():
            kin.signal_seen(seen, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self.leader.kill()
        self.leader.wait()
        assert self.leader.stdout is not None
        self.leader.stdout.close()


@pytest.fixture
def grow() -> Iterator[Callable[[str, int], Tree]]:
    trees: list[Tree] = []

    def make(script: str, count: int) -> Tree:
        trees.append(Tree(script, count))
        return trees[-1]

    yield make
    for tree in trees:
        tree.end()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


Grow = Callable[[str, int], Tree]
OWN_SESSION = "setsid sh -c 'echo 2 $$; exec sleep 600' & "


def test_children_and_tools_in_sessions_of_their_own_end_with_it(grow: Grow) -> None:
    tree = grow(f"sleep 600 & echo 1 $!; {OWN_SESSION} sh -c 'sleep 600 & echo 3 $!; wait' & wait", 3)
    assert {seen.pid for seen in kin.of(tree.leader.pid)} >= set(tree.pids)
    kin.kill(tree.leader.pid)
    until(lambda: not any(map(tree.alive, tree.pids)))
    assert tree.leader.wait() == -signal.SIGKILL


def test_what_left_the_session_and_lost_its_parent_lives_on(grow: Grow) -> None:
    tree = grow("setsid --fork sh -c 'echo 2 $$; exec sleep 600'; sleep 600 & echo 1 $!; wait", 2)
    tool, daemon = tree.pids
    kin.kill(tree.leader.pid)
    until(lambda: not tree.alive(tool))
    assert tree.alive(daemon)


def test_who_is_stopped_ends_too(grow: Grow) -> None:
    tree = grow("sleep 600 & echo 1 $!; wait", 1)
    os.kill(tree.pids[0], signal.SIGSTOP)
    kin.kill(tree.leader.pid)
    until(lambda: not tree.alive(tree.pids[0]))


def test_a_leader_that_is_dead_and_not_reaped_still_names_its_session(grow: Grow) -> None:
    tree = grow("trap '' HUP; sleep 600 & echo 1 $!; exit 3", 1)
    until(lambda: (seen := kin.look(tree.leader.pid)) is not None and seen.over)
    assert tree.alive(tree.pids[0])
    kin.kill(tree.leader.pid)
    until(lambda: not tree.alive(tree.pids[0]))
    assert tree.leader.wait() == 3


def test_a_tool_in_its_own_session_is_remembered_after_its_leader(grow: Grow) -> None:
    tree = grow(f"{OWN_SESSION} wait", 1)
    until(lambda: any(seen.session == tree.pids[0] for seen in kin.of(tree.leader.pid)))
    remembered = kin.tools(tree.leader.pid)
    os.kill(tree.leader.pid, signal.SIGKILL)
    until(lambda: (seen := kin.look(tree.leader.pid)) is not None and seen.over)
    assert kin.of(tree.leader.pid) == []
    kin.kill(tree.leader.pid, remembered)
    until(lambda: not tree.alive(tree.pids[0]))


def test_another_process_with_a_number_that_was_remembered_is_left_alone(grow: Grow) -> None:
    tree, other = grow("sleep 600 & echo 1 $!; wait", 1), grow("sleep 600 & echo 1 $!; wait", 1)
    seen = other.started[other.pids[0]]
    kin.kill(tree.leader.pid, [seen._replace(start_ticks=seen.start_ticks - 1)])
    assert other.alive(other.pids[0])


def test_one_that_forks_all_the_time_does_not_escape(grow: Grow) -> None:
    tree = grow("echo 1 $$; while :; do sh -c 'sleep 600' & sleep 0.01; done", 1)
    until(lambda: len(kin.of(tree.leader.pid)) > 20)
    kin.kill(tree.leader.pid)
    until(lambda: kin.of(tree.leader.pid) == [])
