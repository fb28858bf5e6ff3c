"""What the types of a spec cannot say: contradictions inside one resource, and between resources. Pure."""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import (
    ContainerSpec,
    DiskSpec,
    NetworkMode,
    NetworkSpec,
    Ready,
    Restart,
    SandboxSpec,
    Spec,
    VmSpec,
    Workload,
)
from vmtui.profile.schema import Declared

Key = tuple[str | int, ...]
Finding = tuple[Key, str, str]  # the key, what is wrong, a hint
CONDITIONS = ("log", "tcp", "http", "exec", "exit_code")
# What can be asked of each kind: only workloads have logs and ends, only those on a network have ports.
READY: dict[Kind, tuple[str, ...]] = {
    Kind.NETWORK: (),
    Kind.DISK: (),
    Kind.VM: CONDITIONS,
    Kind.CONTAINER: CONDITIONS,
    Kind.SANDBOX: ("log", "exit_code"),
}
SOURCE_FORMATS = ("raw", "qcow2", "vmdk", "vdi", "vhdx", "vpc")
MAX_TEXT = 300  # of a key or message in an error: a profile may hold texts of a mebibyte
BARE = re.compile(r"[A-Za-z0-9_-]+")
PATH = re.compile(r"^(?P<message>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
STEP = re.compile(r"\.([A-Za-z0-9_]+)|\[(\d+)\]|\[(\.\.\.)\]")
TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}


def dotted(key: Iterable[str | int]) -> str:
    """A key as it is written in TOML: vm.guest.disks[0]."""
    text = ""
    for step in key:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + (step if BARE.fullmatch(step) else repr(step))
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"


def explain(error: str, data: object) -> tuple[str, Key]:
    """The text of a msgspec.ValidationError about `data`, in TOML's words, and the key it is about."""
    match = PATH.match(error)
    assert match is not None
    steps: list[str | int] = []
    here = data
    path = (match["path"] or "").removeprefix("key in ")
    for name, index, some in STEP.findall(path.removeprefix("$")):
        step: str | int = name if name else int(index) if index else _culprit(here) if some else ""
        steps.append(step)
        try:
            here = here[step]  # type: ignore[index]
        except (TypeError, KeyError, IndexError):
            here = None
    message = match["message"]
    message = message if len(message) <= MAX_TEXT else message[:MAX_TEXT] + "…"
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", message):
        return f"unknown key {unknown[1]!r}", tuple(steps)
    if missing := re.fullmatch(r"Object missing required field `(.*)`", message):
        return f"required key {missing[1]!r} is missing", tuple(steps)
    if types := re.fullmatch(r"Expected `([^`]*)`, got `([^`]*)`", message):
        wanted = " or ".join(TYPES.get(name, name) for name in types[1].split(" | ") if name != "null")
        return f"expected {wanted}, not {TYPES.get(types[2], types[2])}", tuple(steps)
    return message[:1].lower() + message[1:], tuple(steps)


def _culprit(table: object) -> str:
    """msgspec does not name the key of a dict; all our dicts are of text."""
    items = table.items() if isinstance(table, dict) else ()
    return next((name for name, value in items if not isinstance(value, str)), "")


def faults(ref: Ref, spec: Spec) -> Iterator[Finding]:
    """What is wrong with one resource taken by itself."""
    if spec.ready is not None:
        yield from _ready(ref.kind, spec, spec.ready)
    if isinstance(spec, NetworkSpec):
        yield from _network(spec)
    elif isinstance(spec, DiskSpec):
        yield from _disk(spec)
    elif isinstance(spec, VmSpec):
        yield from _vm(spec)
    elif isinstance(spec, ContainerSpec) and spec.ports and not spec.networks:
        yield ("ports",), "a container without a network cannot publish ports", 'add networks = ["…"]'
    if isinstance(spec, ContainerSpec | SandboxSpec):
        targets: set[str] = set()
        for index, mount in enumerate(spec.volumes):
            if mount.target in targets:
                yield ("volumes", index), f"{mount.target} is mounted twice", ""
            targets.add(mount.target)
    for name in getattr(spec, "environment", {}):
        if not name or "=" in name:
            yield ("environment", name), f"{name!r} is not the name of a variable", ""
    if isinstance(spec, Workload):
        for index, text in enumerate(spec.depends_on):
            try:
                wanted = Ref.parse(f"{ref.profile}/{text}")
            except ValueError:
                wanted = None
            if wanted is None or not wanted.kind.runs:
                example = "KIND/NAME of something that runs, as in container/web"
                yield ("depends_on", index), f"{text!r} is not {example}", ""


