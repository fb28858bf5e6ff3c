"""A dictionary that all processes of a workspace share: an append-only file of JSON lines.

One change is one line, whatever the size of the rest. An empty dictionary has no file. Readers take no lock: a line
counts once its newline is there. Writers lock the file; what a killed one left half written is cut off by the next.
In memory is only where each row stands: a world of a hundred thousand rows costs little, and a row is read when asked.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from vmtui.core.errors import OperationFailed
from vmtui.core.specs import decode_unit, encode_unit

T = TypeVar("T", bound=msgspec.Struct)
COMPACT_ABOVE_LINES = 1024  # below it a file is too small to be worth writing again
BLOCK_BYTES = 1 << 18  # read at once: about a millisecond's work
LENGTH_BITS = 32  # of a place: offset << LENGTH_BITS | length

OnChange = Callable[[str, bytes | None], None]  # key, the JSON text of its row now


class Ledger(Generic[T]):
    """`put` and `rows` see what other processes wrote before. `on_change` is called for each row that changes."""

    def __init__(self, path: Path, row_type: type[T], on_change: OnChange | None = None) -> None:
        self.path = path
        self._decoder = msgspec.json.Decoder(row_type, dec_hook=decode_unit)
        self._encoder = msgspec.json.Encoder(enc_hook=encode_unit)
        self._on_change = on_change
        self._places: dict[str, int] = {}
        self._listeners: list[set[str]] = []
        self._fd = -1
        self._offset = 0
        self._lines = 0
        self._generation = 0  # of the file

    def rows(self) -> Mapping[str, T]:
        """All rows as they are now, each read when it is asked for. Do not keep it. Raises OSError, OperationFailed."""
        self.refresh()
        return _Rows(self)

    def keys(self) -> KeysView[str]:
        """Of the rows that were there at the last `refresh`."""
        return self._places.keys()

    def get(self, key: str) -> T | None:
        """One row as it was at the last `refresh`. Raises OSError, OperationFailed (damaged)."""
        place = self._places.get(key)
        if place is None:
            return None
        try:
            return self._decoder.decode(_read(self._fd, place))
        except msgspec.MsgspecError as error:
            raise self._damaged(error) from None

    def version(self, key: str) -> int:
        """Differs from what it was before if the row does; -1 if there is none."""
        place = self._places.get(key)
        return -1 if place is None else self._generation << 128 | place

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
            changes: dict[str, T | None] = {}
            yield changes.__setitem__
            self._append(fd, list(self._effective(changes.items())))
            if not self._places:
                self.path.unlink(missing_ok=True)
                self._forget()
            elif self._lines > max(COMPACT_ABOVE_LINES, 2 * len(self._places)):
                self._compact()
        finally:
            os.close(fd)

    def refresh(self) -> set[str]:
        """Read what was written since; returns the keys that changed. Raises OSError, OperationFailed."""
        changed: set[str] = set()
        if self._fd >= 0 and os.fstat(self._fd).st_nlink == 0:
            changed |= self._changed_file()
        while self._read_block(changed):
            pass
        return changed

    def behind(self) -> bool:
        """Read the next part of what was written since; whether there is more. For reading without a pause."""
        if self._fd >= 0 and os.fstat(self._fd).st_nlink == 0:
            self._changed_file()
        return self._read_block(set())

    def listen(self) -> set[str]:
        """A set that gets the key of each row that changes from now on, whoever changes it, until `ignore`."""
        listener: set[str] = set()
        self._listeners.append(listener)
        return listener

    def ignore(self, listener: set[str]) -> None:
        self._listeners = [other for other in self._listeners if other is not listener]

    def close(self) -> None:
        self._forget()
        self._places.clear()

    def _read_block(self, changed: set[str]) -> bool:
        """Read a block of new lines into the index; False at the end of the file."""
        if self._fd < 0:
            try:
                self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
        left = os.fstat(self._fd).st_size - self._offset
        if left <= 0:
            return False
        data = os.pread(self._fd, min(left, BLOCK_BYTES), self._offset)
        end = data.rfind(b"\n") + 1
        if not end and left > len(data):
            data = os.pread(self._fd, left, self._offset)
            end = data.rfind(b"\n") + 1
        at = 0
        while at < end:
            newline = data.index(b"\n", at)
            tab = data.find(b"\t", at, newline)
            try:
                key: str = msgspec.json.decode(data[at : tab if tab >= 0 else newline], type=str)
            except msgspec.MsgspecError as error:
                raise self._damaged(error) from None
            start = tab + 1
            text = data[start:newline] if tab >= 0 else b""
            if self._set(key, _place(self._offset + start, len(text)) if text else None, text):
                changed.add(key)
            self._lines += 1
            at = newline + 1
        self._offset += end
        return end > 0 and left > end

    def _changed_file(self) -> set[str]:
        """Another process has put a new file in the place of ours. The keys whose rows differ."""
        old_fd, old = self._fd, self._places
        self._fd, self._offset, self._lines, self._places = -1, 0, 0, {}
        self._generation += 1
        listeners, self._listeners = self._listeners, []
        try:
            while self._read_block(set()):
                pass
            changed = {key for key in old if key not in self._places}
            for key, place in self._places.items():
                before = old.get(key)
                if before is None or _read(old_fd, before) != _read(self._fd, place):
                    changed.add(key)
        finally:
            os.close(old_fd)
            self._listeners = listeners
        for key in changed:
            self._tell(key, None if key not in self._places else _read(self._fd, self._places[key]))
        return changed

    def _effective(self, changes: Iterable[tuple[str, T | None]]) -> Iterator[tuple[str, bytes]]:
        """What differs from what is there, as JSON text; b"" for a row to remove."""
        for key, row in changes:
            text = b"" if row is None else self._encoder.encode(row)
            place = self._places.get(key)
            if text != (b"" if place is None else _read(self._fd, place)):
                yield key, text

    def _append(self, fd: int, changes: Sequence[tuple[str, bytes]]) -> None:
        if not changes:
            return
        heads = [msgspec.json.encode(key) + b"\t" for key, _ in changes]
        data = b"".join([part for head, (_, text) in zip(heads, changes, strict=True) for part in (head, text, b"\n")])
        if os.fstat(fd).st_size > self._offset:
            os.ftruncate(fd, self._offset)
        written = os.write(fd, data)
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        for head, (key, text) in zip(heads, changes, strict=True):
            self._set(key, _place(self._offset + len(head), len(text)) if text else None, text)
            self._offset += len(head) + len(text) + 1
        self._lines += len(changes)

    def _set(self, key: str, place: int | None, text: bytes) -> bool:
        if place is not None:
            self._places[key] = place
        elif self._places.pop(key, None) is None:
            return False
        self._tell(key, text if place is not None else None)
        return True

    def _tell(self, key: str, text: bytes | None) -> None:
        for listener in self._listeners:
            listener.add(key)
        if self._on_change is not None:
            try:
                self._on_change(key, text)
            except (msgspec.MsgspecError, ValueError) as error:
                raise self._damaged(error) from None

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
        places: dict[str, int] = {}
        offset = 0
        try:
            with os.fdopen(fd, "wb") as file:
                for key, place in self._places.items():
                    head, text = msgspec.json.encode(key) + b"\t", _read(self._fd, place)
                    file.write(head + text + b"\n")
                    places[key] = _place(offset + len(head), len(text))
                    offset += len(head) + len(text) + 1
            reader = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
            os.replace(temporary, self.path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        os.close(self._fd)
        self._fd, self._places, self._offset, self._lines = reader, places, offset, len(places)
        self._generation += 1

    def _damaged(self, error: Exception) -> OperationFailed:
        return OperationFailed(f"{self.path} is damaged: {error}", hint=f"rm {self.path}")

    def _forget(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._offset = 0
        self._lines = 0
        self._generation += 1


class _Rows(Mapping[str, T]):
    def __init__(self, ledger: Ledger[T]) -> None:
        self._ledger = ledger

    def __getitem__(self, key: str) -> T:
        row = self._ledger.get(key)
        if row is None:
            raise KeyError(key)
        return row

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._ledger.keys()))

    def __len__(self) -> int:
        return len(self._ledger.keys())


def _place(offset: int, length: int) -> int:
    return offset << LENGTH_BITS | length


def _read(fd: int, place: int) -> bytes:
    return os.pread(fd, place & (1 << LENGTH_BITS) - 1, place >> LENGTH_BITS)
