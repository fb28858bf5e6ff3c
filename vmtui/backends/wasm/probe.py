"""Runs a tiny module in a real sandbox, once per boot and version."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
import time
from pathlib import Path

import msgspec

from vmtui.backends.wasm import program, state
from vmtui.core.backend import Context, Probe
from vmtui.core.errors import Fault
from vmtui.core.resource import Kind, Problem
from vmtui.host.files import write_atomic
from vmtui.host.process import boot_id

CODE = 42
MODULE = b"""(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start") (call $exit (i32.const 42))))
"""
TIMEOUT_S = 20.0
CACHE = "wasm-probe.json"


class _Cached(msgspec.Struct, frozen=True):
    """Of a success alone; a failure is tried again."""

    boot: str
    wasmtime: str
    elapsed_ms: int


async def probe(context: Context, cache: Path, name: str) -> Probe:
    """Never raises."""
    version, hint = "", "vmtui doctor"
    try:
        version = program.wasmtime_version()
        async with asyncio.timeout(TIMEOUT_S):
            elapsed_ms = await _cached(context, cache, version)
    except TimeoutError:
        cause = f"a tiny module did not end within {TIMEOUT_S:g} s"
    except Fault as fault:
        cause, hint = fault.message, fault.hint or hint
    except OSError as error:
        cause = f"{error.filename or context.paths.runtime}: {error.strerror}"
    else:
        facts = (("wasmtime", version), ("a sandbox, from start to end", f"{elapsed_ms} ms"))
        return Probe(backend=name, kind=Kind.SANDBOX, usable=True, summary=f"wasmtime {version}", facts=facts)
    problem = Problem(code="unusable", message=cause, hint=hint)
    return Probe(backend=name, kind=Kind.SANDBOX, usable=False, summary=cause, problems=(problem,))


async def _cached(context: Context, cache: Path, version: str) -> int:
    path = context.paths.cache / CACHE
    known = state.load(path, _Cached)
    if known is not None and (known.boot, known.wasmtime) == (boot_id(), version):
        return known.elapsed_ms
    elapsed_ms = await _try(context, cache, version)
    write_atomic(path, msgspec.json.encode(_Cached(boot_id(), version, elapsed_ms)))
    return elapsed_ms


async def _try(context: Context, cache: Path, version: str) -> int:
    """How long it took. Raises Fault, OSError, TimeoutError."""
    context.paths.make()
    folder = Path(tempfile.mkdtemp(prefix="probe-", dir=context.paths.runtime))
    try:
        (folder / state.MODULE).write_bytes(MODULE)
        launch = program.Launch(
            directory=str(folder), sha256=hashlib.sha256(MODULE).hexdigest(), cache=str(cache), wasmtime=version,
            entrypoint="_start", memory_bytes=1 << 20, uid=65534, args=("probe",), timeout_s=TIMEOUT_S,
        )  # fmt: skip
        begun = time.monotonic()
        await program.start_module(launch, context.paths, "the probe's module")
        running = state.load(folder / state.PROCESS, state.Running)
        if running is not None:
            await running.monitor.process.wait(TIMEOUT_S)
        seen = state.observe(folder)
        if seen.exit is None or seen.exit.code != CODE:
            raise Fault(f"a tiny module ended with {seen.exit} in place of code {CODE}", hint="vmtui doctor")
        return round((time.monotonic() - begun) * 1000)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
