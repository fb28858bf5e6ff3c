"""What a profile says, before any backend is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import Spec

# For a kind, the names of its backends and the type of each one's sub-table (None: it has none).
OptionTypes = Callable[[Kind], Mapping[str, type[msgspec.Struct] | None]]


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """One `[KIND.NAME]` table. `options` are its sub-tables, each decoded to the type of the backend it names."""

    ref: Ref
    spec: Spec
    options: tuple[tuple[str, Any], ...] = ()
    where: str = ""  # FILE:LINE of its header


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """A declared environment. `resources` in the order of the file; without a `path` it came through stdin."""

    name: str
    path: Path | None
    resources: tuple[Declared, ...]