def _ready(kind: Kind, spec: Spec, ready: Ready) -> Iterator[Finding]:
    given = [name for name in CONDITIONS if getattr(ready, name) is not None]
    possible = READY[kind]
    if not possible:
        yield ("ready",), f"a {kind} is ready as soon as it is there", "remove ready"
        return
    if len(given) != 1:
        said = f"{' and '.join(given)} are given" if given else "none is given"
        yield ("ready",), f"exactly one condition is needed, {said}", f"use one of: {', '.join(possible)}"
        return
    (name,) = given
    if name not in possible:
        yield ("ready", name), f"a {kind} cannot be asked that", f"use one of: {', '.join(possible)}"
    if ready.log is not None:
        try:
            re.compile(ready.log)
        except (re.error, OverflowError, RecursionError) as error:
            yield ("ready", "log"), f"not a regular expression: {error}", ""
    if ready.http is not None and (port := re.match(r":(\d+)", ready.http)) and not 0 < int(port[1]) < 65536:
        yield ("ready", "http"), "a port is between 1 and 65535", ""
    forever = (Restart.ALWAYS, Restart.UNLESS_STOPPED)
    if ready.exit_code is not None and isinstance(spec, Workload) and spec.restart in forever:
        yield ("restart",), f"a job that must end cannot be restarted {spec.restart}", 'use restart = "on-failure"'


def _network(spec: NetworkSpec) -> Iterator[Finding]:
    if spec.subnet is None:
        if spec.gateway is not None:
            yield ("gateway",), "a gateway needs a subnet to be in", 'add subnet = "10.88.0.0/24"'
        return
    try:
        subnet = ipaddress.IPv4Network(spec.subnet)
    except ValueError as error:
        yield ("subnet",), f"not an IPv4 network: {error}", 'write it as in "10.88.0.0/24"'
        return
    if subnet.prefixlen > 29 or subnet.prefixlen < 8:
        yield ("subnet",), f"/{subnet.prefixlen} is not usable", "use a prefix from /8 to /29"
    elif spec.gateway is not None:
        try:
            gateway = ipaddress.IPv4Address(spec.gateway)
        except ValueError as error:
            yield ("gateway",), f"not an IPv4 address: {error}", ""
            return
        if not subnet.network_address < gateway < subnet.broadcast_address:
            yield ("gateway",), f"{spec.gateway} is not a host address of {subnet}", f'use "{subnet[1]}"'


def _disk(spec: DiskSpec) -> Iterator[Finding]:
    if spec.size is None and spec.source is None:
        yield (), "a disk needs a size or a source", 'add size = "10GiB"'
    if spec.size == 0:
        yield ("size",), "a disk cannot be empty", 'write size = "10GiB"'
    if spec.source is not None and spec.source_format is None:
        yield (
            ("source",),
            "source_format is missing: a format is never guessed",
            f"add one of: {', '.join(SOURCE_FORMATS)}",
        )
    if spec.source_format is not None and spec.source is None:
        yield ("source_format",), "there is no source that could have a format", ""
    if spec.source_format is not None and spec.source_format not in SOURCE_FORMATS:
        yield ("source_format",), f"{spec.source_format!r} is not known", f"use one of: {', '.join(SOURCE_FORMATS)}"


def _vm(spec: VmSpec) -> Iterator[Finding]:
    if spec.initrd is not None and spec.rootfs is not None:
        yield ("initrd",), "rootfs is made into the initrd; only one of them can be given", "remove initrd or rootfs"
    for field in ("initrd", "rootfs", "cmdline"):
        if getattr(spec, field) and spec.kernel is None:
            yield (field,), f"{field} needs kernel", 'add kernel = "deb:linux-image-cloud-amd64"'
    for field in ("command", "environment"):
        if getattr(spec, field) and spec.rootfs is None:
            yield (field,), f"{field} needs rootfs: only then vmtui's own init runs", ""
    if spec.ports and not spec.networks and spec.network_mode is NetworkMode.NONE:
        yield ("ports",), "a VM without a network cannot publish ports", ""


def conflicts(resources: Sequence[Declared]) -> Iterator[Finding]:
    """What two resources of a profile cannot both have."""
    yield from _ports_twice(resources)
    writers: dict[str, Ref] = {}
    for declared in resources:
        for index, disk in enumerate(getattr(declared.spec, "disks", ())):
            key = (declared.ref.kind, declared.ref.name, "disks", index)
            if disk in writers:
                yield key, f"disk {disk} is written by {writers[disk].short} already", "give each VM a disk of its own"
            writers[disk] = declared.ref
    yield from _subnets_overlap(resources)


def _ports_twice(resources: Sequence[Declared]) -> Iterator[Finding]:
    taken: dict[tuple[int, str], list[tuple[str, Ref]]] = {}
    for declared in resources:
        for index, port in enumerate(getattr(declared.spec, "ports", ())):
            others = taken.setdefault((port.host_port, port.protocol), [])
            for address, ref in others:
                if address == port.host_address or "0.0.0.0" in (address, port.host_address):
                    key = (declared.ref.kind, declared.ref.name, "ports", index)
                    yield key, f"{ref.short} publishes host port {port.host_port}/{port.protocol} already", ""
            others.append((port.host_address, declared.ref))


def _subnets_overlap(resources: Sequence[Declared]) -> Iterator[Finding]:
    subnets = sorted(
        (ipaddress.IPv4Network(declared.spec.subnet), declared.ref)
        for declared in resources
        if isinstance(declared.spec, NetworkSpec) and declared.spec.subnet is not None
    )
    for (left, owner), (right, ref) in itertools.pairwise(subnets):
        if left.overlaps(right):
            yield (ref.kind, ref.name, "subnet"), f"{right} overlaps {left} of {owner.short}", ""
