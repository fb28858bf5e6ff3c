"""The program that unpacks one layer: `python -m vmtui.runtime.unpack`, a Job on stdin, an Outcome on stdout.

A process of its own, so that hostile bytes meet a parser that can only touch the layer's directory: it loads its
codecs, chroots there, keeps the seven capabilities that files need, takes resource limits, and only then reads the
tar. Whatever the tar says, a path resolves inside that root. While it works it prints the bytes read so far, one
number a line; the last line is the Outcome. What it leaves in the directory counts only if the Outcome has no error.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import importlib
import os
import resource
import signal
import struct
import sys
import zlib

import msgspec

from vmtui.runtime import tar
from vmtui.runtime.content import ZSTD_MAGIC, Content
from vmtui.runtime.extract import Limits, Outcome, Unpacker

# include/uapi/linux/capability.h: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SYS_ADMIN (trusted.*), MKNOD, SETFCAP
KEPT_CAPABILITIES = sum(1 << number for number in (0, 1, 3, 4, 21, 27, 31))
CAPABILITY_VERSION_3 = 0x20080522
# include/uapi/linux/prctl.h
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38


class Job(msgspec.Struct, frozen=True, kw_only=True):
    blob: str
    digest: str
    diff_id: str
    into: str  # an empty directory
    parent_pid: int
    limits: Limits = Limits()


def confine(job: Job) -> None:
    """Give up everything but the layer's directory. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int, what: str) -> None:
        if result != 0:
            raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")

    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != job.parent_pid:
        raise OSError(errno.ESRCH, "the process that asked for the layer is gone")
    for which, value in (
        (resource.RLIMIT_AS, job.limits.memory_bytes),
        (resource.RLIMIT_FSIZE, job.limits.file_bytes),
        (resource.RLIMIT_CPU, job.limits.cpu_s),
        (resource.RLIMIT_NOFILE, job.limits.open_files),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(which, (value, value))
    os.chroot(job.into)
    os.chdir("/")
    os.setgroups([])
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    low, high = KEPT_CAPABILITIES & 0xFFFFFFFF, KEPT_CAPABILITIES >> 32
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    check(libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0)), "capset")
    check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")


def unpack(job: Job) -> Outcome:
    """Do it all. Raises nothing."""
    try:
        with open(job.blob, "rb") as blob:
            if f"sha256:{hashlib.file_digest(blob, 'sha256').hexdigest()}" != job.digest:
                return Outcome(error=f"the blob is damaged: its digest is not {job.digest}", invalid=True)
            blob.seek(0)
            zstandard = importlib.import_module("zstandard") if blob.read(4) == ZSTD_MAGIC else None
            blob.seek(0)
            confine(job)
            size = os.fstat(blob.fileno()).st_size
            limit = min(job.limits.total_bytes, max(job.limits.ratio_grace_bytes, size * job.limits.ratio))
            content = Content(blob, zstandard, limit, lambda done: _say(b"%d" % done))
            unpacker = Unpacker(content, job.limits)
            try:
                unpacker.run()
            except zlib.error:
                return Outcome(error="the gzip stream is damaged", invalid=True)
            except tar.TarError as error:
                return Outcome(error=str(error), invalid=True)
            except (MemoryError, RecursionError):
                return Outcome(error=f"it needs more than {job.limits.memory_bytes} bytes of memory", invalid=True)
            except Exception as error:
                if zstandard is not None and isinstance(error, zstandard.ZstdError):
                    return Outcome(error="the zstd stream is damaged", invalid=True)
                raise
        if f"sha256:{content.hash.hexdigest()}" != job.diff_id:
            return Outcome(error=f"its uncompressed digest is not {job.diff_id}", invalid=True)
        return unpacker.outcome()
    except OSError as error:
        return Outcome(error=error.strerror or str(error), errno=error.errno or 0)


def _say(line: bytes) -> None:
    os.write(1, line + b"\n")


def main() -> int:
    os.umask(0)
    outcome = unpack(msgspec.json.decode(sys.stdin.buffer.read(), type=Job))
    _say(msgspec.json.encode(outcome))
    return 0


if __name__ == "__main__":
    sys.exit(main())
