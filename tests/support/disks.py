"""Disk images, and processes that use them."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from vmtui.core.backend import Context, Desired
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import DiskSpec, spec_hash
from vmtui.core.units import Size

MIB = 1 << 20
TOOL_TIMEOUT_S = 180


def tool(*argv: str | Path) -> str:
    """Runs an outside tool, as an oracle, and returns its stdout. Raises CalledProcessError."""
    done = subprocess.run(list(map(str, argv)), check=True, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S)
    return done.stdout


def qemu_img(*arguments: str | Path) -> str:
    return tool("qemu-img", *arguments)


def content(path: Path, size: int = 24 * MIB, *, seed: int = 7) -> Path:
    """A sparse raw disk with data in its first, middle and last parts, none of which is zero."""
    source = random.Random(seed)
    with path.open("wb") as file:
        file.truncate(size)
        for offset in (0, size // 2 + 4096, size - MIB):
            file.seek(offset)
            file.write(source.randbytes(MIB).replace(b"\0", b"\1"))
    return path


def made(raw: Path, image_format: str, *options: str) -> Path:
    """`raw` in another format, beside it."""
    path = raw.with_name(f"{raw.stem}{'-'.join(options).replace('=', '-')}.{image_format}")
    words = ("-o", ",".join(options)) if options else ()
    qemu_img("convert", "-f", "raw", "-O", image_format, *words, raw, path)
    return path


def disk(name: str = "data", **fields: object) -> Desired[DiskSpec]:
    """A desired disk; `size` in bytes."""
    if isinstance(fields.get("size"), int):
        fields["size"] = Size(fields["size"])  # type: ignore[call-overload]
    if isinstance(fields.get("source"), Path):
        fields["source"] = str(fields["source"])
    spec = DiskSpec(**fields)  # type: ignore[arg-type]
    return Desired(ref=Ref("dev", Kind.DISK, name), backend="qcow2", spec=spec, spec_hash=spec_hash(spec))


def path_of(context: Context, ref: Ref) -> Path:
    return context.resource_dir(ref) / "disk.qcow2"


@contextlib.contextmanager
def opened_by_qemu(path: Path, *, writable: bool = True) -> Iterator[int]:
    """A qemu-io that holds the image open; yields its pid."""
    words = [] if writable else ["-r"]
    process = subprocess.Popen(
        ["qemu-io", *words, "-f", "qcow2", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(b"length\n")
        process.stdin.flush()
        assert os.read(process.stdout.fileno(), 1024)  # it answers only when the image is open
        yield process.pid
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@contextlib.contextmanager
def opened_without_locks(path: Path) -> Iterator[int]:
    """A process that has the file open for writing and knows nothing of QEMU's locks; yields its pid."""
    script = 'exec 3<>"$0"; echo; exec sleep 60'
    process = subprocess.Popen(["sh", "-c", script, path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.read(1)
        yield process.pid
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def served(path: Path, folder: Path) -> Iterator[int]:
    """A qemu-storage-daemon that exports the image writable; yields its pid."""
    socket, started = folder / "nbd.sock", folder / "nbd.pid"
    process = subprocess.Popen(
        ["qemu-storage-daemon",
         "--blockdev", f"driver=qcow2,node-name=disk,file.driver=file,file.filename={path}",
         "--nbd-server", f"addr.type=unix,addr.path={socket}",
         "--export", "type=nbd,id=export,node-name=disk,writable=on",
         "--pidfile", started]
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not started.exists():  # which it writes once the export has its locks
            assert process.poll() is None, "qemu-storage-daemon ended"
            assert time.monotonic() < deadline, "qemu-storage-daemon does not serve"
            time.sleep(0.02)
        yield process.pid
    finally:
        process.kill()
        process.wait()
        socket.unlink(missing_ok=True)
        started.unlink(missing_ok=True)


@contextlib.contextmanager
def small_file_system(directory: Path, size: int) -> Iterator[Path]:
    """A tmpfs of `size` bytes on `directory`, unmounted whatever happens."""
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "vmtui-test", directory], check=True, timeout=TOOL_TIMEOUT_S
    )
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True, timeout=TOOL_TIMEOUT_S)
