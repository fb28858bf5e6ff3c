"""The servers that are measured: `vmtui serve`, and its peers, over one workspace of simulated resources."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.ssh.peers import READY
from tests.support.claims import port
from tests.support.ssh_clients import Door
from tests.support.ssh_keys import Key
from tests.support.ssh_server import Console
from vmtui.host.paths import program

SIZE = 40
UP_S = 60.0


@dataclass(frozen=True)
class Server:
    """One that runs: where it is, whose key opens it, and its process."""

    door: Door
    key: Key
    pid: int


def profile(size: int = SIZE) -> str:
    """A profile of `size` simulated containers and VMs, half of each."""
    return "".join(
        f'[container.web-{number}]\nbackend = "fake"\nimage = "docker://web"\n'
        if number % 2
        else f'[vm.guest-{number}]\nbackend = "fake"\nkernel = "deb:linux-image-cloud-amd64"\n'
        for number in range(size)
    )


@contextmanager
def ours(folder: Path) -> Iterator[Server]:
    """`vmtui serve`, with one admin and as many resources as the figures speak of."""
    with Console(folder) as console:
        key = console.person("anna", "admin")
        console.up(profile())
        console.start()
        yield Server(console.door, key, console.pid)


@contextmanager
def peer(kind: str, folder: Path) -> Iterator[Server]:
    """`echo` or `subprocess`, of bench.ssh.peers; the latter over a workspace like ours."""
    with Console(folder) as console:
        key = console.person("anna", "admin")
        console.up(profile())
        host_key = Key.make(folder, "host")
        place = Door(port(), host_key.path.with_suffix(".pub"))
        keys = folder / "peer_keys"
        keys.write_text(f"{key.public}\n")
        argv = [sys.executable, "-m", "bench.ssh.peers", kind, str(place.port), str(host_key.path), str(keys)]
        log = folder / "peer.log"
        with (
            log.open("wb") as out,
            subprocess.Popen([*argv, program()], env=console.environment, stderr=out) as process,
        ):
            try:
                deadline = time.monotonic() + UP_S
                while READY not in log.read_text():
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.02)
                yield Server(place, key, process.pid)
            finally:
                process.terminate()
