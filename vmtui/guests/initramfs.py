"""What is added to an image so that it boots: init, busybox, kernel modules, and what this one VM is to run."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from vmtui.guests import binaries, cpio
from vmtui.guests.modules import FILE_SYSTEMS, WANTED, Modules

HOME = ".vmtui"
SCRIPTS = Path(__file__).parent / "guest"
EXECUTABLE = ("init", "dhcp", "modprobe")
SOURCED = ("lib", "exec")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SLOTS = 6  # exec sessions at once; three ports each, of the 31 that a virtio-serial device has


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """How the image is run, with what the spec says put in. Empty `argv`: nothing runs but init and exec sessions."""

    argv: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    user: str = ""
    working_dir: str = ""
    stop_signal: int = 15  # SIGTERM

    def script(self, *, terminal: bool = False) -> str:
        """The call of `launch` (guest/lib) that becomes it."""
        variables = {"PATH": DEFAULT_PATH, **({"TERM": "xterm"} if terminal else {}), **dict(self.environment)}
        pairs = [f"{name}={value}" for name, value in variables.items()]
        words = (self.user or "0", self.working_dir or "/", variables["PATH"], str(len(pairs)), *pairs, *self.argv)
        return f"launch {quoted(words)}"


def quoted(words: Sequence[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)


def merged(command: Command, changes: Mapping[str, str]) -> Command:
    return msgspec.structs.replace(command, environment=tuple({**dict(command.environment), **changes}.items()))


def _support(busybox: bytes, modules: Modules | None) -> bytes:
    """What every VM with this kernel gets."""
    load = [] if modules is None else modules.load_order(WANTED)
    orders = {name: [] if modules is None else modules.load_order([name]) for name in FILE_SYSTEMS}
    kept = dict.fromkeys([*load, *(name for order in orders.values() for name in order)])
    entries = [cpio.directory(HOME), cpio.directory(f"{HOME}/modules")]
    entries += [
        cpio.file(f"{HOME}/busybox", busybox, mode=0o755),
        cpio.file(f"{HOME}/fresh", binaries.FRESH, mode=0o755),
        cpio.file(f"{HOME}/vsock", binaries.VSOCK, mode=0o755),
    ]
    entries += [cpio.file(f"{HOME}/{name}", (SCRIPTS / name).read_bytes(), mode=0o755) for name in EXECUTABLE]
    entries += [cpio.file(f"{HOME}/{name}", (SCRIPTS / name).read_bytes()) for name in SOURCED]
    if modules is not None:
        entries += [cpio.file(f"{HOME}/modules/{name}.ko", modules.read(name)) for name in kept]
    entries.append(_list("load", load))
    entries += [_list(f"fs-{name}.load", order) for name, order in orders.items() if order]
    return cpio.archive(entries)


def _list(name: str, modules: Sequence[str]) -> cpio.Entry:
    return cpio.file(f"{HOME}/modules/{name}", "".join(f"{module}\n" for module in modules).encode())


def _personal(hostname: str, command: Command, *, dhcp: bool) -> bytes:
    """What this VM alone gets."""
    config = (
        f"hostname={shlex.quote(hostname)}\n"
        f"dhcp={'yes' if dhcp else 'no'}\n"
        f"slots={SLOTS}\n"
        f"stop_signal={command.stop_signal}\n"
        f"has_main() {{ {'true' if command.argv else 'false'}; }}\n"
        f"main() {{ {command.script(terminal=True)}; }}\n"
    )
    return cpio.archive([cpio.file(f"{HOME}/config", config.encode())])


def write(
    target: Path, image: Path, busybox: Path, modules: Path | None, hostname: str, command: Command, *, dhcp: bool
) -> int:
    """Write the whole initramfs; the kernel takes archives one after the other. Returns its size. Raises OSError."""
    ours = _support(busybox.read_bytes(), None if modules is None else Modules(modules))
    with target.open("wb") as out, image.open("rb") as base:
        size = os.fstat(base.fileno()).st_size
        copied = 0
        while copied < size and (count := os.copy_file_range(base.fileno(), out.fileno(), size - copied)):
            copied += count
        out.seek(0, os.SEEK_END)
        out.write(bytes(-copied % cpio.BLOCK))
        out.write(ours)
        out.write(_personal(hostname, command, dhcp=dhcp))
        return out.tell()
