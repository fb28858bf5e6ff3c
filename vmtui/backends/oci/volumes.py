"""Named volumes and bind mounts: what a container sees of the host's files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vmtui.backends.oci.trees import remove_tree
from vmtui.core.backend import Context, Desired
from vmtui.core.errors import InvalidInput, NotFound, OperationFailed
from vmtui.core.resource import NAME, NAME_RULE
from vmtui.core.specs import ContainerSpec
from vmtui.core.units import Mount
from vmtui.host.files import write_atomic
from vmtui.runtime import syscalls
from vmtui.runtime.bundle import Bind
from vmtui.runtime.idmap import COUNT, IdMapUnsupported, clone_mapped
from vmtui.runtime.users import MAX_ID

MARK = "mark"
DATA = "data"
SAFE = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV


class Volumes:
    """The named volumes of one workspace: STATE/volumes/PROFILE/NAME, each with our mark beside its data.

    Their files carry the ids that containers see, so that containers with different id ranges can share one.
    """

    def __init__(self, context: Context) -> None:
        self._root = context.paths.state / "volumes"
        self._workspace = context.workspace

    def path(self, profile: str, name: str) -> Path:
        """Where its data is. Raises InvalidInput."""
        if not NAME.fullmatch(name):
            raise InvalidInput(f"volume {name!r}: {NAME_RULE}", hint='volumes = ["data:/srv"], or a path with a slash')
        return self._root / profile / name / DATA

    def ensure(self, profile: str, name: str) -> Path:
        """Its data directory, made if it is not there. Raises InvalidInput, OSError."""
        data = self.path(profile, name)
        data.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark = data.parent / MARK
        if not mark.exists():
            write_atomic(mark, self._mark(profile, name))
        with contextlib.suppress(FileExistsError):
            data.mkdir(mode=0o755)
            data.chmod(0o755)  # whatever the umask: who uses it inside may be anybody
        return data

    async def remove(self, profile: str, name: str, *, with_data: bool) -> None:
        """Remove it, if it carries our mark; `with_data` False keeps one that holds anything.

        Absent is success. Raises OSError, OperationFailed.
        """
        data = self.path(profile, name)
        directory = data.parent
        with contextlib.suppress(FileNotFoundError):
            ours = (directory / MARK).read_bytes() == self._mark(profile, name)
            if ours and (with_data or not data.is_dir() or not any(data.iterdir())):
                await remove_tree(directory)
        for draft in directory.glob(f".{MARK}.*"):  # of a making that was killed before it had its mark
            draft.unlink(missing_ok=True)
        for empty in (directory, directory.parent, directory.parent.parent):
            with contextlib.suppress(OSError):
                empty.rmdir()

    def _mark(self, profile: str, name: str) -> bytes:
        return f"vmtui:{self._workspace}:{profile}/volume/{name}".encode()


def named(desired: Desired[ContainerSpec]) -> set[str]:
    """The named volumes that a container uses."""
    return {mount.source for mount in desired.spec.volumes if mount.is_volume}


def require_sources(mounts: Sequence[Mount]) -> None:
    """Raises NotFound that names the first bind mount whose source is not there."""
    for mount in mounts:
        if not mount.is_volume and not os.path.exists(mount.source):
            raise NotFound(f"{mount.source} is not there to be mounted on {mount.target}", hint=f"mkdir {mount.source}")


class Binder:
    """Prepares bind mounts on a stage of a mount namespace; only for that namespace's thread."""

    def __init__(self, stage: str, userns_fd: int | None) -> None:
        self._stage = Path(stage, "binds")
        self._userns_fd = userns_fd
        self._made: list[Bind] = []
        self._stage.mkdir()

    def add(self, source: Path, target: str, *, read_only: bool, mapped: bool = True) -> None:
        """Without `mapped` its files belong to nobody inside. Raises OperationFailed, NotFound."""
        attributes = SAFE | (syscalls.MOUNT_ATTR_RDONLY if read_only else 0)
        place = self._stage / str(len(self._made))
        try:
            userns_fd = self._userns_fd if mapped else None
            fd = clone_mapped(str(source), userns_fd, attributes=attributes, recursive=True)
        except IdMapUnsupported as error:
            raise OperationFailed(
                f"{source} cannot be mounted on {target}: {error.message}",
                hint='set userns = "host" in its [oci] table',
            ) from error
        except OSError as error:
            message = f"{source} cannot be mounted on {target}: {error.strerror}"
            raise NotFound(message, hint=f"ls -ld {source}") from error
        try:
            place.mkdir() if source.is_dir() else place.touch()
            syscalls.move_mount(fd, str(place))
        finally:
            os.close(fd)
        self._made.append(Bind(source=str(place), target=target, read_only=read_only))

    def __iter__(self) -> Iterator[Bind]:
        return iter(self._made)


def adopt(data: Path, root_fd: int, target: str, id_base: int | None) -> None:
    """Give a volume that is still empty the owner and mode of the image's directory that it covers.

    So that an image whose program is not root can write to it. Raises OSError.
    """
    if any(data.iterdir()):
        return
    try:
        fd = syscalls.open_in_root(root_fd, target.lstrip("/"), os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return  # the image has nothing there
    try:
        covered = os.fstat(fd)
    finally:
        os.close(fd)
    uid, gid = (number - (id_base or 0) for number in (covered.st_uid, covered.st_gid))
    if 0 <= uid < COUNT and 0 <= gid <= MAX_ID:
        os.chown(data, uid, gid)
        os.chmod(data, covered.st_mode & 0o1777)
