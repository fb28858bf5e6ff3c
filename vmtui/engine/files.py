"""Data of resources that people copy in and out, for who may: the check is here, and the paths leave it afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from vmtui.core.backend import Backend, FileTree, HasFiles
from vmtui.core.errors import NotPermitted
from vmtui.core.policy import Verb
from vmtui.core.resource import Kind, Ref
from vmtui.engine.workspace import Workspace

KINDS = (Kind.CONTAINER, Kind.DISK)


async def all_of(workspace: Workspace) -> list[tuple[Ref, FileTree]]:
    """Everything that may be reached by whoever acts."""
    found = []
    for ref in sorted(ref for ref in workspace.everything() if ref.kind in KINDS):
        if workspace.may(Verb.FILES, ref):
            found += [(ref, tree) for tree in await _trees(workspace, ref)]
    return found


def held(workspace: Workspace, ref: Ref) -> AbstractContextManager[None]:
    """While it is entered nobody else uses what only one may. Raises Denied, NotPermitted; entering, ResourceBusy."""
    workspace.require(Verb.FILES, ref)
    backend: object = _backend(workspace, ref)
    if not isinstance(backend, HasFiles):
        raise NotPermitted(f"the files of {ref} cannot be reached", hint="vmtui backends")
    return backend.held(ref)


async def _trees(workspace: Workspace, ref: Ref) -> Sequence[FileTree]:
    backend: object = _backend(workspace, ref)
    return await backend.files(ref) if isinstance(backend, HasFiles) else ()


def _backend(workspace: Workspace, ref: Ref) -> Backend[Any] | None:
    name = workspace.store.backend_of(ref)
    return None if name is None else workspace.registry.get(ref.kind, name)
