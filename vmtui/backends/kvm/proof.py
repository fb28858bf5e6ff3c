"""Whether KVM runs a guest here: proved by running one, and remembered until the host restarts."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from vmtui import __version__
from vmtui.backends.kvm import program
from vmtui.guests import dev_kvm
from vmtui.host.faults import CommandFailed
from vmtui.host.files import write_atomic
from vmtui.host.process import boot_id, run, tail

CACHE = "kvm.json"
PROOF_S = 10.0  # the guest gets one second; an interpreter on a busy host needs some to start
OUTPUT_BYTES = 64 << 10
PROVED = "a guest proved it"


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out of KVM on this host. Holds for one boot, one user, one vmtui and one /dev/kvm."""

    boot: str
    version: str
    stamp: str
    why: str = ""  # why it runs no guest; "" if it does


class _Told(msgspec.Struct, frozen=True):
    """What `python -m vmtui.vmm --prove` prints."""

    usable: bool
    why: str = ""


async def examine(cache: Path) -> Host:
    """Run a guest, or recall what came of it since boot."""
    unproved = Host(boot=boot_id(), version=__version__, stamp=f"{dev_kvm.stamp()}:{os.geteuid()}")
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        known = msgspec.json.decode((cache / CACHE).read_bytes(), type=Host)
        if msgspec.structs.replace(known, why="") == unproved:
            return known
    host = msgspec.structs.replace(unproved, why=await _prove())
    with contextlib.suppress(OSError):  # without room it is tried again
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(cache / CACHE, msgspec.json.encode(host))
    return host


async def _prove() -> str:
    try:
        done = await run(
            program.argv("--prove"),
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **program.environment()},
            cwd="/",
            timeout=PROOF_S,
            check=False,
            die_with_parent=True,
            output_limit_bytes=OUTPUT_BYTES,
            reads=True,
        )
        told = msgspec.json.decode(done.stdout, type=_Told)
    except CommandFailed as error:
        return f"the guest that tries it: {error.message}"
    except msgspec.MsgspecError:
        return f"the guest that tries it could not be run: {tail(done.stderr) or f'code {done.code}'}"
    return "" if told.usable else tail(told.why.encode()) or "it did not say why"
