"""Resources that were applied, as TOML: one of them, an act on one, or several as a new profile. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from vmtui.core.backend import Desired
from vmtui.core.errors import Conflict
from vmtui.core.resource import Ref
from vmtui.core.specs import Spec
from vmtui.profile import edit, graph, toml_text
from vmtui.profile.edit import options_of
from vmtui.profile.schema import Declared


class Composed(msgspec.Struct, frozen=True, kw_only=True):
    """A new profile's text. `missing` are the references to what is not in it: they are left out."""

    text: str
    missing: tuple[graph.Edge, ...]


def toml_change(text: str, before: Desired[Any] | None, after: Desired[Any] | None, *, folder: Path, name: str) -> str:
    """What creating, editing or deleting a resource amounts to in its profile, as a unified diff.

    `text` is the profile `name` in `folder`. Raises ProfileInvalid.
    """
    changed = text
    if before is None and after is not None:
        ref = after.ref
        changed = edit.add_resource(text, ref.kind, ref.name, after.spec, options_of(after), folder)
    elif before is not None and after is None:
        changed = edit.remove_resource(text, before.ref.kind, before.ref.name)
    elif before is not None and after is not None:
        values = edit.changes(before.spec, after.spec, options_of(before), options_of(after), folder)
        changed = edit.set_fields(text, after.ref.kind, after.ref.name, values)
    return edit.difference(text, changed, name)


def missing(chosen: Iterable[Desired[Any]]) -> tuple[graph.Edge, ...]:
    """The references of these resources to others."""
    found = [Declared(ref=desired.ref, spec=desired.spec) for desired in chosen]
    known = {item.ref for item in found}
    return tuple(edge for item in found for edge in graph.dependencies(item) if edge.provider not in known)


def compose(name: str, chosen: Sequence[Desired[Any]], folder: Path) -> Composed:
    """A profile `name` in `folder` of these resources, each behind what it refers to.

    Raises Conflict if two of them, of different profiles, have one name.
    """
    by_short: dict[str, Ref] = {}
    for desired in chosen:
        other = by_short.setdefault(desired.ref.short, desired.ref)
        if other != desired.ref:
            raise Conflict(f"{other} and {desired.ref} cannot be in one profile: it has one {desired.ref.short}")
    lost = missing(chosen)
    specs = {desired.ref: _without(desired.spec, lost, desired.ref) for desired in chosen}
    edges = graph.edges(Declared(ref=ref, spec=spec) for ref, spec in specs.items())
    by_ref = {desired.ref: desired for desired in chosen}
    text = f"name = {toml_text.value(name)}\n"
    for ref in graph.order(list(specs), edges):
        text = edit.add_resource(text, ref.kind, ref.name, specs[ref], options_of(by_ref[ref]), folder)
    return Composed(text=text, missing=lost)


def _without(spec: Spec, lost: Sequence[graph.Edge], ref: Ref) -> Spec:
    changed: dict[str, Any] = {}
    for field in {edge.field for edge in lost if edge.consumer == ref}:
        gone = {edge.index for edge in lost if edge.consumer == ref and edge.field == field}
        changed[field] = tuple(name for index, name in enumerate(getattr(spec, field)) if index not in gone)
    return msgspec.structs.replace(spec, **changed)
