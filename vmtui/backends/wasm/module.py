"""Module files as users hand them over: hostile, in binary or in text."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from vmtui.core.errors import InvalidInput

MAX_MODULE_BYTES = 64 << 20
MAGIC = b"\0asm"  # WebAssembly core specification 5.5.16
MODULE_VERSION = b"\1\0\0\0"
COMPONENT_LAYER = b"\1\0"  # component model, Binary.md: the second half of the version field


def read(path: Path) -> bytes:
    """The whole module. Raises InvalidInput for what is certainly none; only compiling it tells that it is one."""
    data = _read_bounded(path)
    if data.startswith(MAGIC):
        if data[6:8] == COMPONENT_LAYER:
            raise InvalidInput(
                f"{path} is a WebAssembly component; sandboxes run core modules with WASI preview 1",
                hint="build it for the target wasm32-wasip1",
            )
        if data[4:8] != MODULE_VERSION:
            raise InvalidInput(f"{path} is WebAssembly of an unknown version", hint=f"file {path}")
        return data
    if not _is_text(data):
        raise InvalidInput(
            f"{path} is not a WebAssembly module: neither binary (.wasm) nor text (.wat)",
            hint=f"file {path}",
        )
    return data


def _read_bounded(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not make us wait
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise InvalidInput(f"{path} is not a file", hint=f"ls -l {path}")
            data = file.read(MAX_MODULE_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}", hint=f"ls -l {path}") from None
    if len(data) > MAX_MODULE_BYTES:
        raise InvalidInput(f"{path} is larger than {MAX_MODULE_BYTES >> 20} MiB", hint=f"ls -lh {path}")
    return data


def _is_text(data: bytes) -> bool:
    """Whether it can be WebAssembly text: UTF-8 that begins with a parenthesis or a comment."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return text.lstrip().startswith(("(", ";;")) and "\0" not in text
