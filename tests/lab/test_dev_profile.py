"""The project's own example, on a host with everything: its VM is `kvm`'s by itself, and all five come up."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Cli
from tests.support.panel import panel_of, shown, until
from vmtui.core.resource import Ref
from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths

PROFILES = Path(__file__).parents[2] / "profiles"
GUEST = "dev/vm/guest"
TIMEOUT_S = 240.0


@pytest.fixture(scope="module")
def cli() -> Iterator[Cli]:
    folder = Path(tempfile.mkdtemp(prefix="dev-", dir="/tmp"))
    shutil.copytree(PROFILES, folder / "profiles")  # the project lies on an overlay, which maps no ids of volumes
    paths = Paths(folder / "s/vmtui", Path(os.environ["XDG_CACHE_HOME"], "vmtui"), folder / "r/vmtui")
    made = Cli(paths, folder)
    try:
        yield made
    finally:
        made.run("down", "dev", "--purge", "--yes", timeout=TIMEOUT_S)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def summary(cli: Cli) -> dict[str, Any]:
    return cli.records("--profile", str(cli.folder / "profiles/dev.toml"), timeout=TIMEOUT_S)[-1]


def test_all_five_become_ready(summary: dict[str, Any]) -> None:
    assert (summary["result"], summary["changes"]) == ("converged", 5)
    found = {item["ref"]["name"]: (item["phase"], item["ready"]) for item in summary["resources"]}
    phases = {"lab": "available", "data": "available", "web": "running", "guest": "running", "hello": "exited"}
    assert found == {name: (phase, True) for name, phase in phases.items()}


@pytest.mark.usefixtures("summary")
def test_the_vm_is_on_kvm_and_says_why(cli: Cli) -> None:
    status = json.loads(cli.ok("inspect", GUEST, "--json"))["status"]
    facts = {fact["name"]: fact["value"] for fact in status["facts"]}
    assert (status["backend"], facts["accelerator"], facts["why"]) == ("kvm", "kvm", "a guest proved it")
    assert facts["net0"].startswith("vhost")
    assert status["addresses"]
    assert status["problems"] == []


@pytest.mark.usefixtures("summary")
def test_the_guest_sees_its_disk_and_the_container(cli: Cli) -> None:
    log = cli.ok("logs", GUEST)
    assert f"vda has {(1 << 30) // 512} sectors" in log
    assert "http://web/ says: " in log
    assert cli.ok("exec", GUEST, "--", "wget", "-q", "-O", "-", "http://web/") in log.replace("\r", "")


@pytest.mark.usefixtures("summary")
def test_what_the_guest_was_left_for(cli: Cli) -> None:
    exits = dict(json.loads(cli.ok("inspect", GUEST, "--exits", "--json"))["exits"])
    assert exits["serial"] > 0
    assert list(exits.values()) == sorted(exits.values(), reverse=True)
    assert "exits from the guest  " in cli.ok("inspect", GUEST, "--exits")


@pytest.mark.usefixtures("summary")
async def test_the_panel_shows_it_live(cli: Cli) -> None:
    workspace = await Workspace.open(cli.paths)
    try:
        async with panel_of(workspace) as (app, pilot):
            app.home.select(Ref.parse(GUEST))
            await pilot.press("d")
            await until(pilot, lambda: "EXITS FROM THE GUEST" in shown(app), shown(app))
            lines = "\n".join(shown(app).split("EXITS FROM THE GUEST")[1].splitlines()[:10])
            assert "serial" in lines
            await until(pilot, lambda: "/s " in shown(app).split("EXITS FROM THE GUEST")[1], shown(app))
    finally:
        await workspace.aclose()


@pytest.mark.usefixtures("summary")
def test_again_changes_nothing(cli: Cli) -> None:
    assert cli.records("--profile", str(cli.folder / "profiles/dev.toml"), timeout=TIMEOUT_S)[-1]["changes"] == 0


@pytest.mark.usefixtures("summary")
def test_z_down_it_leaves_nothing(cli: Cli) -> None:
    cli.ok("down", "dev", "--purge", "--yes", timeout=TIMEOUT_S)
    assert json.loads(cli.ok("ls", "--json")) == []
    assert not any((cli.folder / "r/vmtui").glob("*/*.sock"))
