"""What the backend asks for: one JSON object, trusted, from the one that spawned us."""

from __future__ import annotations

import json
from typing import Any, NamedTuple


class Volume(NamedTuple):
    """A folder of the host, opened beforehand for the module as `target`."""

    source: str
    target: str
    read_only: bool


class Config(NamedTuple):
    """`directory` is the resource's own; `cache` is the folder of compiled modules."""

    directory: str
    module: str  # a file in `directory`
    sha256: str  # of that file
    cache: str
    wasmtime: str  # the version, for the cache's key
    entrypoint: str
    memory_bytes: int
    uid: int  # what root becomes, when no volume asks for another
    parent: int  # the process that asks; nothing is started for a dead one
    args: tuple[str, ...] = ()  # argv[0] too
    environment: tuple[tuple[str, str], ...] = ()
    volumes: tuple[Volume, ...] = ()
    fuel: int | None = None
    timeout_s: float | None = None
    log_max_bytes: int = 10 << 20
    reap: tuple[str, ...] = ()  # run, with our environment, when the module has ended


def parse(text: bytes) -> Config:
    """Raises ValueError for what is not a configuration."""
    raw: dict[str, Any] = json.loads(text)
    try:
        raw["args"] = tuple(raw.get("args", ()))
        raw["environment"] = tuple(raw.get("environment", {}).items())
        raw["volumes"] = tuple(Volume(**volume) for volume in raw.get("volumes", ()))
        raw["reap"] = tuple(raw.get("reap", ()))
        return Config(**raw)
    except TypeError as error:
        raise ValueError(str(error)) from None
