"""Drift taken over into the profile: its text changed so that it says what was applied, as far as it can."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import msgspec

from vmtui.core.backend import Desired
from vmtui.core.lifecycle import Action
from vmtui.core.policy import Verb
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import DiskSpec, Spec
from vmtui.core.units import Size
from vmtui.engine import registry
from vmtui.engine.plan import Plan
from vmtui.engine.workspace import Workspace
from vmtui.profile import edit, graph, load
from vmtui.profile.edit import options_of
from vmtui.profile.schema import Declared, Profile
from vmtui.profile.write import Opened, save
from vmtui.profile.written import Options, given

AppliedOf = Callable[[Ref], Desired[Any] | None]
Target = tuple[Spec, Options]


class Adoption(msgspec.Struct, frozen=True, kw_only=True):
    """What an adoption makes of the file. `left` is the plan that remains: what no profile can say."""

    opened: Opened
    text: str
    profile: Profile
    left: Plan

    @property
    def difference(self) -> str:
        """As a unified diff; "" when there is nothing to adopt."""
        return edit.difference(self.opened.text or "", self.text, str(self.opened.path))

    def save(self) -> Profile:
        """Write it. Raises as profile/write.py does."""
        return save(self.opened, self.text, registry.option_types)


async def adopt(workspace: Workspace, opened: Opened, plan: Plan) -> Adoption:
    """What makes `plan`, which was made from `opened`, empty. Changes nothing.

    Raises ProfileInvalid if the result is no profile: what was applied contradicts what is declared beside it; Denied
    without HOST, whose file it is.
    """
    workspace.guard.require_whole(Verb.HOST, to="change the file of a profile")
    before = opened.text or ""
    profile = load.loads(before, opened.path, registry.option_types)
    here = {status.ref for status in await workspace.scan()}
    wanted = targets(profile, plan, workspace.applied, here)
    text = rewritten(before, profile, wanted)
    adopted = load.loads(text, opened.path, registry.option_types)
    left = await workspace.plan(adopted, check=False)
    return Adoption(opened=opened, text=text, profile=adopted, left=left)


def targets(profile: Profile, plan: Plan, applied: AppliedOf, here: Collection[Ref]) -> dict[Ref, Target]:
    """What the profile should say, by resource; those that are not in it should go. Pure.

    A resource that another one needs stays as it is declared, and one that needs what nobody declares is not added.
    """
    declared = {item.ref: item for item in profile.resources}
    wanted = {ref: (item.spec, item.options) for ref, item in declared.items()}
    for change in plan.changes:
        ref = change.ref
        if change.action == Action.CREATE:
            del wanted[ref]
        elif ref in declared and change.before is not None and (was := applied(ref)) is not None:
            size = next((field.before for field in change.fields if change.action == Action.RESIZE), "")
            wanted[ref] = _as_applied(declared[ref], was, change.backend, size)
    undeclared = [change.ref for change in plan.changes if change.action == Action.DELETE]
    undeclared += [ref for ref, _ in plan.notes if ref.kind is Kind.DISK]
    for ref in undeclared:
        if ref not in declared and ref in here and (was := applied(ref)) is not None:
            wanted[ref] = was.spec, options_of(was)
    _complete(wanted, declared)
    return wanted


def _as_applied(item: Declared, was: Desired[Any], backend: str, size: str) -> Target:
    """The backend's name only changes when another one has it; a size is that which the host shows."""
    wanted = item.spec.backend if item.spec.backend in ("auto", backend) else backend
    spec = msgspec.structs.replace(was.spec, backend=wanted)
    if size and isinstance(spec, DiskSpec):
        spec = msgspec.structs.replace(spec, size=Size.parse(size))
    others = tuple(option for option in item.options if option[0] != was.backend)
    declared = next((struct for name, struct in item.options if name == was.backend), None)
    if was.options is None or was.options == declared or (declared is None and not given(was.options)):
        return spec, item.options
    return spec, (*others, *options_of(was))


def _complete(wanted: dict[Ref, Target], declared: dict[Ref, Declared]) -> None:
    """Until every reference leads somewhere."""
    while True:
        edges = [edge for ref, (spec, _) in wanted.items() for edge in graph.dependencies(Declared(ref=ref, spec=spec))]
        lost = next((edge for edge in edges if edge.provider not in wanted), None)
        if lost is None:
            return
        kept = lost.provider if lost.provider in declared else lost.consumer
        if kept in declared:
            wanted[kept] = declared[kept].spec, declared[kept].options
        else:
            del wanted[kept]


def rewritten(text: str, profile: Profile, wanted: dict[Ref, Target]) -> str:
    """The text of `profile` with what is `wanted` in it, and all else as it is. Raises ProfileInvalid."""
    assert profile.path is not None  # nobody writes back what came through stdin
    folder = profile.path.parent
    declared = {item.ref: item for item in profile.resources}
    for ref in reversed(declared):
        if ref not in wanted:
            text = edit.remove_resource(text, ref.kind, ref.name)
    for ref, (spec, options) in wanted.items():
        if (item := declared.get(ref)) is None:
            text = edit.add_resource(text, ref.kind, ref.name, spec, options, folder)
        elif values := edit.changes(item.spec, spec, item.options, options, folder):
            text = edit.set_fields(text, ref.kind, ref.name, values)
    return text
