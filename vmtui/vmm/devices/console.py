"""virtio-console (VIRTIO 5.3): hvc0, the console of choice. One exit for a line, where a UART has one for a byte."""

from __future__ import annotations

import struct

from vmtui.vmm.devices.serial import Serial
from vmtui.vmm.loop import Loop
from vmtui.vmm.terminal import Terminal
from vmtui.vmm.virtio.device import Activation, QueueWorker
from vmtui.vmm.virtio.queue import RING_EVENT_IDX, RING_INDIRECT_DESC, Queue

TYPE_CONSOLE = 3
F_SIZE, F_EMERG_WRITE = 1 << 0, 1 << 2  # 5.3.3
RX, TX = 0, 1  # 5.3.2
QUEUE_SIZE = 64
EMERG_WRITE = 8  # offset in struct virtio_console_config: cols, rows, max_nr_ports, emerg_wr
MOST_AT_ONCE = 64 << 10  # of one chain; more is the guest's loss


class Console(QueueWorker):
    """While its driver is there the terminal's input is its; before and after, the serial line's."""

    type_id = TYPE_CONSOLE
    queue_sizes = (QUEUE_SIZE, QUEUE_SIZE)
    features = F_SIZE | F_EMERG_WRITE | RING_INDIRECT_DESC | RING_EVENT_IDX

    def __init__(self, name: str, loop: Loop, terminal: Terminal, serial: Serial) -> None:
        super().__init__(loop)
        self.name = name
        self._terminal = terminal
        self._serial = serial
        self._rows = self._columns = 0  # unknown: the guest then takes 24 by 80
        self._counters = {"read_bytes": 0, "written_bytes": 0}
        terminal.heard = self.heard
        terminal.resized = self.resize

    def config(self) -> bytes:
        return struct.pack("<HHII", self._columns, self._rows, 1, 0)

    def write_config(self, offset: int, size: int, value: int) -> None:
        """A byte before there are queues, or after they broke (5.3.4)."""
        if offset == EMERG_WRITE and size >= 1:
            self._terminal.write(bytes((value & 0xFF,)))

    def resize(self, rows: int, columns: int) -> None:
        """From any thread."""
        self._rows, self._columns = rows & 0xFFFF, columns & 0xFFFF
        session = self.session
        if session is not None:
            session.config_changed()

    def heard(self) -> None:
        """The terminal has input. In the loop's thread."""
        if self.session is not None:
            self.run(RX)
        else:
            self._serial.heard()

    def begun(self, activation: Activation) -> None:
        self._serial.listens = False

    def ended(self) -> None:
        self._serial.listens = True

    def process(self, index: int, queue: Queue) -> None:
        if index == TX:
            while (chain := queue.pop()) is not None:
                data = chain.copy_in(MOST_AT_ONCE)
                self._counters["written_bytes"] += len(data)
                self._terminal.write(data)
                queue.push(chain.head, 0)
            return
        while self._terminal.waiting and (chain := queue.pop()) is not None:
            data = self._terminal.take(chain.writable_bytes)
            self._counters["read_bytes"] += len(data)
            queue.push(chain.head, chain.copy_out(data))

    def more(self, index: int) -> bool:
        return index == TX or self._terminal.waiting > 0

    def counters(self) -> dict[str, int]:
        return dict(self._counters)
