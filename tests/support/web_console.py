"""The console in a browser over sessions that only echo, and a browser's part of what passes on the wire."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from yarl import URL

from tests.support.web_sessions import Echoes
from vmtui.core.policy import BUILTIN, Person, Role
from vmtui.engine import audit
from vmtui.engine.audit import Log, Record
from vmtui.profile.serving import WebSettings
from vmtui.ssh.journal import Journal
from vmtui.ssh.server import bind
from vmtui.ssh.web.server import Web
from vmtui.ssh.web.settings import Address

ANNA = Person(name="anna", key="SHA256:anna", origin="192.0.2.7 port 40022")


class Console:
    """A server, what it wrote to the audit log, and a client whose cookies are those of one browser."""

    def __init__(self, web: Web, sessions: Echoes, log: Path, said: io.StringIO, client: aiohttp.ClientSession) -> None:
        self.web = web
        self.sessions = sessions
        self._log = log
        self.said = said  # on stderr
        self.client = client
        self.roles: dict[str, Role | None] = dict(BUILTIN)
        self.base = f"{'https' if web.tls else 'http'}://127.0.0.1:{web.address.port}"

    @property
    def lines(self) -> list[Record]:
        """The audit log."""
        return list(audit.read(self._log))

    def link(self, person: Person = ANNA, role: str = "viewer") -> str:
        """The path and token of a link."""
        return URL(self.web.url(person, BUILTIN[role], lambda: self.roles[role])).path_qs

    async def get(self, path: str, method: str = "GET", **headers: str) -> aiohttp.ClientResponse:
        url = URL(self.base + path)
        answer = await self.client.request(method, url, headers=headers, allow_redirects=False, ssl=False)
        await answer.read()
        return answer

    async def log_in(self, person: Person = ANNA, role: str = "viewer") -> str:
        """The path of the console's page."""
        return (await self.get(self.link(person, role))).headers["Location"]

    async def terminal(self, page: str, *, origin: str | None = None) -> aiohttp.ClientWebSocketResponse:
        """Its websocket, as the page would open it; from a page of `origin`, "" for none that says so."""
        origin = self.base if origin is None else origin
        headers = {"Origin": origin} if origin else {}
        url = f"{self.base}{page}terminal?width=80&height=24"
        return await self.client.ws_connect(url, headers=headers, ssl=False)


@asynccontextmanager
async def console(
    state: Path, settings: WebSettings | None = None, *, host: str = "127.0.0.1", recorded: bool = True
) -> AsyncIterator[Console]:
    sessions, said = Echoes(), io.StringIO()
    web = await Web.open(
        sessions,
        settings or WebSettings(),
        Address(host, 0),
        bind(host, 0),
        journal=Journal(log := Log(state / "audit.log"), out=said),
        state=state,
        folder=state,
        recorded=recorded,
    )
    try:
        # cookies of addresses, as browsers keep them
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
            yield Console(web, sessions, state / "audit.log", said, client)
    finally:
        await web.aclose()
        log.close()


async def heard(socket: aiohttp.ClientWebSocketResponse, text: str) -> str:
    """All output, once it has `text`."""
    output = ""
    while text not in output:
        output += (await socket.receive_bytes(timeout=60)).decode()
    return output


async def closed(socket: aiohttp.ClientWebSocketResponse) -> tuple[int | None, str]:
    """The code and the words with which the server ends it."""
    while True:
        message = await socket.receive(timeout=60)
        if message.type is aiohttp.WSMsgType.CLOSE:
            return message.data, message.extra or ""
        if message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
            return socket.close_code, ""
