"""Random specs of every kind that a profile may hold, with paths in and beside the folder of its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from vmtui.backends.fake.options import FakeOptions
from vmtui.backends.oci.options import OciOptions
from vmtui.backends.qemu.options import QemuOptions
from vmtui.core.lifecycle import Action
from vmtui.core.resource import Kind
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
)
from vmtui.core.units import Duration, Mount, Publish, ReadOnlyMount, Size
from vmtui.profile.schema import Declared
from vmtui.profile.written import Options

FOLDER = Path("/srv/of profiles")
NAMES = ["a", "b-2", "c"]

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
lines = st.one_of(texts, st.sampled_from(['one\ntwo"""\n', "\n\\ \r\n\t", 'a"', "#", "tail\n\n", '"""']))
file_names = st.sampled_from(["x", "sub/y z", "~home", "deb:z", ".hidden", "é"])
paths = st.one_of(
    file_names.map(lambda name: f"{FOLDER}/{name}"), st.sampled_from(["/boot/x", "/srv/of profiles2/x", str(FOLDER)])
)
mount_paths = paths.filter(lambda path: ":" not in path)
sizes = st.one_of(st.integers(1, 1 << 40), st.integers(1, 64).map(lambda n: n << 20)).map(Size)
durations = st.one_of(st.integers(0, 9000).map(float), st.floats(0, 1e6)).map(Duration)
tables = st.dictionaries(texts, texts, max_size=3)
variables = st.dictionaries(texts.filter(lambda text: bool(text) and "=" not in text), lines, max_size=3)
arguments = st.lists(lines, max_size=4).map(tuple)
targets = st.sampled_from(["/", "/data", "/srv/a b", "/é"])
sources = st.one_of(mount_paths, st.sampled_from(["volume", "v.2"]))


def maybe(of: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), of)


def mounts(kind: type[Mount]) -> st.SearchStrategy[tuple[Mount, ...]]:
    one = st.builds(lambda *parts: kind(*parts[:2], read_only=parts[2]), sources, targets, st.booleans())
    return st.lists(one, max_size=3, unique_by=lambda mount: mount.target).map(tuple)


@st.composite
def readies(draw: Callable[..., Any], conditions: tuple[str, ...]) -> Ready | None:
    values: dict[str, st.SearchStrategy[Any]] = {
        "log": st.sampled_from(["^ready", r'\d+ "x"$']),
        "tcp": st.integers(1, 65535),
        "http": st.sampled_from(["/", ":8080/health"]),
        "exec": st.lists(texts, min_size=1, max_size=2).map(tuple),
        "exit_code": st.integers(0, 255),
    }
    if not draw(st.booleans()):
        return None
    name = draw(st.sampled_from(conditions))
    return Ready(**{name: draw(values[name])}, timeout=draw(durations), interval=draw(durations))


@st.composite
def workloads(draw: Callable[..., Any], conditions: tuple[str, ...]) -> dict[str, Any]:
    ready = draw(readies(conditions))
    calm = [Restart.NO, Restart.ON_FAILURE]
    must_end = ready is not None and ready.exit_code is not None
    return {
        "labels": draw(tables),
        "ready": ready,
        "restart": draw(st.sampled_from(calm if must_end else list(Restart))),
        "stop_grace_period": draw(durations),
    }


CONDITIONS = ("log", "tcp", "http", "exec", "exit_code")


