"""Spawns `python -m vmtui.sandbox` and understands what it answers."""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from pathlib import Path

import msgspec
from msgspec import field

from vmtui.core.errors import Fault, InvalidInput, MissingCapability, OperationFailed
from vmtui.host.paths import Paths
from vmtui.host.process import run, tail
from vmtui.wire.lines import Message, WireError, decode

TIMEOUT_S = 240.0  # two compilations and a start, each bounded by the program itself
PLACE = re.compile(r"--> <anon>:(\d+:\d+)")  # wasmtime's errors about text
HINTS = {
    "no-entrypoint": 'set entrypoint = "NAME" to a function that the module exports',
    "memory": 'set memory = "SIZE" to what the module needs',
    "volume": "set volumes to folders that are there",
}
ERRNO = re.compile(r"\[Errno \d+\] ")  # of Python's OSError
USER_NAMESPACES = "sysctl kernel.unprivileged_userns_clone=1, or run vmtui as root"


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    source: str
    target: str
    read_only: bool


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of the program: see `Config` in its config.py."""

    directory: str
    sha256: str
    cache: str
    wasmtime: str
    entrypoint: str
    memory_bytes: int
    uid: int
    parent: int = field(default_factory=os.getpid)
    module: str = "module"
    args: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    volumes: tuple[Volume, ...] = ()
    fuel: int | None = None
    timeout_s: float | None = None
    log_max_bytes: int = 10 << 20
    reap: tuple[str, ...] = ()


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What the program says of a success."""

    cache: str = ""
    compile_ms: int = 0
    user: str = ""


def wasmtime_version() -> str:
    """Raises MissingCapability."""
    try:
        return importlib.metadata.version("wasmtime")
    except importlib.metadata.PackageNotFoundError:
        raise MissingCapability("wasmtime is not installed", hint=f"{sys.executable} -m pip install wasmtime") from None


async def compile_module(launch: Launch, paths: Paths, source: Path | str) -> Done:
    """See that the module is fit, and fill the cache. Raises InvalidInput, MissingCapability, OperationFailed."""
    return await _call("compile", launch, paths, source)


async def start_module(launch: Launch, paths: Paths, source: Path | str) -> Done:
    """Start it; it outlives us. Raises as `compile_module`; nothing runs then."""
    return await _call("run", launch, paths, source)


async def _call(verb: str, launch: Launch, paths: Paths, source: Path | str) -> Done:
    variables = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.environ.get("HOME", "/"),
        **paths.environment(),
    }
    # `env -i`: neither the sandbox nor what it runs at its end sees the rest of our environment
    argv = ["env", "-i", *(f"{name}={value}" for name, value in variables.items())]
    argv += [sys.executable, "-I", "-m", "vmtui.sandbox", verb]
    done = await run(argv, stdin=msgspec.json.encode(launch), timeout=TIMEOUT_S, check=False)
    try:
        answer = decode(done.stdout)
    except WireError:
        message = f"the sandbox program failed with code {done.code}"
        raise OperationFailed(message, hint="vmtui doctor", details=tail(done.stderr)) from None
    if done.code == 0 and answer.get("event") == "done":
        return msgspec.convert(answer, Done)
    raise fault(answer, source)


def fault(answer: Message, source: Path | str) -> Fault:
    """A failure that the program reports, as an error for people. Its text may quote the module."""
    code = str(answer.get("code", ""))
    text = ERRNO.sub("", tail(str(answer.get("message", "")).encode("utf-8", "replace")))
    brief = " ".join(text.partition("Caused by:")[0].split("\n")[0].split())
    details = text if "\n" in text else ""
    if code == "invalid-module":
        found = PLACE.search(text)
        where = f"{source}:{found[1]}" if found else str(source)
        hint = f"correct line {found[1].partition(':')[0]} of {source}" if found else f"file {source}"
        cause = text.partition("Caused by:")[2].strip().split("\n")[-1].strip()
        return InvalidInput(f"{where}: {brief}{f': {cause}' if cause else ''}", hint=hint, details=details)
    if code in HINTS:
        return InvalidInput(f"{source} {brief}" if code != "volume" else brief, hint=HINTS[code])
    if code == "isolation":
        return MissingCapability(f"the sandbox cannot be isolated: {brief}", hint=USER_NAMESPACES)
    if code in ("timeout", "died") and "compiling" in brief:
        return InvalidInput(f"{source}: {brief}", hint=f"ls -lh {source}")
    return OperationFailed(
        f"{source}: {brief}", hint="df -h" if "No space left" in brief else "vmtui doctor", details=details
    )
