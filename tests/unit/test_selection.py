"""Which backend `auto` takes: one that works, and that has a part for all that the spec asks for."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from vmtui.backends.fake.backend import FakeVmBackend
from vmtui.core.backend import Backend, Context, Probe
from vmtui.core.resource import Kind, Problem, Ref
from vmtui.core.specs import VmSpec
from vmtui.engine import selection
from vmtui.engine.plan import Change, Plan
from vmtui.engine.registry import Registry
from vmtui.host.paths import Paths
from vmtui.profile.schema import Declared


class Picky(FakeVmBackend):
    name = "picky"
    priority: ClassVar[int] = 20
    works: ClassVar[bool] = True

    def unsuitable(self, spec: VmSpec) -> str | None:
        return "picky has no firmware" if spec.kernel is None else None

    async def probe(self) -> Probe:
        problem = Problem(code="no", message="it does not work", hint="")
        return Probe(backend=self.name, kind=self.kind, usable=self.works, summary="", problems=(problem,))


class Broken(Picky):
    works = False


class Plain(FakeVmBackend):
    name = "plain"
    priority: ClassVar[int] = 10


class Chosen(Registry):
    def __init__(self, context: Context, *kinds: type[Backend[VmSpec]]) -> None:
        super().__init__(context)
        self._kinds = kinds

    def every(self, kind: Kind) -> tuple[Backend[VmSpec], ...]:
        return tuple(made(self.context) for made in self._kinds)

    def get(self, kind: Kind, name: str) -> Backend[VmSpec]:
        return next(backend for backend in self.every(kind) if backend.name == name)


async def choose(paths: Paths, spec: VmSpec, *kinds: type[Backend[VmSpec]]) -> str:
    registry = Chosen(Context(paths=paths, workspace="w"), *kinds)
    item = Declared(ref=Ref("dev", Kind.VM, "guest"), spec=spec)
    return await selection.choose(registry, item, None, None)


async def test_the_best_that_suits(paths: Paths) -> None:
    assert await choose(paths, VmSpec(kernel="/k"), Plain, Picky) == "picky"
    assert await choose(paths, VmSpec(disks=("a",)), Plain, Picky) == "plain"
    assert await choose(paths, VmSpec(kernel="/k"), Plain, Broken) == "plain"


async def passed_over(paths: Paths, spec: VmSpec, *kinds: type[Backend[VmSpec]]) -> list[str]:
    registry = Chosen(Context(paths=paths, workspace="w"), *kinds)
    item = Declared(ref=Ref("dev", Kind.VM, "guest"), spec=spec)
    want = await selection.desired(registry, item, None, None)
    plan = Plan(profile="dev", changes=(Change(ref=item.ref, action="create", reason="it is new", desired=want),))
    return [note for _, note in await selection.passed_over(registry, plan, {item.ref: item})]


async def test_who_is_passed_over_is_told_why(paths: Paths) -> None:
    disk = VmSpec(disks=("a",))
    assert await passed_over(paths, disk, Plain, Picky) == ["backend plain, since picky has no firmware"]
    assert await passed_over(paths, disk, Plain, Broken) == []
    assert await passed_over(paths, VmSpec(kernel="/k"), Plain, Picky) == []
    assert await passed_over(paths, msgspec.structs.replace(disk, backend="plain"), Plain, Picky) == []


async def test_where_none_suits_the_first_says_itself_why(paths: Paths) -> None:
    assert await choose(paths, VmSpec(disks=("a",)), Picky, Broken) == Broken.name
