"""What a second run, a lost database, a reboot and other losses lead to, with every real backend."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hostview import HostView
from tests.support.machine import Site
from tests.support.wat import SLEEP

pytestmark = pytest.mark.real

ALONE = {
    "network": '[network.lab]\nsubnet = "10.88.9.0/24"',
    "disk": '[disk.data]\nsize = "16MiB"',
    "container": '[container.web]\nimage = "deb:busybox-static"\ncommand = ["sleep", "1000"]\nrestart = "always"\n'
    'stop_grace_period = "1ms"',
    "sandbox": '[sandbox.hello]\nmodule = "sleep.wat"\nrestart = "always"',
    "vm": '[vm.guest]\nkernel = "deb:linux-image-cloud-amd64"\nrootfs = "deb:busybox-static"\nmemory = "128MiB"\n'
    'command = ["sh", "-c", "echo booted; exec sleep 1000"]\nready = { log = "booted" }\nstop_grace_period = "1ms"\n'
    'network_mode = "none"\nrestart = "always"',
}
TOGETHER = "\n".join([
    ALONE["network"],
    ALONE["disk"],
    ALONE["container"], 'networks = ["lab"]\nports = ["127.0.0.1:8088:80"]\nvolumes = ["kept:/kept"]',
    ALONE["sandbox"],
    ALONE["vm"].replace('network_mode = "none"', 'networks = ["lab"]\ndisks = ["data"]'),
])  # fmt: skip
NEVER = '\nready = { log = "^never$" }'  # what ends at once may be seen up, on a busy host
NAMES = ("container/web", "sandbox/hello", "vm/guest", "network/lab", "disk/data")


@pytest.fixture
def clean(site: Site) -> Iterator[Site]:
    """In the end nothing is left but what was there before."""
    for name in NAMES:
        site.token(f"dev/{name}")
    (site.folder / "sleep.wat").write_text(SLEEP)
    before, words = site.view(), site.machine.words()
    yield site
    assert before.diff(site.view()) == ""
    assert site.machine.words() == words


def apply(site: Site, file: str) -> dict[str, Any]:
    """All is ready then; the summary."""
    summary = site.records("--profile", file, timeout=300)[-1]
    assert summary["exit_code"] == 0
    assert all(item["ready"] for item in summary["resources"])
    return summary


def down(site: Site) -> None:
    site.ok("down", "dev", "--purge", "--yes")


def pids(site: Site) -> dict[str, Any]:
    return {item["ref"]["name"]: item["pid"] for item in json.loads(site.ok("ls", "--json"))}


def lose_database(site: Site) -> None:
    for file in site.paths.state.glob("state.db*"):
        file.unlink()


def unchanged(site: Site, before: HostView) -> bool:
    return before.diff(site.view()) == ""


def write(site: Site) -> None:
    """Something on the disk, through the VM, and in the container's volume."""
    site.ok("exec", "vm/guest", "--", "sh", "-c", "echo survives | dd of=/dev/vda conv=fsync 2>/dev/null")
    site.ok("exec", "container/web", "--", "sh", "-c", "echo survives >/kept/file")


def assert_kept(site: Site) -> None:
    assert site.ok("exec", "vm/guest", "--", "head", "-c", "8", "/dev/vda") == "survives"
    assert site.ok("exec", "container/web", "--", "cat", "/kept/file") == "survives\n"


@pytest.mark.parametrize("kind", ALONE)
def test_a_second_run_changes_nothing(clean: Site, kind: str) -> None:
    file = clean.profile(ALONE[kind])
    assert apply(clean, file)["changes"] == 1
    there = clean.view()
    assert apply(clean, file)["changes"] == 0
    assert clean.run("--profile", file, "--check").returncode == 0
    assert clean.run("--profile", file, "--plan").returncode == 0
    assert unchanged(clean, there)
    down(clean)


@pytest.mark.parametrize("kind", ALONE)
def test_what_the_database_forgot_is_adopted_as_it_is(clean: Site, kind: str) -> None:
    file = clean.profile(ALONE[kind])
    apply(clean, file)
    there, were = clean.view(), pids(clean)
    lose_database(clean)
    assert pids(clean) == were
    plan = clean.records("--profile", file, "--plan", code=2)[1]
    assert [change["action"] for change in plan["changes"]] == ["update"]
    apply(clean, file)
    assert pids(clean) == were
    assert unchanged(clean, there)
    assert apply(clean, file)["changes"] == 0
    down(clean)


def test_all_of_a_profile_is_adopted_together(clean: Site) -> None:
    file = clean.profile(TOGETHER)
    apply(clean, file)
    there, were = clean.view(), pids(clean)
    lose_database(clean)
    assert apply(clean, file)["changes"] == len(NAMES)
    assert pids(clean) == were
    assert unchanged(clean, there)
    assert apply(clean, file)["changes"] == 0
    down(clean)


