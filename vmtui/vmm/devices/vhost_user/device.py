"""What all vhost-user devices have in common: a driver's session is carried to the back-end, and over its death.

Everything said to the back-end is said in the loop's thread. A vCPU waits for it at a reset alone, and not for long.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from vmtui.vmm.devices.vhost_user import messages as m
from vmtui.vmm.devices.vhost_user.backend_channel import BackEndChannel
from vmtui.vmm.devices.vhost_user.connection import BackEndLost, Connection
from vmtui.vmm.loop import Loop
from vmtui.vmm.memory import GuestMemory
from vmtui.vmm.virtio.device import Activation, VirtioDevice
from vmtui.vmm.virtio.queue import Queue

STOP_S = 1.0  # how long a reset waits for the back-end to have finished; then it has lost its connection
ABORT_S = 0.5
WANTED = m.F_MQ | m.F_REPLY_ACK | m.F_BACKEND_REQ | m.F_CONFIG


class VhostUser(VirtioDevice):
    """Owns the connection. `lost(reason)` and `back()` are called in the loop's thread, as often as it happens.

    A back-end that is lost may still be alive, and then still has the guest's memory: who hears of it ends it.
    """

    def __init__(
        self,
        name: str,
        loop: Loop,
        connected: socket.socket,
        *,
        carried: int,
        lost: Callable[[str], None],
        back: Callable[[], None],
    ) -> None:
        """Takes `connected` over and waits for the back-end's first words: before the vCPUs run. Raises OSError.

        `carried`: the virtio features that are offered if the back-end has them.
        """
        self.name = name
        self.loop = loop
        self._lost, self._back = lost, back
        self._session: Activation | None = None
        self._running = False
        self._resumes = False
        self._losses = 0
        self._connection: Connection | None = None
        self._channel = BackEndChannel(loop, self._config_may_have_changed, self._drop)
        try:
            self.features = self._attach(connected) & carried
        except BackEndLost as reason:
            self._channel.close()
            connected.close()
            raise OSError(f"{name}: {reason}") from None

    # What subclasses add; all in the loop's thread

    def attached(self, connection: Connection) -> None:
        """A back-end is there, and has agreed on features. Raises BackEndLost: it is not of use."""
        return

    def starting(self, connection: Connection) -> None:
        """A session is about to begin with it. Raises BackEndLost."""
        return

    def config_may_have_changed(self, connection: Connection) -> bool:
        """The back-end says so. Whether it has. Raises BackEndLost."""
        return False

    def resumable(self, *, clean: bool) -> bool:
        """Whether a new back-end can go on where one without outstanding chains has ended. `clean`: by itself."""
        return False

    # From other threads

    def activate(self, activation: Activation) -> None:
        self._session = activation
        self._resumes = False
        self.loop.call(lambda: self._begin(activation))

    def reset(self) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        if not self.loop.do(lambda: self._end(session), STOP_S):
            if (connection := self._connection) is not None:
                connection.abort()
            self.loop.do(lambda: None, ABORT_S)

    def reconnected(self, connected: socket.socket, *, clean: bool = False) -> None:
        """Go on with a new back-end. Takes `connected` over. `clean`: the one before ended as it should, code 0."""
        self.loop.call(lambda: self._reconnect(connected, clean))

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    def say(self, request: int, payload: bytes) -> None:
        """Tell the back-end, soon, if it is there."""

        def tell() -> None:
            if self._connection is not None:
                try:
                    self._connection.tell(request, payload)
                except BackEndLost as reason:
                    self._drop(str(reason))

        self.loop.call(tell)

    def counters(self) -> dict[str, int]:
        return {"backends_lost": self._losses}

    def close(self) -> None:
        self.loop.do(self._close, STOP_S)

    # In the loop's thread

    def _attach(self, connected: socket.socket, needed: int = 0, queues: int = 1) -> int:
        """Returns the back-end's virtio features, among which are all that are `needed`."""
        connection = Connection(connected)
        connection.negotiate(WANTED)
        if missing := needed & ~connection.features:
            raise BackEndLost(f"the new back-end lacks features {missing:#x} of the one before")
        if connection.protocol & m.F_MQ and (there := connection.ask_u64(m.GET_QUEUE_NUM)) < queues:
            raise BackEndLost(f"the new back-end has {there} queues, the one before had {queues}")
        if connection.protocol & m.F_BACKEND_REQ:
            self._channel.empty()
            connection.tell(m.SET_BACKEND_REQ_FD, fds=(self._channel.theirs.fileno(),))
        self.attached(connection)
        self._connection = connection
        self.loop.watch(connected.fileno(), lambda _: self._heard(connection))
        return connection.features

    def _reconnect(self, connected: socket.socket, clean: bool) -> None:
        if self._connection is not None:
            self._drop("another back-end takes over")
        if self._resumes and not self.resumable(clean=clean):
            self._fail("the back-end is gone, and with it what it had not written yet")
        try:
            self._attach(connected, self.features, len(self.queue_sizes))
        except BackEndLost as reason:
            connected.close()
            self._losses += 1
            self._lost(str(reason))
            return
        self._back()
        if (session := self._session) is not None:
            self._begin(session)
            session.config_changed()

    def _begin(self, session: Activation) -> None:
        connection = self._connection
        if session is not self._session or connection is None or self._running:
            return
        try:
            connection.tell(m.SET_FEATURES, m.U64.pack(session.features | m.PROTOCOL_FEATURES))
            _share(connection, session.memory)
            self.starting(connection)
            self._running = True
            for index, queue in enumerate(session.queues):
                if queue.enabled:
                    base = queue.indices[1] if self._resumes else 0
                    _hand_over(connection, index, queue, session, base)
        except BackEndLost as reason:
            self._drop(str(reason))
            return
        for queue, kick in zip(session.queues, session.kicks, strict=True):
            if queue.enabled:
                kick.signal()  # a back-end looks into a queue when it is kicked, whatever was there before

    def _end(self, session: Activation) -> None:
        connection = self._connection
        if not self._running or connection is None:
            return
        self._running = False
        queues = [(index, queue) for index, queue in enumerate(session.queues) if queue.enabled]
        # What was offered is let come to its end: QEMU's daemon gives up over a request that ends after its queue.
        _wait(lambda: all(available == used for _, queue in queues for available, used in (queue.indices,)))
        try:
            for index, queue in queues:
                connection.tell(m.SET_VRING_ENABLE, m.VRING_STATE.pack(index, 0))
                base = connection.vring_base(index)
                if not _wait(lambda: queue.indices[1] == base):  # noqa: B023  # what it has taken it still writes to
                    raise BackEndLost("the back-end does not finish its requests")
        except BackEndLost as reason:
            self._drop(str(reason))

    def _heard(self, connection: Connection) -> None:
        """Something came on the socket that nobody waits for: its end."""
        if connection is self._connection and (reason := connection.unasked()):
            self._drop(reason)

    def _drop(self, reason: str) -> None:
        """The back-end is of no more use."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self.loop.unwatch(connection.socket.fileno())
        connection.close()
        session, running, self._running = self._session, self._running, False
        if session is not None and running:
            outstanding = 0
            for queue, call in zip(session.queues, session.calls, strict=True):
                if queue.enabled:
                    available, used = queue.indices
                    outstanding += (available - used) & 0xFFFF
                    call.signal()  # for what it has done last, and may not have told
            if outstanding:
                self._fail(f"{reason}, with {outstanding} requests unanswered")
            elif not self.resumable(clean=True):
                self._fail(reason)
            else:
                self._resumes = True
        self._losses += 1
        self._lost(reason)

    def _fail(self, reason: str) -> None:
        session, self._session = self._session, None
        self._resumes = False
        if session is not None:
            session.failed(reason)

    def _config_may_have_changed(self) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            changed = self.config_may_have_changed(connection)
        except BackEndLost as reason:
            self._drop(str(reason))
            return
        if changed and (session := self._session) is not None:
            session.config_changed()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self.loop.unwatch(connection.socket.fileno())
            connection.close()
        self._channel.close()


def _wait(holds: Callable[[], bool]) -> bool:
    """False: it does not hold in half the time that a reset has."""
    deadline = time.monotonic() + STOP_S / 2
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(5e-4)
    return True


def _share(connection: Connection, memory: GuestMemory) -> None:
    """Give it all of the guest's memory."""
    regions = memory.regions
    table = m.MEMORY.pack(len(regions), 0) + b"".join(
        m.MEMORY_REGION.pack(each.guest_addr, each.size_bytes, each.host_addr, each.file_offset) for each in regions
    )
    connection.tell(m.SET_MEM_TABLE, table, (memory.fd,) * len(regions))


def _hand_over(connection: Connection, index: int, queue: Queue, session: Activation, base: int) -> None:
    """Set a queue up, from available index `base` on, and let it run."""
    where = [session.memory.host_address(part, 0) for part in (queue.desc_addr, queue.used_addr, queue.avail_addr)]
    connection.tell(m.SET_VRING_NUM, m.VRING_STATE.pack(index, queue.size))
    connection.tell(m.SET_VRING_BASE, m.VRING_STATE.pack(index, base))
    connection.tell(m.SET_VRING_ADDR, m.VRING_ADDR.pack(index, 0, *where, 0))
    connection.tell(m.SET_VRING_CALL, m.U64.pack(index), (session.calls[index].fd,))
    connection.tell(m.SET_VRING_KICK, m.U64.pack(index), (session.kicks[index].fd,))
    connection.tell(m.SET_VRING_ENABLE, m.VRING_STATE.pack(index, 1))
