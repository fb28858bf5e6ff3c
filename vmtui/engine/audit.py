"""What was done over the console, in a file that shows if it was changed: one record a line, chained by their hashes.

A record's hash is the SHA-256 of its canonical JSON (sorted keys, no spaces, UTF-8) without `hash`, and `prev` is that
of the record before. `audit.head` says where the chain ends, so that a shorter one is noticed. Who may write both files
can write another chain: the head that `verify` tells, kept elsewhere, shows that.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from vmtui.core.errors import InvalidInput, LockHeld, NotFound, OperationFailed
from vmtui.host.files import FULL, in_words, remedy

FILE = "audit.log"
GENESIS = "0" * 64
LONGEST_TEXT = 2000  # characters
MOST_REFS = 100
REPAIRED = "repair"  # the verb of the record that says what was mended
RESERVE_BYTES = 1 << 20  # of the disk: more than is noted of what goes on when that is full
LONGEST_LINE = 1 << 20  # more than the longest texts and refs need, whatever they are made of
HEAD = re.compile(rb"(\d{20}) (\d{20}) ([0-9a-f]{64})\n")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What happened. `result` is done, failed, denied, asked, approved or a word of what it is about."""

    who: str
    verb: str
    result: str
    key: str = ""
    origin: str = ""
    session: str = ""
    refs: tuple[str, ...] = ()
    message: str = ""


