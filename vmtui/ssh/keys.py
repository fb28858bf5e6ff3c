"""authorized_keys: who may come in, by which key or certificate authority, as what. A line that is wrong is refused."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncssh
from asyncssh.packet import SSHPacket

from vmtui.core.errors import FileInvalid
from vmtui.core.policy import Role
from vmtui.profile import document
from vmtui.ssh import key_options
from vmtui.ssh.key_options import NAME, NAME_RULE, Options

SMALLEST_RSA_BITS = 2048
# The types that can be in such a file: draft-miller-ssh-agent, PROTOCOL.u2f of OpenSSH.
KEY = re.compile(r"(?:ssh-|ecdsa-|sk-)[A-Za-z0-9@.-]+[ \t]+[A-Za-z0-9+/=]+(?:[ \t]|$)")
HOW = 'write: role="operator",name="anna" ssh-ed25519 AAAA… anna@desk'


class KeysInvalid(FileInvalid):
    """The file authorized_keys cannot be used."""


@dataclass(frozen=True, slots=True)
class Line:
    """One key of the file. `name` is "" only for an authority whose certificates say who it is."""

    number: int
    key: asyncssh.SSHKey
    name: str
    options: Options

    @property
    def fingerprint(self) -> str:
        return self.key.get_fingerprint("sha256")


@dataclass(frozen=True, slots=True)
class Keys:
    """The lines of one file, in their order: as in sshd, the first that fits counts."""

    lines: tuple[Line, ...] = ()

    def of(self, key: asyncssh.SSHKey, *, authority: bool) -> tuple[Line, ...]:
        """The lines of this key."""
        blob = key.public_data
        return tuple(
            line for line in self.lines if line.options.authority is authority and line.key.public_data == blob
        )


def load(path: Path, roles: Iterable[str] | Mapping[str, Role]) -> Keys:
    """Raises KeysInvalid, with the line, for the first thing that is wrong."""
    _private(path)
    return parse(document.read(path, KeysInvalid, gone=gone(path)), path, roles)


def gone(path: Path) -> str:
    """What makes a first file."""
    own = "cat ~/.ssh/id_ed25519.pub"
    where = shlex.quote(str(path))
    return f'mkdir -p {shlex.quote(str(path.parent))} && echo "role=\\"admin\\" $({own})" > {where}'


def parse(text: str, path: Path, roles: Iterable[str] | Mapping[str, Role]) -> Keys:
    """The same for a text that is, or may come to be, the content of `path`."""
    known = list(roles)
    lines = []
    for number, written in enumerate(text.splitlines(), 1):
        stripped = written.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            line = _line(stripped, number)
        except ValueError as error:
            raise KeysInvalid(str(error), where=f"{path}:{number}", hint=_hint(str(error))) from None
        role = line.options.role
        if role and role not in known:
            raise KeysInvalid(
                f"there is no role {role!r}", where=f"{path}:{number}", key="role",
                hint=document.meant(role, known) or f"known: {', '.join(sorted(known))}",
            )  # fmt: skip
        lines.append(line)
    return Keys(tuple(lines))


def _hint(message: str) -> str:
    return "" if ";" in message else HOW


def _line(text: str, number: int) -> Line:
    options = Options()
    if text.startswith("-----BEGIN"):
        raise ValueError("this is a private key; only public keys belong here")
    if not KEY.match(text):
        end = _end_of_options(text)
        rest = text[end:].lstrip(" \t")
        if not KEY.match(rest):
            raise ValueError(f"there is no public key, but {rest[:40]!r}" if rest else "there is no public key")
        options, text = key_options.parse(text[:end]), rest
    words = text.split(None, 2)
    comment = words[2].strip() if len(words) == 3 else ""
    try:
        key = asyncssh.import_public_key(f"{words[0]} {words[1]}")
    except (asyncssh.KeyImportError, ValueError) as error:
        if "-cert-v01@" in words[0]:
            raise ValueError("a certificate does not belong here; write the key of its cert-authority") from None
        raise ValueError(f"this key of type {words[0]} cannot be read: {str(error)[:100].lower()}") from None
    if (weak := weakness(key)) is not None:
        raise ValueError(f"{weak}; a new one: ssh-keygen -t ed25519")
    name = options.name
    if not name and not options.authority:
        if not NAME.fullmatch(comment):
            problem = f"the comment {comment[:64]!r} is no name" if comment else "nobody's name: the key has no comment"
            raise ValueError(f'{problem}; write name="anna" before the key ({NAME_RULE})')
        name = comment
    if options.principals and not options.authority:
        raise ValueError("principals= is for lines with cert-authority; remove it, or add cert-authority")
    return Line(number, key, name, options)


def _end_of_options(text: str) -> int:
    """Where the first blank outside of quotes is."""
    quoted = escaped = False
    for at, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\" and quoted:
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char in " \t" and not quoted:
            return at
    if quoted:
        raise ValueError("a quote is not closed")
    return len(text)


def weakness(key: asyncssh.SSHKey) -> str | None:
    """Why nobody should trust this key, None if it is a good one."""
    kind = key.get_algorithm()
    if kind == "ssh-dss":
        return "keys of type DSA are broken"
    if kind == "ssh-rsa":
        packet = SSHPacket(key.public_data)
        packet.get_string()
        packet.get_mpint()
        if (bits := packet.get_mpint().bit_length()) < SMALLEST_RSA_BITS:
            return f"an RSA key of {bits} bits is too short, {SMALLEST_RSA_BITS} are the least"
    return None


def _private(path: Path) -> None:
    """Raises KeysInvalid if others could write themselves in. A file that is not there is the reader's to tell."""
    for place in (path, path.parent):
        try:
            found = os.stat(place)
        except OSError:
            return
        quoted = shlex.quote(str(place))
        if found.st_uid not in (0, os.geteuid()):
            raise KeysInvalid(
                f"it belongs to uid {found.st_uid}, who could let anyone in", where=str(place),
                hint=f"chown {os.geteuid()} {quoted}",
            )  # fmt: skip
        if found.st_mode & 0o022 and not (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX):
            mode = stat.S_IMODE(found.st_mode)
            raise KeysInvalid(
                f"others can write it (mode {mode:04o}), and let themselves in", where=str(place),
                hint=f"chmod go-w {quoted}",
            )  # fmt: skip
