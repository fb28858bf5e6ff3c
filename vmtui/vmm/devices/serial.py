"""A 16550A UART, COM1: the console until there is a better one (National Semiconductor PC16550D data sheet, June 1995).

Sent bytes are taken at once, so the transmitter is always empty: a driver writes its FIFO of 16 for each interrupt, and
polling ones never wait.
"""

from __future__ import annotations

import threading

from vmtui.vmm.eventfd import EventFd
from vmtui.vmm.terminal import Terminal

# Register offsets; with DLAB set, 0 and 1 are the divisor
DATA, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCRATCH = range(8)
IER_RECEIVED, IER_SENT = 1, 2
IIR_NONE, IIR_SENT, IIR_RECEIVED, IIR_FIFOS = 0x01, 0x02, 0x04, 0xC0
FCR_ENABLE, FCR_CLEAR_RECEIVED = 1, 2
LCR_DLAB = 0x80
MCR_LOOP, MCR_OUT2 = 0x10, 0x08
LSR_READY, LSR_EMPTY = 0x01, 0x60  # THRE and TEMT
MSR_LINES = 0xB0  # CTS, DSR, DCD: somebody is there
FIFO = 16
PORTS = 8


class Serial:
    """Ports by offset. One lock: several vCPUs may print, and input comes from the loop."""

    def __init__(self, terminal: Terminal, interrupt: EventFd) -> None:
        self._terminal = terminal
        self._interrupt = interrupt
        self._lock = threading.Lock()
        self._received = bytearray()
        self._ier = self._lcr = self._mcr = self._scratch = 0
        self._fifos = False
        self._divisor = 12  # 9600 baud: what a firmware leaves
        self._sent_pending = False  # the "transmitter empty" interrupt, until it is seen
        self.listens = True  # whether it takes the terminal's input: while no better console does

    def read(self, offset: int, size: int) -> int:  # 8-bit registers
        with self._lock:
            if offset == DATA:
                return self._divisor & 0xFF if self._lcr & LCR_DLAB else self._next()
            if offset == IER:
                return self._divisor >> 8 if self._lcr & LCR_DLAB else self._ier
            if offset == IIR_FCR:
                return self._identify()
            if offset == LSR:
                return LSR_EMPTY | (LSR_READY if self._received else 0)
            if offset == MSR:
                return self._lines()
            return {LCR: self._lcr, MCR: self._mcr, SCRATCH: self._scratch}.get(offset, 0)

    def write(self, offset: int, size: int, value: int) -> None:
        value &= 0xFF
        with self._lock:
            if offset == DATA and self._lcr & LCR_DLAB:
                self._divisor = self._divisor & 0xFF00 | value
            elif offset == DATA:
                self._send(value)
            elif offset == IER and self._lcr & LCR_DLAB:
                self._divisor = self._divisor & 0xFF | value << 8
            elif offset == IER:
                asked = value & ~self._ier
                self._ier = value & 0x0F
                if asked & IER_SENT:
                    self._sent_pending = True
                self._settle()
            elif offset == IIR_FCR:
                self._fifos = bool(value & FCR_ENABLE)
                if value & FCR_CLEAR_RECEIVED:
                    self._received.clear()
                    self._fill()
                    self._settle()
            elif offset == LCR:
                self._lcr = value
            elif offset == MCR:
                self._mcr = value & 0x1F
            elif offset == SCRATCH:
                self._scratch = value

    def heard(self) -> None:
        """The terminal has input. In the loop's thread."""
        with self._lock:
            self._fill()
            self._settle()

    def _send(self, value: int) -> None:
        if self._mcr & MCR_LOOP:
            if len(self._received) < FIFO:
                self._received.append(value)
        else:
            self._terminal.write(bytes((value,)))
        if not self._sent_pending or self._mcr & MCR_LOOP:  # else the driver has been told, and not yet asked why
            self._sent_pending = True
            self._settle()

    def _next(self) -> int:
        value = self._received.pop(0) if self._received else 0
        if not self._received:
            self._fill()
            self._settle()
        return value

    def _fill(self) -> None:
        room = (FIFO if self._fifos else 1) - len(self._received)
        if room > 0 and self.listens and not self._mcr & MCR_LOOP:
            self._received += self._terminal.take(room)

    def _identify(self) -> int:
        fifos = IIR_FIFOS if self._fifos else 0
        if self._ier & IER_RECEIVED and self._received:
            return IIR_RECEIVED | fifos
        if self._ier & IER_SENT and self._sent_pending:
            self._sent_pending = False  # reading this is what clears it
            return IIR_SENT | fifos
        return IIR_NONE | fifos

    def _lines(self) -> int:
        if not self._mcr & MCR_LOOP:
            return MSR_LINES
        # in loop mode the outputs come back: RTS as CTS, DTR as DSR, OUT1 as RI, OUT2 as DCD
        mcr = self._mcr
        return (mcr & 2) << 3 | (mcr & 1) << 5 | (mcr & 4) << 4 | (mcr & 8) << 4

    def _settle(self) -> None:
        """An edge for each cause: the driver reads IIR until nothing is left."""
        received = self._ier & IER_RECEIVED and self._received
        if received or (self._ier & IER_SENT and self._sent_pending):
            self._interrupt.signal()
