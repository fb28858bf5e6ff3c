"""Which accelerator boots a guest here: proved by running one, not by /dev/kvm being there."""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path

import msgspec

from vmtui.backends.qemu import binaries
from vmtui.core.errors import MissingCapability
from vmtui.guests import dev_kvm
from vmtui.host.faults import CommandFailed
from vmtui.host.files import write_atomic
from vmtui.host.process import boot_id, run, which

QEMU = "qemu-system-x86_64"
PROVED = 2 * 0x2A + 1  # isa-debug-exit: twice the byte written, plus one
CACHE = "qemu.json"
KVM, TCG = "kvm", "tcg"
# A working processor needs some milliseconds, QEMU's own start on a busy host some seconds. KVM that does not work may
# well hang, and is waited for by whoever asks; emulation works or says why not.
PROOF_S = {KVM: 6.0, TCG: 30.0}
STUCK = "a guest stopped at its first interrupt in long mode"  # it came to no end in that time


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out of QEMU on this host. Holds for one boot and one program file."""

    boot: str
    program: str
    stamp: str
    version: str
    tcg: str = ""  # why it does not work; "" if it does
    kvm: str = ""

    @property
    def release(self) -> tuple[int, ...]:
        """(7, 2, 22) of "7.2.22"."""
        return tuple(int(part) for part in self.version.split("."))


class Accelerator(msgspec.Struct, frozen=True):
    name: str
    why: str


async def examine(cache: Path) -> Host:
    """Try both accelerators, or recall what was tried since boot. Raises MissingCapability (no QEMU)."""
    program = which(QEMU)
    found = Path(program).stat()
    stamp = f"{found.st_size}:{found.st_mtime_ns}:{dev_kvm.stamp()}"
    try:
        known = msgspec.json.decode((cache / CACHE).read_bytes(), type=Host)
        if (known.boot, known.program, known.stamp) == (boot_id(), program, stamp):
            return known
    except (OSError, msgspec.MsgspecError):
        pass
    host = Host(
        boot=boot_id(),
        program=program,
        stamp=stamp,
        version=await _version(program),
        tcg=await _prove(program, TCG),
        kvm=await _prove(program, KVM),
    )
    if host.tcg == STUCK:  # it may just have been too slow
        return host
    with contextlib.suppress(OSError):  # without room it is tried again
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(cache / CACHE, msgspec.json.encode(host))
    return host


def choose(host: Host, wanted: str) -> Accelerator:
    """Raises MissingCapability: the accelerator that was asked for, or every one, runs no guest here."""
    if wanted != TCG and not host.kvm:
        return Accelerator(KVM, "a guest proved it" if wanted == "auto" else "asked for, and a guest proved it")
    if wanted == KVM:
        raise MissingCapability(f"KVM boots no guest here: {host.kvm}", hint='set accel = "auto"')
    if host.tcg:
        raise MissingCapability(
            f"{host.program} runs no guest: {host.tcg}", hint="apt-get install --reinstall qemu-system-x86"
        )
    return Accelerator(TCG, "asked for" if wanted == TCG else f"no KVM: {host.kvm}")


async def _version(program: str) -> str:
    said = (await run([program, "--version"], timeout=10, reads=True)).stdout.decode("utf-8", "replace")
    match = re.search(r"version (\d+(?:\.\d+)+)", said)
    if match is None:
        raise MissingCapability(
            f"{program} does not tell its version", hint="apt-get install --reinstall qemu-system-x86"
        )
    return match[1]


async def _prove(program: str, accelerator: str) -> str:
    """Why `accelerator` does not run a guest; "" if it does."""
    if accelerator == KVM:
        try:
            Path("/dev/kvm").open("r+b", buffering=0).close()
        except OSError as error:
            return f"/dev/kvm: {(error.strerror or '').lower()}"
    with tempfile.NamedTemporaryFile(prefix="vmtui-proof-") as firmware:
        firmware.write(binaries.proof())
        firmware.flush()
        argv = [
            program,
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-M",
            "microvm",
            "-m",
            "16",
        ]
        argv += ["-accel", accelerator, "-cpu", "host" if accelerator == KVM else "max", "-bios", firmware.name]
        argv += ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
        try:
            limit_s = PROOF_S[accelerator]
            done = await run(
                argv, timeout=limit_s, check=False, die_with_parent=True, output_limit_bytes=1 << 20, reads=True
            )
        except CommandFailed:
            return STUCK
    if done.code == PROVED:
        return ""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    said = "".join(char for char in lines[0] if char.isprintable())[:200] if lines else f"code {done.code}"
    return f"a guest did not run: {said.removeprefix(f'{QEMU}: ').removeprefix('error: ')}"
