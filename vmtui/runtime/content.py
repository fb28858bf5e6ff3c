"""The uncompressed bytes of a layer's blob: hashed, counted and bounded as they pass."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import IO

from vmtui.runtime.tar import TarError

READ = 1 << 18
REPORT_EVERY = 8 << 20
ZSTD_WINDOW = 1 << 27  # RFC 8878 asks decoders for 8 MiB; `zstd --long` writes up to 128 MiB
GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Content:
    """Reads gzip, plain tar, or zstd where its module is given. More than `limit` bytes are a TarError.

    `progress` gets the compressed bytes read so far, now and then.
    """

    def __init__(
        self, blob: IO[bytes], zstandard: ModuleType | None, limit: int, progress: Callable[[int], None]
    ) -> None:
        self._limit = limit
        self._progress = progress
        self._blob = blob
        self._chunks = self._decompressed(zstandard)
        self._piece = b""  # the last piece, used up to _offset
        self._offset = 0
        self._reported = 0
        self.hash = hashlib.sha256()
        self.size = 0

    def _compressed(self) -> Iterator[bytes]:
        while data := self._blob.read(READ):
            yield data

    def _decompressed(self, zstandard: ModuleType | None) -> Iterator[bytes]:
        magic = self._blob.read(4)
        self._blob.seek(0)
        if magic.startswith(GZIP_MAGIC):
            return self._gunzip()
        if zstandard is not None:
            return self._unzstd(zstandard)
        return self._compressed()

    def _gunzip(self) -> Iterator[bytes]:
        inflater = None
        for data in self._compressed():
            more = True
            while data or more:
                if inflater is None:
                    inflater = zlib.decompressobj(wbits=31)  # 16 + 15: gzip header, largest window
                output = inflater.decompress(data, READ)
                yield output
                if inflater.eof:
                    data, inflater, more = inflater.unused_data, None, False
                else:
                    data, more = inflater.unconsumed_tail, len(output) == READ
        if inflater is not None:
            raise TarError("the gzip stream is truncated")

    def _unzstd(self, zstandard: ModuleType) -> Iterator[bytes]:
        decoder = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
        with decoder.stream_reader(self._blob, read_across_frames=True, closefd=False) as stream:
            while data := stream.read(READ):
                yield data

    def _next(self) -> bytes:
        """The next piece, b"" at the end."""
        for data in self._chunks:
            self.hash.update(data)
            self.size += len(data)
            if self.size > self._limit:
                raise TarError(f"it unpacks to more than {self._limit} bytes, which is out of proportion")
            done = self._blob.tell()
            if done - self._reported >= REPORT_EVERY:
                self._reported = done
                self._progress(done)
            if data:
                return data
        return b""

    def read(self, count: int) -> bytes:
        """`count` bytes, fewer only at the end."""
        taken = self._take(count)
        if len(taken) < count:
            parts = [taken]
            missing = count - len(taken)
            while missing and (piece := self._next()):
                self._piece, self._offset = piece, 0
                parts.append(self._take(missing))
                missing -= len(parts[-1])
            return b"".join(parts)
        return taken

    def _take(self, count: int) -> bytes:
        taken = self._piece[self._offset : self._offset + count]
        self._offset += len(taken)
        return taken

    def drain(self) -> None:
        while self._next():
            pass
