"""What one request asks of a disk, done straight between the image and the guest's buffers.

Nothing is assumed of how a driver frames a request (VIRTIO 2.7.4.1); that it does so as all known drivers do, a header
and a status in descriptors of their own, only makes it quick.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from vmtui.vmm.devices.blk.image import Image
from vmtui.vmm.devices.blk.layout import (
    DISCARD_REQUEST,
    FLUSH_REQUEST,
    GET_ID,
    HEADER,
    ID_BYTES,
    IN,
    IOERR,
    OK,
    OUT,
    SECTOR,
    SEGMENT,
    SEGMENT_UNMAP,
    UNSUPP,
    WRITE_ZEROES_REQUEST,
)
from vmtui.vmm.virtio.queue import Chain, QueueBroken, gather, scatter

Views = list[memoryview]
Later = Callable[[], int]

MAX_SEGMENTS = 16  # of a discard
MAX_DISCARD_SECTORS = (1 << 30) // SECTOR  # in a segment
MAX_ZEROES_SECTORS = (64 << 20) // SECTOR  # in a segment: may have to be written
COUNTERS = ("read_bytes", "write_bytes", "reads", "writes", "flushes", "discards", "errors")
FAILED, WOULD_WAIT = -1, -2
_header = HEADER.unpack_from


class Requests:
    """Serves one after the other. An error of the image is an answer to the guest, never an exception."""

    def __init__(self, image: Image, serial: bytes) -> None:
        self.image = image
        self.sync_each = False  # the driver does not flush: a write is on the disk before it is answered (5.2.6.2)
        self.size_bytes = image.size_bytes
        self.read_bytes = self.write_bytes = self.reads = self.writes = self.flushes = self.discards = self.errors = 0
        self._serial = serial[:ID_BYTES].ljust(ID_BYTES, b"\0")
        self._from_cache = os.RWF_NOWAIT  # 0 where the file system cannot tell what is cached

    def serve(self, chain: Chain) -> int | Later:
        """Do it, and say so in its status byte. Returns what was written into it. Raises QueueBroken: it has none.

        What may take its time is not done but returned, to be called where it holds up nobody; that returns the same.
        """
        readable, writable = chain.readable, chain.writable
        if not readable or not writable:
            raise QueueBroken("a block request without a header or a status")
        if len(readable[0]) != HEADER.size or len(writable[-1]) != 1:
            readable, writable = _reframed(readable, writable)
        kind, _, sector = _header(readable[0])
        status = writable.pop()
        if kind == IN:
            offset = sector * SECTOR
            done = self._read(writable, offset, self._from_cache)
            if done == WOULD_WAIT:
                return lambda: _read_answered(self._read(writable, offset, 0), status)
            return _read_answered(done, status)
        if kind == GET_ID or (kind == OUT and not self.sync_each):
            return self._other(kind, sector, readable, writable, status)
        return lambda: self._other(kind, sector, readable, writable, status)

    def _read(self, buffers: Views, offset: int, flags: int) -> int:
        """The bytes read, FAILED or WOULD_WAIT."""
        length = len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))
        if offset + length <= self.size_bytes and not length % SECTOR:
            try:
                if os.preadv(self.image.fd, buffers, offset, flags) == length:
                    self.reads += 1
                    self.read_bytes += length
                    return length
                if flags:
                    return WOULD_WAIT
            except OSError as error:
                if flags:
                    if error.errno == errno.EOPNOTSUPP:
                        self._from_cache = 0
                    return WOULD_WAIT
        self.errors += 1
        return FAILED

    def _other(self, kind: int, sector: int, readable: Views, writable: Views, status: memoryview) -> int:
        try:
            result = self._done(kind, sector, readable[1:], writable)
        except OSError:
            result = IOERR
        status[0] = result
        self.errors += result != OK
        return ID_BYTES + 1 if kind == GET_ID and result == OK else int(not writable)

    def _done(self, kind: int, sector: int, data: Views, writable: Views) -> int:
        if kind == OUT:
            return self._write(data, sector * SECTOR)
        if kind == FLUSH_REQUEST:
            if self.image.writable:
                os.fdatasync(self.image.fd)
            self.flushes += 1
            return OK
        if kind == GET_ID:
            if sum(map(len, writable)) < ID_BYTES:
                return IOERR
            scatter(writable, self._serial)
            return OK
        if kind in (DISCARD_REQUEST, WRITE_ZEROES_REQUEST):
            return self._release(kind, gather(data, MAX_SEGMENTS * SEGMENT.size + 1))
        return UNSUPP

    def _write(self, buffers: Views, offset: int) -> int:
        length = len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))
        if offset + length > self.size_bytes or length % SECTOR or not self.image.writable:
            return IOERR
        if os.pwritev(self.image.fd, buffers, offset) != length:
            return IOERR
        if self.sync_each:
            os.fdatasync(self.image.fd)
        self.writes += 1
        self.write_bytes += length
        return OK

    def _release(self, kind: int, segments: bytes) -> int:
        """All segments are checked before the first is acted on."""
        if not segments or len(segments) % SEGMENT.size or not self.image.writable:
            return IOERR
        most, flags_known = (MAX_DISCARD_SECTORS, 0) if kind == DISCARD_REQUEST else (MAX_ZEROES_SECTORS, SEGMENT_UNMAP)
        ranges = list(SEGMENT.iter_unpack(segments))
        for sector, count, flags in ranges:
            if flags & ~flags_known:
                return UNSUPP  # 5.2.6.2
            if count > most or (sector + count) * SECTOR > self.size_bytes:
                return IOERR
        for sector, count, flags in ranges:
            if not count:
                continue
            if kind == DISCARD_REQUEST:
                self.image.discard(sector * SECTOR, count * SECTOR)
            else:
                self.image.zero(sector * SECTOR, count * SECTOR, unmap=bool(flags & SEGMENT_UNMAP))
        if self.sync_each:
            os.fdatasync(self.image.fd)
        self.discards += 1
        return OK


def _read_answered(done: int, status: memoryview) -> int:
    if done == FAILED:
        status[0] = IOERR
        return 0
    status[0] = OK
    return done + 1


def _reframed(readable: Views, writable: Views) -> tuple[Views, Views]:
    """The header whole in the first view, the status alone in the last. Raises QueueBroken: no room for them."""
    head = gather(readable, HEADER.size)
    while writable and not writable[-1]:
        writable.pop()
    if len(head) < HEADER.size or not writable:
        raise QueueBroken("a block request too short for its header or status")
    skip, rest = HEADER.size, []
    for view in readable:
        if skip < len(view):
            rest.append(view[skip:])
        skip = max(0, skip - len(view))
    last = writable.pop()
    return [memoryview(head), *rest], [*writable, last[:-1], last[-1:]]
