"""Where an image is: `TRANSPORT:DETAILS` as skopeo writes it, `deb:PACKAGE`, or a bare name as compose writes it."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from shlex import quote

import msgspec

from vmtui.core.errors import InvalidInput, NotFound

DEFAULT_REGISTRY = "docker.io"
LOCAL = ("oci", "oci-archive", "docker-archive", "dir")  # followed by a path
TRANSPORTS = ("docker", *LOCAL, "docker-daemon", "containers-storage", "deb")
MAX_LENGTH = 4096
EXAMPLES = "write one such as docker://docker.io/library/nginx:latest, oci:FOLDER:TAG or deb:busybox-static"

# distribution/reference, grammar of a repository's name, tag and digest
LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
HOST = rf"(?:{LABEL}(?:\.{LABEL})*|\[[0-9a-fA-F:]+\])"
COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
NAME = re.compile(
    rf"(?:(?P<host>{HOST}(?::\d{{1,5}})?)/)?(?P<path>{COMPONENT}(?:/{COMPONENT})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """An image reference in its full form: the same image, asked for in any way, has one."""

    transport: str
    details: str

    def __str__(self) -> str:
        return f"{self.transport}:{self.details}"

    @property
    def host(self) -> str:
        """The registry, HOST or HOST:PORT; "" if it is none."""
        return self.details.removeprefix("//").partition("/")[0] if self.transport == "docker" else ""

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is this machine, where plain HTTP is as good as TLS."""
        name = self.host.rpartition(":")[0] if re.search(r":\d+$", self.host) else self.host
        if name == "localhost":
            return True
        try:
            return ipaddress.ip_address(name.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def path(self) -> Path | None:
        """The file or folder that it names, if it is a local one."""
        if self.transport not in LOCAL:
            return None
        return Path(self.details if self.transport == "dir" else self.details.partition(":")[0])


def parse(text: str) -> Reference:
    """Raises InvalidInput: empty, an unknown transport, not a name."""
    if not text.strip():
        raise InvalidInput("the image reference is empty", hint=EXAMPLES)
    if len(text) > MAX_LENGTH or not text.isprintable() or text != text.strip():
        raise InvalidInput(f"{text[:200]!r} is not an image reference", hint=EXAMPLES)
    transport, colon, details = text.partition(":")
    if colon and transport in TRANSPORTS:
        if transport == "docker":
            return _named(details.removeprefix("//"), text)
        if not details:
            raise InvalidInput(f"image reference {text!r} names nothing after {transport}:", hint=EXAMPLES)
        if transport in LOCAL:
            path, separator, rest = (details, "", "") if transport == "dir" else details.partition(":")
            details = f"{Path(path).absolute()}{separator}{rest}"
        return Reference(transport=transport, details=details)
    return _named(text, text)


def _named(name: str, text: str) -> Reference:
    match = NAME.fullmatch(name)
    if match is None:
        transport = re.match(r"([a-z-]+):", text)
        unknown = transport is not None and transport[1] not in TRANSPORTS
        raise InvalidInput(
            f"image reference {text!r} has the unknown transport {transport[1]!r}"
            if unknown and transport is not None
            else f"{text!r} is not an image reference",
            hint=f"use NAME[:TAG] or one of {', '.join(f'{known}:' for known in TRANSPORTS)}",
        )
    host, path, tag, digest = match["host"], match["path"], match["tag"], match["digest"]
    if host is not None and not re.search(r"[.:]|^localhost$|[A-Z]", host):  # "user/app": as docker reads it
        host, path = None, f"{host}/{path}"
    if host in (None, "index.docker.io"):
        host = DEFAULT_REGISTRY
    if host == DEFAULT_REGISTRY and "/" not in path:
        path = f"library/{path}"
    # skopeo takes no tag beside a digest; the digest says it all.
    suffix = f"@{digest}" if digest else f":{tag or 'latest'}"
    return Reference(transport="docker", details=f"//{host}/{path}{suffix}")


def require_local(reference: Reference) -> None:
    """Raises NotFound if it names a path that is not there, InvalidInput if that is not of the transport's kind."""
    path = reference.path
    if path is None:
        return
    if not path.exists():
        raise NotFound(f"image {reference}: no such file or folder: {path}", hint=f"ls -l {quote(str(path))}")
    wants_folder = reference.transport in ("oci", "dir")
    if not (path.is_dir() if wants_folder else path.is_file()):
        kind = "folder" if wants_folder else "file"
        raise InvalidInput(f"image {reference}: {path} is not a {kind}", hint=f"ls -l {quote(str(path))}")
