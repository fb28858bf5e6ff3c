"""Writes config.json: what an OCI runtime is told, made from a spec and an image's own wishes.

By the OCI runtime specification 1.0.2 (config.md, config-linux.md).
"""

from __future__ import annotations

import re
import resource
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from vmtui.core.errors import InvalidInput
from vmtui.core.specs import ContainerSpec
from vmtui.runtime import capabilities, seccomp
from vmtui.runtime.idmap import COUNT
from vmtui.runtime.manifest import ImageConfig
from vmtui.runtime.users import User

OCI_VERSION = "1.0.2"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAX_VARIABLE_BYTES = 128 << 10  # execve(2): MAX_ARG_STRLEN, 32 pages
MAX_ENVIRONMENT_BYTES = 1 << 20  # half of what the kernel gives argv and environment with the usual 8 MiB stack
CPU_PERIOD_US = 100_000
OPEN_FILES = (1024, 524288)  # as systemd gives services: the soft limit that select(2) can hold, room to raise it
TMPFS_OPTION = re.compile(
    r"(size=\d+[kmgKMG%]?|mode=[0-7]{3,4}|nr_inodes=\d+[kmgKMG]?|(uid|gid)=\d{1,5}|noexec|exec|ro|rw)"
)

# containers/common pkg/config: what podman masks and makes read-only
MASKED = (
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
)
READ_ONLY = ("/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")
SYSCTLS = {
    # Harmless in a network namespace of its own: programs need not be root for port 80, nor for ping.
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": f"0 {COUNT - 1}",
}


class Bind(msgspec.Struct, frozen=True, kw_only=True):
    """A mount of ours, already prepared (ids mapped) at `source`."""

    source: str
    target: str
    read_only: bool = False


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where a container is put. `id_base` None is the host's user namespace."""

    rootfs: str
    hostname: str
    cgroup: str
    user: User
    id_base: int | None
    binds: tuple[Bind, ...] = ()
    swap_accounted: bool = True
    annotations: Mapping[str, str] = {}


def command(spec: ContainerSpec, image: ImageConfig) -> list[str]:
    """What it runs. As in compose, another entrypoint drops the image's command. Raises InvalidInput."""
    entrypoint = image.entrypoint if spec.entrypoint is None else spec.entrypoint
    arguments = spec.command
    if arguments is None:
        arguments = image.cmd if spec.entrypoint is None else ()
    argv = [*entrypoint, *arguments]
    if not argv or not argv[0]:
        raise InvalidInput(f"image {spec.image} names no command", hint='set command = ["PROGRAM"]')
    if any("\0" in word for word in argv):
        raise InvalidInput(f"the command of image {spec.image} holds a NUL byte")
    return argv


def environment(spec: ContainerSpec, image: ImageConfig, hostname: str, home: str) -> list[str]:
    """NAME=VALUE: defaults, over them the image's, over them the spec's. Raises InvalidInput."""
    variables = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if spec.tty:
        variables["TERM"] = "xterm"
    for pair in image.env:
        name, _, value = pair.partition("=")
        variables[name] = value
    variables.update(spec.environment)
    variables.setdefault("HOME", home)
    return checked_environment(variables, spec.image)


def checked_environment(variables: Mapping[str, str], whose: str) -> list[str]:
    """The pairs, if a kernel takes them. Raises InvalidInput."""
    pairs, total = [], 0
    for name, value in variables.items():
        pair = f"{name}={value}"
        size = len(pair.encode("utf-8", "surrogatepass"))
        total += size
        if not name or "=" in name or "\0" in pair:
            message = f"{whose}: {name[:40]!r} cannot be the name of an environment variable"
            raise InvalidInput(message, hint='NAME = "VALUE"')
        if size >= MAX_VARIABLE_BYTES or total > MAX_ENVIRONMENT_BYTES:
            message = f"{whose}: the environment is too large at {name[:40]!r} ({total} bytes)"
            raise InvalidInput(message, hint="keep large values in a file, and mount it: volumes")
        pairs.append(pair)
    return pairs


def config_json(spec: ContainerSpec, image: ImageConfig, place: Placement) -> bytes:
    """The whole file. Raises InvalidInput, MissingCapability (no seccomp profile)."""
    granted = capabilities.resolve(spec.cap_add, spec.cap_drop)
    linux: dict[str, Any] = {
        "namespaces": [{"type": name} for name in NAMESPACES],
        "cgroupsPath": f"/{place.cgroup}",
        "resources": _resources(spec, swap_accounted=place.swap_accounted),
        "maskedPaths": list(MASKED),
        "readonlyPaths": list(READ_ONLY),
        "seccomp": seccomp.resolve(granted),
        "sysctl": SYSCTLS,
    }
    if place.id_base is not None:
        mapping = [{"containerID": 0, "hostID": place.id_base, "size": COUNT}]
        linux["namespaces"].append({"type": "user"})
        linux |= {"uidMappings": mapping, "gidMappings": mapping}
    config = {
        "ociVersion": OCI_VERSION,
        "hostname": place.hostname,
        "root": {"path": place.rootfs, "readonly": spec.read_only},
        "mounts": _mounts(spec, place.binds),
        "annotations": dict(place.annotations),
        "process": _process(
            command(spec, image),
            environment(spec, image, place.hostname, place.user.home),
            spec.working_dir or image.working_dir or "/",
            place.user,
            granted,
            terminal=spec.tty,
        ),
        "linux": linux,
    }
    return msgspec.json.encode(config)


