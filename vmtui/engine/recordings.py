"""Recorded sessions: where they are, how they are named, and how they are read. Their format is asciicast v2.

https://docs.asciinema.org/manual/asciicast/v2: a header on the first line, then one event a line, `[time, code, data]`.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from vmtui.core.errors import InvalidInput, NotFound
from vmtui.core.policy import Verb
from vmtui.engine import authority
from vmtui.host.files import in_words
from vmtui.host.paths import Paths

FOLDER = "recordings"
SUFFIX = ".cast"
VERSION = 2
OUTPUT, RESIZE = "o", "r"
SESSION, PERSON, ROLE, KEY, ORIGIN = "VMTUI_SESSION", "VMTUI_PERSON", "VMTUI_ROLE", "VMTUI_KEY", "VMTUI_ORIGIN"
LONGEST_WORD = 32
MAX_LINE_BYTES = 4 << 20  # an escape for each byte of what a pump reads at once, and much more
TAIL_BYTES = 1 << 12
NAME = re.compile(r"(\d{8}-\d{6})-([A-Za-z0-9_.@+]{1,32})-([A-Za-z0-9_.@+]{1,32})\.cast")
UNSAFE = re.compile(r"[^A-Za-z0-9_.@+]")


class Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The first line. `env` has TERM, and who was recorded under the names SESSION, PERSON, ROLE, KEY and ORIGIN."""

    version: int  # VERSION
    width: int
    height: int
    timestamp: int
    title: str = ""
    env: dict[str, str] = {}


class Event(msgspec.Struct, frozen=True, array_like=True):
    """A line after the first: seconds since the start, OUTPUT or RESIZE, and the text or COLUMNSxROWS."""

    at_s: float
    code: str
    data: str


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the folder. `length_s` is None if its last event cannot be read."""

    name: str
    path: Path
    size_bytes: int
    header: Header
    length_s: float | None

    @property
    def session(self) -> str:
        return self.header.env.get(SESSION, "")

    @property
    def person(self) -> str:
        return self.header.env.get(PERSON, "")


def folder(paths: Paths) -> Path:
    return paths.state / FOLDER


def file_name(at: float, person: str, session: str) -> str:
    """YYYYmmdd-HHMMSS-PERSON-SESSION.cast, in UTC; what a name of a file should not have is an underscore."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(at))
    who, which = (UNSAFE.sub("_", word)[:LONGEST_WORD] or "_" for word in (person, session))
    return f"{stamp}-{who}-{which}{SUFFIX}"


def scan(directory: Path) -> tuple[list[Recording], list[str]]:
    """The recordings of a folder, oldest first, and why others of its files are none. No folder has none.

    Raises Denied, and InvalidInput if the folder cannot be read.
    """
    authority.current().require(Verb.RECORDINGS)
    found, refused = [], []
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise InvalidInput(f"{directory} cannot be read: {in_words(error)}") from None
    for name in names:
        if name.startswith("."):
            continue
        try:
            found.append(describe(directory / name))
        except InvalidInput as fault:
            refused.append(fault.message)
    return found, refused


def find(directory: Path, text: str) -> Path:
    """The one recording that a person means: its file's name, its session, or how one of both begins.

    Raises NotFound, Denied, and InvalidInput if the folder cannot be read.
    """
    authority.current().require(Verb.RECORDINGS)
    try:
        names = {name: match[3] for name in os.listdir(directory) if (match := NAME.fullmatch(name))}
    except FileNotFoundError:
        names = {}
    except OSError as error:
        raise InvalidInput(f"{directory} cannot be read: {in_words(error)}") from None
    exact = [name for name, session in names.items() if text in (name, name.removesuffix(SUFFIX), session)]
    fits = exact or [name for name, session in names.items() if text and (name.startswith(text) or session == text)]
    if len(fits) == 1:
        return directory / fits[0]
    if fits:
        raise NotFound(f"{text!r} can mean {len(fits)} recordings", hint=f"vmtui recordings play {max(fits)}")
    raise NotFound(f"there is no recording {text!r}", hint="vmtui recordings ls")


