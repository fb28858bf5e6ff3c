"""The record of a made resource: what it was made from, in its own directory, beside what it owns.

It is the ownership mark of kinds that live in files, and lets a backend act on a resource when the database is lost.
`complete` is false from the first file made until the last, so that a half-made resource shows itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import msgspec

from vmtui.core.backend import Context, Desired
from vmtui.core.resource import Ref
from vmtui.core.specs import Spec, decode, from_json, to_json
from vmtui.host.files import write_atomic

S = TypeVar("S", bound=Spec)
RECORD = "record.json"


class Record(msgspec.Struct, Generic[S], frozen=True, kw_only=True):
    mark: str
    desired: Desired[S]
    complete: bool


class _Made(msgspec.Struct, frozen=True):
    backend: str


class _Owner(msgspec.Struct, frozen=True):
    """What every record says, whatever kind and backend it is of."""

    mark: str
    desired: _Made


class Records(Generic[S]):
    """The records of one backend. `options_type` is the backend's own."""

    def __init__(self, context: Context, kind: str, spec_type: type[S], backend: str, options_type: Any = None) -> None:
        self._context = context
        self._root_kind = kind
        self._record_type: Any = cast("Any", Record)[spec_type]
        self._backend = backend
        self._options_type = options_type

    def begin(self, desired: Desired[S]) -> Path:
        """Make the resource's directory with an incomplete record; returns the directory. Raises OSError."""
        directory = self._context.resource_dir(desired.ref)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write(directory, desired, complete=False)
        return directory

    def finish(self, desired: Desired[S]) -> None:
        """Mark it complete."""
        self._write(self._context.resource_dir(desired.ref), desired, complete=True)

    def _write(self, directory: Path, desired: Desired[S], *, complete: bool) -> None:
        record = Record(mark=self._context.mark(desired.ref), desired=desired, complete=complete)
        write_atomic(directory / RECORD, to_json(record))

    def read(self, ref: Ref) -> Record[S] | None:
        """The record, None if there is none, or if it is not of this workspace and backend, or cannot be read."""
        try:
            data = (self._context.resource_dir(ref) / RECORD).read_bytes()
            raw: Record[S] = from_json(data, self._record_type)
        except (OSError, msgspec.MsgspecError):
            return None
        if self._context.owned(raw.mark) != ref or raw.desired.backend != self._backend:
            return None
        if self._options_type is not None and raw.desired.options is not None:
            try:
                options = decode(raw.desired.options, self._options_type)
            except msgspec.ValidationError:
                return None
            desired = msgspec.structs.replace(raw.desired, options=options)
            return msgspec.structs.replace(raw, desired=desired)
        return raw

    def foreign(self, ref: Ref) -> bool:
        """Whether a readable record says that the directory belongs to another backend or workspace."""
        try:
            owner = msgspec.json.decode((self._context.resource_dir(ref) / RECORD).read_bytes(), type=_Owner)
        except (OSError, msgspec.MsgspecError):
            return False
        return self._context.owned(owner.mark) != ref or owner.desired.backend != self._backend

    def refs(self) -> Iterator[Ref]:
        """The refs of all directories of this kind, readable record or not."""
        for directory in sorted(self._context.paths.state.glob(f"resources/*/{self._root_kind}/*")):
            try:
                yield Ref.parse(f"{directory.parent.parent.name}/{self._root_kind}/{directory.name}")
            except ValueError:
                continue

    def remove(self, ref: Ref) -> None:
        """Remove the directory and what is in it, and the empty parents. Absent is success. Raises OSError."""
        directory = self._context.resource_dir(ref)
        if directory.is_dir():
            shutil.rmtree(directory)
        for parent in (directory.parent, directory.parent.parent, directory.parent.parent.parent):
            try:
                parent.rmdir()
            except OSError:
                break
