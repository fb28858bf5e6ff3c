"""Subnets and ports of the host's own network: no two tests are given the same ones, also not tests that run at once.

Each worker of pytest-xdist has a share of its own, and gives out what it has in turn. Where it begins is chance: others
may run tests on the same host.
"""

from __future__ import annotations

import itertools
import os
import secrets
import socket

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
SHARES = 10
SUBNETS = 5 * 256  # of each share, from 10.200.0.0/24 on; the last is 10.249.255.0/24
PORTS = 1000  # of each share, from 20000 on: below those that the kernel gives out by itself (ip(7): 32768)

_subnets = itertools.count(secrets.randbelow(SUBNETS))
_ports = itertools.count(secrets.randbelow(PORTS))


def subnet() -> str:
    """The first three numbers of one with a prefix of 24 bits."""
    high, low = divmod(WORKER % SHARES * SUBNETS + next(_subnets) % SUBNETS, 256)
    return f"10.{200 + high}.{low}"


def port() -> int:
    """One that nobody listens on."""
    for count in itertools.islice(_ports, PORTS):
        number = 20000 + WORKER % SHARES * PORTS + count % PORTS
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", number))
            except OSError:
                continue
            return number
    raise AssertionError("all ports are taken")
