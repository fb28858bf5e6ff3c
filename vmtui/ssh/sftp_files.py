"""The answers to what an SFTP client asks: by paths of the tree, and by handles of what is open."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from vmtui.core.errors import Fault
from vmtui.ssh import sftp_tree
from vmtui.ssh import sftp_wire as wire
from vmtui.ssh.sftp_tree import PERMITTED_MODE, Place, Tree, Volume
from vmtui.ssh.sftp_wire import Attributes, Packet

CODES = {
    errno.ENOENT: wire.NO_SUCH_FILE,
    errno.ENOTDIR: wire.NO_SUCH_FILE,
    errno.EACCES: wire.PERMISSION_DENIED,
    errno.EPERM: wire.PERMISSION_DENIED,
    errno.EROFS: wire.PERMISSION_DENIED,
}
FOLDER = Attributes(size=0, owner=(0, 0), mode=stat.S_IFDIR | 0o755, times=(0, 0))
NAMES_AT_ONCE = 100
Note = Callable[[Volume, str], None]


@dataclass(slots=True)
class Handle:
    """What a client has open. Closing it undoes `stack`."""

    fd: int = -1
    append: bool = False
    writes: bool = False
    entries: Iterator[tuple[bytes, Attributes]] | None = None
    stack: ExitStack = field(default_factory=ExitStack)


class Files:
    """The answers. Owns all handles; use it in `with`."""

    def __init__(self, tree: Tree, note: Note) -> None:
        self._tree = tree
        self._note = note
        self._handles: dict[bytes, Handle] = {}
        self._next = 0
        self._does: dict[int, Callable[[int, Packet], bytes]] = {
            wire.OPEN: self._open,
            wire.CLOSE: self._close,
            wire.READ: self._read,
            wire.WRITE: self._write,
            wire.LSTAT: partial(self._stat, follow=False),
            wire.STAT: partial(self._stat, follow=True),
            wire.FSTAT: self._fstat,
            wire.SETSTAT: self._setstat,
            wire.FSETSTAT: self._fsetstat,
            wire.OPENDIR: self._opendir,
            wire.READDIR: self._readdir,
            wire.REMOVE: self._remove,
            wire.MKDIR: self._mkdir,
            wire.RMDIR: self._rmdir,
            wire.REALPATH: self._realpath,
            wire.RENAME: partial(self._rename, replace=False),
            wire.READLINK: self._readlink,
            wire.SYMLINK: self._symlink,
            wire.EXTENDED: self._extended,
        }

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles.values():
            handle.stack.close()
        self._handles.clear()

    def answer(self, data: bytes) -> bytes:
        """To one packet. Raises BadMessage for what is none."""
        packet = Packet(data)
        kind = packet.byte()
        if kind == wire.INIT:
            extensions = [(wire.POSIX_RENAME, b"1"), (wire.FSYNC, b"1"), (wire.LIMITS, b"1")]
            known = b"".join(wire.string(name) + wire.string(version) for name, version in extensions)
            return wire.packet(wire.VERSION, struct.pack(">I", wire.VERSION_NUMBER), known)
        identity = packet.u32()
        does = self._does.get(kind)
        if does is None:
            return wire.status(identity, wire.OP_UNSUPPORTED, "this is not done here")
        try:
            return does(identity, packet)
        except OSError as error:
            code = CODES.get(error.errno or 0, wire.FAILURE)
            return wire.status(identity, code, sftp_tree.in_words(error))
        except (Fault, ValueError, OverflowError) as error:
            return wire.status(identity, wire.FAILURE, sftp_tree.in_words(error))

    # Where things are

    def _path(self, packet: Packet) -> str:
        return os.fsdecode(packet.string())

    def _place(self, packet: Packet) -> Place:
        return self._tree.find(self._path(packet))

    def _inside(self, packet: Packet) -> tuple[Volume, str]:
        """In a volume: the folders above are only names. Raises OSError."""
        place = self._place(packet)
        if place.volume is None:
            raise OSError(errno.EPERM, "only in a volume can this be done")
        return place.volume, place.inside

    def _handle(self, packet: Packet) -> Handle:
        handle = self._handles.get(packet.string())
        if handle is None:
            raise OSError(errno.EBADF, "there is no such handle")
        return handle

    def _kept(self, identity: int, handle: Handle) -> bytes:
        name = struct.pack(">Q", self._next)
        self._next += 1
        self._handles[name] = handle
        return wire.packet(wire.HANDLE, struct.pack(">I", identity), wire.string(name))

    def _room(self) -> None:
        if len(self._handles) >= wire.MAX_HANDLES:
            raise OSError(errno.EMFILE, "too much is open")

    # Files

    def _open(self, identity: int, packet: Packet) -> bytes:
        volume, inside = self._inside(packet)
        wanted, attributes = packet.u32(), packet.attributes()
        self._room()
        writes = bool(wanted & wire.FLAG_WRITE)
        flags = (os.O_RDWR if wanted & wire.FLAG_READ else os.O_WRONLY) if writes else os.O_RDONLY
        for given, flag in (
            (wire.FLAG_CREATE, os.O_CREAT),
            (wire.FLAG_TRUNCATE, os.O_TRUNC),
            (wire.FLAG_EXCLUSIVE, os.O_EXCL),
        ):
            flags |= flag if wanted & given and writes else 0
        handle = Handle(append=bool(wanted & wire.FLAG_APPEND), writes=writes)
        with handle.stack as stack:
            stack.enter_context(volume.held())
            handle.fd = sftp_tree.open_file(
                volume, inside, flags, 0o644 if attributes.mode is None else attributes.mode
            )
            stack.callback(os.close, handle.fd)
            self._note(volume, f"{'writes' if writes else 'reads'} {_shown(volume, inside)}")
            handle.stack = stack.pop_all()
        return self._kept(identity, handle)

    def _close(self, identity: int, packet: Packet) -> bytes:
        name = packet.string()
        handle = self._handles.pop(name, None)
        if handle is None:
            raise OSError(errno.EBADF, "there is no such handle")
        handle.stack.close()
        return _done(identity)

    def _read(self, identity: int, packet: Packet) -> bytes:
        handle, offset, count = self._handle(packet), packet.u64(), packet.u32()
        data = os.pread(_open_file(handle), min(count, wire.MAX_READ_BYTES), offset)
        if not data:
            return wire.status(identity, wire.EOF, "the end of the file")
        return wire.packet(wire.DATA, struct.pack(">I", identity), wire.string(data))

    def _write(self, identity: int, packet: Packet) -> bytes:
        handle, offset, data = self._handle(packet), packet.u64(), packet.string()
        fd = _open_file(handle)
        if handle.append:
            offset = os.fstat(fd).st_size
        while data:
            count = os.pwrite(fd, data, offset)
            data, offset = data[count:], offset + count
        return _done(identity)

    # What is known of them

    def _stat(self, identity: int, packet: Packet, *, follow: bool) -> bytes:
        place = self._place(packet)
        if place.volume is None:
            return _attributes(identity, FOLDER)
        with sftp_tree.seen(place.volume, place.inside, follow=follow) as fd:
            return _attributes(identity, Attributes.of(os.fstat(fd)))

    def _fstat(self, identity: int, packet: Packet) -> bytes:
        handle = self._handle(packet)
        return _attributes(identity, FOLDER if handle.fd < 0 else Attributes.of(os.fstat(handle.fd)))

    def _setstat(self, identity: int, packet: Packet) -> bytes:
        volume, inside = self._inside(packet)
        attributes = packet.attributes()
        if volume.tree.image:
            raise OSError(errno.EROFS, "the image of a disk is only read")
        with sftp_tree.seen(volume, inside) as named:
            flags = os.O_RDONLY if attributes.size is None else os.O_WRONLY
            fd = sftp_tree.reopened(named, flags)
        try:
            _change(fd, attributes)
        finally:
            os.close(fd)
        self._note(volume, f"changes the attributes of {_shown(volume, inside)}")
        return _done(identity)

    def _fsetstat(self, identity: int, packet: Packet) -> bytes:
        handle, attributes = self._handle(packet), packet.attributes()
        if not handle.writes:
            raise OSError(errno.EPERM, "it is open for reading")
        _change(_open_file(handle), attributes)
        return _done(identity)

    # Folders

    def _opendir(self, identity: int, packet: Packet) -> bytes:
        place = self._place(packet)
        self._room()
        handle = Handle()
        if place.volume is None:
            handle.entries = ((os.fsencode(name), self._of_name(below)) for name, below in place.names.items())
            return self._kept(identity, handle)
        with sftp_tree.seen(place.volume, place.inside) as named:
            if not stat.S_ISDIR(os.fstat(named).st_mode):
                raise OSError(errno.ENOTDIR, "not a folder")
            fd = sftp_tree.reopened(named, os.O_RDONLY | os.O_DIRECTORY)
        handle.stack.callback(os.close, fd)
        handle.entries = handle.stack.enter_context(contextlib.closing(_listed(fd)))
        return self._kept(identity, handle)

    def _of_name(self, below: object) -> Attributes:
        if isinstance(below, Volume) and below.tree.image:
            with contextlib.suppress(OSError), sftp_tree.seen(below, "") as fd:
                return Attributes.of(os.fstat(fd))
        return FOLDER

    def _readdir(self, identity: int, packet: Packet) -> bytes:
        handle = self._handle(packet)
        if handle.entries is None:
            raise OSError(errno.EBADF, "not a folder")
        found = [entry for _, entry in zip(range(NAMES_AT_ONCE), handle.entries, strict=False)]
        return wire.names(identity, found) if found else wire.status(identity, wire.EOF, "no more names")

    def _mkdir(self, identity: int, packet: Packet) -> bytes:
        volume, inside = self._inside(packet)
        mode = packet.attributes().mode
        sftp_tree.make_folder(volume, inside, 0o755 if mode is None else mode)
        return self._changed(identity, volume, f"makes {_shown(volume, inside)}")

    def _rmdir(self, identity: int, packet: Packet) -> bytes:
        volume, inside = self._inside(packet)
        with sftp_tree.parent(volume, inside) as (folder, name):
            os.rmdir(name, dir_fd=folder)
        return self._changed(identity, volume, f"removes {_shown(volume, inside)}")

    # Names

    def _remove(self, identity: int, packet: Packet) -> bytes:
        volume, inside = self._inside(packet)
        with sftp_tree.parent(volume, inside) as (folder, name):
            os.unlink(name, dir_fd=folder)
        return self._changed(identity, volume, f"removes {_shown(volume, inside)}")

    def _rename(self, identity: int, packet: Packet, *, replace: bool) -> bytes:
        (volume, old), (other, new) = self._inside(packet), self._inside(packet)
        with sftp_tree.parent(volume, old) as (source, name), sftp_tree.parent(other, new) as (target, to):
            if replace:
                os.replace(name, to, src_dir_fd=source, dst_dir_fd=target)
            elif _is_there(to, target):
                raise OSError(errno.EEXIST, "something has that name")
            else:
                os.rename(name, to, src_dir_fd=source, dst_dir_fd=target)
        self._note(other, f"gets {_shown(other, new)}")
        return self._changed(identity, volume, f"renames {_shown(volume, old)} to {_shown(other, new)}")

    def _realpath(self, identity: int, packet: Packet) -> bytes:
        return wire.names(identity, [(os.fsencode(sftp_tree.normal(self._path(packet))), Attributes())])

    def _readlink(self, identity: int, packet: Packet) -> bytes:
        volume, inside = self._inside(packet)
        with sftp_tree.parent(volume, inside) as (folder, name):
            to = os.readlink(name, dir_fd=folder)
        return wire.names(identity, [(os.fsencode(to), Attributes())])

    def _symlink(self, identity: int, packet: Packet) -> bytes:
        """OpenSSH has its arguments in this order, and not as the draft."""
        to = self._path(packet)
        volume, inside = self._inside(packet)
        with sftp_tree.parent(volume, inside) as (folder, name):
            os.symlink(to, name, dir_fd=folder)
        return self._changed(identity, volume, f"links {_shown(volume, inside)}")

    def _extended(self, identity: int, packet: Packet) -> bytes:
        name = packet.string()
        if name == wire.POSIX_RENAME:
            return self._rename(identity, packet, replace=True)
        if name == wire.FSYNC:
            os.fsync(_open_file(self._handle(packet)))
            return _done(identity)
        if name == wire.LIMITS:
            sizes = (wire.MAX_PACKET_BYTES, wire.MAX_READ_BYTES, wire.MAX_READ_BYTES, wire.MAX_HANDLES)
            return wire.packet(wire.EXTENDED_REPLY, struct.pack(">IQQQQ", identity, *sizes))
        return wire.status(identity, wire.OP_UNSUPPORTED, "this is not done here")

    def _changed(self, identity: int, volume: Volume, message: str) -> bytes:
        self._note(volume, message)
        return _done(identity)


def _done(identity: int) -> bytes:
    return wire.status(identity, wire.OK, "")


def _attributes(identity: int, known: Attributes) -> bytes:
    return wire.packet(wire.ATTRS, struct.pack(">I", identity), known.encode())


def _open_file(handle: Handle) -> int:
    if handle.fd < 0:
        raise OSError(errno.EBADF, "it is a folder")
    return handle.fd


def _change(fd: int, attributes: Attributes) -> None:
    """What one may set; an owner stays who it is, since a client knows only those of its own host."""
    if attributes.size is not None:
        os.ftruncate(fd, attributes.size)
    if attributes.mode is not None:
        os.fchmod(fd, attributes.mode & PERMITTED_MODE)
    if attributes.times is not None:
        os.utime(fd, attributes.times)


def _listed(fd: int) -> Generator[tuple[bytes, Attributes], None, None]:
    with os.scandir(fd) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # gone meanwhile
                yield os.fsencode(entry.name), Attributes.of(entry.stat(follow_symlinks=False))


def _is_there(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _shown(volume: Volume, inside: str) -> str:
    return f"{volume.tree.name}/{inside}".rstrip("/")
