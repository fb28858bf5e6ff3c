"""Finds backends by entry point. A backend is imported when it is needed, and no earlier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, ClassVar

import msgspec

from vmtui.core.backend import Backend, Context
from vmtui.core.errors import NotFound
from vmtui.core.resource import Kind
from vmtui.engine.entry_points import EntryPoint, of_group

GROUP = "vmtui.backend"
FAKE = "fake"


@cache
def _entries() -> dict[tuple[Kind, str], EntryPoint]:
    found: dict[tuple[Kind, str], EntryPoint] = {}
    for entry in of_group(GROUP):
        kind, _, name = entry.name.partition(".")
        if kind not in set(Kind) or not name:
            raise NotFound(f"entry point {entry.name!r} in group {GROUP} is not named KIND.BACKEND")
        key = (Kind(kind), name)
        if key in found and found[key].value != entry.value:
            raise NotFound(f"backend {entry.name} is offered twice: {found[key].value} and {entry.value}")
        found[key] = entry
    return found


def names(kind: Kind) -> tuple[str, ...]:
    """The backends of a kind, without importing any."""
    return tuple(sorted(name for of, name in _entries() if of is kind))


def load(kind: Kind, name: str) -> type[Backend[Any]]:
    """Import one backend's class. Raises NotFound that lists those there are."""
    entry = _entries().get((kind, name))
    if entry is None:
        raise NotFound(f"kind {kind} has no backend {name!r}", hint=f"use auto or one of: {', '.join(names(kind))}")
    loaded: type[Backend[Any]] = entry.load()
    return loaded


class OptionTypesOf(Mapping[str, type[msgspec.Struct] | None]):
    """Backend name to the type of its sub-table; a backend is imported when its type is asked for."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def __getitem__(self, name: str) -> type[msgspec.Struct] | None:
        if name not in names(self._kind):
            raise KeyError(name)
        return load(self._kind, name).options_type

    def __iter__(self) -> Iterator[str]:
        return iter(names(self._kind))

    def __len__(self) -> int:
        return len(names(self._kind))


def option_types(kind: Kind) -> OptionTypesOf:
    """The profile loader's OptionTypes."""
    return OptionTypesOf(kind)


class Registry:
    """The backends of one workspace, each constructed at most once. `auto` takes none of a lower priority."""

    lowest_priority: ClassVar[int] = 0

    def __init__(self, context: Context) -> None:
        self.context = context
        self.broken: dict[tuple[Kind, str], str] = {}
        self._made: dict[tuple[Kind, str], Backend[Any]] = {}

    def get(self, kind: Kind, name: str) -> Backend[Any]:
        """Raises NotFound."""
        key = (kind, name)
        if key not in self._made:
            self._made[key] = load(kind, name)(self.context)
        return self._made[key]

    def every(self, kind: Kind) -> tuple[Backend[Any], ...]:
        """All backends of a kind that can be loaded; `broken` has the others."""
        found = []
        for name in names(kind):
            try:
                found.append(self.get(kind, name))
            except (ImportError, AttributeError, TypeError) as error:
                self.broken[kind, name] = f"cannot be loaded: {error}"
        return tuple(found)

    async def aclose(self) -> None:
        for backend in self._made.values():
            await backend.aclose()
        self._made.clear()
