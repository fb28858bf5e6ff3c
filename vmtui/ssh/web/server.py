"""`vmtui serve --web`: the listening socket, its limits, and the links that open it."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from vmtui.core.errors import InvalidInput, MissingCapability
from vmtui.core.policy import Person, Role
from vmtui.profile.serving import WebSettings
from vmtui.ssh.journal import Journal
from vmtui.ssh.web import assets
from vmtui.ssh.web.door import Door
from vmtui.ssh.web.logins import Logins, Still
from vmtui.ssh.web.origin import Names
from vmtui.ssh.web.settings import NAME, Address, bracketed

if TYPE_CHECKING:
    from aiohttp import web

    from vmtui.ssh.web.app import Opens, Pages

FIRST_REQUEST_S = 15.0  # also between two
END_S = 2.0
FOLDER = Path("ssh/web")


class Web:
    """The console in a browser. `open` makes one, `aclose` ends it with all sessions that it opened."""

    def __init__(self, settings: WebSettings, address: Address, names: tuple[str, ...]) -> None:
        self.address = address
        self.fingerprint = ""  # of its certificate; "" without TLS
        self.self_signed = False
        self._names = names
        self._settings = settings
        self._logins = Logins(token_s=settings.token_lifetime, login_s=settings.login_lifetime)
        self._admitted: set[object] = set()
        self._door: Door | None = None
        self._runner: web.AppRunner | None = None
        self._pages: Pages

    @classmethod
    async def open(
        cls,
        sessions: Opens,
        settings: WebSettings,
        address: Address,
        listening: socket.socket,
        *,
        journal: Journal,
        state: Path,
        folder: Path,
        recorded: bool,
    ) -> Web:
        """Answers at `listening`, which is of `address`, when it returns, and owns it.

        The settings have no faults. `state` is the workspace's, for a certificate; `folder` is where the settings are;
        `recorded` says whether sessions are, where the role has it. Raises Fault: an address that others reach without
        TLS, a certificate that cannot be used, the packages of the extra "web" missing.
        """
        if settings.tls is False and not address.loopback:
            hint = "leave tls out of [serve.web]: a certificate is made"
            raise InvalidInput(f"{address} is reached by others, and has no TLS", hint=hint)
        if importlib.util.find_spec("aiohttp") is None:
            raise MissingCapability("the console in a browser needs aiohttp", hint=assets.hint())
        made = cls(settings, Address(address.host, listening.getsockname()[1]), _names(settings, address))
        context = made._secure(state, folder) if settings.tls or not address.loopback else None
        made._pages = made._handlers(sessions, journal, tls=context is not None, recorded=recorded)
        await made._start(listening, context)
        return made

    @property
    def tls(self) -> bool:
        return self.fingerprint != ""

    def url(self, person: Person, role: Role, still: Still | None = None) -> str:
        """A link that lets `person` in, once and soon. `still` says which role they have at a later time, None if none.

        Without it: always this one.
        """
        token = self._logins.issue(person, role, still or (lambda: role))
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{bracketed(self._names[0])}:{self.address.port}/?token={token}"

    def review(self) -> None:
        """After roles or keys were read anew: who may not be here any more goes."""
        self._logins.review()

    async def aclose(self, reason: str = "the server ends") -> None:
        if self._door is not None:
            await self._door.aclose()
        if self._runner is not None:
            await self._pages.close(reason)
            await self._runner.cleanup()

    def meet(self) -> asyncio.Protocol:
        assert self._runner is not None
        assert self._runner.server is not None
        return self._runner.server()

    def strangers(self) -> list[asyncio.Transport]:
        assert self._runner is not None
        assert self._runner.server is not None
        connections = self._runner.server.connections
        self._admitted.intersection_update(connections)
        return [each.transport for each in connections if each not in self._admitted and each.transport is not None]

    def _secure(self, state: Path, folder: Path) -> ssl.SSLContext:
        from vmtui.ssh.web import certificate

        settings = self._settings
        if settings.certificate:
            paths = (folder / Path(path).expanduser() for path in (settings.certificate, settings.key))
            found = certificate.own(*paths)
        else:
            found = certificate.made(state / FOLDER, self._names)
        self.fingerprint, self.self_signed = found.fingerprint, found.self_signed
        return found.context

    def _handlers(self, sessions: Opens, journal: Journal, *, tls: bool, recorded: bool) -> Pages:
        from vmtui.ssh.web.app import Pages

        return Pages(
            sessions,
            self._logins,
            assets.load(),
            Names(self._names),
            journal,
            tls=tls,
            recorded=recorded,
            most=self._settings.sessions,
            admit=self._admitted.add,
        )

    async def _start(self, listening: socket.socket, context: ssl.SSLContext | None) -> None:
        from aiohttp import web

        quiet = logging.getLogger("vmtui.web")  # what it would tell of is junk that strangers send
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
        self._runner = web.AppRunner(
            self._pages.app(),
            handle_signals=False,
            access_log=None,  # it would have the tokens
            logger=quiet,
            keepalive_timeout=FIRST_REQUEST_S,
            shutdown_timeout=END_S,
            handler_cancellation=True,  # a closed page ends its session at once
        )
        await self._runner.setup()
        self._door = Door(listening, self, context, self._settings.connections)


def _names(settings: WebSettings, address: Address) -> tuple[str, ...]:
    """What the host is called, the name for links first."""
    own = () if address.any else (address.host,)
    host = socket.gethostname().lower()
    others = () if address.loopback or not NAME.fullmatch(host) else (host,)
    return tuple(dict.fromkeys((*settings.names, *own, *others))) or ("localhost",)
