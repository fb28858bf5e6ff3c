"""The names and the observed state of resources."""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from typing import Self

import msgspec

from vmtui.core.lifecycle import Phase

# The structs of this file refer to nothing that could refer back: without gc=False each collection would walk them all.
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")  # an RFC 1123 label, short enough for every use
NAME_RULE = "a name is 1 to 40 of a-z, 0-9 and -, and does not begin or end with -"


class Kind(StrEnum):
    NETWORK = "network"
    DISK = "disk"
    VM = "vm"
    CONTAINER = "container"
    SANDBOX = "sandbox"

    @property
    def runs(self) -> bool:
        """Whether resources of this kind can run (disks and networks are only there)."""
        return self not in (Kind.NETWORK, Kind.DISK)


class Ref(msgspec.Struct, frozen=True, order=True, gc=False):
    """The name of a resource, unique in a workspace. Written PROFILE/KIND/NAME."""

    profile: str
    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.profile}/{self.kind}/{self.name}"

    @property
    def short(self) -> str:
        """KIND/NAME, as used inside one profile."""
        return f"{self.kind}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads PROFILE/KIND/NAME. Raises ValueError with a message for people."""
        parts = text.split("/")
        if len(parts) != 3 or parts[1] not in set(Kind):
            raise ValueError(f"{text!r} is not a full name; write PROFILE/KIND/NAME, as in dev/vm/guest")
        if not NAME.fullmatch(parts[0]) or not NAME.fullmatch(parts[2]):
            raise ValueError(f"{text!r}: {NAME_RULE}")
        return cls(parts[0], Kind(parts[1]), parts[2])

    def token(self, workspace: str, *more: str) -> str:
        """Ten hex digits that stand for this resource (and `more`, such as a network) where names must be short."""
        return hashlib.sha256("\0".join((workspace, str(self), *more)).encode()).hexdigest()[:10]


class Exit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How a workload ended. `code` as a shell shows it (128+signal); `reason` such as a trap, in plain words."""

    code: int
    reason: str = ""
    at: float = 0.0


class Problem(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A fault of a resource: what, and the command or step that mends it. `code` is a stable word."""

    code: str
    message: str
    hint: str = ""


class Fact(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One observed detail, for display and `inspect`: ("accelerator", "tcg")."""

    name: str
    value: str


class Address(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An address of a resource on a network. `network` is the network's name, "user" for a user-mode network."""

    network: str
    address: str
    mac: str = ""
    interface: str = ""


class Port(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A place on a network that a consumer is plugged into, as the network's backend made it.

    `interface` is on the host: a TAP, or for `medium` "veth" the host's end; `peer` then is the other end, in the
    host's namespace until the consumer's backend moves it. `address` and `gateway` are without and `prefix` is the
    prefix length. `present` says whether the host still has the interface; `live` whether its other end is held
    (a TAP with a queue attached, a veth whose peer left the host namespace).
    """

    network: Ref
    consumer: Ref
    index: int
    medium: str
    interface: str
    peer: str = ""
    mac: str = ""
    address: str = ""
    prefix: int = 24
    gateway: str = ""
    dns: tuple[str, ...] = ()
    search: str = ""
    mtu: int = 1500
    present: bool = True
    live: bool = True


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where a person reaches the resource from the host: `url` is http://…, tcp://… or udp://…"""

    url: str
    about: str = ""


class Status(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a backend observed of one resource. Never read from the database."""

    ref: Ref
    backend: str
    phase: Phase
    spec_hash: str = ""
    pid: int | None = None
    started_at: float | None = None
    exit: Exit | None = None
    size_bytes: int | None = None
    addresses: tuple[Address, ...] = ()
    ports: tuple[Port, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    facts: tuple[Fact, ...] = ()
    problems: tuple[Problem, ...] = ()
    log: str = ""

    def fact(self, name: str) -> str:
        """The value of one fact, "" if it was not observed."""
        return next((fact.value for fact in self.facts if fact.name == name), "")


class Sample(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One measurement of a running workload. Counters grow from its start; None is unknown, never zero."""

    at: float
    cpu_s: float | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    net_rx_bytes: int | None = None
    net_tx_bytes: int | None = None
    block_read_bytes: int | None = None
    block_write_bytes: int | None = None
    processes: int | None = None
