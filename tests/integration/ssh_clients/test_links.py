"""Links that break, stand still or never speak: the others do not feel it, and nothing is left of a session."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from bench.pty import Gone
from bench.ssh import tree
from bench.ssh.visitor import Visitor
from tests.integration.ssh_clients.conftest import House, Open
from tests.support.ssh_clients import HOST, Client

FLOOD_BYTES = 64 << 20
MOST_GROWTH = 8 << 20
SILENT = 200
QUIET: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)


@pytest.fixture(scope="module")
def house(open_house: Open) -> House:
    return open_house(settings='keepalive = "1s"')


def test_a_client_that_is_killed(house: House, client: Client) -> None:
    with client.on_terminal(house.anna) as terminal:
        terminal.sees("guest")
        assert house.console.guests()
        os.killpg(terminal.process.pid, signal.SIGKILL)
        house.console.alone()


def test_a_client_that_stands_still(house: House, openssh: Client) -> None:
    """Half open: the kernel answers for it, and it says nothing any more."""
    with openssh.on_terminal(house.anna) as terminal:
        terminal.sees("guest")
        os.kill(terminal.process.pid, signal.SIGSTOP)
        house.console.alone()
        os.kill(terminal.process.pid, signal.SIGCONT)


async def test_a_connection_that_is_reset(house: House) -> None:
    async with Visitor(house.console.door, house.anna) as visitor:
        await visitor.shows("guest")
        visitor.abort()
        await asyncio.to_thread(house.console.alone)


def test_a_verb_that_goes_on_ends_with_its_link(house: House, openssh: Client) -> None:
    for command in (("events", "-f"), ("logs", "-f", "web"), ("stats", "--watch"), ("console", "guest")):
        argv = openssh.argv(house.anna, *command, tty=False)
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=openssh.environment, cwd=openssh.home
        ) as process:
            house.console.until(house.console.guests, "a session")
            process.kill()
        house.console.alone()


def test_what_is_closed_by_its_own_client_is_gone(house: House, client: Client) -> None:
    with client.on_terminal(house.anna) as terminal:
        terminal.sees("guest")
        terminal.hang_up()
        house.console.alone()


@pytest.fixture
def silent(house: House) -> Iterator[list[socket.socket]]:
    """So many that never prove who they are; half of them say that they speak SSH."""
    with contextlib.ExitStack() as stack:
        sockets = []
        for number in range(SILENT):
            sockets.append(stack.enter_context(socket.create_connection((HOST, house.console.port))))
            if number % 2:
                with contextlib.suppress(OSError):
                    sockets[-1].sendall(b"SSH-2.0-silent\r\n")
        yield sockets


def test_strangers_keep_nobody_out(house: House, client: Client, silent: list[socket.socket]) -> None:
    done = client.run(house.vera, "ls")
    assert done.returncode == 0, done.stderr
    assert b"dev/vm/guest" in done.stdout


def test_failures_keep_nobody_out(house: House, client: Client) -> None:
    stranger = house.console.key(f"stranger-{client.name}")
    assert client.run(stranger, "ls").returncode != 0
    done = client.run(house.vera, "ls")
    assert done.returncode == 0, done.stderr


async def test_a_client_that_never_reads(house: House) -> None:
    """All that it sends comes back; when it takes none of that, nothing more is taken of it."""
    console = house.console
    async with Visitor(console.door, house.olaf, "exec -i web -- cat", reads=False) as deaf:
        before = tree.rss_bytes(console.pid)
        deaf.send(bytes(FLOOD_BYTES))
        async with Visitor(console.door, house.olaf) as other:
            await other.shows("guest")
            other.send(b"6")
            await other.shows("Map")
        await asyncio.sleep(1)
        grown = tree.rss_bytes(console.pid) - before
        assert grown < MOST_GROWTH, f"{grown >> 20} MiB"
        deaf.abort()
    await asyncio.to_thread(console.alone)


def test_many_sessions_of_one_connection_are_capped(house: House, openssh: Client) -> None:
    control = openssh.home / "control"
    master = [*openssh.openssh(house.vera, "ssh"), "-M", "-S", str(control), "-N", "-p", str(house.console.port), HOST]
    with subprocess.Popen(master, env=openssh.environment, stderr=subprocess.DEVNULL) as process:
        try:
            house.console.until(control.exists, "a master")
            through = [*openssh.openssh(house.vera, "ssh"), "-S", str(control), HOST, "events", "-f"]
            with contextlib.ExitStack() as stack:
                followers = [stack.enter_context(subprocess.Popen(through, **QUIET)) for _ in range(15)]
                for follower in followers:
                    stack.callback(follower.kill)
                house.console.until(lambda: len(house.console.guests()) == 10, "ten sessions")
                house.console.until(lambda: sum(each.poll() is not None for each in followers) == 5, "five refusals")
        finally:
            process.kill()
    house.console.alone()


def test_the_fork_server_may_die(open_house: Open) -> None:
    house = open_house()
    console = house.console
    client = console.client("openssh")
    with client.on_terminal(house.anna) as terminal:
        terminal.sees("guest")
        (forks,) = set(tree.children(console.pid)) - set(console.guests())
        os.kill(forks, signal.SIGKILL)
        with contextlib.suppress(Gone):
            terminal.end()
        assert terminal.process.wait(60) != 0
    done = client.run(house.vera, "ls")
    assert done.returncode == 0, done.stderr
    assert forks not in tree.pids(console.pid)


def test_the_server_may_die(open_house: Open) -> None:
    house = open_house()
    console = house.console
    client = console.client("openssh")
    with client.on_terminal(house.anna) as terminal, client.on_terminal(house.olaf, "console", "guest") as other:
        terminal.sees("guest")
        other.sees(":/#")
        console.stop(signal.SIGKILL)
        console.gone()
        console.start()
        done = client.run(house.vera, "ls")
        assert done.returncode == 0, done.stderr
    assert console.stop(signal.SIGTERM) in (0, 143)
    console.gone()
