"""The layer store: each layer unpacked once, under the digest of its uncompressed bytes.

    CACHE/layers/sha256/HEX/tree        the layer as overlayfs takes it (a lowerdir)
    CACHE/layers/sha256/HEX/layer.json  what unpacking it found
    CACHE/layers/folders/HEX/tree       descriptions of folders, see `LayerStore.stack`

A layer appears by a rename, when its digest has been verified; all that exists is complete. It never changes.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import shutil
import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

import vmtui
from vmtui.core.errors import InvalidInput, MissingCapability, OperationFailed
from vmtui.host.faults import CommandFailed
from vmtui.host.files import FULL, in_words, remedy
from vmtui.host.paths import program
from vmtui.host.process import run
from vmtui.runtime.claim import claim, sweep
from vmtui.runtime.extract import OPAQUE, Limits, Outcome
from vmtui.runtime.manifest import Blob, sha256
from vmtui.runtime.unpack import Job

START_S = 60.0
BYTES_PER_S = 1 << 20  # a blob that unpacks slower than this is stuck
WAIT_S = 3600.0


class Folder(msgspec.Struct, frozen=True, kw_only=True):
    """What describes a directory; `path` relative to the root."""

    path: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int


class Stack(msgspec.Struct, frozen=True, kw_only=True):
    """Layers for overlayfs, lowest first, and the name of the one to put on top, or ""."""

    diff_ids: tuple[str, ...]
    folders: str = ""


class LayerStore:
    """The layers of one cache directory, shared by all processes that use it."""

    def __init__(self, cache: Path, limits: Limits | None = None) -> None:
        self._root = cache / "layers"
        self._limits = limits or Limits()

    def tree(self, diff_id: str) -> Path:
        """Where the layer is, or would be."""
        return self._place(diff_id) / "tree"

    def _place(self, diff_id: str) -> Path:
        return self._root / "sha256" / diff_id.removeprefix("sha256:")

    def has(self, diff_id: str) -> bool:
        try:
            return self.tree(diff_id).is_dir() and self._note(diff_id).stat().st_size > 0
        except OSError:
            return False

    def _note(self, diff_id: str) -> Path:
        return self._place(diff_id) / "layer.json"

    async def add(self, blob: Blob, progress: Callable[[float], None]) -> Path:
        """Unpack a layer unless it is there. Two that want the same one at once: the second waits for the first.

        Nothing is left behind on failure, and what a killed process left, of any layer, is removed. Raises InvalidInput
        (another digest, not a layer, hostile), OperationFailed (no space), MissingCapability (not root).
        """
        place = self._place(blob.diff_id)
        self._clean()
        if not self.has(blob.diff_id):
            async with claim(place.with_name(f"{place.name}.partial"), timeout=WAIT_S) as fd:
                if not self.has(blob.diff_id):
                    await self._unpack(blob, place, fd, progress)
        return place / "tree"

    def _clean(self) -> None:
        sweep(self._root / "sha256", "*.partial")
        sweep(self._root / "folders", "*.partial")

    async def _unpack(self, blob: Blob, place: Path, fd: int, progress: Callable[[float], None]) -> None:
        if os.geteuid() != 0:
            raise MissingCapability("unpacking an image's layers needs root", hint=f"sudo {program()}")
        partial = place.with_name(f"{place.name}.partial")
        tree = partial / "tree"
        try:
            size = os.stat(blob.path).st_size
            tree.mkdir(mode=0o755)
            tree.chmod(0o755)
        except OSError as error:
            raise host_error(error, str(place)) from None
        if size != blob.size:
            raise InvalidInput(f"layer {blob.digest} is truncated: it has {size} of {blob.size} bytes")
        outcome = await self._run(blob, tree, fd, progress)
        if outcome.error and outcome.invalid:
            raise InvalidInput(f"layer {blob.digest}: {outcome.error}")
        if outcome.error:
            raise host_error(OSError(outcome.errno, outcome.error), f"layer {blob.digest}")
        try:
            (partial / "layer.json").write_bytes(msgspec.json.encode(outcome))
            if place.exists():  # damaged from outside
                await asyncio.to_thread(shutil.rmtree, place)
            partial.rename(place)
        except OSError as error:
            raise host_error(error, str(place)) from None

    async def _run(self, blob: Blob, tree: Path, fd: int, progress: Callable[[float], None]) -> Outcome:
        job = Job(
            blob=blob.path,
            digest=blob.digest,
            diff_id=blob.diff_id,
            into=str(tree),
            parent_pid=os.getpid(),
            limits=self._limits,
        )

        def on_stdout(data: bytes) -> None:
            done = data.split(b"\n")[0]
            if done.isdigit() and blob.size:
                progress(min(1.0, int(done) / blob.size))

        try:
            done = await run(
                [sys.executable, "-P", "-m", "vmtui.runtime.unpack"],
                stdin=msgspec.json.encode(job),
                timeout=START_S + blob.size / BYTES_PER_S,
                env={"PYTHONPATH": str(Path(vmtui.__file__).parent.parent)},
                cwd="/",
                pass_fds=(fd,),
                on_stdout=on_stdout,
            )
            return msgspec.json.decode(done.stdout.splitlines()[-1], type=Outcome)
        except CommandFailed as fault:
            raise OperationFailed(f"layer {blob.digest}: unpacking was stopped", details=str(fault)) from fault
        except (IndexError, msgspec.DecodeError) as error:
            raise OperationFailed(f"layer {blob.digest}: unpacking ended without an answer") from error

    def folders_tree(self, name: str) -> Path:
        """Where the layer is that `Stack.folders` names."""
        return self._root / "folders" / name / "tree"

    async def stack(self, diff_ids: Sequence[str]) -> Stack:
        """What to give overlayfs so that it shows these layers, lowest first, all of them in the store, as meant.

        It refuses the same layer twice; only the higher one can show anything. It does not heed an opaque root. And
        where it sees a folder in one layer alone it lists the whiteouts in it as files.

        It takes a folder's owner and mode from the highest layer that has it. A tar may hold a/b without describing
        a: such an a would hide the description in a lower layer, and /tmp would lose its mode 1777. So `folders` names
        one more layer, for the top: it holds such folders alone, with the descriptions that count. Raises
        OperationFailed.
        """
        stacked = list(dict.fromkeys(reversed(diff_ids)))[::-1]
        for number in range(len(stacked) - 1, 0, -1):
            if is_opaque(os.fsencode(self.tree(stacked[number]))):
                stacked = stacked[number:]
                break
        wanted = self._wanted(stacked)
        if not wanted:
            return Stack(diff_ids=tuple(stacked))
        place = self._root / "folders" / sha256(msgspec.json.encode(wanted)).removeprefix("sha256:")
        if not place.is_dir():
            partial = place.with_name(f"{place.name}.partial")
            async with claim(partial, timeout=WAIT_S):
                if not place.is_dir():
                    try:
                        _make_folders(wanted, os.fsencode(partial / "tree"))
                        partial.rename(place)
                    except OSError as error:
                        raise host_error(error, str(place)) from None
        return Stack(diff_ids=tuple(stacked), folders=place.name)

    def _outcome(self, diff_id: str) -> Outcome:
        note = self._note(diff_id)
        try:
            return msgspec.json.decode(note.read_bytes(), type=Outcome)
        except (OSError, msgspec.MsgspecError) as error:
            remedy = f"rm -r {shlex.quote(str(note.parent))}"
            raise OperationFailed(f"{note} is damaged: {error}", hint=f"{remedy}, then run this again") from None

    def _wanted(self, diff_ids: Sequence[str]) -> list[Folder]:
        trees = [os.fsencode(self.tree(diff_id)) for diff_id in diff_ids]
        outcomes = [self._outcome(diff_id) for diff_id in diff_ids]
        implicit = [frozenset(outcome.implicit) for outcome in outcomes]
        hiding = frozenset(path for outcome in outcomes for path in outcome.hiding)
        found: dict[bytes, Folder] = {}
        for path in sorted(hiding.union(*implicit[1:])):
            above = _visible(trees, path)
            if not above:
                continue
            described = next((number for number in above if path not in implicit[number]), above[0])
            if described == above[0] and not (path in hiding and len(above) == 1):
                continue
            parts = path.split(b"/") if path else []
            for count in range(len(parts)):  # overlayfs takes the description of those above it from here, too
                ancestor = b"/".join(parts[:count])
                if ancestor not in found:
                    found[ancestor] = _describe(trees[_visible(trees, ancestor)[0]], ancestor)
            found[path] = _describe(trees[described], path)
        return [found[path] for path in sorted(found)]


def _make_folders(wanted: Sequence[Folder], tree: bytes) -> None:
    os.mkdir(tree, 0o755)
    os.chmod(tree, 0o755)
    for folder in wanted:
        path = os.path.join(tree, folder.path)
        os.makedirs(path, exist_ok=True)
        os.chown(path, folder.uid, folder.gid)
        os.chmod(path, folder.mode)
    for folder in reversed(wanted):
        os.utime(os.path.join(tree, folder.path), ns=(folder.mtime_ns, folder.mtime_ns))


def _visible(trees: Sequence[bytes], path: bytes) -> list[int]:
    """The layers, highest first, whose folder `path` is merged into the one that the image shows; [] if none is."""
    numbers: list[int] = []
    for number in range(len(trees) - 1, -1, -1):
        full = trees[number]
        opaque = False
        for part in [b"", *path.split(b"/")] if path else [b""]:
            full = os.path.join(full, part) if part else full
            try:
                mode = os.lstat(full).st_mode  # each parent was seen to be a folder: no link is followed
            except FileNotFoundError:
                break
            if not stat.S_ISDIR(mode):
                return numbers
            opaque = opaque or is_opaque(full)
        else:
            numbers.append(number)
        if opaque:
            return numbers
    return numbers


def is_opaque(path: bytes) -> bool:
    """Whether a layer's folder hides what lower layers have there."""
    try:
        return os.getxattr(path, OPAQUE, follow_symlinks=False) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise


def _describe(tree: bytes, path: bytes) -> Folder:
    found = os.lstat(os.path.join(tree, path) if path else tree)
    return Folder(
        path=path, mode=stat.S_IMODE(found.st_mode), uid=found.st_uid, gid=found.st_gid, mtime_ns=found.st_mtime_ns
    )


def host_error(error: OSError, what: str) -> OperationFailed:
    if error.errno in FULL:
        return OperationFailed(f"no space left for {what}", hint="df -h")
    return OperationFailed(f"{what}: {in_words(error)}", hint=remedy(error))
