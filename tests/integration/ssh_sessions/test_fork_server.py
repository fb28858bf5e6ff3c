"""The fork server survives what it is asked, and the server survives it."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.ssh_sessions import ANN, PATIENCE_S, House, nobody_below
from vmtui.core.errors import OperationFailed
from vmtui.core.policy import BUILTIN
from vmtui.ssh import spawn
from vmtui.ssh.forks import ForkServer
from vmtui.ssh.spawn import Ended, HangUp, Refused, Signal, Spawn, Spawned
from vmtui.ssh.zygote import Zygote

module = pytest.mark.asyncio(loop_scope="module")


def a_spawn(number: int = 0, *, terminal: bool = False) -> Spawn:
    return Spawn(
        number=number, person=ANN, role=BUILTIN["admin"], argv=("--version",), environment={"PATH": "/bin"},
        terminal=terminal, panel=False,
    )  # fmt: skip


@module
async def test_packets_that_mean_nothing_change_nothing(house: House) -> None:
    sock = house.forks._socket
    assert sock is not None
    for packet in (b"junk", b"{}", b'{"type":"spawn"}', b"\xff" * 1000):
        spawn.send(sock, packet)
    house.forks.send(Signal(10**6, signal.SIGKILL))
    house.forks.send(HangUp(10**6, 0.0))
    assert (await house.run("--version"))[0] == 0


@module
async def test_a_spawn_without_what_it_needs_is_refused(house: House) -> None:
    with open(os.devnull) as null, pytest.raises(OperationFailed, match="1 descriptors came"):
        await house.forks.spawn(a_spawn(), (null.fileno(),))
    assert (await house.run("--version"))[0] == 0


@module
async def test_one_that_has_no_room_for_descriptors_says_so_and_goes_on(house: House) -> None:
    pid = house.forks.pid
    assert pid is not None
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")) + 1, usual[1]))
    try:
        with pytest.raises(OperationFailed, match=r"descriptors came|can be watched"):
            await house.run("--version")
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
    assert (await house.run("--version"))[0] == 0
    await nobody_below(pid)


@module
async def test_one_that_is_killed_is_replaced_and_its_sessions_end(house: House) -> None:
    client, session = await house.panel()
    old = house.forks.pid
    assert old is not None
    os.kill(old, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_S):
        assert await session.wait() == 128 + signal.SIGKILL
    assert (await house.run("--version"))[0] == 0
    assert house.forks.pid != old
    assert any("died" in line for line in house.said)
    assert b"\x1b[?1049l" in client.out


@module
async def test_many_at_once(house: House) -> None:
    results = await asyncio.gather(*(house.run("ls", "--json") for _ in range(20)))
    assert {code for code, _, _ in results} == {0}
    assert len({out.count("spec_hash") for _, out, _ in results}) == 1


async def test_one_that_cannot_start_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "vmtui"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(OperationFailed, match="did not come up"):
        await ForkServer.start()


def zygote_in_a_thread(stack: ExitStack) -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stack.enter_context(theirs)
    zygote = Zygote(theirs)
    thread = threading.Thread(target=zygote.run)
    stack.callback(thread.join, PATIENCE_S)
    stack.enter_context(ours)
    thread.start()
    ours.settimeout(PATIENCE_S)
    assert spawn.receive_told(ours) == spawn.Ready()
    return ours


def test_a_host_that_has_no_process_left_is_named_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    with ExitStack() as stack, open(os.devnull) as null:
        ours = zygote_in_a_thread(stack)
        monkeypatch.setattr(os, "fork", fork)
        spawn.send(ours, spawn.encode(a_spawn(7)), (null.fileno(),) * 4)
        told = spawn.receive_told(ours)
        assert told == Refused(7, "no process can be made: Resource temporarily unavailable")
        monkeypatch.setattr(os, "fork", lambda: os.posix_spawn("/bin/true", ["true"], {}))
        spawn.send(ours, spawn.encode(a_spawn(8)), (null.fileno(),) * 4)
        spawned = spawn.receive_told(ours)
        assert isinstance(spawned, Spawned)
        assert spawn.receive_told(ours) == Ended(8, 0)
