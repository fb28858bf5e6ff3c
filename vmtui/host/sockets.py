"""Ports of this host: whether one can be had, and who has it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from vmtui.host.process import tail

TCP_LISTEN = "0A"  # include/net/tcp_states.h, as /proc/net/tcp shows it


def obstacle(address: str, port: int, protocol: str) -> str | None:
    """Why `address`:`port` cannot be bound just now, for people, or None if it can. `protocol` is tcp or udp."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as trial:
        if kind == socket.SOCK_STREAM:
            # Connections that are closing do not count; sockets that listen do.
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                who = holder(port, protocol)
                return f"port {port}/{protocol} is in use on this host" + (f" by {who}" if who else "")
            if error.errno == errno.EADDRNOTAVAIL:
                return f"{address} is not an address of this host"
            return f"port {port}/{protocol} cannot be had on {address}: {error.strerror}"
    return None


def look(port: int, protocol: str) -> str:
    """The command that shows what is in the way of a port: its holder, or else the addresses that there are."""
    return f"ss -Htulnp 'sport = :{port}'" if any(_inodes(port, protocol)) else "ip -brief address"


def holder(port: int, protocol: str) -> str | None:
    """The process that has the port, as "nginx (pid 4242)"; None if it cannot be seen."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port, protocol)}
    if not wanted:
        return None
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            for fd in os.scandir(process / "fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(fd.path) in wanted:
                        name = tail((process / "comm").read_bytes())
                        return f"{name} (pid {process.name})"
    return None


def listens(pid: int, port: int) -> bool:
    """Whether this process itself has a TCP socket that listens at `port`."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port, "tcp")}
    with contextlib.suppress(OSError):
        for fd in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(fd.path) in wanted:
                    return True
    return False


def _inodes(port: int, protocol: str) -> Iterator[str]:
    """proc(5), /proc/net/tcp: the second field is the local address, the fourth the state, the tenth the inode."""
    for table in (protocol, f"{protocol}6"):
        with contextlib.suppress(OSError):
            for line in Path("/proc/thread-self/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                bound = int(fields[1].rpartition(":")[2], 16)
                if bound == port and (protocol == "udp" or fields[3] == TCP_LISTEN):
                    yield fields[9]
