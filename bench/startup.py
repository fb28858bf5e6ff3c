"""Start-up, listing, and a run that has nothing to do."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from bench.measure import Row, command, median, milliseconds
from bench.workspace import profile_up, scratch
from vmtui.host.paths import data_dir, program

DEV = data_dir("profiles") / "dev.toml"


def rows() -> Iterator[Row]:
    python = median(command([sys.executable, "-c", "pass"]), runs=15)
    version = median(command([program(), "--version"]), runs=15)
    yield Row(
        "vmtui --version / python -c pass", milliseconds(version), milliseconds(python), version / python, "<= 6x"
    )
    with scratch() as paths, profile_up(paths, DEV):
        environment = paths.environment()
        listing = median(command([program(), "ls", "--json"], environment))
        yield Row("vmtui ls --json, dev profile up", milliseconds(listing), "", listing / python, "<= 250 ms")
        again = median(command([program(), "--profile", str(DEV)], environment))
        yield Row("second run of dev.toml, nothing to do", milliseconds(again), "", again / python, "<= 500 ms")
