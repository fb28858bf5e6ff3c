"""What a browser can ask for: to come in by a token, the page, its files, its terminal, and to leave.

Nothing is read before the Host header has passed; nothing but the page's files is had without a login.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from aiohttp import WSCloseCode, web

from vmtui.core.errors import Fault
from vmtui.core.policy import Person
from vmtui.ssh.journal import LOGIN, LOGOUT, Journal
from vmtui.ssh.session import Outlet, Request, Session
from vmtui.ssh.web import origin, page, terminal
from vmtui.ssh.web.assets import Asset
from vmtui.ssh.web.logins import Login, Logins

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
HEARTBEAT_S = 20.0  # and half of it for the answer: no other sign tells of a page that left while its input waited
CLOSE_S = 2.0
ENVIRONMENT = {"LANG": "C.UTF-8", "COLORTERM": "truecolor"}
ASK = "ssh HOST web"


class Opens(Protocol):
    """Where sessions come from."""

    async def open(self, request: Request, outlet: Outlet) -> Session: ...


class Pages:
    """The handlers of one server."""

    def __init__(
        self,
        sessions: Opens,
        logins: Logins,
        assets: Mapping[str, Asset],
        names: origin.Names,
        journal: Journal,
        *,
        tls: bool,
        recorded: bool,
        most: int,
        admit: Callable[[web.RequestHandler], None],
    ) -> None:
        self._sessions = sessions
        self._logins = logins
        self._assets = assets
        self._names = names
        self._journal = journal
        self._tls = tls
        self._recorded = recorded
        self._most = most  # sessions of a login
        self._admit = admit  # told of the connection of each request of a login
        self._sockets: set[web.WebSocketResponse] = set()

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=4096)
        app.on_response_prepare.append(_harden)
        app.router.add_get("/", self._enter, allow_head=False)
        app.router.add_get("/assets/{name}", self._asset, allow_head=False)
        app.router.add_get("/s/{login}/", self._page, allow_head=False)
        app.router.add_get("/s/{login}/terminal", self._terminal, allow_head=False)
        app.router.add_post("/s/{login}/leave", self._leave)
        return app

    async def close(self, reason: str) -> None:
        """Tell every page."""
        closing = (terminal.close(socket, WSCloseCode.GOING_AWAY, reason) for socket in self._sockets)
        await asyncio.gather(*closing, return_exceptions=True)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        local = (request.get_extra_info("sockname") or ("",))[0]
        if not self._names.knows(_host(request), local):
            return _words(421, "This host is not known by that name.", 'names = ["NAME"] in [serve.web]')
        try:
            return await handler(request)
        except web.HTTPException as error:
            return _words(error.status, error.reason)
        except Exception as error:
            self._journal.say(f"internal error: {type(error).__name__}: {error}")
            return _words(500, "That was not to happen: the server's log says what did.")

    async def _enter(self, request: web.Request) -> web.StreamResponse:
        token = request.query.get("token", "")
        if not token:
            return _words(401, "A link opens this console, once. Ask for one:", ASK)
        if request.headers.get("Sec-Purpose", "").startswith("prefetch"):
            return _words(503, "A link that opens once is not fetched ahead.")
        came_from = _origin(request)
        found = self._logins.redeem(token, came_from)
        if found is None:
            self._journal.refused(Person(name="", origin=came_from), "no such token for a browser")
            return _words(403, "This link has been used, or is too old. Ask for another:", ASK)
        login, secret = found
        message = f"in a browser as {login.role.name}"
        try:
            self._journal.note(login.person, "", LOGIN, (), "done", message)
        except Fault as fault:
            self._logins.end(login, "")
            self._journal.say(f"nobody is let in: {fault}")
            return _words(503, "The audit log cannot be written: nobody is let in.")
        self._journal.say(f"{login.person.name} from {came_from}: {LOGIN} done: {message}")
        path = f"/s/{login.id}/"
        # From a page of another site the browser would not send the cookie along a redirect: it is to begin anew here.
        if request.headers.get("Sec-Fetch-Site") == "cross-site":
            response = _words(200, "Opening the console.", to=path)
        else:
            response = _words(303, "Opening the console.")
            response.headers["Location"] = path
        response.set_cookie(self._cookie, secret, path=path, httponly=True, samesite="Strict", secure=self._tls)
        return response

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        asset = self._assets.get(request.match_info["name"])
        if asset is None:
            raise web.HTTPNotFound
        headers = {"ETag": asset.tag, "Cache-Control": "private, no-cache"}
        if request.headers.get("If-None-Match") == asset.tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=asset.data, headers={**headers, "Content-Type": asset.media_type})

    async def _page(self, request: web.Request) -> web.StreamResponse:
        login = self._login(request)
        html, policy = page.console(
            login.person,
            login.role,
            host=_host(request),
            path=f"/s/{login.id}/",
            tls=self._tls,
            recorded=self._recorded,
        )
        return _html(200, html, policy)

    async def _terminal(self, request: web.Request) -> web.StreamResponse:
        if not origin.same(request.headers.get("Origin", ""), _host(request), tls=self._tls):
            self._journal.refused(Person(name="", origin=_origin(request)), "a page of another origin")
            raise web.HTTPForbidden(reason="A page of another origin may not open the console.")
        login = self._login(request)
        socket = web.WebSocketResponse(
            timeout=CLOSE_S, heartbeat=HEARTBEAT_S, compress=False, max_msg_size=terminal.MESSAGE_BYTES
        )
        await socket.prepare(request)
        self._sockets.add(socket)
        try:
            code, words = await self._serve(request, socket, login)
        except Exception as error:
            code, words = WSCloseCode.INTERNAL_ERROR, "the server's log says why"
            self._journal.say(f"internal error: {type(error).__name__}: {error}")
        finally:
            self._sockets.discard(socket)
        await terminal.close(socket, code, words)
        return socket

    async def _serve(self, request: web.Request, socket: web.WebSocketResponse, login: Login) -> tuple[int, str]:
        """The whole of a session. What to close the socket with."""
        if len(login.sessions) + login.opening >= self._most:
            return (
                WSCloseCode.TRY_AGAIN_LATER,
                f"this login has {self._most} sessions already: close another page",
            )
        wanted = Request(
            person=Person(name=login.person.name, key=login.person.key, origin=_origin(request)),
            role=login.role,
            term="xterm-256color",
            environment=ENVIRONMENT,
            size=terminal.size(request.query.get("width"), request.query.get("height")),
            via="web",
        )
        ends = login.ends
        login.opening += 1
        opening = asyncio.ensure_future(self._sessions.open(wanted, terminal.Screen(socket)))
        try:
            session = await asyncio.shield(opening)
        except asyncio.CancelledError:  # the page has gone meanwhile
            opening.add_done_callback(_unwanted)
            raise
        except Fault as fault:
            return WSCloseCode.TRY_AGAIN_LATER, f"it did not begin: {fault}"
        finally:
            login.opening -= 1
        if login.ends != ends:
            session.hang_up(login.reason)
        login.sessions.add(session)
        try:
            return await terminal.connect(socket, session)
        finally:
            login.sessions.discard(session)

    async def _leave(self, request: web.Request) -> web.StreamResponse:
        if not origin.same(request.headers.get("Origin", ""), _host(request), tls=self._tls):
            raise web.HTTPForbidden(reason="A page of another origin may not end the login.")
        login = self._login(request)
        self._logins.end(login, "you have logged out")
        self._journal.told(login.person, LOGOUT, "done", "in a browser")
        response = _words(200, "You have logged out. Ask for another link to come back:", ASK)
        response.del_cookie(self._cookie, path=f"/s/{login.id}/")
        return response

    def _login(self, request: web.Request) -> Login:
        login = self._logins.find(request.match_info["login"], request.cookies.get(self._cookie, ""))
        if login is None:
            raise web.HTTPUnauthorized(reason="This browser is not logged in, or not any more.")
        self._admit(request.protocol)
        return login

    @property
    def _cookie(self) -> str:
        return "__Secure-vmtui" if self._tls else "vmtui"


def _unwanted(opening: asyncio.Future[Session]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().hang_up()


def _host(request: web.Request) -> str:
    """The Host header. `Request.host` would look one up where there is none."""
    return request.headers.get("Host", "")


async def _harden(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in page.HEADERS.items():
        if name == "Server" or name not in response.headers:
            response.headers[name] = value
    response.headers.setdefault("Content-Security-Policy", page.CLOSED)


def _words(status: int, text: str, hint: str = "", *, to: str = "") -> web.Response:
    return _html(status, *page.words(text, hint, to=to))


def _html(status: int, html: str, policy: str) -> web.Response:
    headers = {"Content-Security-Policy": policy}
    return web.Response(status=status, text=html, content_type="text/html", charset="utf-8", headers=headers)


def _origin(request: web.Request) -> str:
    peer = request.get_extra_info("peername") or ("unknown", 0)
    return f"web {peer[0]} port {peer[1]}"
