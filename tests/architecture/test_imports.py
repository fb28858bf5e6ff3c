"""What each front end loads, seen from a fresh interpreter: the static contracts do not see lazy imports."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.golden import ROOT

PROBE = """
import json, runpy, sys
sys.argv = ["vmtui", *json.loads(sys.argv[1])]
try:
    runpy.run_module("vmtui", run_name="__main__", alter_sys=True)
except SystemExit:
    pass
sys.stderr.write("\\n" + json.dumps(sorted(sys.modules)))
"""
SCREENS = {"textual", "rich", "asyncssh", "wasmtime"}
HEAVY = {"pyroute2", "qemu", "tomlkit", "zstandard", *SCREENS}


def loaded(*args: str, home: str) -> set[str]:
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": str(ROOT),
        "HOME": home,
        "XDG_RUNTIME_DIR": home,
    }
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(args)], capture_output=True, env=environment, timeout=60, check=True
    )
    names: list[str] = json.loads(done.stderr.splitlines()[-1])
    return {name.split(".")[0] for name in names} | {name for name in names if name.startswith("vmtui.")}


def test_version_loads_next_to_nothing(tmp_path: object) -> None:
    found = loaded("--version", home=str(tmp_path))
    assert not found & {"asyncio", "msgspec", "argparse", "importlib.metadata", *HEAVY}
    assert not {name for name in found if name.startswith("vmtui.") and name not in ("vmtui.cli", "vmtui.__main__")}


def test_help_loads_neither_asyncio_nor_the_engine(tmp_path: object) -> None:
    found = loaded("--help", home=str(tmp_path))
    assert not found & {"asyncio", "msgspec", *HEAVY}
    assert not {name for name in found if name.startswith("vmtui.engine")}


@pytest.mark.parametrize(
    "args",
    [(), ("ls", "--json"), ("ls", "--plain"), ("inspect", "x"), ("--profile", "x.toml"), ("logs", "x"), ("events",)],
)
def test_headless_loads_no_screen_and_nothing_heavy(args: tuple[str, ...], tmp_path: object) -> None:
    assert not loaded(*args, home=str(tmp_path)) & HEAVY


@pytest.mark.parametrize("args", [("schema",), ("backends",)])
def test_what_imports_every_backend_still_loads_no_screen(args: tuple[str, ...], tmp_path: object) -> None:
    assert not loaded(*args, home=str(tmp_path)) & SCREENS
