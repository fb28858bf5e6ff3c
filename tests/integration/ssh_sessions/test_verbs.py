"""Verbs and the panel as sessions: output and exit codes of a program, rights of a role, a terminal that behaves."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
from pathlib import Path

import pytest

from tests.support.ssh_sessions import PATIENCE_S, House, descriptors
from vmtui.core.errors import OperationFailed
from vmtui.engine import recordings
from vmtui.ssh.modes import Modes
from vmtui.ssh.session import Session

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def over(session: Session) -> int:
    async with asyncio.timeout(PATIENCE_S):
        return await session.wait()


async def test_a_verb_writes_data_on_stdout_and_ends_with_its_code(house: House) -> None:
    code, out, err = await house.run("ls", "--json")
    assert code == 0
    assert err == ""
    assert {row["ref"]["name"] for row in json.loads(out)} == {"guest", "web"}


async def test_wrong_use_has_its_code_and_speaks_on_stderr(house: House) -> None:
    code, out, err = await house.run("lss")
    assert (code, out) == (64, "")
    assert "there is no verb 'lss'" in err


async def test_stdin_reaches_a_verb(house: House) -> None:
    code, out, _ = await house.run("plan", "--json", stdin=b'name = "dev"\n')
    assert code == 2
    assert json.loads(out.splitlines()[0])["event"] == "version"


async def test_what_a_role_may_not_is_refused_and_audited(house: House) -> None:
    code, out, err = await house.run("stop", "web", role="viewer")
    assert (code, out) == (77, "")
    assert "the role viewer may not stop" in err
    assert ("ann", "denied") in house.audited.of("stop")


async def test_a_change_is_audited_with_its_person_and_resource(house: House) -> None:
    assert (await house.run("restart", "web", role="operator"))[0] == 0
    assert [
        (who, refs) for who, _, verb, refs, result, _ in house.audited if (verb, result) == ("restart", "done")
    ] == [("ann", ("dev/container/web",))]


async def test_without_a_terminal_the_panels_place_has_the_list(house: House) -> None:
    code, out, _ = await house.run()
    assert code == 0
    assert "dev/vm/guest" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("term", ["dumb", "", "unknown", "no such terminal"])
async def test_a_terminal_without_a_screen_gets_the_list(house: House, term: str) -> None:
    client, session = await house.begin(size=(24, 80), term=term)
    assert await over(session) == 0
    assert "dev/vm/guest" in client.text
    assert b"\x1b[?1049h" not in client.out


@pytest.mark.parametrize("term", ["xterm", "xterm-256color", "screen", "linux", "vt100"])
async def test_the_panel_on_each_kind_of_terminal(house: House, term: str) -> None:
    client, session = await house.panel(term=term)
    session.feed(b"q")
    assert await over(session) == 0
    modes = Modes()
    modes.feed(client.out)
    assert modes.leave() == b""


async def test_the_panel_takes_the_size_of_the_window(house: House) -> None:
    client, session = await house.panel()
    seen = len(client.out)
    session.resize(20, 60)
    await client.until(lambda: len(client.out) > seen + 200)
    (recording,) = [path for path in house.recordings.iterdir() if session.id in path.name]
    assert "60x20" in [event.data for event in recordings.events(recording) if event.code == recordings.RESIZE]


@pytest.mark.parametrize("size", [(0, 0), (100_000, 100_000), (1, 1)])
async def test_a_size_that_is_none_does_no_harm(house: House, size: tuple[int, int]) -> None:
    _, session = await house.panel()
    session.resize(*size)
    session.resize(24, 80)
    session.feed(b"q")
    assert await over(session) == 0


async def test_a_key_that_stops_programs_does_not_stop_the_panel(house: House) -> None:
    client, session = await house.panel()
    session.feed(b"\x1a")
    os.kill(house.pid(session), 20)  # SIGTSTP, as a shell or another program would send it
    session.feed(b"?")
    await client.sees("on this screen")
    session.feed(b"\x1bq")
    session.hang_up()
    assert await over(session) in (0, 129)


async def test_bytes_that_are_no_text_end_nothing(house: House) -> None:
    client, session = await house.panel()
    session.feed(bytes(range(128, 256)) * 8)
    session.feed(b"\x1b[M\xff\xff\xff")
    session.feed(b"\x1b[27u?")  # Escape as the kitty keyboard protocol writes it: no part of the next key
    await client.sees("on this screen")


async def test_a_command_line_that_is_no_text_is_refused_in_words(house: House) -> None:
    with pytest.raises(OperationFailed, match="cannot be passed on"):
        await house.begin("ls", "\udcff")


async def test_a_terminal_in_line_mode_hears_the_end_of_input(house: House) -> None:
    client, session = await house.begin("plan", size=(24, 80))
    await asyncio.sleep(0.3)
    session.feed(b'name = "dev"\n')
    session.eof()
    assert await over(session) == 2, client.text


async def test_signals_by_their_names(house: House) -> None:
    client, session = await house.begin("events", "-f", size=(24, 80))
    await client.sees("start done")
    session.signal("STOP")
    session.signal("INT")
    assert await over(session) == 130


async def test_a_session_with_a_terminal_is_recorded_and_one_without_is_not(house: House) -> None:
    _, session = await house.panel()
    session.feed(b"q")
    await over(session)
    await house.run("ls")
    found, refused = recordings.scan(house.recordings)
    assert refused == []
    assert [recording.person for recording in found if recording.session == session.id] == ["ann"]
    assert {recording.header.title for recording in found} <= {"vmtui", "vmtui events -f", "vmtui plan"}


async def test_nothing_is_left_open_in_the_server(house: House) -> None:
    await house.run("ls")
    gc.collect()  # what is garbage already may hold some
    before = descriptors(), descriptors(house.forks.pid)
    for _ in range(5):
        await house.run("ls")
        _, session = await house.panel()
        session.hang_up()
        await over(session)
    assert (descriptors(), descriptors(house.forks.pid)) == before


async def test_no_session_has_another_ones_descriptors(house: House) -> None:
    _, one = await house.panel()
    _, other = await house.panel()
    terminals = {name for name in opened(house.pid(other)) if name.startswith("/dev/p")}
    assert len(terminals) == 1
    assert not terminals & opened(house.pid(one))


def opened(pid: int) -> set[str]:
    """What its descriptors are; it may close some while one looks."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(entry))
    return found
