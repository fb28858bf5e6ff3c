"""SIGKILL at every single point of bringing real resources up and of taking them down: tests/support/real_kills.py."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.machine import ROOT, Machine, Site

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

TIMEOUT_S = 800.0
SMALL = """
[network.lab]
[disk.data]
size = "16MiB"
[container.web]
image = "deb:busybox-static"
command = ["sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 1 & wait; done"]
networks = ["lab"]
ports = ["127.0.0.1:8088:80"]
volumes = ["kept:/kept"]
restart = "on-failure"
ready = {{ log = "ready" }}
[sandbox.hello]
module = "{root}/profiles/hello.wat"
ready = {{ exit_code = 0 }}
"""
# It has just been started and hears no power button yet, so nobody waits for it.
WITH_VM = (
    SMALL
    + """
[vm.guest]
kernel = "deb:linux-image-cloud-amd64"
rootfs = "deb:busybox-static"
memory = "128MiB"
disks = ["data"]
networks = ["lab"]
command = ["sleep", "1000"]
stop_grace_period = "1ms"
"""
)


# What is killed, what follows, and at which points. In `make test` that is each begin and each end of a step in the
# journal of bringing it up; in `make kills` also each other write, progress, outside tool and change of a directory,
# which takes long. To bring it all up again takes longest: not after each file.
EVERY = bool(os.environ.get("VMTUI_EVERY_POINT"))
WAYS = (
    (
        ("down", "down", ""),
        ("up", "up", "^(step|write|progress|tool)"),
        ("down", "up", "^(step|write|progress|tool)"),
        ("up", "down", ""),
        ("restart web hello", "up", "^(write|progress|tool)"),
        ("stop web hello", "down", "^(write|progress|tool)"),
    )
    if EVERY
    else (("up", "up", "^step"),)
)
LEAST = (80, 40, 20, 100, 15, 5) if EVERY else (10,)

VM_WAYS = (
    *((killed, then, "/vm/" if EVERY else "^step.*/vm/") for killed, then, _ in WAYS[:4]),
    *([("restart guest", "up", "")] if EVERY else []),
)
VM_LEAST = (5, 15, 5, 15, 10) if EVERY else (3,)


def points(cache: Path, profile: str, killed: str, then: str, about: str) -> int:
    """How many there were."""
    with Machine() as machine, Site(machine, cache) as site:
        for short in ("container/web", "sandbox/hello", "vm/guest"):
            site.token(f"kills/{short}")
        file = site.profile(profile.format(root=ROOT), "kills")
        return int(site.python("tests.support.real_kills", killed, then, file, about, timeout=TIMEOUT_S))


def test_killed_anywhere(warm_cache: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda way: points(warm_cache, SMALL, *way), WAYS))
    assert all(count > least for count, least in zip(found, LEAST, strict=True)), found


def test_killed_anywhere_in_what_concerns_a_vm(warm_cache: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda way: points(warm_cache, WITH_VM, *way), VM_WAYS))
    assert all(count > least for count, least in zip(found, VM_LEAST, strict=True)), found
