"""One spec type per kind, the same for all its backends.

Field names are those that users know from compose, Lima and Incus. Specs are plain inputs: frozen, validated, with
absolute paths (the loader resolves them), and without any effect until a backend is handed one.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, field

from vmtui.core.resource import Kind
from vmtui.core.units import Duration, Mount, Publish, ReadOnlyMount, Size

AUTO = "auto"


class Restart(StrEnum):
    """As in compose: when a workload that ended by itself is started again."""

    NO = "no"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"
    UNLESS_STOPPED = "unless-stopped"


class NetworkMode(StrEnum):
    """What a workload gets that names no network."""

    USER = "user"  # VMs: user-mode NAT without privileges, host ports forwarded
    NONE = "none"  # loopback only


class Ready(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the resource counts as ready; exactly one of log, tcp, http, exec, exit_code."""

    log: str | None = None  # a regular expression searched in each line of the log
    tcp: Annotated[int, Meta(gt=0, lt=65536)] | None = None  # a port of the resource that accepts a connection
    http: Annotated[str, Meta(pattern=r"^(:\d{1,5})?/")] | None = None  # ":8080/health": answers 200 to 399
    exec: Annotated[tuple[str, ...], Meta(min_length=1)] | None = None  # runs inside and exits 0
    exit_code: Annotated[int, Meta(ge=0, le=255)] | None = None  # a one-shot job: ends with this code
    timeout: Duration = field(default_factory=lambda: Duration(120))
    interval: Duration = field(default_factory=lambda: Duration(0.2))


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all kinds share."""

    backend: str = AUTO
    labels: dict[str, str] = field(default_factory=dict)
    ready: Ready | None = None


class NetworkSpec(Spec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bridge with addresses, names and, unless internal, a way out."""

    subnet: str | None = None  # "10.88.0.0/24"; without one a free /24 is taken and kept
    gateway: str | None = None  # the host's address in it; the first one unless given
    internal: bool = False  # no way out: neither NAT nor forwarding
    dns: bool = True  # resolve members' names, and everything else through the host
    dhcp: bool = True  # serve leases to members that ask (VMs do)
    domain: str = "vmtui"
    mtu: Annotated[int, Meta(ge=576, le=65535)] = 1500


class DiskSpec(Spec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A disk image. Data: it survives `down` unless purged."""

    size: Size | None = None  # required unless `source` is given
    source: str | None = None  # an image to import
    source_format: str | None = None  # raw, qcow2, vmdk, vdi, vhdx or vpc; needed with `source`
    shrink: bool = False  # the explicit word that allows a smaller size


class Workload(Spec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What kinds that run share."""

    restart: Restart = Restart.NO
    stop_grace_period: Duration = field(default_factory=lambda: Duration(10))
    depends_on: tuple[str, ...] = ()  # "KIND/NAME" of workloads that are started before this one


class VmSpec(Workload, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A virtual machine: direct kernel boot (`kernel`, with `initrd` or `rootfs`) or a bootable first disk."""

    cpus: Annotated[int, Meta(ge=1, le=255)] = 1
    memory: Size = field(default_factory=lambda: Size(512 << 20))
    kernel: str | None = None  # a path, or deb:PACKAGE
    initrd: str | None = None
    rootfs: str | None = None  # an image reference as for containers, booted from memory
    cmdline: str = ""
    command: tuple[str, ...] | None = None  # with `rootfs`: in place of the image's own
    environment: dict[str, str] = field(default_factory=dict)
    disks: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    network_mode: NetworkMode = NetworkMode.USER
    ports: tuple[Publish, ...] = ()
    hostname: str | None = None


class ContainerSpec(Workload, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A container made from an OCI image."""

    image: str  # any skopeo transport (docker://, oci:, oci-archive:, docker-archive:, dir:), or deb:PACKAGE
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    user: str | None = None
    working_dir: str | None = None
    volumes: tuple[Mount, ...] = ()
    tmpfs: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    ports: tuple[Publish, ...] = ()
    hostname: str | None = None
    memory: Size | None = None
    cpus: Annotated[float, Meta(gt=0)] | None = None
    pids_limit: Annotated[int, Meta(gt=0)] = 2048
    read_only: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    tty: bool = False
    stop_signal: str | None = None
    log_max_size: Size = field(default_factory=lambda: Size(10 << 20))


class SandboxSpec(Workload, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A WebAssembly module with WASI preview 1, under limits."""

    module: str  # a .wasm or .wat file
    args: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    volumes: tuple[ReadOnlyMount, ...] = ()  # preopened folders, read-only unless ":rw"
    entrypoint: str = "_start"  # the exported function to call
    fuel: Annotated[int, Meta(gt=0)] | None = None  # wasmtime fuel units, about one per instruction
    timeout: Duration | None = None  # wall time after which it is interrupted (epoch deadline)
    memory: Size = field(default_factory=lambda: Size(64 << 20))  # linear memory, all memories together


SPECS: dict[Kind, type[Spec]] = {
    Kind.NETWORK: NetworkSpec,
    Kind.DISK: DiskSpec,
    Kind.VM: VmSpec,
    Kind.CONTAINER: ContainerSpec,
    Kind.SANDBOX: SandboxSpec,
}

# Changed without touching the resource: the engine alone acts on them.
LIVE_FIELDS = frozenset({"backend", "labels", "ready", "restart", "stop_grace_period", "depends_on", "shrink"})
# Changed in place by a role of the backend; all other changes make the resource anew.
RESIZE_FIELDS = frozenset({"size"})

UNITS = (Size, Duration, Publish, Mount, ReadOnlyMount)


def decode_unit(kind: type, value: object) -> object:
    """msgspec dec_hook: text to a unit. Raises ValueError, which msgspec wraps with the path of the key."""
    for unit in UNITS:
        if kind is unit:
            return unit.parse(value)
    raise TypeError(f"no decoder for {kind.__name__}")


def encode_unit(value: object) -> object:
    """msgspec enc_hook: the inverse of `decode_unit`."""
    if isinstance(value, UNITS):
        return str(value)
    raise TypeError(f"no encoder for {type(value).__name__}")


T = TypeVar("T")


def decode(value: object, kind: type[T]) -> T:
    """Plain data (from TOML or JSON) to a struct. Raises msgspec.ValidationError with the key's path."""
    return msgspec.convert(value, kind, dec_hook=decode_unit)


def encode(value: object) -> Any:
    """A struct to plain data, units as text."""
    return msgspec.to_builtins(value, enc_hook=encode_unit)


def to_json(value: object) -> bytes:
    """Canonical JSON: sorted keys, units as text."""
    return msgspec.json.encode(value, enc_hook=encode_unit, order="deterministic")


def from_json(data: bytes, kind: type[T]) -> T:
    """Raises msgspec.DecodeError or msgspec.ValidationError."""
    return msgspec.json.decode(data, type=kind, dec_hook=decode_unit)


def spec_hash(spec: Spec, options: msgspec.Struct | None = None) -> str:
    """Sixteen hex digits over what a resource is made from: all fields but the live and the resizable ones."""
    plain = {key: value for key, value in encode(spec).items() if key not in LIVE_FIELDS | RESIZE_FIELDS}
    return hashlib.sha256(to_json([plain, options])).hexdigest()[:16]
