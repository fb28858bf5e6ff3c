"""What is told of a sandbox: facts in the order of interest, and problems with what mends them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vmtui.backends.wasm import module, state
from vmtui.core.errors import InvalidInput
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Fact, Problem, Ref
from vmtui.core.specs import SandboxSpec
from vmtui.core.units import Mount, Size

MAX_FUEL = (1 << 63) - 1  # wasmtime counts downwards in a signed register


def spec_problems(spec: SandboxSpec) -> list[Problem]:
    """What makes a sandbox impossible, beside its module."""
    found = [problem for mount in spec.volumes if (problem := _volume_problem(mount)) is not None]
    if spec.fuel is not None and spec.fuel > MAX_FUEL:
        found.append(Problem(code="fuel", message=f"fuel of {spec.fuel} is out of range", hint=f"at most {MAX_FUEL}"))
    names = spec.environment.keys()
    if any(not name or "=" in name for name in names):
        found.append(Problem(code="environment", message="a variable has no name, or one with =", hint="NAME = VALUE"))
    if any("\0" in text for text in (*spec.args, *names, *spec.environment.values())):
        found.append(Problem(code="text", message="an argument or a variable contains NUL", hint="leave it out"))
    return found


def _volume_problem(mount: Mount) -> Problem | None:
    if mount.is_volume:
        message = f"volume {mount.source!r} is a named volume; a sandbox takes folders of the host"
        return Problem(code="volume", message=message, hint=f'write "./{mount.source}:{mount.target}"')
    if not Path(mount.source).is_dir():
        message = f"volume {mount.source} is not a folder"
        return Problem(code="volume", message=message, hint=f"mkdir -p {mount.source}")
    return None


def problems(ref: Ref, seen: state.Observed) -> list[Problem]:
    found = []
    if seen.phase is Phase.BROKEN:
        message = f"{ref}: its process vanished without a result"
        found.append(Problem(code="vanished", message=message, hint=f"vmtui logs {ref}"))
    if seen.result is not None and seen.result.log_failure:
        message = f"{ref}: its log is incomplete: {seen.result.log_failure}"
        found.append(Problem(code="log", message=message, hint="df -h"))
    return found


def facts(directory: Path, seen: state.Observed) -> tuple[Fact, ...]:
    """What was observed, in the order in which it is of interest."""
    found: dict[str, object] = {}
    made = state.load(directory / state.MODULE_FACTS, state.ModuleFacts)
    if seen.result is not None:
        result = seen.result
        found["trap"] = result.trap
        found["fuel used"] = result.fuel_used
        found["linear memory"] = None if result.memory_bytes is None else Size(result.memory_bytes)
        found["peak memory"] = None if result.peak_bytes is None else Size(result.peak_bytes)
    if made is not None:
        found["module sha256"] = made.sha256
        found["module size"] = Size(made.size_bytes)
        found["wasmtime"] = made.wasmtime
    if seen.running is not None:
        found["compile cache"] = seen.running.cache
        found["user"] = seen.running.user
    return tuple(Fact(name=name, value=str(value)) for name, value in found.items() if value not in (None, ""))


def differs(made: state.ModuleFacts) -> bool:
    """Whether the file that the module was copied from is another one now, as far as this process can read it."""
    try:
        Path(made.source).open("rb").close()
    except PermissionError:
        return False
    except OSError:
        return True
    try:
        return hashlib.sha256(module.read(Path(made.source))).hexdigest() != made.sha256
    except InvalidInput:
        return True
