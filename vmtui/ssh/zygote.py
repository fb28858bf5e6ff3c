"""The fork server: one thread, no event loop, everything imported. Each session is a fork of it.

`python -m vmtui.ssh.zygote FD`, FD being a SOCK_SEQPACKET socket of the server. It ends, with all of its sessions,
when the server closes the other end.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pkgutil
import selectors
import signal
import socket
import sys
import time
from dataclasses import dataclass, field

from vmtui.ssh import kin, packing, spawn, warming
from vmtui.ssh.spawn import Ended, FromForks, HangUp, Ready, Refused, Signal, Spawn, Spawned, Unfit

PRELOADED = ("vmtui.tui", "vmtui.headless", "vmtui.engine", "vmtui.backends")
LAST_GRACE_S = 1.0  # when the server is gone
RECENT_S = 0.05


@dataclass(slots=True)
class Leader:
    """The process of a session, not reaped yet: its number is its own."""

    number: int
    pid: int
    pidfd: int
    kill_at: float | None = None
    remembered: list[kin.Seen] = field(default_factory=list)


class Zygote:
    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._leaders: dict[int, Leader] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(sock, selectors.EVENT_READ, None)
        self._pid = os.getpid()
        self._deaf = False  # the server is gone
        self._seen: list[kin.Seen] = []
        self._looked_at = float("-inf")

    def run(self) -> None:
        """Until the server is gone and every session is over."""
        self._tell(Ready())
        while not self._deaf or self._leaders:
            ready = self._selector.select(self._next_s())
            at = time.monotonic()
            for key, _ in ready:
                if key.data is None:
                    self._hear()
                else:
                    self._over(key.data, at)
            self._kill_late()

    def _next_s(self) -> float | None:
        times = [leader.kill_at for leader in self._leaders.values() if leader.kill_at is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _kill_late(self) -> None:
        now = time.monotonic()
        late = [each for each in self._leaders.values() if each.kill_at is not None and each.kill_at <= now]
        for leader in late:
            os.kill(leader.pid, signal.SIGSTOP)
        everyone = list(kin.everybody()) if late else []
        for leader in late:
            leader.kill_at = None
            kin.kill(leader.pid, leader.remembered, everyone)

    def _hear(self) -> None:
        try:
            asked = spawn.receive_asked(self._socket)
        except Unfit as error:
            sys.stderr.write(f"vmtui: the fork server was sent what it does not understand: {error}\n")
            return
        except OSError:
            asked = None
        if asked is None:
            self._selector.unregister(self._socket)
            self._deaf = True
            for leader in self._leaders.values():
                self._hang_up(leader, LAST_GRACE_S)
            return
        message, fds = asked
        try:
            if isinstance(message, Spawn):
                self._spawn(message, fds)
                return
        finally:
            spawn.close_all(fds)
        if (asked_of := self._leaders.get(message.number)) is None:
            return  # over meanwhile
        if isinstance(message, HangUp):
            self._hang_up(asked_of, message.grace_s)
        else:
            self._signal(asked_of, message)

    def _spawn(self, message: Spawn, fds: list[int]) -> None:
        if len(fds) != (2 if message.terminal else 4):
            self._tell(Refused(message.number, f"{len(fds)} descriptors came to the fork server with it"))
            return
        try:
            pid = os.fork()
        except OSError as error:
            self._tell(Refused(message.number, f"no process can be made: {os.strerror(error.errno or 0)}"))
            return
        if pid == 0:
            from vmtui.ssh import child

            child.become(message, fds, self._pid)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:  # no descriptor left: it cannot be watched, so it must not be
            kin.kill(pid)
            os.waitpid(pid, 0)
            self._tell(Refused(message.number, f"no process can be watched: {os.strerror(error.errno or 0)}"))
            return
        leader = self._leaders[message.number] = Leader(message.number, pid, pidfd)
        self._selector.register(pidfd, selectors.EVENT_READ, leader)
        self._tell(Spawned(message.number, pid))

    def _signal(self, leader: Leader, message: Signal) -> None:
        group = message.group or leader.pid
        with contextlib.suppress(OSError):
            if os.getsid(group) == leader.pid:
                os.killpg(group, message.signal)

    def _hang_up(self, leader: Leader, grace_s: float) -> None:
        until = time.monotonic() + grace_s
        if leader.kill_at is not None:
            leader.kill_at = min(until, leader.kill_at)
            return
        leader.kill_at = until
        leader.remembered = kin.tools(leader.pid, self._everybody(time.monotonic() - RECENT_S))
        for number in (signal.SIGHUP, signal.SIGCONT):  # who is stopped hears of it too
            try:
                os.killpg(leader.pid, number)
            except OSError:  # it has not come to lead a group yet
                os.kill(leader.pid, number)

    def _everybody(self, since: float) -> list[kin.Seen]:
        """As it was then or later. Many sessions end at once when a link drops, and each look takes milliseconds."""
        if self._looked_at < since:
            self._looked_at = time.monotonic()
            self._seen = list(kin.everybody())
        return self._seen

    def _over(self, leader: Leader, at: float) -> None:
        """The leader was dead `at` that time and is not reaped: its number still names its session."""
        self._selector.unregister(leader.pidfd)
        os.close(leader.pidfd)
        kin.kill(leader.pid, leader.remembered, self._everybody(at))
        _, status = os.waitpid(leader.pid, 0)
        del self._leaders[leader.number]
        code = os.waitstatus_to_exitcode(status)
        self._tell(Ended(leader.number, code if code >= 0 else 128 - code))

    def _tell(self, message: FromForks) -> None:
        with contextlib.suppress(OSError):  # gone: `_hear` learns of it
            spawn.send(self._socket, spawn.encode(message))


def preload() -> None:
    """Import all that a session may need: what is imported here is shared by all of them.

    What cannot be imported is said on stderr, and fails the session that uses it, not all.
    """
    importlib.import_module("vmtui.ssh.child")
    for package in map(importlib.import_module, PRELOADED):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            try:
                importlib.import_module(found.name)
            except Exception as error:
                sys.stderr.write(f"vmtui: {found.name} cannot be imported: {type(error).__name__}: {error}\n")


def main() -> None:
    sock = socket.socket(fileno=int(sys.argv[1]))
    sock.setblocking(True)
    os.set_inheritable(sock.fileno(), False)
    gc.disable()  # no garbage is looked for, so that no page is written that sessions share
    preload()
    try:
        warming.warm()
    except Exception as error:
        sys.stderr.write(f"vmtui: the panel could not be tried: {type(error).__name__}: {error}\n")
    gc.collect()
    gc.freeze()
    filling = packing.pack()
    Zygote(sock).run()
    del filling


if __name__ == "__main__":
    main()
