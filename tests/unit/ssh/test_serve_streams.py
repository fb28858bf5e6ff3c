"""A server whose streams were closed before it began."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import asyncssh
import pytest


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_it_needs_none_of_its_streams(tmp_path: Path, closed: str) -> None:
    """A number that is free would be that of the next file: of the audit log, say, into which errors then went."""
    key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
    keys = tmp_path / "authorized_keys"
    keys.write_text(f'role="admin",name="anna" {key}\n')
    keys.chmod(0o600)
    places = {f"XDG_{name}_HOME": str(tmp_path / name) for name in ("CONFIG", "STATE", "CACHE")}
    words = shlex.join([sys.executable, "-m", "vmtui", "serve", "--check", "--keys", str(keys)])
    done = subprocess.run(["sh", "-c", f"exec {words} {closed}"], env=os.environ | places, check=False, timeout=120)
    assert done.returncode == 0
