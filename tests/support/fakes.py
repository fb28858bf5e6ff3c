"""A workspace in which nothing is real: only the simulated backends, which share one script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vmtui.backends.fake.backend import (
    FakeContainerBackend,
    FakeDiskBackend,
    FakeNetworkBackend,
    FakeSandboxBackend,
    FakeVmBackend,
)
from vmtui.backends.fake.base import FakeBackend
from vmtui.backends.fake.options import FakeOptions
from vmtui.backends.fake.script import Script
from vmtui.backends.fake.world import Clock
from vmtui.core.backend import Backend, Context
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import Spec
from vmtui.engine.registry import Registry
from vmtui.engine.store import Store, open_context
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.profile.schema import Declared, Profile

FAKES: dict[Kind, type[FakeBackend[Any]]] = {
    Kind.NETWORK: FakeNetworkBackend,
    Kind.DISK: FakeDiskBackend,
    Kind.VM: FakeVmBackend,
    Kind.CONTAINER: FakeContainerBackend,
    Kind.SANDBOX: FakeSandboxBackend,
}


class FakeRegistry(Registry):
    """Knows the simulated backends alone."""

    def __init__(self, context: Context, script: Script | None = None, clock: Clock | None = None) -> None:
        super().__init__(context)
        self.script = script or Script()
        self._made = {(kind, "fake"): fake(context, script=self.script, clock=clock) for kind, fake in FAKES.items()}

    def every(self, kind: Kind) -> tuple[Backend[Any], ...]:
        return (self.get(kind, "fake"),)


def open_fakes(paths: Paths, script: Script | None = None, clock: Clock | None = None) -> Workspace:
    """A workspace on `paths`; the caller closes it."""
    return Workspace(FakeRegistry(open_context(paths), script, clock), Store(paths.state / "state.db"))


def profile(name: str, specs: dict[str, Spec], options: dict[str, FakeOptions] | None = None) -> Profile:
    """A profile of resources named KIND/NAME, as the loader would have made it."""
    declared = []
    for short, spec in specs.items():
        chosen = (options or {}).get(short)
        declared.append(
            Declared(
                ref=Ref.parse(f"{name}/{short}"),
                spec=spec,
                options=() if chosen is None else (("fake", chosen),),
                where=f"{name}.toml:1",
            )
        )
    return Profile(name=name, path=Path(f"/{name}.toml"), resources=tuple(declared))
