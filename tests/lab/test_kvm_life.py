"""A VM on the bundled VMM over its ends: restarted by its policy, healed when all of it vanished, plugged in again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Cli
from vmtui.guests import run as files
from vmtui.host.paths import Paths

GUEST = "life/vm/guest"
TIMEOUT_S = 240.0
PROFILE = """
name = "life"

[network.lab]
subnet = "10.88.9.0/24"

[vm.guest]
kernel = "deb:linux-image-cloud-amd64"
rootfs = "deb:busybox-static"
memory = "128MiB"
networks = ["lab"]
restart = "on-failure"
command = ["sh", "-c", "echo guest is ready; exec httpd -f -p 80 -h /"]
ready = { log = "^guest is ready", timeout = "2m" }
"""
OUTSIDE = """
name = "outside"

[vm.guest]
kernel = "deb:linux-image-cloud-amd64"
memory = "128MiB"
"""


@pytest.fixture(scope="module")
def cli() -> Iterator[Cli]:
    folder = Path(tempfile.mkdtemp(prefix="life-", dir="/tmp"))
    paths = Paths(folder / "s/vmtui", Path(os.environ["XDG_CACHE_HOME"], "vmtui"), folder / "r/vmtui")
    made = Cli(paths, folder)
    try:
        yield made
    finally:
        made.run("down", "life", "--purge", "--yes", timeout=TIMEOUT_S)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def guest(cli: Cli) -> None:
    cli.ok("--profile", cli.profile(PROFILE, "life"), timeout=TIMEOUT_S)


def status(cli: Cli) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli.ok("inspect", GUEST, "--json"))["status"]
    return found


def pid_of(cli: Cli, name: str) -> int:
    return int((cli.paths.state / "resources/life/vm/guest" / files.RUN / name).read_text().split()[0])


def await_phase(cli: Cli, phase: str, *, but_pid: int | None = None) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while True:
        seen = status(cli)
        if seen["phase"] == phase and (but_pid is None or seen["pid"] != but_pid):
            return seen
        assert time.monotonic() < deadline, seen
        time.sleep(0.5)


def serves(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/etc/hostname", timeout=3) as answer:
            return bool(answer.read() == b"guest\n")
    except OSError:
        return False


def await_served(cli: Cli) -> None:
    address = status(cli)["addresses"][0]["address"]
    deadline = time.monotonic() + 60
    while not serves(address):
        assert time.monotonic() < deadline, cli.ok("logs", GUEST)
        time.sleep(0.5)


@pytest.mark.usefixtures("guest")
def test_a_remade_tap_is_plugged_in_again(cli: Cli) -> None:
    before = status(cli)
    await_served(cli)
    (port,) = json.loads(cli.ok("inspect", "life/network/lab", "--json"))["status"]["ports"]
    subprocess.run(["ip", "link", "delete", port["interface"]], check=True)
    records = cli.records("--profile", cli.profile(PROFILE, "life"), timeout=TIMEOUT_S)
    assert records[-1]["result"] == "converged"
    assert status(cli)["pid"] == before["pid"]
    await_served(cli)


@pytest.mark.usefixtures("guest")
def test_one_that_was_killed_is_started_again(cli: Cli) -> None:
    pid = pid_of(cli, files.PROCESS)
    os.kill(pid, signal.SIGKILL)
    assert await_phase(cli, "running", but_pid=pid)["backend"] == "kvm"


@pytest.mark.usefixtures("guest")
def test_one_that_vanished_is_broken_and_made_anew(cli: Cli) -> None:
    os.kill(pid_of(cli, files.PARENT), signal.SIGKILL)
    seen = await_phase(cli, "broken")
    assert [problem["code"] for problem in seen["problems"]] == ["vanished"]
    assert cli.records("--profile", cli.profile(PROFILE, "life"), timeout=TIMEOUT_S)[-1]["result"] == "converged"
    await_served(cli)


def test_what_it_has_no_part_for_is_refused(cli: Cli) -> None:
    named = OUTSIDE.replace("[vm.guest]", '[vm.guest]\nbackend = "kvm"')
    assert "kvm has no user-mode network" in cli.run("--profile", cli.profile(named, "outside"), "--check").stderr
