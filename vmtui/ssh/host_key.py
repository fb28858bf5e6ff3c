"""The key by which clients know this server: made at the first start, refused if others can read it, replaced in steps.

A new key is announced beside the old one for a while (`hostkeys-00@openssh.com`: OpenSSH's UpdateHostKeys), so that
clients that come by in that time know it when it takes the old one's place.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from vmtui.core.errors import Conflict, InvalidInput, NotFound, OperationFailed
from vmtui.host.files import in_words, remedy, write_atomic

FILE = "ssh/host_ed25519"
MAX_KEY_BYTES = 64 << 10
WEAK = ("ssh-dss",)


@dataclass(frozen=True, slots=True)
class HostKeys:
    """What a server has: the key that it proves to have, and the one that it announces as the next."""

    current: asyncssh.SSHKey
    coming: asyncssh.SSHKey | None = None

    @property
    def served(self) -> list[asyncssh.SSHKey]:
        """The first is the one that the key exchange uses."""
        return [self.current, *([self.coming] if self.coming else [])]


def fingerprint(key: asyncssh.SSHKey) -> str:
    """As ssh-keygen -l shows it: SHA256:…"""
    return key.get_fingerprint("sha256")


def coming_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.next")


def open_or_make(path: Path, grace_s: float, *, now: float | None = None) -> HostKeys:
    """The keys to serve with; the first start makes one. A coming key takes its place once it is `grace_s` old.

    Raises NotFound, InvalidInput (others can read it, a foreign owner, not a key), OperationFailed.
    """
    coming = coming_path(path)
    try:
        if os.path.lexists(coming) and os.path.lexists(path):
            waited = (time.time() if now is None else now) - coming.stat().st_mtime
            if waited < grace_s:
                return HostKeys(read(path), read(coming))
            read(coming)  # a key that cannot be used does not take the place of one that can
            coming.replace(path)
        if not os.path.lexists(path):
            make(path)
    except OSError as error:
        raise OperationFailed(f"{path}: {in_words(error)}", hint=remedy(error, path.parent)) from None
    keys = HostKeys(read(path))
    _publish(path, keys.current)
    return keys


def rotate(path: Path, grace_s: float, *, now: float | None = None) -> asyncssh.SSHKey:
    """Make the key that comes next. Raises Conflict if one is coming already, and as `open_or_make`."""
    open_or_make(path, grace_s, now=now)
    coming = coming_path(path)
    if not make(coming):
        until = time.strftime("%Y-%m-%d %H:%M", time.localtime(coming.stat().st_mtime + grace_s))
        raise Conflict(f"{coming} takes the place of {path} at {until}", hint=f"rm {shlex.quote(str(coming))}")
    return read(coming)


def make(path: Path) -> bool:
    """A new key with mode 0600; False if another process was first, whose key then stands. Raises OperationFailed."""
    key = asyncssh.generate_private_key("ssh-ed25519", comment=f"vmtui@{os.uname().nodename}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mkstemp(3): mode 0600
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(key.export_private_key("openssh"))
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)  # unlike a rename it replaces nothing
        finally:
            os.unlink(temporary)
    except FileExistsError:
        return False
    except OSError as error:
        raise OperationFailed(f"{path}: {in_words(error)}", hint=remedy(error, path.parent)) from None
    return True


def read(path: Path) -> asyncssh.SSHKey:
    """The key of the file. Raises NotFound, InvalidInput, each with what mends it."""
    quoted = shlex.quote(str(path))
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFound(f"there is no host key {path}", hint=f"ssh-keygen -t ed25519 -N '' -f {quoted}") from None
    except OSError as error:
        raise InvalidInput(f"host key {path}: {in_words(error)}", hint=f"ls -l {quoted}") from None
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise InvalidInput(f"host key {path} is not a regular file", hint=f"ls -ld {quoted}")
        if found.st_uid != os.geteuid():
            owner, me = _user(found.st_uid), _user(os.geteuid())
            raise InvalidInput(f"host key {path} belongs to {owner}, not to {me}", hint=f"chown {me} {quoted}")
        if found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise InvalidInput(
                f"host key {path} can be read by others (mode {mode:04o}), and is no secret any more",
                hint=f"chmod 600 {quoted}, or a new one: rm {quoted}",
            )
        data = file.read(MAX_KEY_BYTES)
    try:
        key = asyncssh.import_private_key(data)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError) as error:
        if "passphrase" in str(error).lower() or "encrypt" in str(error).lower():
            raise InvalidInput(f"host key {path} has a passphrase", hint=f"ssh-keygen -p -N '' -f {quoted}") from None
        raise InvalidInput(f"{path} is not a private key", hint=f"rm {quoted} to have a new one made") from None
    if key.get_algorithm() in WEAK:
        raise InvalidInput(f"host key {path} is of the weak kind {key.get_algorithm()}", hint=f"rm {quoted}")
    return key


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _publish(path: Path, key: asyncssh.SSHKey) -> None:
    """The public half beside it, for `known_hosts`. Nothing depends on it."""
    public = path.with_name(f"{path.name}.pub")
    line = key.export_public_key("openssh")
    with contextlib.suppress(OSError):
        if not public.exists() or public.read_bytes() != line:
            write_atomic(public, line, mode=0o644)