def remove(path: Path) -> None:
    """Raises Denied without HOST: who may only look at them leaves what they show. Raises InvalidInput, NotFound."""
    authority.current().require(Verb.HOST, to="remove recordings")
    _open(path).close()
    try:
        path.unlink()
    except FileNotFoundError:
        raise NotFound(f"{path.name} is gone", hint="vmtui recordings ls") from None
    except OSError as error:
        raise InvalidInput(f"{path.name} cannot be removed: {in_words(error)}") from None
    authority.current().note("recordings", (), "done", f"removed {path.name}")


def describe(path: Path) -> Recording:
    """What a file has, without its events. Raises InvalidInput for what is no recording of this workspace."""
    with _open(path) as file:
        header = _header(path, file)
        size = os.fstat(file.fileno()).st_size
        return Recording(name=path.name, path=path, size_bytes=size, header=header, length_s=_length(file, size))


def lines(path: Path) -> Iterator[bytes]:
    """The file as it is, line by line with their ends. Raises InvalidInput for what is no recording."""
    with _open(path) as file:
        _header(path, file)
        file.seek(0)
        while line := _line(path, file):
            yield line


def events(path: Path) -> Iterator[Event]:
    """Its events in their order. A last line that was cut off is left out. Raises InvalidInput."""
    with _open(path) as file:
        _header(path, file)
        for number in itertools.count(2):
            line = _line(path, file)
            if not line.endswith(b"\n"):
                return
            try:
                event = msgspec.json.decode(line, type=Event)
            except msgspec.DecodeError:
                raise InvalidInput(f"{path.name}: line {number} is no event of a recording") from None
            yield event


def _open(path: Path) -> BinaryIO:
    """Only what this user wrote and nobody else can have changed. Raises InvalidInput."""
    if not NAME.fullmatch(path.name):
        raise InvalidInput(f"{path.name} is not named as a recording is", hint="vmtui recordings ls")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        why = "it is a symbolic link" if error.errno == errno.ELOOP else in_words(error)
        raise InvalidInput(f"{path.name} cannot be read: {why}") from None
    found = os.fstat(fd)
    wrong = (
        "it is not a regular file" if not stat.S_ISREG(found.st_mode)
        else "another user owns it" if found.st_uid != os.geteuid()
        else "others can change it" if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        else ""
    )  # fmt: skip
    if wrong:
        os.close(fd)
        raise InvalidInput(f"{path.name} is no recording of this workspace: {wrong}")
    return os.fdopen(fd, "rb")


def _header(path: Path, file: BinaryIO) -> Header:
    try:
        header = msgspec.json.decode(_line(path, file), type=Header)
    except msgspec.DecodeError:
        raise InvalidInput(f"{path.name} does not begin with the header of a recording") from None
    if header.version != VERSION or SESSION not in header.env:
        raise InvalidInput(f"{path.name} is no recording of this workspace: its header is another's")
    return header


def _line(path: Path, file: BinaryIO) -> bytes:
    line = file.readline(MAX_LINE_BYTES)
    if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
        raise InvalidInput(f"{path.name} has a line longer than {MAX_LINE_BYTES >> 20} MiB")
    return line


def _length(file: BinaryIO, size: int) -> float | None:
    """The time of the last whole event, 0 without one."""
    reach = TAIL_BYTES
    while True:
        file.seek(max(0, size - reach))
        *whole, _cut = file.read(reach).split(b"\n")
        if reach >= size and len(whole) < 2:  # the header alone
            return 0.0
        if len(whole) > 1:
            try:
                return msgspec.json.decode(whole[-1], type=Event).at_s
            except msgspec.DecodeError:
                return None
        if reach > MAX_LINE_BYTES:
            return None
        reach *= 8
