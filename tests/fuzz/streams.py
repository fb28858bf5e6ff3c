"""The devices that carry streams, with hosts at the other ends that send back what they get, and hang up at times."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from random import Random

from vmtui.vmm.devices.console import Console
from vmtui.vmm.devices.serial import Serial
from vmtui.vmm.devices.vsock import packet
from vmtui.vmm.devices.vsock.device import RX, Reply, Vsock
from vmtui.vmm.devices.vsock.packet import Header
from vmtui.vmm.eventfd import EventFd
from vmtui.vmm.loop import Loop
from vmtui.vmm.terminal import Output, Terminal

CID = 3
KNOCK_S = 0.005
MOST_ENDS = 40


class Echoes:
    """Sockets of hosts. Each sends back what it gets, up to what its other end takes."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._ends: dict[int, socket.socket] = {}
        self._heard = 0

    def add(self, end: socket.socket) -> None:
        if len(self._ends) >= MOST_ENDS:
            self._drop(next(iter(self._ends)))
        end.setblocking(False)
        self._ends[end.fileno()] = end
        fd = end.fileno()
        self._loop.watch(fd, lambda _: self._ready(fd))

    def _ready(self, fd: int) -> None:
        data = b""
        with contextlib.suppress(OSError):
            data = self._ends[fd].recv(1 << 16)
            self._ends[fd].send(data)
        self._heard += 1
        if not data or self._heard % 50 == 0:
            self._drop(fd)

    def _drop(self, fd: int) -> None:
        self._loop.unwatch(fd)
        self._ends.pop(fd).close()

    def close(self) -> None:
        for fd in list(self._ends):
            self._drop(fd)


class FuzzedVsock(Vsock):
    """Half of the guest's connections find somebody; and somebody wants a port of the guest all the time."""

    def __init__(self, loop: Loop, folder: Path) -> None:
        self._echoes = Echoes(loop)
        self._path = str(folder / "vsock.sock")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self._path)
        listener.listen(64)
        super().__init__("vsock0", loop, CID, listener, self._find)
        self._knocks = 0
        loop.after(KNOCK_S, self._knock)

    def _find(self, port: int, guest_port: int, reply: Reply) -> None:
        if port % 2:
            reply(None)
            return
        ours, theirs = socket.socketpair()
        self._echoes.add(theirs)
        reply(ours)

    def _knock(self) -> None:
        if self._knocks < 0:
            return
        self._knocks += 1
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        with contextlib.suppress(OSError):
            end.connect(self._path)
            end.send(b"CONNECT %d\nand more" % (self._knocks % 4))
        self._echoes.add(end)
        self.loop.after(KNOCK_S, self._knock)

    def close(self) -> None:
        self._knocks = -1
        super().close()
        self._echoes.close()


def vsock_request(random: Random, queue: int) -> tuple[list[bytes], list[int]]:
    if queue == RX:
        return [], random.choice(([44, 4052], [4096], [45], [44 + 65536], [100, 1, 1000], [20]))
    length = random.choice((0, 0, 1, 64, 4096))
    header = Header(
        CID if random.random() < 0.97 else random.getrandbits(64),
        packet.HOST_CID if random.random() < 0.97 else random.getrandbits(64),
        random.randrange(4),
        random.choice((0, 1, 2, 4, (1 << 30) + random.randrange(300))),
        length if random.random() < 0.95 else random.getrandbits(32),
        packet.STREAM if random.random() < 0.98 else random.getrandbits(16),
        random.choice((1, 1, 2, 2, 3, 4, 5, 5, 5, 5, 6, 7, random.getrandbits(16))),
        random.choice((0, 1, 2, 3, random.getrandbits(32))),
        random.choice((0, 100, 1 << 18, random.getrandbits(32))),
        random.choice((0, 100, random.getrandbits(32))),
    )
    return [header.pack(), bytes(length)] if length else [header.pack()], []


class FuzzedConsole(Console):
    """Somebody is attached who types what is printed."""

    def __init__(self, loop: Loop, folder: Path) -> None:
        self._log_fd = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
        self._shared = Terminal(loop, Output(loop, self._log_fd))
        self._interrupt = EventFd()
        super().__init__("console0", loop, self._shared, Serial(self._shared, self._interrupt))
        self._echoes = Echoes(loop)
        self._attach()

    def _attach(self) -> None:
        if self._log_fd < 0:
            return
        if not self._shared.is_full:
            ours, theirs = socket.socketpair()
            self._shared.attach(ours)
            self._echoes.add(theirs)
        self.loop.after(KNOCK_S, self._attach)

    def close(self) -> None:
        super().close()
        self._shared.close()
        self._echoes.close()
        self._interrupt.close()
        os.close(self._log_fd)
        self._log_fd = -1


def console_request(random: Random, queue: int) -> tuple[list[bytes], list[int]]:
    if queue == RX:
        return [], [random.choice((1, 64, 4096, 0))]
    return [random.randbytes(random.choice((1, 80, 4096, 0)))], []
