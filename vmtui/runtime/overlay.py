"""Mounts a container's root file system: its layers, read-only, below one writable directory."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from vmtui.core.errors import InvalidInput, OperationFailed
from vmtui.runtime import syscalls
from vmtui.runtime.idmap import IdMapUnsupported, clone_mapped

OPTIONS_LIMIT = 4095  # mount(2): data is at most one page


def mount_overlay(
    layers: Sequence[str], writable: Path, target: str, staging: str, userns_fd: int | None, id_base: int
) -> None:
    """Mount `layers` (lowest first) below `writable`/upper on `target`, the layers' ids mapped with `userns_fd`.

    `id_base` is what the map makes of 0: the owner of what is written. `staging` is an empty directory: a layer must
    be attached somewhere to be used. Only for the thread of a MountNamespace: it changes the working directory (so
    that hundreds of layers fit into the options), and what it mounted before a failure goes with the namespace. Raises
    OSError, IdMapUnsupported, InvalidInput, OperationFailed (changes were written under other ids).
    """
    os.chdir(staging)
    for name, path in (("w", str(writable)), *((str(number), layer) for number, layer in enumerate(layers))):
        # The writable one is not mapped: overlayfs works in it as the host's root, which the map does not hold.
        fd = clone_mapped(path, None if name == "w" else userns_fd)
        try:
            os.mkdir(name)
            syscalls.move_mount(fd, name)
        finally:
            os.close(fd)
    # Not before: where ids cannot be mapped, earlier changes rightly are not under mapped ones.
    _own(writable, id_base)
    # The kernel wants the topmost first; upperdir and workdir must be below one mount.
    lower = ":".join(str(number) for number in reversed(range(len(layers))))
    options = f"lowerdir={lower},upperdir=w/upper,workdir=w/work"
    if not layers or len(options) > OPTIONS_LIMIT:
        raise InvalidInput(f"an image of {len(layers)} layers cannot be mounted")
    try:
        syscalls.mount("overlay", target, "overlay", syscalls.MS_NODEV, options)
    except OSError as error:
        if userns_fd is not None and error.errno == errno.EINVAL:  # 5.12 to 5.18: mounts yes, below overlayfs no
            raise IdMapUnsupported("the kernel's overlayfs cannot map the ids of layers") from error
        raise
    finally:
        os.chdir("/")


def make_writable(directory: Path) -> None:
    """The directories that a container's changes go to. Raises OSError."""
    for name in ("upper", "work"):
        made = directory / name
        if not made.exists():
            made.mkdir(mode=0o755, parents=True)
            made.chmod(0o755)  # whatever the umask: it is the mode of the container's root


def _own(directory: Path, id_base: int) -> None:
    """Make the container's root, `id_base` on the host, the owner of its changes.

    Raises OperationFailed if files were written under other ids. OSError.
    """
    upper = directory / "upper"
    if upper.stat().st_uid == id_base:
        return
    if any(upper.iterdir()):
        raise OperationFailed(
            f"the changes in {upper} belong to user id {upper.stat().st_uid}, the container's root now is {id_base}",
            hint="vmtui --profile FILE --recreate",
        )
    for name in ("work", "upper"):  # the one that is asked for comes last
        os.chown(directory / name, id_base, id_base)
