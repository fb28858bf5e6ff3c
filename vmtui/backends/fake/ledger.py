"""A dictionary that all processes of a workspace share: an append-only file of JSON lines, kept in memory too.

One change is one line, whatever the size of the rest. An empty dictionary has no file. Readers take no lock: a line
counts once its newline is there. Writers lock the file; what a killed one left half written is cut off by the next.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from vmtui.core.errors import OperationFailed
from vmtui.core.specs import decode_unit, encode_unit

T = TypeVar("T", bound=msgspec.Struct)
COMPACT_ABOVE_LINES = 1024  # below it a file is too small to be worth writing again

OnChange = Callable[[str, T | None, T | None], None]  # key, old, new


class Ledger(Generic[T]):
    """`put` and `rows` see what other processes wrote before. `on_change` is called for each row that changes."""

    def __init__(self, path: Path, row_type: type[T], on_change: OnChange[T] | None = None) -> None:
        self.path = path
        self._decoder = msgspec.json.Decoder(row_type, dec_hook=decode_unit)
        self._encoder = msgspec.json.Encoder(enc_hook=encode_unit)
        self._on_change = on_change
        self._rows: dict[str, T] = {}
        self._fd = -1
        self._offset = 0
        self._lines = 0

    def rows(self) -> Mapping[str, T]:
        """All rows as they are now. Do not keep it. Raises OSError."""
        self.refresh()
        return self._rows

    def put(self, key: str, row: T | None) -> None:
        """Set or, with None, remove one row. Raises OSError; nothing is changed then."""
        with self.changing() as put:
            put(key, row)

    @contextmanager
    def changing(self) -> Iterator[Callable[[str, T | None], None]]:
        """Holds the lock over what is read (by `rows`) and then put; all is written at the end, or nothing.

        Do not await inside, nor nest. Raises OSError.
        """
        fd = self._lock()
        try:
            self.refresh()
            changes: list[tuple[str, T | None]] = []
            yield lambda key, row: changes.append((key, row))
            changes = [(key, row) for key, row in changes if self._rows.get(key) != row]
            if changes:
                self._append(fd, changes)
            if not self._rows:
                self.path.unlink(missing_ok=True)
                self._forget()
            elif self._lines > max(COMPACT_ABOVE_LINES, 2 * len(self._rows)):
                self._compact()
        finally:
            os.close(fd)

    def refresh(self) -> set[str]:
        """Read what was written since; returns the keys that changed. Raises OSError, OperationFailed."""
        if self._fd >= 0 and os.fstat(self._fd).st_nlink == 0:
            self._forget()
        gone: set[str] = set()
        if self._fd < 0:
            gone.update(self._rows)
            try:
                self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return {key for key in gone if self._set(key, None)}
        changed: set[str] = set()
        for key, row in self._read():
            gone.discard(key)
            if self._set(key, row):
                changed.add(key)
        return changed | {key for key in gone if self._set(key, None)}

    def close(self) -> None:
        self._forget()
        self._rows.clear()

    def _read(self) -> Iterator[tuple[str, T | None]]:
        size = os.fstat(self._fd).st_size
        if size == self._offset:
            return
        data = os.pread(self._fd, size - self._offset, self._offset)
        data = data[: data.rfind(b"\n") + 1]
        self._offset += len(data)
        for line in data.split(b"\n")[:-1]:
            self._lines += 1
            name, _, text = line.partition(b"\t")
            try:
                yield msgspec.json.decode(name, type=str), self._decoder.decode(text) if text else None
            except msgspec.MsgspecError as error:
                raise OperationFailed(f"{self.path} is damaged: {error}", hint=f"rm {self.path}") from None

    def _append(self, fd: int, changes: Sequence[tuple[str, T | None]]) -> None:
        lines = (
            msgspec.json.encode(key) + b"\t" + (b"" if row is None else self._encoder.encode(row)) + b"\n"
            for key, row in changes
        )
        data = b"".join(lines)
        if os.fstat(fd).st_size > self._offset:
            os.ftruncate(fd, self._offset)
        written = os.write(fd, data)
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._offset += len(data)
        self._lines += len(changes)
        for key, row in changes:
            self._set(key, row)

    def _set(self, key: str, row: T | None) -> bool:
        old = self._rows.get(key)
        if old == row:
            return False
        if row is None:
            del self._rows[key]
        else:
            self._rows[key] = row
        if self._on_change is not None:
            self._on_change(key, old, row)
        return True

    def _lock(self) -> int:
        """A descriptor of the file that is there now, locked. Closing it unlocks, and tells watchers of a change."""
        while True:
            fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if os.fstat(fd).st_nlink:
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _compact(self) -> None:
        """One line a row, in a new file; the lock on the old one is still held. A reader notices the loss of a link."""
        fd, temporary = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        try:
            with os.fdopen(fd, "wb") as file:
                for key, row in self._rows.items():
                    file.write(msgspec.json.encode(key) + b"\t" + self._encoder.encode(row) + b"\n")
            os.replace(temporary, self.path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _forget(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._offset = 0
        self._lines = 0
