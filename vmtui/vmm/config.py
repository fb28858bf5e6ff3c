"""What the program is told: one JSON file. Read whole, checked, and then never looked at again."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from vmtui.vmm.arch.x86_64.layout import MAX_CPUS


class ConfigError(Exception):
    """The file does not say what it must. Whoever wrote it is at fault, not the user."""


class Disk(NamedTuple):
    """`format`: raw is opened here, all else by qemu-storage-daemon. `backing`: files that the image leans on."""

    path: str
    format: str
    serial: str
    read_only: bool = False
    backing: list[str] = []  # noqa: RUF012  # never changed


class Net(NamedTuple):
    """A card plugged into the TAP `interface`. `vhost`: auto, on, off."""

    interface: str
    mac: str
    mtu: int = 1500
    vhost: str = "auto"


class Share(NamedTuple):
    """A folder of the host, mounted in the guest by its `tag`."""

    tag: str
    path: str
    read_only: bool = False


class Config(NamedTuple):
    """`run`: the folder of this start. `sockets`: the folder of control.sock. `reboot`: a reset starts it anew."""

    run: str
    log: str
    sockets: str
    kernel: str
    memory_bytes: int
    cpus: int = 1
    initrd: str | None = None
    cmdline: str = ""
    hugepages: bool = False
    prefault: bool = False
    disks: list[Disk] = []  # noqa: RUF012
    nets: list[Net] = []  # noqa: RUF012
    shares: list[Share] = []  # noqa: RUF012
    vsock_cid: int | None = None
    balloon: bool = True
    reboot: bool = False
    pci_ports: bool = False
    uid: int | None = None


def read(path: str) -> Config:
    """Raises ConfigError, OSError."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    made = _struct(Config, plain, path)
    assert isinstance(made, Config)
    if not 1 <= made.cpus <= MAX_CPUS:
        raise ConfigError(f"{path}: cpus is {made.cpus}, not 1 to {MAX_CPUS}")
    return made


def _struct(kind: Any, plain: Any, where: str) -> Any:
    if not isinstance(plain, dict):
        raise ConfigError(f"{where} is not an object")
    hints = get_type_hints(kind)
    if unknown := plain.keys() - hints.keys():
        raise ConfigError(f"{where} has the unknown key {sorted(unknown)[0]!r}")
    if missing := hints.keys() - plain.keys() - kind._field_defaults.keys():
        raise ConfigError(f"{where} lacks {sorted(missing)[0]!r}")
    return kind(**{key: _value(hints[key], value, f"{where}: {key}") for key, value in plain.items()})


def _value(kind: Any, plain: Any, where: str) -> Any:
    if get_origin(kind) is list:
        if not isinstance(plain, list):
            raise ConfigError(f"{where} is {plain!r}, not a list")
        (inner,) = get_args(kind)
        return [_value(inner, item, f"{where}[{n}]") for n, item in enumerate(plain)]
    if hasattr(kind, "_fields"):
        return _struct(kind, plain, where)
    plainly = get_args(kind) or (kind,)
    if type(plain) not in plainly:  # a bool is no int here
        wanted = " or ".join("null" if one is type(None) else one.__name__ for one in plainly)
        raise ConfigError(f"{where} is {'null' if plain is None else repr(plain)}, not {wanted}")
    return plain