@st.composite
def specs(draw: Callable[..., Any], kind: Kind, networks: list[str], disks: list[str], port: int) -> Spec:
    """One spec that the rules of profiles allow, given what there is to refer to."""
    some_networks = tuple(draw(st.lists(st.sampled_from(networks), unique=True))) if networks else ()
    ports = (Publish(port, 80, draw(st.sampled_from(["0.0.0.0", "127.0.0.1"]))),) if draw(st.booleans()) else ()
    if kind is Kind.NETWORK:
        subnet = draw(st.sampled_from([None, f"10.{port % 250}.0.0/24"]))
        return NetworkSpec(
            subnet=subnet, internal=draw(st.booleans()), dns=draw(st.booleans()), domain=draw(texts),
            mtu=draw(st.integers(576, 65535)), labels=draw(tables),
        )  # fmt: skip
    if kind is Kind.DISK:
        source = draw(maybe(paths))
        return DiskSpec(
            size=draw(sizes), source=source, source_format="raw" if source else None, shrink=draw(st.booleans())
        )
    if kind is Kind.VM:
        rooted = draw(st.booleans())
        return VmSpec(
            **draw(workloads(CONDITIONS)), cpus=draw(st.integers(1, 255)), memory=draw(sizes),
            kernel=draw(st.one_of(paths, st.just("deb:linux"))), initrd=None if rooted else draw(maybe(paths)),
            rootfs=f"oci:{draw(mount_paths)}:tag" if rooted else None, cmdline=draw(texts),
            command=draw(maybe(arguments)) if rooted else None, environment=draw(variables) if rooted else {},
            disks=tuple(disks[:1]), networks=some_networks, ports=ports,
            network_mode=NetworkMode.USER if ports else draw(st.sampled_from(NetworkMode)),
            hostname=draw(maybe(texts)),
        )  # fmt: skip
    if kind is Kind.CONTAINER:
        return ContainerSpec(
            **draw(workloads(CONDITIONS)), image=draw(st.sampled_from(["docker://x:1", "deb:y", f"oci:{FOLDER}/l:t"])),
            command=draw(maybe(arguments)), environment=draw(variables), volumes=draw(mounts(Mount)),
            networks=some_networks, ports=ports if some_networks else (), memory=draw(maybe(sizes)),
            cpus=draw(maybe(st.floats(0.1, 64))), cap_add=draw(arguments), tty=draw(st.booleans()),
            log_max_size=draw(sizes),
        )  # fmt: skip
    return SandboxSpec(
        **draw(workloads(("log", "exit_code"))), module=draw(paths), args=draw(arguments),
        environment=draw(variables), volumes=draw(mounts(ReadOnlyMount)), fuel=draw(maybe(st.integers(1, 1 << 62))),
        timeout=draw(maybe(durations)), memory=draw(sizes),
    )  # fmt: skip


@st.composite
def options(draw: Callable[..., Any], kind: Kind) -> Options:
    """The sub-tables of some backends; those of defaults only are not written, and not here either."""
    fake = FakeOptions(
        seed=draw(st.integers(1, 9)), create_time=draw(durations), exit_after=draw(maybe(durations)),
        fail_on=tuple(draw(st.lists(st.sampled_from(Action), max_size=2))), log=draw(arguments),
    )  # fmt: skip
    found: list[tuple[str, Any]] = [("fake", fake)] if draw(st.booleans()) else []
    if kind is Kind.VM and draw(st.booleans()):
        found.append(("qemu", QemuOptions(machine="q35", cpu=draw(maybe(st.just("host,+x"))))))
    if kind is Kind.CONTAINER and draw(st.booleans()):
        found.append(("oci", OciOptions(runtime="crun")))
    return tuple(found)


Resources = dict[tuple[Kind, str], tuple[Spec, Options]]


@st.composite
def resources(draw: Callable[..., Any]) -> Resources:
    """A profile's worth of them."""
    some = st.lists(st.sampled_from(NAMES), unique=True, max_size=2)
    networks, disks = draw(some), draw(some)
    chosen = [(Kind.NETWORK, name) for name in networks] + [(Kind.DISK, name) for name in disks]
    kinds = st.sampled_from([Kind.VM, Kind.CONTAINER, Kind.SANDBOX])
    chosen += draw(st.lists(st.tuples(kinds, st.sampled_from(NAMES)), unique=True, max_size=3))
    free = list(disks)
    found: Resources = {}
    for number, (kind, name) in enumerate(chosen):
        spec = draw(specs(kind, networks, free, 8000 + number))
        if kind is Kind.VM:
            free = free[1:]
        found[kind, name] = spec, draw(options(kind))
    return found


def as_found(declared: Declared) -> tuple[Spec, Options]:
    """What the loader read, in the form of `Resources`."""
    return declared.spec, tuple(sorted(declared.options))
