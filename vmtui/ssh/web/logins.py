"""Who may come in by browser: tokens that open once, and the logins that they become. No I/O.

A token is a link that somebody proved their right to by other means, over SSH or by having started the server. It
lapses after a minute and dies when it is used. What it becomes is a cookie together with a path that nobody can guess:
browsers send cookies to every port of a host, whoever listens there, but only under their path.
Of all secrets only digests are kept.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from typing import TypeVar

from vmtui.core.policy import Person, Role
from vmtui.ssh.session import Session

T = TypeVar("T")
Clock = Callable[[], float]
Still = Callable[[], Role | None]  # which role somebody has now; None if they may not come in any more
MOST = 1000  # tokens that wait, and logins: the oldest give way


class Grant:
    """Whom a token lets in, and as what."""

    def __init__(self, person: Person, role: Role, still: Still, until: float) -> None:
        self.person = person
        self.role = role
        self.still = still
        self.until = until


class Login:
    """A browser that came in. `sessions` are those that it has open."""

    def __init__(self, id: str, secret: str, grant: Grant, until: float) -> None:  # noqa: A002
        self.id = id
        self.person = grant.person
        self.role = grant.role
        self.still = grant.still
        self.until = until
        self.sessions: set[Session] = set()
        self.opening = 0
        self.ends = 0  # how often its sessions were ended, and why at last
        self.reason = ""
        self._digest = _digest(secret)

    def is_of(self, secret: str) -> bool:
        return secrets.compare_digest(self._digest, _digest(secret))

    def end(self, reason: str) -> None:
        self.ends += 1
        self.reason = reason
        for session in tuple(self.sessions):
            session.hang_up(reason)


class Logins:
    """All tokens and logins of one server."""

    def __init__(self, *, token_s: float, login_s: float, clock: Clock = time.monotonic) -> None:
        self._token_s = token_s
        self._login_s = login_s
        self._clock = clock
        self._grants: dict[str, Grant] = {}
        self._logins: dict[str, Login] = {}

    def issue(self, person: Person, role: Role, still: Still) -> str:
        """A token. Those that the same person has not used yet, with this key, open nothing any more.

        `still` is asked each time that something is opened with it: keys expire, roles change.
        """
        self._forget()
        for digest, grant in tuple(self._grants.items()):
            if (grant.person.name, grant.person.key) == (person.name, person.key):
                del self._grants[digest]
        token = secrets.token_urlsafe(32)
        self._grants[_digest(token)] = Grant(person, role, still, self._clock() + self._token_s)
        _shorten(self._grants)
        return token

    def redeem(self, token: str, origin: str) -> tuple[Login, str] | None:
        """The login and the secret of its cookie; None for a token that never was, is used up, or came too late."""
        self._forget()
        grant = self._grants.pop(_digest(token), None)
        role = grant.still() if grant is not None else None
        if grant is None or role is None:
            return None
        grant.role = role
        grant.person = Person(name=grant.person.name, key=grant.person.key, origin=origin)
        secret = secrets.token_urlsafe(32)
        login = Login(secrets.token_urlsafe(16), secret, grant, self._clock() + self._login_s)
        self._logins[login.id] = login
        for dropped in _shorten(self._logins):
            dropped.end("others have logged in since")
        return login, secret

    def find(self, id: str, secret: str) -> Login | None:  # noqa: A002
        """The login with this path and this cookie."""
        self._forget()
        login = self._logins.get(id)
        return login if login is not None and login.is_of(secret) and self._stays(login) else None

    def end(self, login: Login, reason: str) -> None:
        """Also its sessions."""
        self._logins.pop(login.id, None)
        login.end(reason)

    def review(self) -> None:
        """Roles or keys may have changed. Sessions of a role that is not the same any more end."""
        for login in tuple(self._logins.values()):
            self._stays(login)

    def _stays(self, login: Login) -> bool:
        role = login.still()
        if role is None:
            self.end(login, "you are not permitted here any more")
        elif role != login.role:
            login.role = role
            login.end("your role has changed")
        return role is not None

    def _forget(self) -> None:
        now = self._clock()
        self._grants = {digest: grant for digest, grant in self._grants.items() if now < grant.until}
        for login in tuple(self._logins.values()):
            if now >= login.until:
                self.end(login, "this login has lapsed")


def _shorten(found: dict[str, T]) -> list[T]:
    return [found.pop(oldest) for oldest in list(found)[: max(0, len(found) - MOST)]]


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
