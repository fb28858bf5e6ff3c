"""Which fields of a spec reach the host itself: its files, its privileges, its addresses. Pure.

Every field of every spec is named here; one that is not, counts as reaching it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from vmtui.core.backend import Desired
from vmtui.core.errors import InvalidInput
from vmtui.core.specs import ContainerSpec, DiskSpec, NetworkMode, NetworkSpec, SandboxSpec, Spec, VmSpec, Workload
from vmtui.core.units import Mount, Publish
from vmtui.host.apt import PACKAGE_NAME
from vmtui.runtime import reference

PACKAGE = re.compile(rf"deb:{PACKAGE_NAME.pattern}")
# Subnets in which a network of ours hides nothing that the host reaches otherwise: what `subnet` defaults to, and next
# to it what profiles usually say. Any other may be a route of the host's to someone else.
OURS = ipaddress.IPv4Network("10.88.0.0/15")
FIRST_UNPRIVILEGED_PORT = 1024
# Domains that are nobody's for all: RFC 6761, 8375, 6762 with its appendix G, and the one of many routers.
NEAR = frozenset(
    {"localhost", "arpa", "local", "intranet", "internal", "private", "corp", "home", "lan", "localdomain"}
)

Why = Callable[[Any], str]  # of a value: how it reaches the host, "" if it does not


def inside(value: Any) -> str:  # noqa: ARG001
    """Of fields that concern the guest and what vmtui keeps of it alone."""
    return ""


def _given(what: str) -> Why:
    return lambda value: what if value else ""


def _file(value: str | None) -> str:
    return "" if value is None or PACKAGE.fullmatch(value) else "it is a file of the host"


def _image(value: str | None) -> str:
    """Only a registry elsewhere and Debian's packages are no business of the host's."""
    if value is None or PACKAGE.fullmatch(value):
        return ""
    try:
        image = reference.parse(value)
    except InvalidInput:
        return ""  # it is refused as what it is
    if image.transport != "docker":
        return "it is an image on the host"
    return "it is a registry on the host or near it" if image.is_loopback or _is_address(image.host) else ""


def _is_address(host: str) -> bool:
    """Whether it is an address that is not everybody's, or a name that may be of one.

    A name that ends in a number is read as an address; one without a dot is the host's own, or of its surroundings.
    """
    name = (host if host.endswith("]") else re.sub(r":\d+$", "", host)).strip("[]").rstrip(".").lower()
    try:
        return not ipaddress.ip_address(name).is_global
    except ValueError:
        _, dot, last = name.rpartition(".")
        return not dot or last in NEAR or last.isdecimal() or re.fullmatch(r"0x[0-9a-f]*", last) is not None


def _mounts(value: tuple[Mount, ...]) -> str:
    return "it mounts a folder of the host" if not all(mount.is_volume for mount in value) else ""


def _ports(value: tuple[Publish, ...]) -> str:
    low = any(port.host_port < FIRST_UNPRIVILEGED_PORT for port in value)
    return f"it takes a port of the host below {FIRST_UNPRIVILEGED_PORT}" if low else ""


def _subnet(value: str | None) -> str:
    if value is None:
        return ""
    try:
        ours = ipaddress.IPv4Network(value).subnet_of(OURS)
    except ValueError:
        ours = False
    return "" if ours else f"it takes addresses outside {OURS} from the host"


def _network_mode(value: NetworkMode) -> str:
    """What matters only without a network: see `of`."""
    return "its user-mode network reaches what the host serves to itself" if value is NetworkMode.USER else ""


FIELDS: dict[type, dict[str, Why]] = {
    Spec: {"backend": inside, "labels": inside, "ready": inside},
    NetworkSpec: {
        "subnet": _subnet,
        "gateway": inside,  # an address in the subnet
        "internal": inside,
        "dns": inside,
        "dhcp": inside,
        "domain": inside,
        "mtu": inside,
    },
    DiskSpec: {
        "size": inside,
        "source": _given("it is a file of the host"),
        "source_format": inside,
        "shrink": inside,
    },
    Workload: {"restart": inside, "stop_grace_period": inside, "depends_on": inside},
    VmSpec: {
        "cpus": inside,
        "memory": inside,
        "kernel": _file,
        "initrd": _given("it is a file of the host"),
        "rootfs": _image,
        "cmdline": inside,
        "command": inside,
        "environment": inside,
        "disks": inside,
        "networks": inside,
        "network_mode": _network_mode,
        "ports": _ports,
        "hostname": inside,
    },
    ContainerSpec: {
        "image": _image,
        "command": inside,
        "entrypoint": inside,
        "environment": inside,
        "user": inside,
        "working_dir": inside,
        "volumes": _mounts,
        "tmpfs": inside,
        "networks": inside,
        "ports": _ports,
        "hostname": inside,
        "memory": inside,
        "cpus": inside,
        "pids_limit": inside,
        "read_only": inside,
        "cap_add": _given("it adds privileges"),
        "cap_drop": inside,
        "tty": inside,
        "stop_signal": inside,
        "log_max_size": inside,
    },
    SandboxSpec: {
        "module": _given("it is a file of the host"),
        "args": inside,
        "environment": inside,
        "volumes": _mounts,
        "entrypoint": inside,
        "fuel": inside,
        "timeout": inside,
        "memory": inside,
    },
}


def of(spec: Spec) -> Iterator[tuple[str, str]]:
    """The fields that reach the host, and how."""
    for field in msgspec.structs.fields(type(spec)):
        if field.name == "network_mode" and isinstance(spec, VmSpec) and spec.networks:
            continue
        value = getattr(spec, field.name)
        rule = next(
            (FIELDS[base][field.name] for base in type(spec).__mro__ if field.name in FIELDS.get(base, {})), None
        )
        why = rule(value) if rule is not None else "it may reach the host" if value != _default(field) else ""
        if why:
            yield field.name, why


def of_desired(desired: Desired[Any]) -> Iterator[tuple[str, str]]:
    """The same of a resource, whose backend's own options reach it too, unless they are the default ones."""
    yield from of(desired.spec)
    if desired.options is not None:
        for field in msgspec.structs.fields(type(desired.options)):
            if getattr(desired.options, field.name) != _default(field):
                yield f"{desired.backend}.{field.name}", "it is an option of the backend's own"


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default is not msgspec.NODEFAULT:
        return field.default
    return msgspec.NODEFAULT if field.default_factory is msgspec.NODEFAULT else field.default_factory()
