"""Applies a layer's entries to the root directory, which is the layer's own: see unpack.py.

Whiteouts become what overlayfs understands (image-spec, layer.md; kernel, overlayfs.rst, "whiteouts and opaque
directories"): `.wh.NAME` a character device 0/0, `.wh..wh..opq` the attribute trusted.overlay.opaque=y.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import shutil
import stat

import msgspec

from vmtui.runtime import tar
from vmtui.runtime.content import Content

MAX_DEPTH = 128  # folders below each other; also bounds every recursion over an unpacked tree
MAX_ID = (1 << 32) - 2  # uid_t without the "unchanged" value -1, chown(2)
MAX_MTIME_NS = (1 << 33) * 10**9  # what ext4 with 256-byte inodes can hold, rounded down
OPAQUE = "trusted.overlay.opaque"
WHITEOUT, WHITEOUT_META, WHITEOUT_OPAQUE = b".wh.", b".wh..wh.", b".wh..wh..opq"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one layer may hold. The ratio counts beyond a grace, since small layers of zeros are harmless."""

    total_bytes: int = 64 << 30
    file_bytes: int = 32 << 30
    entries: int = 2_000_000
    ratio: int = 250
    ratio_grace_bytes: int = 512 << 20
    memory_bytes: int = 2 << 30
    cpu_s: int = 1800
    open_files: int = 512


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Directories relative to the root, which is "": `implicit` are those that no entry describes, made for what is
    in them; `hiding` are those with a whiteout in them.
    """

    error: str = ""
    invalid: bool = False  # the layer is at fault, not the host
    errno: int = 0
    entries: int = 0
    size_bytes: int = 0
    implicit: tuple[bytes, ...] = ()
    hiding: tuple[bytes, ...] = ()


class Unpacker:
    """Applies entries to the root directory "/". Raises TarError, OSError."""

    def __init__(self, content: Content, limits: Limits) -> None:
        self._content = content
        self._limits = limits
        self._implicit: set[bytes] = {b"/"}
        self._hiding: set[bytes] = set()
        self._times: dict[bytes, tuple[int, int]] = {}  # directory → inode and mtime, set when all is in place
        self._parent: tuple[bytes, bytes] | None = None  # the folder last asked for, and its resolved path
        self.entries = 0

    def run(self) -> None:
        reader = tar.Reader(self._content.read)
        for entry in reader:
            self.entries += 1
            if self.entries > self._limits.entries:
                raise tar.TarError(f"it has more than {self._limits.entries} entries")
            try:
                self._apply(entry, reader)
            except OSError as error:
                raise _blame(error, entry) from None
        self._content.drain()
        for path, (inode, mtime_ns) in self._times.items():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                found = os.lstat(path)
                if stat.S_ISDIR(found.st_mode) and found.st_ino == inode:
                    os.utime(path, ns=(mtime_ns, mtime_ns))
        for path in _still_there(self._implicit):
            os.utime(b"/" + path, ns=(0, 0))  # the same tree whenever it is unpacked

    def outcome(self) -> Outcome:
        return Outcome(
            entries=self.entries,
            size_bytes=self._content.size,
            implicit=_still_there(self._implicit),
            hiding=_still_there(self._hiding),
        )

    def _place(self, name: bytes, what: str = "entry") -> tuple[bytes, bytes]:
        """The folder and last component of a name; ("/", "") is the root. Raises TarError if it points outside."""
        clean = posixpath.normpath(name.lstrip(b"/") or (b"/" if name else b""))
        if not name or clean == b".." or clean.startswith(b"../"):
            raise tar.TarError(f"{what} {tar.show(name)} points outside the layer")
        folder, _, base = clean.rpartition(b"/")
        return b"/" + folder, b"" if base == b"." else base

    def _folder(self, folder: bytes, name: bytes) -> bytes:
        """Resolve a folder, making what is missing: a symbolic link leads where it would in the running image."""
        if self._parent is not None and self._parent[0] == folder:
            return self._parent[1]
        resolved = os.path.realpath(folder)
        parts = resolved.split(b"/")[1:] if resolved != b"/" else []
        if len(parts) > MAX_DEPTH:
            raise tar.TarError(f"{tar.show(name)} is more than {MAX_DEPTH} folders deep")
        path = b""
        for part in parts:
            path += b"/" + part
            try:
                found = os.lstat(path)
            except FileNotFoundError:
                os.mkdir(path, 0o755)
                self._implicit.add(path)
                continue
            if _is_whiteout(found):
                self._replace_whiteout(path)
                self._implicit.add(path)
            elif not stat.S_ISDIR(found.st_mode):
                raise tar.TarError(f"{tar.show(name)} is below {tar.show(path[1:])}, which is not a folder")
        self._parent = (folder, resolved)
        return resolved

    def _replace_whiteout(self, path: bytes) -> None:
        """A folder where a whiteout is: what lower layers have there stays hidden."""
        os.unlink(path)
        os.mkdir(path, 0o755)
        os.setxattr(path, OPAQUE, b"y")

    def _remove(self, path: bytes) -> None:
        try:
            os.unlink(path)
        except IsADirectoryError:
            shutil.rmtree(path)
            self._parent = None

    def _apply(self, entry: tar.Entry, reader: tar.Reader) -> None:
        folder, base = self._place(entry.name)
        if not base:
            if entry.kind != tar.DIRECTORY:
                raise tar.TarError(f"{tar.show(entry.name)} replaces the root by something else")
            self._describe_folder(b"/", entry)
            return
        parent = self._folder(folder, entry.name)
        path = posixpath.join(parent, base)
        if base.startswith(WHITEOUT):
            self._whiteout(parent, base, entry)
        elif entry.kind == tar.DIRECTORY:
            self._make_folder(path, entry)
        elif entry.kind == tar.FILE:
            self._make_file(path, entry, reader)
        else:
            self._make_special(path, entry)

    def _whiteout(self, parent: bytes, base: bytes, entry: tar.Entry) -> None:
        if base == WHITEOUT_OPAQUE:
            os.setxattr(parent, OPAQUE, b"y")
            return
        if base.startswith(WHITEOUT_META):  # aufs' own files (.wh..wh.plnk and so on) mean nothing here
            return
        hidden = base[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise tar.TarError(f"{tar.show(entry.name)} is a whiteout of nothing")
        path = posixpath.join(parent, hidden)
        self._hiding.add(parent)
        try:
            os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
        except FileExistsError:  # the layer's own entry wins over its whiteout, which is meant for lower layers
            if stat.S_ISDIR(os.lstat(path).st_mode):
                os.setxattr(path, OPAQUE, b"y")

    def _make_folder(self, path: bytes, entry: tar.Entry) -> None:
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            found = os.lstat(path)
            if _is_whiteout(found):
                self._replace_whiteout(path)
            elif not stat.S_ISDIR(found.st_mode):
                os.unlink(path)
                self._parent = None
                os.mkdir(path, 0o755)
        self._describe_folder(path, entry)

    def _describe_folder(self, path: bytes, entry: tar.Entry) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            self._describe(fd, entry)
            self._times[path] = (os.fstat(fd).st_ino, _mtime(entry))
        finally:
            os.close(fd)
        self._implicit.discard(path)

    def _make_file(self, path: bytes, entry: tar.Entry, reader: tar.Reader) -> None:
        if entry.size > self._limits.file_bytes:
            raise tar.TarError(f"{tar.show(entry.name)} is larger than {self._limits.file_bytes} bytes")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            fd = os.open(path, flags, 0o600)
        except FileExistsError:
            self._remove(path)
            fd = os.open(path, flags, 0o600)
        try:
            for data in reader.body():
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
            self._describe(fd, entry)
            os.utime(fd, ns=(_mtime(entry), _mtime(entry)))
        finally:
            os.close(fd)

    def _describe(self, fd: int, entry: tar.Entry) -> None:
        """Owner, mode and attributes, in the order in which the one does not clear the other."""
        os.fchown(fd, *_owner(entry))
        os.fchmod(fd, entry.mode)
        for name, value in entry.xattrs.items():
            if name == b"security.capability":
                os.setxattr(fd, name, value)
            elif name.startswith(b"user.") and not name.startswith(b"user.overlay."):
                try:
                    os.setxattr(fd, name, value)
                except OSError as error:
                    if error.errno != errno.ENOTSUP:  # tmpfs before Linux 6.6 has none; nothing depends on them
                        raise

    def _make_special(self, path: bytes, entry: tar.Entry) -> None:
        if entry.kind == tar.HARD_LINK:
            self._make_hard_link(path, entry)
            return
        if entry.kind == tar.CHARACTER_DEVICE and entry.device == (0, 0):
            raise tar.TarError(f"{tar.show(entry.name)} is device 0/0, which is overlayfs' own mark")
        if entry.kind == tar.SYMBOLIC_LINK and not entry.link:
            raise tar.TarError(f"{tar.show(entry.name)} is a symbolic link to nothing")
        with contextlib.suppress(FileNotFoundError):
            self._remove(path)
        if entry.kind == tar.SYMBOLIC_LINK:
            os.symlink(entry.link, path)
            self._parent = None
        elif entry.kind == tar.FIFO:
            os.mkfifo(path, 0o600)
        else:
            kind = stat.S_IFCHR if entry.kind == tar.CHARACTER_DEVICE else stat.S_IFBLK
            major, minor = entry.device
            if major >= 1 << 12 or minor >= 1 << 20:  # include/linux/kdev_t.h, MINORBITS
                raise tar.TarError(f"{tar.show(entry.name)} is a device whose number is out of range")
            os.mknod(path, kind | 0o600, os.makedev(major, minor))
        os.chown(path, *_owner(entry), follow_symlinks=False)
        if entry.kind != tar.SYMBOLIC_LINK:
            os.chmod(path, entry.mode)
        os.utime(path, ns=(_mtime(entry), _mtime(entry)), follow_symlinks=False)

    def _make_hard_link(self, path: bytes, entry: tar.Entry) -> None:
        folder, base = self._place(entry.link, "hard link target")
        target = posixpath.join(os.path.realpath(folder), base)
        try:
            found = os.lstat(target)
        except (FileNotFoundError, NotADirectoryError):
            found = None
        if found is None or not base or stat.S_ISDIR(found.st_mode) or _is_whiteout(found):
            raise tar.TarError(
                f"{tar.show(entry.name)} is a hard link to {tar.show(entry.link)}, which is no file of this layer"
            )
        if target == path:
            return
        with contextlib.suppress(FileNotFoundError):
            self._remove(path)
        os.link(target, path, follow_symlinks=False)


def _still_there(folders: set[bytes]) -> tuple[bytes, ...]:
    """Those that were not replaced by later entries, relative to the root."""
    return tuple(sorted(path[1:] for path in folders if os.path.isdir(path) and os.path.realpath(path) == path))


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _owner(entry: tar.Entry) -> tuple[int, int]:
    if entry.uid > MAX_ID or entry.gid > MAX_ID:
        raise tar.TarError(f"{tar.show(entry.name)} has an owner that is out of range")
    return entry.uid, entry.gid


def _mtime(entry: tar.Entry) -> int:
    return max(0, min(entry.mtime_ns, MAX_MTIME_NS))


# What the kernel says of a path that is impossible anywhere, as opposed to a host that is in trouble.
LAYER_ERRORS = {
    errno.ENAMETOOLONG: "has a name that is too long",
    errno.ELOOP: "is behind a loop of symbolic links",
    errno.ENOTDIR: "is below something that is not a folder",
    errno.EFBIG: "is too large",
    errno.EEXIST: "replaces what is there by something impossible",
    errno.EINVAL: "has an attribute or a name that the kernel refuses",
    errno.EMLINK: "has more hard links than the file system can hold",
    errno.ERANGE: "has an attribute that is too large",
    errno.E2BIG: "has an attribute that is too large",
    errno.ENOENT: "is behind a symbolic link that leads nowhere",
}


def _blame(error: OSError, entry: tar.Entry) -> Exception:
    why = LAYER_ERRORS.get(error.errno or 0)
    if why is not None:
        return tar.TarError(f"{tar.show(entry.name)} {why}")
    return OSError(error.errno, f"{tar.show(entry.name)}: {os.strerror(error.errno or 0)}")
