"""Simulated containers whose logs are files, as conmon writes them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from tests.support.fakes import FakeRegistry
from tests.support.panel import workspace_of
from vmtui.backends.fake.backend import FakeContainerBackend
from vmtui.backends.oci.logs import entry
from vmtui.core.backend import LogSource
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import ContainerSpec, Spec
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths

WEB, DB = Ref.parse("dev/container/web"), Ref.parse("dev/container/db")
CONTAINERS: dict[str, Spec] = {
    "container/web": ContainerSpec(backend="fake", image="oci:web"),
    "container/db": ContainerSpec(backend="fake", image="oci:db"),
}


class FiledContainers(FakeContainerBackend):
    """Simulated containers whose logs are files as conmon writes them."""

    async def log_source(self, ref: Ref) -> LogSource:
        self.world.get(ref)
        folder = self.context.resource_dir(ref)
        folder.mkdir(parents=True, exist_ok=True)
        return LogSource(paths=(folder / "log.1", folder / "log"), parse=entry, timed=True)


def stamped(text: str, at: float = 0.0, stream: str = "stdout", tag: str = "F") -> str:
    return f"{datetime.fromtimestamp(at, UTC).isoformat(timespec='microseconds')} {stream} {tag} {text}\n"


@contextlib.asynccontextmanager
async def files_of(paths: Paths) -> AsyncIterator[tuple[Workspace, dict[Ref, Path]]]:
    workspace = await workspace_of(paths, CONTAINERS)
    registry = workspace.registry
    assert isinstance(registry, FakeRegistry)
    backend = FiledContainers(registry.context, script=registry.script)
    registry._made[Kind.CONTAINER, "fake"] = backend
    files = {ref: registry.context.resource_dir(ref) / "log" for ref in (WEB, DB)}
    for file in files.values():
        file.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield workspace, files
    finally:
        await workspace.aclose()
