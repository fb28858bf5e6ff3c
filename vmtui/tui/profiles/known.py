"""The profiles that can be picked: applied ones, those that ship, and files that were opened before."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from vmtui.core.errors import ProfileInvalid
from vmtui.host.files import write_atomic
from vmtui.host.paths import data_dir
from vmtui.profile import load

OPENED = "opened.json"
OPENED_KEPT = 20


class Origin(StrEnum):
    APPLIED = "applied"
    OPENED = "opened"
    SHIPPED = "shipped"


@dataclass(frozen=True, slots=True)
class Known:
    """A profile; `path` is None if nobody knows its file."""

    name: str
    path: Path | None
    origin: Origin


def known(applied: Iterable[str], paths: dict[str, str], opened: Iterable[Path]) -> list[Known]:
    """Each file once. Reads the shipped and the opened files for their names."""
    found = [
        Known(name, Path(paths[name]) if paths.get(name) else None, Origin.APPLIED)
        for name in sorted({*applied, *paths})
    ]
    seen = {each.path for each in found}
    shipped = sorted(data_dir("profiles").glob("*.toml"))
    for origin, files in ((Origin.OPENED, opened), (Origin.SHIPPED, shipped)):
        for path in files:
            if path not in seen and path.is_file():
                seen.add(path)
                found.append(Known(_name(path), path, origin))
    return found


def _name(path: Path) -> str:
    with contextlib.suppress(ProfileInvalid):
        return load.name_of(path)
    return path.stem


class Opened:
    """The files that were opened last, kept in the state directory; that it cannot be written is no fault."""

    def __init__(self, state: Path) -> None:
        self._file = state / OPENED

    def paths(self) -> list[Path]:
        with contextlib.suppress(OSError, ValueError):
            read = json.loads(self._file.read_text())
            return [Path(each) for each in read if isinstance(each, str)] if isinstance(read, list) else []
        return []

    def add(self, path: Path) -> None:
        path = Path(os.path.abspath(path))
        kept = [path, *(each for each in self.paths() if each != path)][:OPENED_KEPT]
        with contextlib.suppress(OSError):
            write_atomic(self._file, json.dumps([str(each) for each in kept]).encode())


def completions(typed: str) -> list[str]:
    """The files and folders whose path goes on from what was typed, TOML files first."""
    folder, _, start = typed.rpartition("/")
    base = f"{folder}/" if "/" in typed else ""
    place = Path(base or ".").expanduser()
    try:
        entries = [(entry.name, entry.is_dir()) for entry in os.scandir(place)]
    except OSError:
        return []
    fits = [
        (not name.endswith(".toml"), f"{base}{name}{'/' if is_dir else ''}")
        for name, is_dir in entries
        if name.startswith(start) and (start or not name.startswith(".")) and (is_dir or name.endswith(".toml"))
    ]
    return [path for _, path in sorted(fits)]
