"""From exec of the VMM to the first thing that a guest does, on this machine: monitor, fork, walls and all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.measure import RUNS, Row, command, median, milliseconds, table
from tests.lab.support.vmm import ROOT
from tests.support import tiny
from tests.support.kernels import vmlinux

TIMEOUT_S = 10.0


def rows() -> list[Row]:
    """The peer is the interpreter alone."""
    with tempfile.TemporaryDirectory(prefix="vt-", dir="/tmp") as place:
        kernel = Path(place) / "kernel"
        kernel.write_bytes(vmlinux(tiny.printed(b"x") + tiny.HALT))
        times = sorted(_until_first_output(Path(place) / f"vm{run}", kernel) for run in range(RUNS))
    mine, theirs = times[len(times) // 2], median(command([sys.executable, "-S", "-c", "pass"]))
    what = "the VMM: exec to the guest's first output"
    return [Row(what, milliseconds(mine), f"python {milliseconds(theirs)}", mine / theirs, "60 ms")]


def _until_first_output(folder: Path, kernel: Path) -> float:
    run, sockets, log = folder / "run", folder / "sockets", folder / "serial.log"
    for made in (run, sockets):
        made.mkdir(parents=True)
    config = folder / "config.json"
    told = {
        "run": str(run), "log": str(log), "sockets": str(sockets), "kernel": str(kernel),
        "memory_bytes": 64 << 20, "uid": 0x7FFF_1000 if os.geteuid() == 0 else None,
    }  # fmt: skip
    config.write_text(json.dumps(told))
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-S", "-P", "-m", "vmtui.vmm", config],
        stdin=subprocess.PIPE, env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.close()
    try:
        while not (log.exists() and log.stat().st_size):
            if time.perf_counter() - began > TIMEOUT_S:
                raise TimeoutError(f"the guest says nothing: {(run / 'errors').read_text()}")
            time.sleep(0.0005)
        return time.perf_counter() - began
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    print(table(rows()))
