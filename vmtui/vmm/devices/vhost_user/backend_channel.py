"""The way by which a back-end speaks unasked ("Back-end communication"): that the configuration is another.

One pair of sockets for all back-ends of a device, one after the other: where the machine is confined no other is made.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from vmtui.vmm.devices.vhost_user import messages as m
from vmtui.vmm.loop import Loop


class BackEndChannel:
    """Owns both ends; `theirs` is for the back-end. `broken(reason)` hears of one that breaks the rules."""

    def __init__(self, loop: Loop, config_changed: Callable[[], None], broken: Callable[[str], None]) -> None:
        self._loop, self._config_changed, self._broken = loop, config_changed, broken
        self._ours, self.theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._data = b""
        loop.watch(self._ours.fileno(), lambda _: self._read())

    def empty(self) -> None:
        """Forget what the back-end before has said last."""
        while self._receive():
            pass
        self._data = b""

    def _receive(self) -> bytes:
        try:
            return self._ours.recv(m.MAX_PAYLOAD_BYTES)  # descriptors that come along are closed by the kernel
        except OSError:
            return b""

    def _read(self) -> None:
        self._data += self._receive()
        changed = False
        try:
            while len(self._data) >= m.HEADER.size:
                header = m.header(self._data[: m.HEADER.size])
                end = m.HEADER.size + header.size
                if len(self._data) < end:
                    break
                self._data = self._data[end:]
                known = header.request == m.BACKEND_CONFIG_CHANGE
                changed = changed or known
                if header.flags & m.NEED_REPLY:
                    self._ours.send(m.message(header.request, m.U64.pack(not known), flags=m.REPLY))
        except (ValueError, OSError) as error:
            self.empty()
            self._broken(f"the back-end sends {error}" if isinstance(error, ValueError) else "the back-end is deaf")
            return
        if changed:
            self._config_changed()

    def close(self) -> None:
        self._loop.unwatch(self._ours.fileno())
        self._ours.close()
        self.theirs.close()