def test_taken_down_by_name_without_database_and_file(clean: Site) -> None:
    file = Path(clean.profile(TOGETHER))
    apply(clean, str(file))
    lose_database(clean)
    file.unlink()
    clean.ok("down", "dev", "--yes")
    assert [item["ref"]["name"] for item in json.loads(clean.ok("ls", "--json"))] == ["data"]
    down(clean)


def test_one_by_one_without_database(clean: Site) -> None:
    """What is removed frees what it had, its address and its host port too."""
    apply(clean, clean.profile(TOGETHER))
    lose_database(clean)
    clean.ok("rm", "container/web", "vm/guest", "sandbox/hello")
    (network,) = (json.loads(clean.ok("inspect", "network/lab", "--json")),)
    assert network["status"]["ports"] == []
    assert "8088" not in clean.machine.sh("nft list ruleset")
    clean.ok("rm", "network/lab")
    clean.ok("rm", "--purge", "--yes", "disk/data")
    clean.ok("down", "dev", "--yes", code=64)


LOSSES = {
    "sockets and pid files": "rm -rf /run/vmtui /run/vmtui-tap",
    "processes": "kill -KILL -1",
    "links": "for name in $(ls /sys/class/net); do ip link del $name 2>/dev/null || true; done",
    "rules": "nft flush ruleset",
}
LOSSES["all of these"] = "; ".join([LOSSES[name] for name in ("processes", "links", "rules", "sockets and pid files")])


@pytest.mark.parametrize("what", LOSSES)
def test_what_was_lost_is_made_good(clean: Site, what: str) -> None:
    file = clean.profile(TOGETHER)
    apply(clean, file)
    write(clean)
    there = clean.view()
    clean.machine.run("setsid", "sh", "-c", LOSSES[what])
    assert clean.run("--profile", file, "--check").returncode == 2
    apply(clean, file)
    assert apply(clean, file)["changes"] == 0
    assert clean.run("--profile", file, "--check").returncode == 0
    same = ("links", "addresses", "rules", "mounts", "cgroups")
    now = clean.view()
    assert {name: now.sections[name] for name in same} == {name: there.sections[name] for name in same}
    assert len(now.sections["processes"]) == len(there.sections["processes"]), there.diff(now)
    assert_kept(clean)
    down(clean)


def test_down_after_each_loss(site: Site) -> None:
    """Straight down, before anything is made good."""
    for name in NAMES:
        site.token(f"dev/{name}")
    (site.folder / "sleep.wat").write_text(SLEEP)
    file = site.profile(TOGETHER)
    before, words = site.view(), site.machine.words()
    for what, script in LOSSES.items():
        apply(site, file)
        site.machine.run("setsid", "sh", "-c", script)
        down(site)
        assert before.diff(site.view()) == "", what
        assert site.machine.words() == words, what


def test_after_a_reboot_all_comes_back_with_its_data(clean: Site) -> None:
    file = clean.profile(TOGETHER)
    apply(clean, file)
    write(clean)
    addresses = {item["ref"]["name"]: item["addresses"] for item in json.loads(clean.ok("ls", "--json"))}
    clean.machine.reboot()
    phases = {item["ref"]["name"]: (item["phase"], item["pid"]) for item in json.loads(clean.ok("ls", "--json"))}
    assert "running" not in {phase for phase, _ in phases.values()}
    assert {pid for _, pid in phases.values()} == {None}
    assert clean.run("--profile", file, "--check").returncode == 2
    apply(clean, file)
    assert apply(clean, file)["changes"] == 0
    assert {item["ref"]["name"]: item["addresses"] for item in json.loads(clean.ok("ls", "--json"))} == addresses
    assert_kept(clean)
    down(clean)


def test_after_a_reboot_it_can_be_taken_down_at_once(clean: Site) -> None:
    apply(clean, clean.profile(TOGETHER))
    clean.machine.reboot()
    down(clean)


def test_who_waits_to_start_it_again_does_not_outlive_it(clean: Site) -> None:
    """Restart policies wait longer and longer between starts; what is taken down meanwhile takes them along."""
    (clean.folder / "sleep.wat").write_text('(module (func (export "_start") unreachable))')
    clean.ok("--profile", clean.profile(ALONE["sandbox"] + NEVER), "--timeout", "3s", "--on-failure", "keep", code=124)
    deadline = time.monotonic() + 180
    while (events := clean.ok("events")).count("restart done") < 4:
        assert time.monotonic() < deadline, events
    deadline = time.monotonic() + 120
    while (ended := clean.run("down", "dev", "--purge", "--yes")).returncode == 75:  # it is just being started again
        assert time.monotonic() < deadline, ended.stderr
    assert ended.returncode == 0, ended.stderr
