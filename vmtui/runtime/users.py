"""Who a container's process is: names from the image's own passwd and group, read without leaving its tree."""

from __future__ import annotations

import contextlib
import os
import stat

import msgspec

from vmtui.core.errors import InvalidInput
from vmtui.runtime import syscalls

MAX_FILE_BYTES = 1 << 20
MAX_ID = 65535  # what the id map of a container holds
MAX_GROUPS = 256


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers as the container sees them, and the home directory."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


def resolve(root_fd: int, text: str) -> User:
    """ "", "1000", "name", "name:group", "1000:1000" in the tree of `root_fd`. Raises InvalidInput.

    A missing or unreadable passwd is an empty one. As in Docker: a number without an entry has group 0; a group that
    is given replaces the supplementary ones.
    """
    name, _, group = text.partition(":")
    accounts = _rows(root_fd, "etc/passwd", 6)
    groups = _rows(root_fd, "etc/group", 4)
    name = name or "0"
    uid = _id(name)
    entry = next((row for row in accounts if row[0] == name or (uid is not None and _id(row[2]) == uid)), None)
    if uid is None:
        uid = None if entry is None else _id(entry[2])
        if uid is None:
            raise InvalidInput(f"user {name!r} is not in the image's /etc/passwd", hint='give a number: user = "1000"')
    gid = (_id(entry[3]) if entry else None) or 0
    home = (entry[5] if entry else "") or "/"
    if not home.startswith("/") or "\0" in home:
        home = "/"
    if group:
        found = _id(group)
        if found is None:
            found = next((_id(row[2]) for row in groups if row[0] == group), None)
        if found is None:
            raise InvalidInput(f"group {group!r} is not in the image's /etc/group", hint='give a number: user = "1:1"')
        return User(uid=uid, gid=found, home=home)
    member = entry[0] if entry else None
    more = {_id(row[2]) for row in groups if member and member in row[3].split(",")}
    extra = sorted(number for number in more if number is not None and number != gid)
    return User(uid=uid, gid=gid, groups=tuple(extra[:MAX_GROUPS]), home=home)


def _id(text: str) -> int | None:
    """A number of the container; InvalidInput if no map could hold it."""
    if not (text.isascii() and text.isdecimal()):
        return None
    if len(text) > 10 or int(text) > MAX_ID:
        message = f"user or group {text[:20]} is above {MAX_ID}, the last id of a container"
        raise InvalidInput(message, hint='user = "1000"')
    return int(text)


def _rows(root_fd: int, path: str, columns: int) -> list[list[str]]:
    rows = [line.split(":") for line in read_in_root(root_fd, path).decode("utf-8", "replace").splitlines()]
    usable = []
    for row in rows:
        if len(row) >= columns:
            with contextlib.suppress(InvalidInput):  # an id out of range is only wrong for who asks for it
                _id(row[2])
                usable.append(row)
    return usable


def read_in_root(root_fd: int, path: str) -> bytes:
    """A regular file below `root_fd`, at most MAX_FILE_BYTES; b"" if it is anything else or not there."""
    try:
        # O_NONBLOCK: a FIFO in its place must not make us wait
        fd = syscalls.open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    with os.fdopen(fd, "rb") as file:
        return file.read(MAX_FILE_BYTES) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
