"""A workspace of the benchmark's own, taken down and removed at its end."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vmtui.host.paths import Paths, program


@contextmanager
def scratch() -> Iterator[Paths]:
    """State and runtime are new; the cache is the user's own, so that kernels and layers are not fetched again."""
    root = Path(tempfile.mkdtemp(prefix="vb-", dir="/tmp"))
    paths = Paths(root / "s" / "vmtui", Paths.from_environment().cache, root / "r" / "vmtui")
    paths.make()
    try:
        yield paths
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def profile_up(paths: Paths, file: Path) -> Iterator[None]:
    """Bring a profile up, and down with its data at the end."""
    environment = paths.environment()
    argv = [program(), "--profile", str(file)]
    subprocess.run(argv, env=environment | {"PATH": PATH}, check=True, capture_output=True)
    try:
        yield
    finally:
        down = [*argv, "--down", "--purge", "--yes"]
        subprocess.run(down, env=environment | {"PATH": PATH}, check=True, capture_output=True)


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
