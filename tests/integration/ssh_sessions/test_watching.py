"""Seeing a session of another's, and typing into it: who may, what the watched see of it, and that nobody waits."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support.ssh_sessions import ANN, BERT, PATIENCE_S, Client, House, role
from vmtui.ssh.modes import Modes
from vmtui.ssh.session import Session
from vmtui.ssh.watching import SLOW

pytestmark = pytest.mark.asyncio(loop_scope="module")
SIZE = (30, 100)
LEAVE = b"\x1d"


async def over(session: Session) -> int:
    async with asyncio.timeout(PATIENCE_S):
        return await session.wait()


async def watching(house: House, *argv: str, **more: object) -> tuple[Client, Session]:
    return await house.begin(*argv, person=BERT, size=SIZE, **more)  # type: ignore[arg-type]


async def test_who_observes_sees_the_whole_screen_and_the_watched_see_who(house: House) -> None:
    client, session = await house.panel()
    seen, watcher = await watching(house, "observe", session.id)
    await seen.sees("guest")
    await client.sees("bert observes")
    watcher.feed(b"q")  # goes nowhere
    watcher.feed(LEAVE)
    assert await over(watcher) == 0
    modes = Modes()
    modes.feed(seen.out)
    assert modes.leave() == b""
    await client.sees("nobody else sees this session")
    session.feed(b"q")
    assert await over(session) == 0
    assert house.audited.of("observe") == [("bert", "done"), ("bert", "done")]


async def test_who_drives_types_into_it(house: House) -> None:
    client, session = await house.panel()
    _, watcher = await watching(house, "drive", session.id)
    await client.sees("bert drives")
    watcher.feed(b"?")
    await client.sees("on this screen")
    watcher.feed(b"\x1b[48;9;9;9;9t")  # the size of another terminal
    shown = len(client.text)
    watcher.feed(b"\x1b")
    await client.until(lambda: "STATE" in client.text[shown:])  # which help covers: ESC was taken
    watcher.feed(b"q" + LEAVE)
    assert await over(watcher) == 0
    assert await over(session) == 0
    assert house.audited.of("drive") == [("bert", "done"), ("bert", "done")]


async def test_a_verb_on_a_terminal_says_who_sees_it(house: House) -> None:
    client, session = await house.begin("events", "-f", size=SIZE)
    await client.sees("start done")
    seen, watcher = await watching(house, "observe", session.id)
    await seen.sees("start done")
    await client.sees("[vmtui: bert observes this session]")
    session.signal("INT")
    assert await over(session) == 130
    assert await over(watcher) == 0
    assert b"the session is over" in seen.err


async def test_a_slow_watcher_is_let_go_and_the_watched_never_waits(house: House) -> None:
    client, session = await house.panel()
    outlet = Client()
    outlet.free.clear()
    watcher = session.observe(outlet, BERT)
    async with asyncio.timeout(PATIENCE_S):
        while session.watchers:
            session.resize(24, 80)
            session.resize(*SIZE)
            session.feed(b"?\x1b")
            await asyncio.sleep(0.01)
    async with asyncio.timeout(PATIENCE_S):
        assert await watcher.wait() == SLOW
    session.hang_up()
    assert await over(session) == 129
    assert isinstance(client, Client)


@pytest.mark.parametrize("verb", ["observe", "drive", "sessions"])
@pytest.mark.parametrize("name", ["viewer", "operator"])
async def test_it_is_not_for_everybody(house: House, verb: str, name: str) -> None:
    client, session = await house.panel()
    words = () if verb == "sessions" else (session.id,)
    seen, refused = await watching(house, verb, *words, role=name)
    assert await over(refused) == 77
    assert f"the role {name} may not {verb}" in seen.err.decode()
    assert "bert" not in client.text
    assert ("bert", "denied") in house.audited.of(verb)


async def test_nobody_drives_a_session_that_may_more(house: House) -> None:
    _, session = await house.panel(role="admin")
    seen, refused = await watching(house, "drive", session.id, role=role("helper", "view", "drive", "sessions"))
    assert await over(refused) == 77
    assert b"may not drive a session of ann, whose role is admin" in seen.err


async def test_a_watcher_needs_a_terminal_and_a_session(house: House) -> None:
    _, session = await house.panel()
    for argv, said in (
        (("observe", session.id), "needs a terminal"),
        (("observe",), "ssh HOST observe SESSION"),
        (("observe", "zzz"), "no sessions are named 'zzz'"),
    ):
        code, _, err = await house.run(*argv)
        assert code == 64
        assert said in err


async def test_sessions_without_a_terminal_and_watchers_are_not_watched(house: House) -> None:
    client, session = await house.begin("events", "-f", stdin=None)
    await client.sees("start done")
    seen, watcher = await watching(house, "observe", session.id)
    assert await over(watcher) == 71
    assert b"there is nothing to see" in seen.err


async def test_who_is_here_and_who_one_is(house: House) -> None:
    _, session = await house.panel(role="operator")
    code, out, _ = await house.run("sessions", "--json")
    listed = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [listed[0][key] for key in ("id", "person", "role", "command")] == [session.id, "ann", "operator", []]
    assert session.id in (await house.run("sessions"))[1]
    code, out, _ = await house.run("whoami", "--json", role="viewer")
    assert code == 0
    assert json.loads(out)["may"] == ["view", "logs", "stats"]
    assert f"{ANN.name}, role viewer" in (await house.run("whoami", role="viewer"))[1]


async def test_a_watcher_that_is_gone_leaves_the_watched_alone(house: House) -> None:
    client, session = await house.panel()
    seen, watcher = await watching(house, "observe", session.id)
    await client.sees("bert observes")
    seen.gone = True
    session.feed(b"?")
    assert await over(watcher) in (0, 129)
    await client.sees("nobody else sees this session")