class Record(Entry, frozen=True, kw_only=True):
    """One line of the file. `number` counts from 1; `time` is UTC, as RFC 3339 has it."""

    number: int
    time: str
    prev: str
    hash: str = ""

    def digest(self) -> str:
        """The hash that it must have."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__ if name != "hash"}
        return hashlib.sha256(msgspec.json.encode(fields, order="deterministic")).hexdigest()

    def line(self) -> bytes:
        return msgspec.json.encode(self, order="deterministic") + b"\n"


class Head(msgspec.Struct, frozen=True):
    """The last record of a chain, and where it ends in the file."""

    number: int = 0
    end: int = 0
    hash: str = GENESIS

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """The whole chain holds. `torn_bytes` are of a last record that was not written to its end."""

    head: Head
    torn_bytes: int = 0


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """The first line that is not as it was written, counted from 1, and why; 0 where no line is to blame."""

    line: int
    why: str


class Log:
    """The one writer of the file, while it is open. It blocks for as long as the disk takes to write a few bytes."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Opens or begins it, and mends what a kill left half written, with a record that says so.

        Raises LockHeld if another process has it, InvalidInput if it is not as it was left, OperationFailed.
        """
        self._path = path
        self._reserve = path.with_suffix(".reserve")
        self._clock = clock
        self._fds: list[int] = []
        try:
            self._lock()
            self._head_fd = self._opened(path.with_suffix(".head"))
            self._fd = self._opened(path, os.O_APPEND)
            self.head = self._found()
        except OSError as error:
            self.close()
            raise OperationFailed(f"{path}: {in_words(error)}", hint=remedy(error, path.parent)) from None
        except BaseException:
            self.close()
            raise

    def _opened(self, path: Path, flags: int = 0) -> int:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
        self._fds.append(fd)
        os.fchmod(fd, 0o600)
        return fd

    def _lock(self) -> None:
        # Of its own file: closing any descriptor of a file ends this kind of lock, which no child inherits.
        fd = self._opened(self._path.with_suffix(".lock"))
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise LockHeld(f"{self._path} is written by another process", hint=f"fuser -v {self._path}") from None

    def _found(self) -> Head:
        size = os.fstat(self._fd).st_size
        data = os.pread(self._head_fd, 200, 0)
        if not data and not size:
            self._note_head(head := Head())
            return head
        if (noted := _read_head(data)) is None:
            raise self._tampered(f"{self._path.with_suffix('.head')} does not say where it ends")
        head = noted
        with open(self._path, "rb") as file:
            if not _has(file, head):
                raise self._tampered(f"record {head.number} is not there as it was")
            file.seek(head.end)
            while line := file.readline(LONGEST_LINE):
                record = _next(head, line)
                if isinstance(record, str):
                    if file.read(1) or line.endswith(b"\n"):
                        raise self._tampered(f"record {head.number + 1}: {record}")
                    break
                head = Head(record.number, head.end + len(line), record.hash)
        if torn := size - head.end:
            os.ftruncate(self._fd, head.end)
        self.head = head
        self._note_head(head)
        if torn:
            self.append(
                Entry(who="", verb=REPAIRED, result="done", message=f"{torn} bytes of a record cut short are gone")
            )
        return self.head

    def _tampered(self, why: str) -> InvalidInput:
        files = f"{self._path} {self._path.with_suffix('.head')}"
        return InvalidInput(f"{self._path} was changed: {why}", hint=f"keep it, and begin anew: mv -t FOLDER {files}")

    def append(self, *entries: Entry) -> tuple[Record, ...]:
        """Write them down; on disk when it returns. Raises OperationFailed: then none of them is in the file.

        On a full disk they take the place of what `keep_room` keeps.
        """
        head, lines, records = self.head, [], []
        for entry in entries:
            record = _record(entry, head, self._clock())
            records.append(record)
            lines.append(line := record.line())
            head = Head(record.number, head.end + len(line), record.hash)
        data = b"".join(lines)
        try:
            try:
                self._write(data, head)
            except OSError as error:
                if error.errno not in FULL or not self._release_room():
                    raise
                self._write(data, head)
        except OSError as error:
            raise self._unwritable(error) from None
        self.head = head
        return tuple(records)

    def _write(self, data: bytes, head: Head) -> None:
        """Raises OSError: then it is not in the file."""
        try:
            os.ftruncate(self._fd, self.head.end)  # what an earlier failure could not take back
            _all(os.write(self._fd, data), data)
            os.fdatasync(self._fd)
            self._note_head(head)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self.head.end)
            raise

    @property
    def has_room(self) -> bool:
        """Whether what goes on now can still be noted should the disk be full."""
        return self._reserve.exists()

    def keep_room(self) -> None:
        """Before anything is begun that will have to be noted. Raises OperationFailed if it could not be."""
        try:
            os.ftruncate(self._fd, self.head.end)
            if not self.has_room:
                fd = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                try:
                    os.posix_fallocate(fd, 0, RESERVE_BYTES)
                except OSError:
                    self._release_room()
                    raise
                finally:
                    os.close(fd)
        except OSError as error:
            raise self._unwritable(error) from None

    def _release_room(self) -> bool:
        """Whether there was any."""
        try:
            self._reserve.unlink()
        except OSError:
            return False
        return True

    def _unwritable(self, error: OSError) -> OperationFailed:
        return OperationFailed(f"{self._path}: {in_words(error)}", hint=remedy(error, self._path.parent))

    def _note_head(self, head: Head) -> None:
        """In place: a few bytes of one block are there whole, or not at all."""
        data = f"{head.number:020} {head.end:020} {head.hash}\n".encode()
        _all(os.pwrite(self._head_fd, data, 0), data)
        os.fdatasync(self._head_fd)

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())


def read(path: Path) -> Iterator[Record]:
    """The records, oldest first, as far as the chain holds. Raises InvalidInput where it does not, OperationFailed."""
    for record in _walk(path):
        if isinstance(record, Broken):
            raise InvalidInput(f"{path}:{record.line}: {record.why}", hint="vmtui audit verify")
        yield record


def verify(path: Path, *, noted: str = "") -> Verified | Broken:
    """Whether it is as it was written: no record changed, removed or moved, none missing at its end.

    `noted` is a head ("NUMBER:HASH") that was kept elsewhere: the chain must go through it. Raises NotFound if there
    is no log yet, OperationFailed.
    """
    if not path.exists() and not path.with_suffix(".head").exists():
        raise NotFound(f"there is no {path}", hint="vmtui serve")
    try:
        end = _read_head(path.with_suffix(".head").read_bytes())  # before the records: those can only become more
    except FileNotFoundError:
        end = None
    except OSError as error:
        raise _unreadable(path, error) from None
    head, met = Head(), {str(Head())}
    wanted = {str(end), noted}
    for record in _walk(path):
        if isinstance(record, Broken):
            return record
        head = Head(record.number, head.end + len(record.line()), record.hash)
        met |= {str(head)} & wanted
    if end is None:
        return Broken(line=0, why=f"{path.with_suffix('.head').name} does not say where it ends")
    if str(end) not in met:
        return _missing(end.number, head)
    if noted and noted not in met:
        number = noted.partition(":")[0]
        return _missing(int(number), head) if number.isdecimal() else Broken(line=0, why=f"{noted!r} is no NUMBER:HASH")
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        size = 0
    return Verified(head=head, torn_bytes=max(0, size - head.end))


def _missing(number: int, head: Head) -> Broken:
    if number > head.number:
        return Broken(line=head.number + 1, why=f"it ends here, and had {number} records")
    return Broken(line=number, why="it is another record than was noted")


def _walk(path: Path) -> Iterator[Record | Broken]:
    """Each record; last a Broken if a line is wrong. One that is cut short ends it: it may just be written."""
    head = Head()
    try:
        with open(path, "rb") as file:
            while line := file.readline(LONGEST_LINE):
                record = _next(head, line)
                if isinstance(record, str):
                    if file.read(1) or line.endswith(b"\n"):
                        yield Broken(line=head.number + 1, why=record)
                    return
                head = Head(record.number, head.end + len(line), record.hash)
                yield record
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(path, error) from None


def _next(head: Head, line: bytes) -> Record | str:
    """The record after `head` that `line` is, or why it is not."""
    if not line.endswith(b"\n"):
        return "it is cut short"
    try:
        record = msgspec.json.decode(line, type=Record)
        if record.line() != line or record.digest() != record.hash:
            return "it is not as it was written"
    except (msgspec.MsgspecError, ValueError):
        return "it is not a record"
    if record.number != head.number + 1 or record.prev != head.hash:
        return f"it is record {record.number}, and does not follow record {head.number}"
    return record


def _has(file: BinaryIO, head: Head) -> bool:
    """Whether the last line before `head.end` is the record of that number and hash."""
    if head.number == 0:
        return head == Head()
    begin = max(0, head.end - LONGEST_LINE)
    file.seek(begin)
    data = file.read(head.end - begin)
    if len(data) != head.end - begin or not data.endswith(b"\n"):
        return False
    line = data[data.rfind(b"\n", 0, -1) + 1 :]
    try:
        before = Head(head.number - 1, 0, msgspec.json.decode(line, type=Record).prev)
    except (msgspec.MsgspecError, ValueError):
        return False
    record = _next(before, line)
    return isinstance(record, Record) and record.hash == head.hash


def _read_head(data: bytes) -> Head | None:
    found = HEAD.fullmatch(data)
    return Head(int(found[1]), int(found[2]), found[3].decode()) if found else None


def _record(entry: Entry, head: Head, now: float) -> Record:
    refs = tuple(_text(ref) for ref in entry.refs[:MOST_REFS])
    left_out = len(entry.refs) - len(refs)
    message = _text(entry.message) + (f" (and {left_out} more refs)" if left_out else "")
    texts = {name: _text(getattr(entry, name)) for name in ("who", "verb", "result", "key", "origin", "session")}
    at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    record = Record(**texts, refs=refs, message=message, number=head.number + 1, time=at, prev=head.hash)
    return msgspec.structs.replace(record, hash=record.digest())


def _text(text: str) -> str:
    """What can be written as UTF-8, and not at length."""
    plain = text[:LONGEST_TEXT].encode("utf-8", "replace").decode()
    return plain if len(text) <= LONGEST_TEXT else plain + "…"


def _all(written: int, data: bytes) -> None:
    if written != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _unreadable(path: Path, error: OSError) -> OperationFailed:
    return OperationFailed(f"{path}: {in_words(error)}", hint=remedy(error, path.parent))
