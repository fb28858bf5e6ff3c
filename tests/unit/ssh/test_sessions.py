"""Who may begin a session, and who may type in another's: what the server decides before any process is made."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.ssh_sessions import ANN, BERT, Audited, Client, request, role
from vmtui.core.errors import OperationFailed
from vmtui.core.policy import BUILTIN, Allow, Person, Role, Verb
from vmtui.ssh.forks import ForkServer
from vmtui.ssh.session import Limits
from vmtui.ssh.sessions import Sessions

ADMIN = BUILTIN["admin"]
ASKS = Role(name="asks", allow=(Allow(verbs=("*",)),), approval=(Verb.PURGE,))
HELPER = role("helper", "view", "drive")


def stuck() -> Client:
    """One that takes nothing, so that its session stays."""
    client = Client()
    client.free.clear()
    return client


async def test_nobody_takes_all_sessions() -> None:
    sessions = Sessions(ForkServer(), audit=Audited(), limits=Limits(sessions=5, sessions_per_person=3))
    for _ in range(3):
        await sessions.open(request("whoami", person=ANN), stuck())
    with pytest.raises(OperationFailed, match="ann has 3 sessions open"):
        await sessions.open(request("whoami", person=ANN), stuck())
    for _ in range(2):
        await sessions.open(request("whoami", person=BERT), stuck())
    with pytest.raises(OperationFailed, match="5 sessions are open"):
        await sessions.open(request("whoami", person=BERT), stuck())
    await sessions.aclose()


async def test_nothing_begins_that_could_not_be_noted() -> None:
    def full() -> None:
        raise OperationFailed("audit.log: no space left")

    sessions = Sessions(ForkServer(), audit=Audited(), keep_room=full)
    with pytest.raises(OperationFailed, match="no space left"):
        await sessions.open(request("whoami"), Client())
    assert not sessions.sessions


@pytest.mark.parametrize(
    ("mine", "of", "person", "may"),
    [
        (ADMIN, ADMIN, BERT, True),
        (ADMIN, HELPER, BERT, True),
        (HELPER, HELPER, BERT, True),
        (HELPER, ADMIN, BERT, False),
        (ASKS, ASKS, BERT, False),
        (ASKS, HELPER, BERT, False),
        (ASKS, ADMIN, BERT, False),
        (ASKS, ASKS, ANN, True),
        (ASKS, ASKS, Person(name=ANN.name, key=BERT.key), False),
        (ADMIN, ASKS, BERT, True),
    ],
)
async def test_nobody_is_the_second_person_by_typing_for_them(mine: Role, of: Role, person: Person, may: bool) -> None:
    """Who is let in here sees that this session has no screen."""
    sessions = Sessions(ForkServer(), audit=(audited := Audited()))
    driven = await sessions.open(request("whoami", role=of, person=ANN), stuck())
    client = Client()
    driver = await sessions.open(request("drive", driven.id, role=mine, person=person, size=(24, 80)), client)
    async with asyncio.timeout(60):
        code = await driver.wait()
    assert (code == 77) is not may
    assert (b"there is nothing to see" in client.out + client.err) is may
    assert ((person.name, "denied") in audited.of("drive")) is not may
    await sessions.aclose()
