"""Compiled modules on disk: native code, so only what this user wrote, unchanged since, is ever loaded.

An entry is the SHA-256 of the code, then the code. Its name is the hash of all that the code depends on.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from typing import IO

MAX_CODE_BYTES = 512 << 20
MAX_TOTAL_BYTES = 1 << 30  # beyond it the entries that were not used for longest go
STALE_S = 3600.0
DIGEST_BYTES = 32
CHUNK_BYTES = 1 << 20


class Cache:
    """A folder of entries. Whatever is wrong with it, the module is compiled again, and `note` says why."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.note = ""

    def usable(self) -> bool:
        """Make the folder, and see that it is ours and nobody else's to write."""
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            found = os.lstat(self.directory)
        except OSError as error:
            self.note = f"unusable: {self.directory}: {error.strerror}"
            return False
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            self.note = f"unusable: {self.directory} is not ours alone"
            return False
        return True

    def load(self, key: str) -> int | None:
        """A private copy of the code in memory, as a file descriptor; None if there is none that can be trusted."""
        if not self.usable():
            return None
        path = os.path.join(self.directory, key)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            self.note = "miss"
            return None
        except OSError as error:
            self.note = f"miss: entry refused, {error.strerror}"
            return None
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(fd)
            ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
            if not ours or stat.S_IMODE(found.st_mode) & 0o077 or found.st_size > MAX_CODE_BYTES + DIGEST_BYTES:
                self.note = "miss: entry refused, it is not ours alone"
                return None
            digest = file.read(DIGEST_BYTES)
            code = os.memfd_create("code")
            if _copy(file, code) != digest:
                os.close(code)
                self.note = "miss: entry refused, it is damaged"
                return None
        os.utime(path)
        self.note = "hit"
        return code

    def store(self, key: str, code: int) -> None:
        """Write an entry, all or nothing, replacing what has its name. A failure is only noted."""
        if not self.usable():
            return
        path = os.path.join(self.directory, key)
        temporary = os.path.join(self.directory, f".{key}.{os.getpid()}")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                with os.fdopen(fd, "wb") as file, os.fdopen(os.dup(code), "rb") as source:
                    file.seek(DIGEST_BYTES)
                    file.flush()
                    source.seek(0)
                    digest = _copy(source, fd)
                    file.seek(0)
                    file.write(digest)
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
            self._trim()
        except OSError as error:
            self.note = f"{self.note}; not stored: {error.strerror}"

    def drop(self, key: str) -> None:
        try:
            os.unlink(os.path.join(self.directory, key))
        except OSError:
            return

    def _trim(self) -> None:
        """Keep the total bounded, and remove what a killed process left half written."""
        entries = []
        stale = time.time() - STALE_S
        with os.scandir(self.directory) as found:
            for entry in found:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if entry.name.startswith(".") and status.st_mtime < stale:
                    os.unlink(entry.path)
                    continue
                entries.append((status.st_mtime, status.st_size, entry.path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= MAX_TOTAL_BYTES:
                break
            os.unlink(path)
            total -= size


def _copy(source: IO[bytes], target: int) -> bytes:
    """Copy all that is left, and return its SHA-256. Raises OSError."""
    digest = hashlib.sha256()
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(target, view) :]
    return digest.digest()
