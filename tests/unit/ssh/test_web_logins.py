"""Tokens that open once, and what they become."""

from __future__ import annotations

import pytest

from tests.support.web_sessions import Echo, Echoes
from vmtui.core.policy import BUILTIN, Person, Role
from vmtui.ssh.session import Request, Stream
from vmtui.ssh.web import logins
from vmtui.ssh.web.logins import Login, Logins, Still

ANNA = Person(name="anna", key="SHA256:a", origin="192.0.2.7 port 1")


def always() -> Role:
    return VIEWER


VIEWER, ADMIN = BUILTIN["viewer"], BUILTIN["admin"]


class Nowhere:
    """Where output is not looked at."""

    async def write(self, stream: Stream, data: bytes) -> None: ...


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def door(clock: Clock) -> Logins:
    return Logins(token_s=60, login_s=3600, clock=clock)


def come_in(door: Logins, person: Person = ANNA, role: Role = VIEWER, still: Still | None = None) -> tuple[Login, str]:
    found = door.redeem(door.issue(person, role, still or (lambda: role)), "web 127.0.0.1 port 9")
    assert found is not None
    return found


def test_a_token_opens_once_and_for_whom_it_was_made(door: Logins) -> None:
    token = door.issue(ANNA, VIEWER, always)
    found = door.redeem(token, "web 127.0.0.1 port 9")
    assert found is not None
    login, secret = found
    assert (login.person.name, login.person.key, login.person.origin) == ("anna", "SHA256:a", "web 127.0.0.1 port 9")
    assert login.role is VIEWER
    assert door.find(login.id, secret) is login
    assert door.redeem(token, "web 127.0.0.1 port 9") is None


@pytest.mark.parametrize(("passed_s", "opens"), [(59.9, True), (60.0, False)])
def test_a_token_lapses(door: Logins, clock: Clock, passed_s: float, opens: bool) -> None:
    token = door.issue(ANNA, VIEWER, always)
    clock.now += passed_s
    assert (door.redeem(token, "") is not None) is opens


def test_of_two_tokens_of_a_person_the_later_opens(door: Logins) -> None:
    first, second = door.issue(ANNA, VIEWER, always), door.issue(ANNA, ADMIN, always)
    others = door.issue(Person(name="anna", key="SHA256:b"), VIEWER, always)
    assert door.redeem(first, "") is None
    assert door.redeem(second, "") is not None
    assert door.redeem(others, "") is not None


@pytest.mark.parametrize("token", ["", "x", "\ud800", "a" * 100_000])
def test_no_other_token_opens(door: Logins, token: str) -> None:
    door.issue(ANNA, VIEWER, always)
    assert door.redeem(token, "") is None


def test_path_and_cookie_belong_together(door: Logins) -> None:
    (one, first), (other, second) = come_in(door), come_in(door)
    assert door.find(one.id, second) is None
    assert door.find(other.id, first) is None
    assert door.find(one.id, "") is None
    assert door.find(first, one.id) is None


def test_no_secret_is_kept(door: Logins) -> None:
    token = door.issue(ANNA, VIEWER, always)
    _, secret = come_in(door, Person(name="bert"))
    kept = repr([door._grants, *(vars(login) for login in door._logins.values())])
    assert token not in kept
    assert secret not in kept


async def test_a_login_lapses_and_its_sessions_with_it(door: Logins, clock: Clock) -> None:
    login, secret = come_in(door)
    session = await _session(login)
    clock.now += 3600
    assert door.find(login.id, secret) is None
    assert session.reason == "this login has lapsed"


async def test_a_login_ends_with_its_sessions(door: Logins) -> None:
    login, secret = come_in(door)
    session = await _session(login)
    door.end(login, "you have logged out")
    assert door.find(login.id, secret) is None
    assert session.reason == "you have logged out"


@pytest.mark.parametrize("reviewed", [True, False])
async def test_who_is_not_permitted_any_more_goes(door: Logins, reviewed: bool) -> None:
    roles: dict[str, Role | None] = {"anna": VIEWER, "bert": VIEWER, "carl": VIEWER}
    gone, cookie = come_in(door, still=lambda: roles["anna"])
    stays, other = come_in(door, Person(name="bert"), still=lambda: roles["bert"])
    token = door.issue(Person(name="carl"), VIEWER, lambda: roles["carl"])
    session, kept = await _session(gone), await _session(stays)
    roles["anna"] = roles["carl"] = None
    if reviewed:
        door.review()
        assert session.reason == "you are not permitted here any more"
    assert door.find(gone.id, cookie) is None
    assert session.reason == "you are not permitted here any more"
    assert door.redeem(token, "") is None
    assert door.find(stays.id, other) is stays
    assert not kept.hung_up


async def test_another_role_is_for_the_next_session(door: Logins) -> None:
    role = ADMIN
    login, cookie = come_in(door, role=ADMIN, still=lambda: role)
    token = door.issue(Person(name="bert"), ADMIN, lambda: role)
    session = await _session(login)
    role = VIEWER
    door.review()
    assert session.reason == "your role has changed"
    assert door.find(login.id, cookie) is login
    assert login.role is VIEWER
    found = door.redeem(token, "")
    assert found is not None
    assert found[0].role is VIEWER


def test_there_is_an_end_to_tokens_and_logins(door: Logins) -> None:
    first = door.issue(ANNA, VIEWER, always)
    for number in range(logins.MOST):
        door.issue(Person(name=f"p{number}"), VIEWER, always)
    assert door.redeem(first, "") is None
    assert len(door._grants) == logins.MOST


async def _session(login: Login) -> Echo:
    echoes = Echoes()
    await echoes.open(Request(person=login.person, role=login.role), Nowhere())
    login.sessions.add(echoes.opened[0])
    return echoes.opened[0]
