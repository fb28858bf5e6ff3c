"""Small WASI modules in text, for tests of sandboxes."""

from __future__ import annotations

WASI = {
    "fd_write": "(param i32 i32 i32 i32) (result i32)",
    "fd_read": "(param i32 i32 i32 i32) (result i32)",
    "proc_exit": "(param i32)",
    "poll_oneoff": "(param i32 i32 i32 i32) (result i32)",
    "path_open": "(param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)",
}


def module(start: str, *, data: str = "", functions: str = "", memory: str = "4", entrypoint: str = "_start") -> str:
    """A module whose entrypoint is `start`, with helpers: $say (fd, pointer, length), $sleep_ms, $open, and WASI.

    Memory below 1024 is the helpers' own.
    """
    imports = "\n".join(
        f'(import "wasi_snapshot_preview1" "{name}" (func ${name} {signature}))' for name, signature in WASI.items()
    )
    return f"""(module
{imports}
(memory (export "memory") {memory})
{data}
(func $say (param $fd i32) (param $at i32) (param $length i32)
  (i32.store (i32.const 0) (local.get $at))
  (i32.store (i32.const 4) (local.get $length))
  (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
(func $sleep_ms (param $ms i64)
  (i64.store (i32.const 64) (i64.const 0))
  (i32.store8 (i32.const 72) (i32.const 0))
  (i32.store (i32.const 80) (i32.const 1))
  (i64.store (i32.const 88) (i64.mul (local.get $ms) (i64.const 1000000)))
  (i64.store (i32.const 96) (i64.const 0))
  (i32.store16 (i32.const 104) (i32.const 0))
  (drop (call $poll_oneoff (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 192))))
;; path_open in the preopened folder 3: flags and rights are as in WASI preview 1; returns the errno, descriptor at 200
(func $open (param $at i32) (param $length i32) (param $flags i32) (param $rights i64) (result i32)
  (call $path_open (i32.const 3) (i32.const 1) (local.get $at) (local.get $length) (local.get $flags)
    (local.get $rights) (i64.const 0) (i32.const 0) (i32.const 200)))
{functions}
(func (export "{entrypoint}")
{start}
))
"""


def text(at: int, value: str) -> str:
    """A data segment; use it with `say`."""
    escaped = "".join(f"\\{byte:02x}" for byte in value.encode())
    return f'(data (i32.const {at}) "{escaped}")'


def say(at: int, value: str, fd: int = 1) -> str:
    return f"(call $say (i32.const {fd}) (i32.const {at}) (i32.const {len(value.encode())}))"


def speaks(*lines: str, then: str = "") -> str:
    """A module that writes lines to stdout, then does `then`."""
    data, calls, at = [], [], 1024
    for line in lines:
        data.append(text(at, line + "\n"))
        calls.append(say(at, line + "\n"))
        at += len(line.encode()) + 16
    return module("\n".join(calls) + then, data="\n".join(data))


SPIN = module("(loop br 0)")
SLEEP = module("(loop (call $sleep_ms (i64.const 3600000)) br 0)")


def exits(code: int) -> str:
    return module(f"(call $proc_exit (i32.const {code}))")
