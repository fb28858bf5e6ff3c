"""The confined child: compiles a module, or runs one. All that knows wasmtime is here.

It is imported in the child alone, before the confinement (wasmtime is trusted, the module is not).
"""

from __future__ import annotations

import _thread
import contextlib
import os
from typing import Any

import wasmtime

from vmtui.sandbox import confine
from vmtui.sandbox.config import Config
from vmtui.wire.lines import Channel, WireError

ENDLESS_FUEL = (1 << 63) - 1
MAX_TABLE_ELEMENTS = 1 << 20
MAX_TABLES = 16
PAGE_BYTES = 65536
# Compiled code counts fuel in a register; only at calls and at these traps the store has the true number.
FUEL_IS_EXACT = frozenset({"OUT_OF_FUEL", "UNREACHABLE", "STACK_OVERFLOW"})
WASI = "wasi_snapshot_preview1"


class Refused(Exception):
    """The module, or this host, is not fit: a stable word and a message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Exited(Exception):
    """WASI proc_exit, with any code: wasmtime's own traps above 125."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def engine() -> wasmtime.Engine:
    """One memory a module, no threads, no garbage collector. Part of the cache's key: see `__main__.ENGINE`."""
    config = wasmtime.Config()
    config.consume_fuel = True
    config.epoch_interruption = True
    config.memory_init_cow = False  # it would need memfd_create and file sizes, which the guest has not
    config.wasm_multi_memory = False
    config.wasm_memory64 = False
    config.wasm_threads = False
    config.wasm_gc = False
    config.wasm_function_references = False
    return wasmtime.Engine(config)


def linker(made: wasmtime.Engine) -> wasmtime.Linker:
    linked = wasmtime.Linker(made)
    linked.define_wasi()
    linked.allow_shadowing = True
    linked.define_func(WASI, "proc_exit", wasmtime.FuncType([wasmtime.ValType.i32()], []), _proc_exit)
    return linked


def _proc_exit(code: int) -> None:
    raise _Exited(code)


def compile_module(config: Config, module_fd: int, code_fd: int) -> None:
    """Compile what `module_fd` holds into `code_fd`. Raises Refused, OSError."""
    config = config._replace(volumes=())
    confine.enter_namespaces()
    confine.change_root(config.directory, [], config)
    confine.limit(config, compiling=True)
    confine.drop(*confine.identity(config, []))
    with os.fdopen(module_fd, "rb") as file:
        source = file.read()
    made = engine()
    try:
        module = wasmtime.Module(made, source)
        linker(made).instantiate_pre(module)
    except wasmtime.WasmtimeError as error:
        raise Refused("invalid-module", str(error)) from None
    _check_entrypoint(module, config.entrypoint)
    _check_memory(module, config.memory_bytes)
    with os.fdopen(code_fd, "wb") as file:
        file.write(module.serialize())


def _check_entrypoint(module: wasmtime.Module, name: str) -> None:
    functions = {export.name: export.type for export in module.exports if isinstance(export.type, wasmtime.FuncType)}
    if name not in functions:
        others = ", ".join(sorted(functions)[:10]) or "none"
        raise Refused("no-entrypoint", f"exports no function {name!r}; its functions: {others}")
    if functions[name].params:
        raise Refused("no-entrypoint", f"its function {name!r} takes parameters; an entrypoint takes none")


def _check_memory(module: wasmtime.Module, limit_bytes: int) -> None:
    for export in module.exports:
        if isinstance(export.type, wasmtime.MemoryType):
            least = export.type.limits.min * PAGE_BYTES
            if least > limit_bytes:
                raise Refused("memory", f"needs {least} bytes of memory at its start; its limit is {limit_bytes}")


class Run:
    """A module that is ready to run."""

    def __init__(self, config: Config, code_fd: int) -> None:
        """Confine this process and load the module. Raises Refused, OSError."""
        confine.enter_namespaces()
        try:
            volumes = confine.open_volumes(config.volumes)  # here: a mount cannot be taken over from outside
        except OSError as error:
            raise Refused("volume", f"cannot open {error.filename}: {error.strerror}") from None
        uid, gid = confine.identity(config, volumes)
        paths = confine.change_root(config.directory, volumes, config)
        wasi = wasmtime.WasiConfig()
        wasi.argv = list(config.args)
        wasi.env = config.environment
        wasi.inherit_stdin()
        wasi.inherit_stdout()
        wasi.inherit_stderr()
        for path, volume in zip(paths, config.volumes, strict=True):
            try:
                wasi.preopen_dir(path, volume.target, not volume.read_only)
            except wasmtime.WasmtimeError:
                raise Refused("volume", f"cannot open {volume.source} for the module") from None
        confine.limit(config, compiling=False)
        confine.drop(uid, gid)
        self._config = config
        self._fuel = ENDLESS_FUEL if config.fuel is None else config.fuel
        self._engine = engine()
        self._store = wasmtime.Store(self._engine)
        self._store.set_wasi(wasi)
        self._store.set_fuel(self._fuel)
        self._store.set_epoch_deadline(1)
        self._store.set_limits(
            memory_size=config.memory_bytes,
            table_elements=MAX_TABLE_ELEMENTS,
            instances=1,
            tables=MAX_TABLES,
            memories=1,
        )
        self._linker = linker(self._engine)
        with os.fdopen(code_fd, "rb") as file:
            file.seek(0)
            code = file.read()
        try:
            self._module = wasmtime.Module.deserialize(self._engine, code)
        except wasmtime.WasmtimeError as error:
            raise Refused("stale-code", str(error)) from None
        self.user = f"{uid}:{gid}"

    def serve(self, channel: Channel) -> dict[str, Any]:
        """Run it when the monitor says so; returns the report of how it ended. Raises WireError."""
        channel.send({"event": "ready", "user": self.user})
        message = channel.receive()
        if message is None or message.get("event") != "go":
            raise WireError("the monitor gave up")
        _thread.start_new_thread(self._listen, (channel,))
        memory: wasmtime.Memory | None = None
        report: dict[str, Any]
        try:
            exports = self._linker.instantiate(self._store, self._module).exports(self._store)
            memory = next((item for item in exports.values() if isinstance(item, wasmtime.Memory)), None)
            self._call(exports, "_initialize")  # the reactor convention of WASI
            self._call(exports, self._config.entrypoint)
            report = {"kind": "exit", "code": 0}
        except (_Exited, wasmtime.ExitTrap) as exit_:
            report = {"kind": "exit", "code": exit_.code}
        except wasmtime.Trap as trap:
            code = trap.trap_code
            report = {"kind": "trap", "trap": "" if code is None else code.name, "message": trap.message[-4000:]}
        except wasmtime.WasmtimeError as error:
            report = {"kind": "trap", "trap": "", "message": str(error)[-4000:]}
        if report["kind"] == "exit" or report["trap"] in FUEL_IS_EXACT:
            report["fuel_used"] = self._fuel - self._store.get_fuel()
        if memory is not None:
            report["memory_bytes"] = memory.data_len(self._store)
        return report

    def _call(self, exports: Any, name: str) -> None:
        if name == "_initialize" and (name not in exports or name == self._config.entrypoint):
            return
        exports[name](self._store)

    def _listen(self, channel: Channel) -> None:
        """In a thread of its own: interrupt the module when the monitor says so, end with the monitor."""
        with contextlib.suppress(WireError):
            while (message := channel.receive()) is not None:
                if message.get("event") == "interrupt":
                    self._engine.increment_epoch()
        os._exit(1)
