"""Sizes, durations and port mappings as people write them."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Self

BINARY_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
DECIMAL_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B?|B)?", re.IGNORECASE)
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MAX_SIZE = 1 << 62


class Size(int):
    """A number of bytes. Written "512MiB", "2G" (binary, as QEMU and compose read it), "10GB" (decimal)."""

    @classmethod
    def parse(cls, text: object) -> Self:
        """Raises ValueError with a message for people."""
        if isinstance(text, int) and not isinstance(text, bool):
            return cls._bounded(text)
        if isinstance(text, str) and (match := SIZE.fullmatch(text.strip())):
            unit = (match[2] or "").upper()
            if "I" in unit:  # "64Mi", as Kubernetes writes it, too
                factor = BINARY_UNITS[unit[0] + "iB"]
            elif len(unit) == 2:
                factor = DECIMAL_UNITS[unit]
            else:
                factor = BINARY_UNITS[unit + "iB"] if unit not in ("", "B") else 1
            if "." not in match[1]:
                return cls._bounded(int(match[1]) * factor)
            return cls._bounded(int(min(float(match[1]) * factor, 2.0 * MAX_SIZE)))  # int(inf) would raise
        raise ValueError(f'{text!r} is not a size; write "512MiB" or "10GiB"')

    @classmethod
    def _bounded(cls, value: int) -> Self:
        if not 0 <= value <= MAX_SIZE:
            raise ValueError(f"{value} bytes is out of range")
        return cls(value)

    def __str__(self) -> str:
        for unit in ("TiB", "GiB", "MiB", "KiB"):
            if self and self % BINARY_UNITS[unit] == 0:
                return f"{int(self) // BINARY_UNITS[unit]}{unit}"
        return f"{int(self)}B"

    def __repr__(self) -> str:
        return f"Size({self!s})"


class Duration(float):
    """A number of seconds. Written "500ms", "30s", "1m30s"."""

    @classmethod
    def parse(cls, text: object) -> Self:
        """Raises ValueError with a message for people."""
        if isinstance(text, int | float) and not isinstance(text, bool):
            seconds = float(text)
        elif isinstance(text, str) and re.fullmatch(f"(?:{DURATION.pattern})+", text.strip()):
            seconds = sum(float(number) * DURATION_UNITS[unit] for number, unit in DURATION.findall(text))
        else:
            raise ValueError(f'{text!r} is not a duration; write "30s" or "1m30s"')
        if not 0 <= seconds <= 10 * 365 * 86400:
            raise ValueError(f"{text!r} is out of range")
        return cls(seconds)

    def __str__(self) -> str:
        if self >= 1 and self.is_integer():
            minutes, seconds = divmod(int(self), 60)
            return f"{minutes}m{seconds}s" if minutes and seconds else f"{minutes}m" if minutes else f"{seconds}s"
        return f"{round(self * 1000)}ms"

    def __repr__(self) -> str:
        return f"Duration({self!s})"


class Publish:
    """A published port, written as in compose: "8080:80", "127.0.0.1:8080:80", "5353:53/udp".

    Without a host address it listens on all of them. Immutable; equal and hashed by value.
    """

    __slots__ = ("guest_port", "host_address", "host_port", "protocol")
    host_address: str
    host_port: int
    guest_port: int
    protocol: str

    def __init__(self, host_port: int, guest_port: int, host_address: str = "0.0.0.0", protocol: str = "tcp") -> None:
        for name, value in (
            ("host_port", host_port),
            ("guest_port", guest_port),
            ("host_address", host_address),
            ("protocol", protocol),
        ):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a published port is immutable")

    @classmethod
    def parse(cls, text: object) -> Self:
        """Raises ValueError with a message for people."""
        wrong = ValueError(f'{text!r} is not a port mapping; write "8080:80" or "127.0.0.1:8080:80/tcp"')
        if not isinstance(text, str):
            raise wrong
        mapping, _, protocol = text.partition("/")
        parts = mapping.split(":")
        if len(parts) not in (2, 3) or (protocol or "tcp") not in ("tcp", "udp"):
            raise wrong
        try:
            host_address = str(ipaddress.IPv4Address(parts[0])) if len(parts) == 3 else "0.0.0.0"
            host_port, guest_port = int(parts[-2]), int(parts[-1])
        except ValueError:
            raise wrong from None
        if not (0 < host_port < 65536 and 0 < guest_port < 65536):
            raise ValueError(f"{text!r}: a port is between 1 and 65535")
        return cls(host_port, guest_port, host_address, protocol or "tcp")

    def __str__(self) -> str:
        address = "" if self.host_address == "0.0.0.0" else f"{self.host_address}:"
        return f"{address}{self.host_port}:{self.guest_port}/{self.protocol}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).parse, (str(self),)

    def __repr__(self) -> str:
        return f"Publish({self!s})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Publish) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


class Mount:
    """A volume or bind mount, written as in compose: "SOURCE:TARGET[:ro|rw]".

    A SOURCE with a slash is a path on the host (relative ones are resolved by the profile loader against the
    profile's folder); a bare name is a volume that vmtui keeps. Immutable; equal and hashed by value.
    """

    __slots__ = ("read_only", "source", "target")
    source: str
    target: str
    read_only: bool

    def __init__(self, source: str, target: str, *, read_only: bool = False) -> None:
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "target", target)
        object.__setattr__(self, "read_only", read_only)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a mount is immutable")

    @classmethod
    def parse(cls, text: object, *, default: str = "rw") -> Self:
        """Raises ValueError with a message for people."""
        wrong = ValueError(f'{text!r} is not a mount; write "./folder:/target", "volume:/target" or add ":ro"')
        if not isinstance(text, str) or "\0" in text:
            raise wrong
        parts = text.split(":")
        if len(parts) not in (2, 3) or not parts[0] or not parts[1].startswith("/"):
            raise wrong
        mode = parts[2] if len(parts) == 3 else default
        if mode not in ("ro", "rw"):
            raise wrong
        return cls(parts[0], parts[1], read_only=mode == "ro")

    @property
    def is_volume(self) -> bool:
        """Whether the source is a named volume, not a path."""
        return "/" not in self.source and self.source not in (".", "..")

    def __str__(self) -> str:
        return f"{self.source}:{self.target}:{'ro' if self.read_only else 'rw'}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).parse, (str(self),)

    def __repr__(self) -> str:
        return f"Mount({self!s})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mount) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


class ReadOnlyMount(Mount):
    """A mount that is read-only unless ":rw" is written: how sandboxes see the host."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object, *, default: str = "ro") -> Self:
        return super().parse(text, default=default)
