"""What a virtio device is to its transport, and the transport to the device.

A device declares its type, features, queues and configuration. When the driver says DRIVER_OK it is handed an
`Activation` and starts to work in an I/O loop; a reset takes everything back.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from vmtui.vmm.eventfd import EventFd
from vmtui.vmm.loop import Loop
from vmtui.vmm.memory import GuestMemory
from vmtui.vmm.virtio.queue import Queue, QueueBroken


class Activation(NamedTuple):
    """A driver's session with a device, from DRIVER_OK to reset. `kicks` and `calls` have an entry for each queue.

    `calls[n]` is the irqfd of queue n's vector: signalling it interrupts the guest, from any process that has it.
    """

    memory: GuestMemory
    features: int  # what the driver accepted
    queues: tuple[Queue, ...]  # one that the driver did not set up is not `enabled`
    kicks: tuple[EventFd, ...]
    calls: tuple[EventFd, ...]
    config_changed: Callable[[], None]  # interrupt: the configuration is another (VIRTIO 2.5.1)
    failed: Callable[[str], None]  # DEVICE_NEEDS_RESET with the reason, which the VM's status shows


class VirtioDevice(ABC):
    """One device. All methods but `activate` and `reset` may be called by several threads; none raises."""

    type_id: int  # VIRTIO 5
    name: str  # "blk0": in metrics, events and the status
    queue_sizes: tuple[int, ...]  # the largest size of each queue
    features: int = 0  # what is offered, VERSION_1 left to the transport

    def read_config(self, offset: int, size: int) -> int:
        """The device's configuration space (little-endian); beyond its end it reads as 0."""
        return int.from_bytes(self.config()[offset : offset + size], "little")

    def config(self) -> bytes:
        """The configuration space whole, as it is now."""
        return b""

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Most fields are the device's to write: ignored."""
        return

    @abstractmethod
    def activate(self, activation: Activation) -> None:
        """Begin. Called by a vCPU thread: hand off to a loop at once. What fails is told by `activation.failed`."""

    @abstractmethod
    def reset(self) -> None:
        """End the session: when it returns, no guest memory is touched and no interrupt raised for it any more."""

    def counters(self) -> dict[str, int]:
        """What the metrics show of it: bytes, requests. Names with their unit."""
        return {}

    def close(self) -> None:
        """Release what it owns. After `reset`."""
        return


class QueueWorker(VirtioDevice):
    """A device whose queues are worked on in this process: `process` runs in `loop`, once for each queue kicked.

    One lock for all: a reset waits for the request at hand, and finds nothing running after.
    """

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.lock = threading.Lock()
        self.session: Activation | None = None

    def activate(self, activation: Activation) -> None:
        with self.lock:
            self.session = activation
            self.begun(activation)
        for index, queue in enumerate(activation.queues):
            if queue.enabled:
                self._watch(index, activation)

    def _watch(self, index: int, session: Activation) -> None:
        self.loop.watch(session.kicks[index].fd, lambda _: self._kicked(index, session))
        session.kicks[index].signal()  # what the driver put there before DRIVER_OK may have been kicked for, or not

    def _kicked(self, index: int, session: Activation) -> None:
        session.kicks[index].drain()
        self.run(index, session)

    def run(self, index: int, session: Activation | None = None) -> None:
        """Work on a queue until it is empty, in the loop's thread. A kick leads here, and whatever else gives cause."""
        with self.lock:
            now = self.session
            if now is None or (session is not None and now is not session) or not now.queues[index].enabled:
                return
            queue = now.queues[index]
            queue.kicks += 1
            try:
                queue.suppress_kicks()
                while True:
                    self.process(index, queue)
                    if not queue.want_kicks() or not self.more(index):
                        break
                    queue.suppress_kicks()
                self.interrupt(index)
            except QueueBroken as broken:
                self._stop(now)
                now.failed(str(broken))
            except (OSError, ValueError) as error:
                self._stop(now)
                now.failed(f"{type(error).__name__}: {error}")

    def interrupt(self, index: int) -> None:
        """Tell the guest what was pushed so far, if it wants to know. For `process`, when what is left takes long."""
        if self.session is not None and self.session.queues[index].interrupt_wanted():
            self.session.calls[index].signal()

    def _stop(self, session: Activation) -> None:
        self.session = None
        for kick in session.kicks:
            self.loop.unwatch(kick.fd)
        self.ended()

    def begun(self, activation: Activation) -> None:
        """A session begins; the lock is held."""
        return

    def ended(self) -> None:
        """A session is over; the lock is held."""
        return

    def more(self, index: int) -> bool:
        """Whether `process` is to run again when chains are left. Not where it waits for something else to come."""
        return True

    @abstractmethod
    def process(self, index: int, queue: Queue) -> None:
        """Take chains, work, push them. Raises QueueBroken and OSError: the device then needs a reset."""

    def reset(self) -> None:
        with self.lock:
            if self.session is not None:
                self._stop(self.session)