def process_json(
    argv: Sequence[str],
    env: Sequence[str],
    cwd: str,
    user: User,
    granted: Sequence[str],
    *,
    terminal: tuple[int, int] | None,
) -> bytes:
    """The `process` of an exec, under the same confinement as the container's first one.

    `terminal` is its size, rows and columns.
    """
    process = _process(argv, env, cwd, user, granted, terminal=terminal is not None)
    if terminal is not None:
        process["consoleSize"] = {"height": terminal[0], "width": terminal[1]}
    return msgspec.json.encode(process)


def check_working_dir(path: str | None) -> None:
    """Raises InvalidInput."""
    if path is not None and (not path.startswith("/") or "\0" in path):
        raise InvalidInput(f"working directory {path!r} is not an absolute path", hint='working_dir = "/"')


def _process(
    argv: Sequence[str], env: Sequence[str], cwd: str, user: User, granted: Sequence[str], *, terminal: bool
) -> dict[str, Any]:
    check_working_dir(cwd)
    held = list(granted) if user.uid == 0 else []
    own_hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # even root may lack the right to raise it
    soft, hard = (min(limit, own_hard) if own_hard >= 0 else limit for limit in OPEN_FILES)
    return {
        "terminal": terminal,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "args": list(argv),
        "env": list(env),
        "cwd": cwd,
        "capabilities": {
            "bounding": list(granted),
            "effective": held,
            "permitted": held,
            "inheritable": [],
            "ambient": [],
        },
        "noNewPrivileges": True,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard}],
    }


def _resources(spec: ContainerSpec, *, swap_accounted: bool) -> dict[str, Any]:
    resources: dict[str, Any] = {
        "devices": [{"allow": False, "access": "rwm"}],  # the runtime adds the default ones
        "pids": {"limit": spec.pids_limit},
    }
    if spec.memory is not None:
        resources["memory"] = {"limit": int(spec.memory)}
        if swap_accounted:
            resources["memory"]["swap"] = int(spec.memory)  # memory and swap together: no swap
    if spec.cpus is not None:
        resources["cpu"] = {"period": CPU_PERIOD_US, "quota": max(1000, round(spec.cpus * CPU_PERIOD_US))}
    return resources


def _mounts(spec: ContainerSpec, binds: Sequence[Bind]) -> list[dict[str, Any]]:
    safe = ["nosuid", "noexec", "nodev"]
    fixed = [
        ("/proc", "proc", "proc", safe),
        ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/dev/shm", "tmpfs", "shm", [*safe, "mode=1777", "size=65536k"]),
        ("/dev/mqueue", "mqueue", "mqueue", safe),
        ("/sys", "sysfs", "sysfs", [*safe, "ro"]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", [*safe, "relatime", "ro"]),
    ]
    asked = [_tmpfs(text) for text in spec.tmpfs]
    for bind in binds:
        options = ["rbind", "rprivate", "nosuid", "nodev", "ro" if bind.read_only else "rw"]
        asked.append((bind.target, "bind", bind.source, options))
    asked.sort(key=lambda mount: mount[0].rstrip("/").count("/"))  # what is above is mounted first
    return [
        {"destination": target, "type": kind, "source": source, "options": options}
        for target, kind, source, options in [*fixed, *asked]
    ]


def check_tmpfs(texts: Sequence[str]) -> None:
    """Raises InvalidInput that names the first one that is not allowed."""
    for text in texts:
        _tmpfs(text)


def _tmpfs(text: str) -> tuple[str, str, str, list[str]]:
    """As in compose: "/run" or "/run:size=64m,mode=755"."""
    target, _, words = text.partition(":")
    options = [word for word in words.split(",") if word]
    if not target.startswith("/") or "\0" in target:
        raise InvalidInput(f"tmpfs {text!r} is not an absolute path", hint='tmpfs = ["/run"]')
    for word in options:
        if not TMPFS_OPTION.fullmatch(word):
            raise InvalidInput(f"tmpfs {text!r}: option {word!r} is not allowed", hint='tmpfs = ["/run:size=64m"]')
    mode = [] if any(word.startswith("mode=") for word in options) else ["mode=1777"]
    return target, "tmpfs", "tmpfs", ["nosuid", "nodev", *mode, *options]
