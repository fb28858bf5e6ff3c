"""Paths in specs: relative to the profile's folder while they are in the file, absolute from here on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from vmtui.core.specs import ContainerSpec, DiskSpec, SandboxSpec, Spec, VmSpec
from vmtui.core.units import Mount

# containers-transports(5): those whose reference begins with a path, which ends at the first colon
PATH_TRANSPORTS = ("oci:", "oci-archive:", "docker-archive:", "dir:")
PACKAGE = "deb:"
M = TypeVar("M", bound=Mount)


class Unusable(ValueError):
    """A path that cannot be written down as an absolute one."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def resolve(spec: Spec, folder: Path | None) -> Spec:
    """The spec with every path absolute, `~` expanded. Without a folder they must be so already. Raises Unusable."""
    changed: dict[str, Any] = {}
    if isinstance(spec, VmSpec):
        changed = {name: _file(name, getattr(spec, name), folder) for name in ("kernel", "initrd")}
        changed["rootfs"] = _image("rootfs", spec.rootfs, folder)
    elif isinstance(spec, ContainerSpec):
        changed = {"image": _image("image", spec.image, folder), "volumes": _mounts(spec.volumes, folder)}
    elif isinstance(spec, SandboxSpec):
        changed = {"module": _file("module", spec.module, folder), "volumes": _mounts(spec.volumes, folder)}
    elif isinstance(spec, DiskSpec):
        changed = {"source": _file("source", spec.source, folder)}
    if all(getattr(spec, field) == value for field, value in changed.items()):
        return spec
    return msgspec.structs.replace(spec, **changed)


def relative(spec: Spec, folder: Path) -> Spec:
    """What `resolve` makes `spec` of: paths in `folder` are relative to it, all others stay as they are."""
    changed: dict[str, Any] = {}
    for field in ("kernel", "initrd", "module", "source"):
        if (path := getattr(spec, field, None)) is not None:
            changed[field] = _below(path, folder)
    for field in ("rootfs", "image"):
        text = getattr(spec, field, None)
        transport = next((prefix for prefix in PATH_TRANSPORTS if text is not None and text.startswith(prefix)), None)
        if text is not None and transport is not None:
            path, colon, rest = text[len(transport) :].partition(":")
            changed[field] = transport + _below(path, folder) + colon + rest
    if mounts := getattr(spec, "volumes", ()):
        changed["volumes"] = tuple(
            mount
            if mount.is_volume
            else type(mount)(_dotted(mount.source, folder), mount.target, read_only=mount.read_only)
            for mount in mounts
        )
    return msgspec.structs.replace(spec, **changed)


def _below(path: str, folder: Path) -> str:
    prefix = f"{str(folder).rstrip('/')}/"
    rest = path.removeprefix(prefix)
    if rest == path or not rest or rest.startswith("/"):
        return path
    return f"./{rest}" if rest.startswith(("~", PACKAGE)) else rest


def _dotted(path: str, folder: Path) -> str:
    """For mounts, where a text without a slash is a volume."""
    if path == str(folder):
        return "."
    below = _below(path, folder)
    return below if below.startswith(("/", "./")) else f"./{below}"


def _file(field: str, text: str | None, folder: Path | None) -> str | None:
    return text if text is None or text.startswith(PACKAGE) else _located(field, text, folder)


def _located(field: str, text: str, folder: Path | None) -> str:
    if folder is None and not os.path.isabs(os.path.expanduser(text)):
        raise Unusable(field, f"the path {text} is relative, and a profile on stdin has no folder; write it in full")
    return absolute(text, folder or Path("/"))


def absolute(text: str, folder: Path) -> str:
    """`text` as an absolute path without `.` and `..`; symbolic links are not followed."""
    return os.path.normpath(folder / os.path.expanduser(text))


def _image(field: str, text: str | None, folder: Path | None) -> str | None:
    transport = next((prefix for prefix in PATH_TRANSPORTS if text is not None and text.startswith(prefix)), None)
    if text is None or transport is None:
        return text
    path, colon, rest = text[len(transport) :].partition(":")
    return transport + _without_colon(field, _located(field, path, folder)) + colon + rest


def _mounts(mounts: tuple[M, ...], folder: Path | None) -> tuple[M, ...]:
    return tuple(
        mount
        if mount.is_volume and not mount.source.startswith("~")
        else type(mount)(
            _without_colon("volumes", _located("volumes", mount.source, folder)),
            mount.target,
            read_only=mount.read_only,
        )
        for mount in mounts
    )


def _without_colon(field: str, path: str) -> str:
    if ":" in path:
        raise Unusable(field, f"the path {path} has a colon, which ends a path here; move it or link to it")
    return path
