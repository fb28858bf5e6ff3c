"""Tells of changes to networks as they happen: links and addresses by rtnetlink, the end of a dnsmasq by pidfd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable

from vmtui.backends.tap import kernel, names
from vmtui.backends.tap.network import Network
from vmtui.core.backend import Context
from vmtui.core.resource import Ref
from vmtui.host.process import ProcessId
from vmtui.host.rtnetlink import (
    ADDRESS,
    RECEIVE_BYTES,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTMGRP_IPV4_IFADDR,
    RTMGRP_LINK,
    decode,
    parse_messages,
)

SETTLE_S = 0.05  # a link that is made tells of itself a dozen times


class Watcher:
    """Collects the refs that changed; `changed` is set while there are any."""

    def __init__(self, context: Context, traces: Callable[[], Iterable[Ref]], networks: Callable[[], list[Network]]):
        self._context = context
        self._traces = traces
        self._networks = networks
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR))
        self._names: dict[str, Ref] = {}  # interface to network, those that are gone too
        self._indices: dict[int, str] = {link.index: link.name for link in kernel.links().values()}
        self._processes: dict[int, tuple[ProcessId, Ref]] = {}  # by pidfd
        self.refs: set[Ref] = set()
        self.changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)
        self.learn()

    def learn(self) -> None:
        """Which interfaces and which dnsmasq are of which network, as of now."""
        for ref in self._traces():
            self._names[names.bridge_name(self._context, ref)] = ref
        watched = {process for process, _ in self._processes.values()}
        for network in self._networks():
            for lease in network.book.leases:
                self._names[network.interface(lease)] = network.ref
            process = network.dnsmasq.process()
            if process is not None and process not in watched:
                with contextlib.suppress(OSError):
                    fd = os.pidfd_open(process.pid)
                    self._processes[fd] = (process, network.ref)
                    self._loop.add_reader(fd, self._ended, fd)

    def _ended(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        os.close(fd)
        self._tell(self._processes.pop(fd)[1])

    def _read(self) -> None:
        while True:
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: events were lost, so anything may have changed
                self._names_changed(self._names)
                return
            self._names_changed(self._interfaces(data))

    def _interfaces(self, data: bytes) -> list[str]:
        found = []
        for kind, payload in parse_messages(data):
            message = decode(kind, payload)
            if kind in (RTM_NEWLINK, RTM_DELLINK):
                link = kernel.parse_link(message)
                self._indices[link.index] = link.name
                found.append(link.name)
            elif kind in (RTM_NEWADDR, RTM_DELADDR):
                found.append(self._indices.get(ADDRESS.unpack(message.body)[4], ""))
        return [name for name in found if name.startswith((names.BRIDGE, names.TAP, names.VETH))]

    def _names_changed(self, changed: Iterable[str]) -> None:
        changed = list(changed)
        if any(name not in self._names for name in changed):
            self.learn()
        for name in changed:
            if name in self._names:
                self._tell(self._names[name])

    def _tell(self, ref: Ref) -> None:
        self.refs.add(ref)
        self.changed.set()

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for fd in self._processes:
            self._loop.remove_reader(fd)
            os.close(fd)
        self._processes.clear()


async def watch(
    context: Context, traces: Callable[[], Iterable[Ref]], networks: Callable[[], list[Network]]
) -> AsyncIterator[Ref]:
    """Refs of networks whose links, ports, addresses or dnsmasq changed, each once per burst."""
    watcher = Watcher(context, traces, networks)
    try:
        while True:
            await watcher.changed.wait()
            await asyncio.sleep(SETTLE_S)
            watcher.changed.clear()
            refs, watcher.refs = watcher.refs, set()
            watcher.learn()
            for ref in sorted(refs):
                yield ref
    finally:
        watcher.close()
