"""Which processes belong to a session, and their end. What a verb set up to live on does not belong to it.

A workload's parent is always a process whose own parent has ended, in a session of its own: conmon, the VMM, dnsmasq.
What the session still needs (a tool, `runc exec`) is a descendant of its leader, or in its session.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

ROUNDS = 20  # a process that forks faster than it is stopped is killed in the last one


class Seen(NamedTuple):
    """A process as /proc/PID/stat tells it (proc(5))."""

    pid: int
    state: str
    parent: int
    session: int
    start_ticks: int

    @property
    def over(self) -> bool:
        return self.state in "ZX"


def look(pid: int) -> Seen | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return Seen(pid, fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19]))


def everybody() -> Iterator[Seen]:
    for name in os.listdir("/proc"):
        if name.isdecimal() and (seen := look(int(name))) is not None:
            yield seen


def of(leader: int, remembered: Collection[Seen] = (), everyone: Iterable[Seen] | None = None) -> list[Seen]:
    """All that live and belong to the session that `leader` leads or led, without itself.

    The caller is its parent and has not reaped it, so that its number means nobody else. `remembered` are some that
    were found before, and may have lost their parent since. `everyone` is what `everybody` has just said, if known.
    """
    roots = {leader}
    for old in remembered:
        if (now := look(old.pid)) is not None and now.start_ticks == old.start_ticks and not now.over:
            roots.add(old.pid)
    children: dict[int, list[Seen]] = {}
    found: dict[int, Seen] = {}
    for seen in everybody() if everyone is None else everyone:
        children.setdefault(seen.parent, []).append(seen)
        if seen.session == leader or seen.pid in roots:
            found[seen.pid] = seen
    todo = [*roots, *found]
    while todo:
        for child in children.get(todo.pop(), ()):
            if child.pid not in found:
                found[child.pid] = child
                todo.append(child.pid)
    return [seen for pid, seen in found.items() if pid != leader and not seen.over]


def tools(leader: int, everyone: Iterable[Seen] | None = None) -> list[Seen]:
    """Those that are to be remembered at a hang-up: should the leader go before them, they are still the session's.

    Of other sessions only direct children: what is further away may be about to become a workload's parent.
    """
    found = of(leader, everyone=everyone)
    return [seen for seen in found if seen.session == leader or seen.parent == leader]


def kill(leader: int, remembered: Collection[Seen] = (), everyone: Iterable[Seen] | None = None) -> None:
    """SIGKILL to the leader, if it still runs, and all that belongs to it.

    First they are stopped, from the leader down: who is stopped neither forks nor reaps, so that nobody escapes and
    no number is used again meanwhile. `everyone` is what `everybody` has said since the leader died or was stopped.
    """
    stopped: dict[int, Seen] = {}
    _send(leader, signal.SIGSTOP)
    for _ in range(ROUNDS):
        new = [seen for seen in of(leader, remembered, everyone) if seen.pid not in stopped]
        everyone = None
        if not new:
            break
        for seen in new:
            stopped[seen.pid] = seen
            signal_seen(seen, signal.SIGSTOP)
    for seen in stopped.values():
        signal_seen(seen, signal.SIGKILL)
    _send(leader, signal.SIGKILL)


def signal_seen(seen: Seen, number: int) -> None:
    """To this process and to no other that has its number now."""
    try:
        fd = os.pidfd_open(seen.pid)
    except OSError:
        return
    try:
        now = look(seen.pid)
        if now is not None and now.start_ticks == seen.start_ticks:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(fd, number)
    finally:
        os.close(fd)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)
