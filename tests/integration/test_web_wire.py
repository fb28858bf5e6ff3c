"""The console in a browser, as it is on the wire: what is let in, what is refused, and what one can take of it."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from tests.support.web_console import ANNA, Console, closed, console, heard
from tests.support.web_sessions import Echo
from vmtui.core.policy import BUILTIN, Person
from vmtui.profile.serving import WebSettings
from vmtui.ssh.web import app, server
from vmtui.ssh.web.terminal import MESSAGE_BYTES

WAIT_S = 60.0


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Console]:
    async with console(tmp_path) as made:
        yield made


async def until_hung_up(session: Echo) -> None:
    async with asyncio.timeout(WAIT_S):
        await session.wait()
    assert session.hung_up


async def refusal(it: Console, page: str, *, origin: str | None = None) -> int:
    """The status with which a websocket is refused."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await it.terminal(page, origin=origin)
    return refused.value.status


async def test_a_link_opens_once(it: Console) -> None:
    link = it.link()
    answer = await it.get(link)
    assert answer.status == 303
    assert "token" not in answer.headers["Location"]
    again = await it.get(link)
    assert (again.status, "Set-Cookie" in again.headers) == (403, False)
    assert "Ask for another" in await again.text()
    assert [(line.who, line.verb, line.result) for line in it.lines] == [
        ("anna", "login", "done"),
        ("", "login", "denied"),
    ]


