"""How sessions end: nothing of one is left, whatever its client, its processes or the server do."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import sys

import pytest

from tests.support.ssh_sessions import PATIENCE_S, House, below, nobody_below, role
from vmtui.core.errors import OperationFailed
from vmtui.ssh.modes import Modes
from vmtui.ssh.session import Limits, Session

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def over(session: Session) -> int:
    async with asyncio.timeout(PATIENCE_S):
        return await session.wait()


async def test_a_panel_that_is_hung_up_leaves_no_process_and_a_terminal_as_it_was(house: House) -> None:
    client, session = await house.panel()
    session.hang_up("the session is too old")
    assert await over(session) == 129
    assert below(house.forks.pid or 0) == []
    modes = Modes()
    modes.feed(client.out)
    assert modes.leave() == b""
    assert client.err == b"vmtui: the session is too old\r\n"


async def test_a_client_that_is_gone_ends_its_session(house: House) -> None:
    client, session = await house.panel()
    client.gone = True
    session.feed(b"?")
    assert await over(session) == 129
    await nobody_below(house.forks.pid or 0)


async def test_a_process_that_is_stopped_is_killed_when_its_time_is_over(house: House) -> None:
    _, session = await house.panel()
    os.kill(house.pid(session), signal.SIGSTOP)
    session.hang_up()
    assert await over(session) in (128 + signal.SIGHUP, 128 + signal.SIGKILL)
    await nobody_below(house.forks.pid or 0)


async def test_one_that_was_killed_says_so(house: House) -> None:
    client, session = await house.panel()
    os.kill(house.pid(session), signal.SIGKILL)
    assert await over(session) == 128 + signal.SIGKILL
    modes = Modes()
    modes.feed(client.out)
    assert modes.leave() == b""


async def test_what_a_verb_has_begun_is_taken_back_when_the_link_drops(house: House) -> None:
    profile = b"""
        name = "slow"
        [vm.late]
        backend = "fake"
        kernel = "deb:linux-image-cloud-amd64"
        fake = { start_time = "10m" }
    """
    client, session = await house.begin("apply", "--yes", stdin=profile)
    await client.sees("create vm/late")
    session.hang_up()
    assert await over(session) == 143
    assert "slow" not in (await house.run("ls"))[1]


async def test_a_client_that_never_reads_stalls_only_its_own_session(house: House) -> None:
    client, session = await house.panel()
    client.free.clear()
    for _ in range(200):
        session.resize(24, 80)
        session.resize(30, 100)
    assert (await house.run("ls"))[0] == 0
    client.free.set()
    session.feed(b"q")
    assert await over(session) == 0


async def test_a_client_that_never_reads_holds_nothing_up_when_it_is_hung_up(house: House) -> None:
    client, session = await house.panel()
    client.free.clear()
    session.feed(b"?")
    session.hang_up("no more of this")
    assert await over(session) == 129
    await nobody_below(house.forks.pid or 0)


async def test_ten_megabytes_pasted_into_a_session_that_does_not_read_are_not_kept(house: House) -> None:
    _, session = await house.panel()
    os.kill(house.pid(session), signal.SIGSTOP)
    given = 0
    while given < 10 << 20:
        waiting = asyncio.create_task(session.drained())
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        if not done:
            break
        session.feed(b"p" * 65536)
        given += 65536
    assert given < 1 << 20
    session.hang_up()
    await over(session)
    await asyncio.wait([waiting])


async def test_a_verb_without_a_terminal_is_not_ended_for_want_of_keys(house: House) -> None:
    client, session = await house.begin("events", "-f", role=role("hasty", "*", idle_s=0.2), stdin=None)
    await client.sees("start done")
    await asyncio.sleep(0.6)
    session.signal("INT")
    assert await over(session) == 130


async def test_a_terminal_without_a_key_is_warned_and_then_ended(house: House) -> None:
    client, session = await house.begin("events", "-f", role=role("hasty", "*", idle_s=8), size=(24, 80))
    await client.sees("this session ends in")
    assert await over(session) in (129, 143)
    assert b"vmtui: no key came for too long" in client.err


async def test_the_panel_shows_the_warning_itself_and_a_key_withdraws_it(house: House) -> None:
    client, session = await house.panel(role=role("hasty", "*", idle_s=20))
    await client.sees("a key goes on")
    session.feed(b"?")
    await client.sees("on this screen")
    assert b"this session ends in" not in client.err


async def test_no_more_sessions_than_allowed(house: House) -> None:
    limits, house.sessions.limits = house.sessions.limits, Limits(sessions=1)
    try:
        await house.panel()
        with pytest.raises(OperationFailed, match="1 sessions are open"):
            await house.begin("ls")
    finally:
        house.sessions.limits = limits


SERVER = """
import asyncio, os, sys
from tests.support.ssh_sessions import open_house
async def main():
    async with open_house() as house:
        client, session = await house.panel()
        print(house.forks.pid, house.pid(session), house.paths.state.parent.parent, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_server_that_is_killed_leaves_no_orphan(number: int) -> None:
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert server.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        zygote, session, root = (await server.stdout.readline()).decode().split()
    ends = [os.pidfd_open(int(pid)) for pid in (zygote, session)]
    server.send_signal(number)
    await server.wait()
    for end in ends:
        assert await asyncio.to_thread(select.select, [end], [], [], PATIENCE_S) == ([end], [], [])
        os.close(end)
    shutil.rmtree(root)


async def test_all_sessions_end_with_the_server(house: House) -> None:
    client, session = await house.panel()
    listener, other = await house.begin("events", "-f", stdin=None)
    await listener.sees("start done")
    for each in list(house.sessions.sessions.values()):
        each.hang_up("the server ends")
    assert (await over(session), await over(other)) == (129, 143)
    assert b"the server ends" in client.err
    assert b"the server ends" in listener.err
