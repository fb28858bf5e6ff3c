"""The guest by which it is tried whether KVM runs guests: that it is the one of the source, and that it always ends."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vmtui.vmm import prove

SOURCE = Path(prove.__file__).parent / "guest" / "proof.S"


def test_the_guest_is_what_the_source_says(tmp_path: Path) -> None:
    if shutil.which("as") is None or shutil.which("ld") is None:
        pytest.skip("needs as and ld: apt-get install binutils")
    subprocess.run(["as", str(SOURCE), "-o", str(tmp_path / "o")], check=True)
    link = ["ld", "-e", "0", f"-Ttext={prove.CODE_ADDR:#x}", "--oformat", "binary", "-o", str(tmp_path / "out")]
    subprocess.run([*link, str(tmp_path / "o")], check=True)
    assert (tmp_path / "out").read_bytes() == prove.PROOF


def test_it_says_what_it_saw_on_any_host() -> None:
    """Whatever /dev/kvm is here: one line, in time, and not usable without a reason."""
    done = subprocess.run([sys.executable, "-m", "vmtui.vmm", "--prove"], capture_output=True, timeout=120)
    said = json.loads(done.stdout)
    assert (done.returncode, said["usable"]) == ((0, True) if said["why"] == "" else (1, False))
    assert done.stderr == b""


def test_each_step_is_named() -> None:
    teller = prove.Teller()
    for step in (1, 2, 3):
        teller.write(0, 1, step)
        assert teller.step == step
        assert prove.STEPS[step]
    teller.write(0, 1, prove.DONE)
    assert teller.heard.get_nowait() == ""