async def test_a_login_that_cannot_be_noted_does_not_happen(it: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.posix_fallocate", full)
        answer = await it.get(it.link())
    assert answer.status == 503
    assert "Set-Cookie" not in answer.headers
    assert not it.lines
    assert (await it.get(it.link())).status == 303


async def test_the_cookie_is_for_one_path_and_no_script(it: Console) -> None:
    answer = await it.get(it.link())
    cookie = answer.headers["Set-Cookie"]
    path = answer.headers["Location"]
    assert path.startswith("/s/")
    assert len(path) > 20
    assert {word.strip() for word in cookie.split(";")[1:]} == {"HttpOnly", "SameSite=Strict", f"Path={path}"}


@pytest.mark.parametrize("headers", [{"Sec-Purpose": "prefetch"}, {"Sec-Purpose": "prefetch;prerender"}])
async def test_looking_ahead_uses_no_link_up(it: Console, headers: dict[str, str]) -> None:
    link = it.link()
    assert (await it.get(link, **headers)).status == 503
    assert (await it.get(link, "HEAD")).status == 405
    assert (await it.get(link)).status == 303


async def test_a_link_on_a_page_of_another_site_opens_too(it: Console) -> None:
    answer = await it.get(it.link(), **{"Sec-Fetch-Site": "cross-site"})
    assert answer.status == 200
    assert f'content="0;url={answer.cookies["vmtui"]["path"]}"' in await answer.text()


@pytest.mark.parametrize("path", ["/", "/?token=x", "/assets/console.js", "/assets/none", "/assets/", "/none", "PAGE"])
async def test_every_answer_has_the_headers(it: Console, path: str) -> None:
    path = await it.log_in() if path == "PAGE" else path
    headers = (await it.get(path)).headers
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Server"] == "vmtui"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


async def test_the_page_may_connect_to_its_own_terminal_alone(it: Console) -> None:
    page = await it.log_in()
    answer = await it.get(page)
    address = f"ws://127.0.0.1:{it.web.address.port}{page}terminal"
    assert f"connect-src {address};" in answer.headers["Content-Security-Policy"]
    text = await answer.text()
    assert f'data-session-websocket-url="{address}"' in text
    assert "anna, role viewer" in text
    assert "recorded" in text
    assert "<script>" not in text
    assert "<style" not in text


async def test_what_is_not_recorded_is_not_said_to_be(tmp_path: Path) -> None:
    async with console(tmp_path, recorded=False) as it:
        assert "recorded" not in await (await it.get(await it.log_in())).text()


async def test_an_error_of_ours_is_told_to_who_runs_the_server(it: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmtui.ssh.web.page.CONSOLE", "no template")
    answer = await it.get(await it.log_in())
    assert answer.status == 500
    assert "Traceback" not in await answer.text()
    assert "internal error: AttributeError" in it.said.getvalue()


async def test_a_name_is_text_on_the_page(it: Console) -> None:
    page = await it.log_in(Person(name='<script>alert("1")</script>'))
    assert "<script>alert" not in await (await it.get(page)).text()


@pytest.mark.parametrize("path", ["/assets/../app.py", "/assets/%2e%2e/app.py", "/assets/..%2fapp.py", "/assets/"])
async def test_no_path_leads_to_another_file(it: Console, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", it.web.address.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 404 ")


async def test_files_are_sent_once(it: Console) -> None:
    first = await it.get("/assets/terminal.js")
    assert (first.status, first.content_type) == (200, "text/javascript")
    again = await it.get("/assets/terminal.js", **{"If-None-Match": first.headers["ETag"]})
    assert (again.status, await again.read()) == (304, b"")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8022", "", "localhost.evil.example"])
async def test_another_name_for_this_host_is_refused(it: Console, host: str) -> None:
    page = await it.log_in()
    for path in ("/", page, "/assets/console.js", it.link()):
        assert (await it.get(path, Host=host)).status in (400, 421)
    assert len(it.lines) == 1, "a token was looked at"


async def test_a_tunnel_from_another_port_leads_in(it: Console) -> None:
    answer = await it.get(await it.log_in(), Host="localhost:9000")
    assert "ws://localhost:9000/s/" in answer.headers["Content-Security-Policy"]


async def test_the_terminal_carries_both_ways(it: Console) -> None:
    socket = await it.terminal(await it.log_in(role="operator"))
    await heard(socket, "anna is operator on 80x24\r\n")
    request = it.sessions.opened[0].request
    assert (request.person.name, request.person.key, request.argv, request.via) == ("anna", "SHA256:anna", (), "web")
    assert request.person.origin.startswith("web 127.0.0.1 port ")
    assert request.term == "xterm-256color"
    await socket.send_json(["stdin", "grüße ☃ 🐍"])
    await heard(socket, "grüße ☃ 🐍")
    await socket.send_json(["resize", {"width": 100, "height": 40}])
    await heard(socket, "now 100x40")
    await socket.send_json(["focus"])
    await socket.send_json(["ping", "123"])
    assert await socket.receive_json() == ["pong", "123"]


@pytest.mark.parametrize(
    ("width", "height", "size"), [(0, 0, (1, 2)), (-5, 10**30, (500, 2)), (10**6, 10**6, (500, 1000))]
)
async def test_no_size_is_out_of_reason(it: Console, width: int, height: int, size: tuple[int, int]) -> None:
    socket = await it.terminal(await it.log_in())
    await heard(socket, "80x24")
    try:
        await socket.send_json(["resize", {"width": width, "height": height}])
        await heard(socket, "now")
        assert it.sessions.opened[0].sizes[-1] == size
    except TypeError:  # more digits than a number of the protocol has: the session has ended
        assert it.sessions.opened[0].hung_up


@pytest.mark.parametrize(("key", "code", "words"), [("q", 1000, ""), ("x", 1000, "it ended with code 3")])
async def test_a_session_that_ends_ends_the_page(it: Console, key: str, code: int, words: str) -> None:
    socket = await it.terminal(await it.log_in())
    await socket.send_json(["stdin", key])
    assert await closed(socket) == (code, words)


@pytest.mark.parametrize("abrupt", [False, True])
async def test_a_page_that_is_closed_ends_its_session(it: Console, abrupt: bool) -> None:
    socket = await it.terminal(await it.log_in())
    await heard(socket, "80x24")
    if abrupt:
        await it.client.close()
    else:
        await socket.close()
    await until_hung_up(it.sessions.opened[0])


@pytest.mark.parametrize("origin", ["", "null", "http://evil.example", "http://127.0.0.1:1", "A SCHEME", "A NAME"])
async def test_a_page_of_another_origin_gets_no_terminal(it: Console, origin: str) -> None:
    page = await it.log_in()
    port = it.web.address.port
    origin = {"A SCHEME": f"https://127.0.0.1:{port}", "A NAME": f"http://localhost:{port}"}.get(origin, origin)
    assert await refusal(it, page, origin=origin) == 403
    assert it.sessions.opened == []
    assert (it.lines[-1].result, it.lines[-1].message) == ("denied", "a page of another origin")


async def test_without_its_cookie_a_path_opens_nothing(it: Console) -> None:
    page, other = await it.log_in(), await it.log_in(Person(name="bert"))
    secret = next(cookie.value for cookie in it.client.cookie_jar if cookie["path"] == other)
    it.client.cookie_jar.clear()
    for cookie in ({}, {"Cookie": "vmtui="}, {"Cookie": f"vmtui={secret}"}):
        assert (await it.get(page, **cookie)).status == 401
    assert await refusal(it, page) == 401
    assert (await it.get(other, Cookie=f"vmtui={secret}")).status == 200


@pytest.mark.parametrize(
    "message",
    ["", "[]", "{}", '["exec","sh"]', '["stdin"]', '["stdin",1]', '["stdin","\\ud800"]', '["resize",{}]',
     '["resize",{"width":"a","height":1}]', "[" * 10_000, b"bytes"],
)  # fmt: skip
async def test_a_message_that_means_nothing_ends_the_session(it: Console, message: str | bytes) -> None:
    socket = await it.terminal(await it.log_in())
    await heard(socket, "80x24")
    await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
    assert await closed(socket) == (1008, "a message was not of this console")
    await until_hung_up(it.sessions.opened[0])
    assert it.sessions.opened[0].pieces == []


async def test_a_message_has_a_largest_size(it: Console) -> None:
    socket = await it.terminal(await it.log_in())
    await heard(socket, "80x24")
    await socket.send_json(["stdin", "a" * MESSAGE_BYTES])
    assert (await closed(socket))[0] == 1009
    await until_hung_up(it.sessions.opened[0])


async def test_a_login_has_no_more_sessions_than_it_may(tmp_path: Path) -> None:
    async with console(tmp_path, WebSettings(sessions=2)) as it:
        page = await it.log_in()
        sockets = [await it.terminal(page) for _ in range(2)]
        for socket in sockets:
            await heard(socket, "80x24")
        code, words = await closed(await it.terminal(page))
        assert (code, "2 sessions already" in words) == (1013, True)
        await sockets[0].close()
        await until_hung_up(it.sessions.opened[0])
        await heard(await it.terminal(page), "80x24")


async def test_a_session_that_does_not_begin_says_why(it: Console) -> None:
    it.sessions.full = True
    code, words = await closed(await it.terminal(await it.log_in()))
    assert (code, words) == (1013, "it did not begin: there are too many sessions")


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            if true():
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("leaves", ["page", "person"])
async def test_who_leaves_while_a_session_begins_has_none(it: Console, leaves: str) -> None:
    page = await it.log_in()
    it.sessions.ready.clear()
    socket = await it.terminal(page)
    await until(lambda: it.sessions.asked == 1)
    if leaves == "page":
        await it.client.close()
        await until(lambda: not it.web._runner.server.connections)  # type: ignore[union-attr]
        it.sessions.ready.set()
    else:
        await it.get(f"{page}leave", "POST", Origin=it.base)
        it.sessions.ready.set()
        assert await closed(socket) == (1000, "you have logged out")
    await until(lambda: it.sessions.opened and it.sessions.opened[0].hung_up)


async def test_an_error_of_a_session_ends_its_page_alone(it: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    page = await it.log_in()
    monkeypatch.setattr(Echo, "resize", None)
    socket = await it.terminal(page)
    await heard(socket, "80x24")
    await socket.send_json(["resize", {"width": 1, "height": 1}])
    assert await closed(socket) == (1011, "the server's log says why")
    assert "internal error: TypeError" in it.said.getvalue()
    await heard(await it.terminal(page), "80x24")


async def test_without_a_host_header_nothing_is_told(it: Console) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", it.web.address.port)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert b" 421 " in await reader.readline()
    writer.close()


async def test_who_never_reads_stalls_only_itself(it: Console) -> None:
    page = await it.log_in()
    secret = next(iter(it.client.cookie_jar)).value
    reader, writer = await asyncio.open_connection("127.0.0.1", it.web.address.port, limit=1024)
    lines = [f"GET {page}terminal HTTP/1.1", "Host: localhost", "Origin: http://localhost", f"Cookie: vmtui={secret}",
             "Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
             "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg=="]  # fmt: skip
    writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode())
    assert b" 101 " in await reader.readline()
    lazy = it.sessions.opened[0]
    for _ in range(1000):
        lazy.say(bytes(65536))
    sent = -1
    while sent != lazy.written:  # it stands still
        sent = lazy.written
        await asyncio.sleep(0.5)
    assert sent < 32 << 20, "what the kernel holds for a connection, and little more"
    other = await it.terminal(page)
    await other.send_json(["stdin", "hello"])
    await heard(other, "hello")
    writer.transport.abort()
    await until_hung_up(lazy)


async def test_what_a_session_does_not_take_is_not_read(it: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "HEARTBEAT_S", 3.0)
    socket = await it.terminal(await it.log_in())
    await heard(socket, "80x24")
    session = it.sessions.opened[0]
    session.room.clear()

    async def paste() -> None:
        for _ in range(10_000):
            await socket.send_json(["stdin", "a" * 8000])

    pasting = asyncio.create_task(paste())
    got, deadline = -1, time.monotonic() + 120
    while got < 1 or got != len(session.pieces):
        assert time.monotonic() < deadline, got
        got = len(session.pieces)
        await asyncio.sleep(0.5)
    assert got == 1
    assert not pasting.done()
    pasting.cancel()
    await until_hung_up(session)


async def test_logging_out_ends_the_sessions(it: Console) -> None:
    page = await it.log_in()
    socket = await it.terminal(page)
    await heard(socket, "80x24")
    assert (await it.get(f"{page}leave", "POST", Origin="http://evil.example")).status == 403
    assert (await it.get(f"{page}leave", Origin=it.base)).status == 405
    assert (await it.get(f"{page}leave", "POST", Origin=it.base)).status == 200
    assert await closed(socket) == (1000, "you have logged out")
    assert (await it.get(page)).status == 401
    assert (it.lines[-1].who, it.lines[-1].verb, it.lines[-1].result) == ("anna", "logout", "done")


async def test_a_role_that_is_taken_away_ends_what_it_opened(it: Console) -> None:
    page = await it.log_in(role="admin")
    socket = await it.terminal(page)
    await heard(socket, "anna is admin")
    it.roles["admin"] = BUILTIN["viewer"]
    it.web.review()
    assert await closed(socket) == (1000, "your role has changed")
    socket = await it.terminal(page)
    await heard(socket, "anna is viewer")
    it.roles["admin"] = None
    it.web.review()
    assert await closed(socket) == (1000, "you are not permitted here any more")
    assert (await it.get(page)).status == 401


async def test_pages_are_told_when_the_server_ends(tmp_path: Path) -> None:
    async with console(tmp_path) as it:
        socket = await it.terminal(await it.log_in())
        await heard(socket, "80x24")
        ending = asyncio.create_task(it.web.aclose())
        assert await closed(socket) == (1001, "the server ends")
        await ending
        await until_hung_up(it.sessions.opened[0])


@pytest.mark.parametrize("tls", [False, True])
async def test_a_crowd_of_strangers_keeps_nobody_out(tmp_path: Path, tls: bool) -> None:
    async with console(tmp_path, WebSettings(connections=8, tls=tls)) as it:
        page = await it.log_in()
        socket = await it.terminal(page)
        await heard(socket, "80x24")
        silent = [await asyncio.open_connection("127.0.0.1", it.web.address.port) for _ in range(200)]
        assert (await it.get(page)).status == 200
        async with asyncio.timeout(WAIT_S):
            for reader, _ in silent[:192]:
                assert await _rest(reader) == b""
        await socket.send_json(["stdin", "still here"])
        await heard(socket, "still here")
        for _, writer in silent:
            writer.close()


async def test_who_says_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FIRST_REQUEST_S", 0.2)
    async with console(tmp_path) as it:
        for said in (b"", b"GET / HTTP/1.1\r\nHost: loc"):
            reader, writer = await asyncio.open_connection("127.0.0.1", it.web.address.port)
            writer.write(said)
            async with asyncio.timeout(WAIT_S):
                assert await reader.read() == b""
            writer.close()


@pytest.mark.parametrize(
    "junk", [b"\x16\x03\x01\x02\x00\x01\x00", b"SSH-2.0-x", bytes(100_000), b"GET / HTTP/1.1" + b"\r\nA: b" * 10_000]
)
async def test_junk_is_answered_and_forgotten(it: Console, junk: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", it.web.address.port)
    writer.write(junk + b"\r\n\r\n")
    async with asyncio.timeout(WAIT_S):
        assert b"Traceback" not in await _rest(reader)
    writer.close()
    assert (await it.get("/")).status == 401


async def test_with_tls_the_cookie_never_goes_without(tmp_path: Path) -> None:
    async with console(tmp_path, WebSettings(tls=True)) as it:
        assert it.web.url(ANNA, BUILTIN["viewer"]).startswith("https://127.0.0.1:")
        answer = await it.get(it.link())
        assert answer.headers["Set-Cookie"].startswith("__Secure-vmtui=")
        assert "; Secure" in answer.headers["Set-Cookie"]
        page = answer.headers["Location"]
        assert "connect-src wss://" in (await it.get(page)).headers["Content-Security-Policy"]
        await heard(await it.terminal(page), "80x24")
        assert await refusal(it, page, origin=it.base.replace("https", "http")) == 403
        context = ssl.create_default_context()
        context.load_verify_locations(tmp_path / "ssh/web/certificate.pem")
        async with it.client.get(it.base, ssl=context) as verified:
            assert verified.status == 401


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""
