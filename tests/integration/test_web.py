"""The console in a real browser: Chromium, the server and its sessions, over resources that are simulated."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
import signal
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from tests.integration.ssh_clients.conftest import PROFILE
from tests.support import chromium
from tests.support.chromium import Chromium, Tab
from tests.support.claims import port
from tests.support.ssh_keys import Key
from tests.support.ssh_server import Console, processes_of
from vmtui.headless.exit_codes import ExitCode
from vmtui.tui.commands import ALIASES, COMMANDS

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),
    pytest.mark.skipif(chromium.PROGRAM is None, reason="chromium is not in PATH"),
    pytest.mark.skipif(shutil.which("ssh") is None, reason="ssh is not in PATH"),
]
HOME = "Resources"
ROLES = """
[role.brief]
idle = "2s"
record = false
allow = [{ verbs = ["view"] }]
"""
LINK = re.compile(r"https?://\S+/\?token=\S+")
ENTER, ESCAPE = ("Enter", 13, "\r"), ("Escape", 27)


@dataclass
class House:
    """A console whose people are anna, an admin, vera, a viewer, and carl, whose sessions end soon."""

    console: Console
    port: int
    anna: Key
    vera: Key
    carl: Key

    def link(self, key: Key) -> str:
        """As `ssh HOST web` prints it."""
        done = self.console.client().run(key, "web")
        found = LINK.search(done.stdout.decode())
        assert found is not None, done
        return found[0]

    def phase(self, name: str) -> str:
        return str(json.loads(self.console.cli.ok("inspect", name, "--json"))["status"]["phase"])

    async def until(self, name: str, phase: str) -> None:
        await until(lambda: self.phase(name) == phase)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    root = Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp"))
    try:
        with Console(root, roles=ROLES) as console:
            people = [console.person(*who) for who in (("anna", "admin"), ("vera", "viewer"), ("carl", "brief"))]
            made = House(console, port(), *people)
            console.up(PROFILE)
            console.start("--web", f"127.0.0.1:{made.port}")
            yield made
            assert "Traceback" not in console.said(), console.said()
            console.cli.ok("audit", "verify")
        assert processes_of(root) == []
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def program() -> AsyncIterator[Chromium]:
    async with Chromium() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def browser(program: Chromium) -> AsyncIterator[Chromium]:
    """The same for all tests, without the tabs of the last."""
    yield program
    await program.close_tabs()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(chromium.WAIT_S):
        while True:
            if await asyncio.to_thread(true):
                return
            await asyncio.sleep(chromium.LOOK_S)


async def panel(browser: Chromium, link: str, width: int = 1000, height: int = 700) -> Tab:
    tab = await browser.tab(width, height)
    await tab.go(link)
    await tab.until("document.body && document.body.classList.contains('-first-byte')")
    await tab.shows(HOME)
    return tab


async def test_the_panel_is_shown_and_takes_keys(house: House, browser: Chromium, tmp_path: Path) -> None:
    tab = await panel(browser, house.link(house.anna))
    assert await tab.run("location.pathname") != "/"
    assert "token" not in await tab.run("location.href")
    assert await tab.run("document.cookie") == "", "a script can read the cookie"
    for name in ("guest", "web", "hello", "data", "lab"):
        await tab.shows(name)
    await answer(tab, "/", "name:web")
    await tab.shows("1 of 5")
    await tab.key(*ESCAPE)
    await tab.key(*ESCAPE)
    await tab.shows("hello")
    await tab.size(480, 400)
    await tab.until("document.querySelector('.xterm-screen').clientHeight < 400")
    columns = 480 // 8
    async with asyncio.timeout(chromium.WAIT_S):
        while True:
            lines = (await tab.terminal()).rstrip("\n").splitlines()
            if lines[0][:columns].rstrip().endswith("role admin") and len(lines) <= 400 // 19:
                break
            await asyncio.sleep(chromium.LOOK_S)
    assert tab.complaints == []


async def test_it_is_drawn(house: House, browser: Chromium, tmp_path: Path) -> None:
    """More than one colour, by more than the program's word for it."""
    tab = await panel(browser, house.link(house.anna))
    await tab.until(
        "(() => {const found = new Set();"
        "for (const canvas of document.querySelectorAll('.xterm-screen canvas')) {"
        "const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);"
        "for (let at = 0; at < data.length; at += 4) if (data[at + 3] === 255)"
        " found.add(data[at] << 16 | data[at + 1] << 8 | data[at + 2]);}"
        "return found.size})() > 8"
    )


async def test_an_admin_stops_a_guest_and_the_log_says_who(house: House, browser: Chromium) -> None:
    tab = await panel(browser, house.link(house.anna))
    await stop(tab, "guest")
    await tab.shows("stop dev/vm/guest?")
    await tab.type("y")
    await house.until("guest", "stopped")
    words = ("stop", "anna", "web 127.0.0.1 port", "dev/vm/guest")
    await until(
        lambda: any(all(word in line for word in words) for line in house.console.cli.ok("audit", "ls").splitlines())
    )


async def test_a_viewer_changes_nothing(house: House, browser: Chromium) -> None:
    await asyncio.to_thread(house.console.alone)
    before = house.console.contents()
    tab = await panel(browser, house.link(house.vera))
    assert "vera, role viewer" in await tab.run("document.querySelector('header').innerText")
    await stop(tab, "guest")
    await tab.type("y")
    await tab.key(*ESCAPE)
    for command in ("stop guest", "start web", "delete dev/vm/guest", "exec web -- touch /tmp/mark", "apply"):
        await tab.type(":")
        await tab.paste(command)
        await tab.key(*ENTER)
        await tab.type("y")
        await tab.key(*ENTER)
        await tab.key(*ESCAPE)
        await tab.key(*ESCAPE)
    await tab.type("1")
    await tab.shows(HOME)
    await tab.close()
    await asyncio.to_thread(house.console.alone)
    assert house.console.contents() == before


async def test_a_viewer_changes_nothing_by_any_command(house: House) -> None:
    async with commanded(house, house.anna, ["stop hello"], asks="stop dev/sandbox/hello?"):
        await house.until("hello", "stopped")  # that is what these keys do for somebody who may
    await asyncio.to_thread(house.console.alone)
    before = house.console.contents()
    async with commanded(house, house.vera, [f"{name} web" for name in (*COMMANDS, *ALIASES)]):
        await asyncio.sleep(2)  # for what it might have begun
    await asyncio.to_thread(house.console.alone)
    assert house.console.contents() == before


@asynccontextmanager
async def commanded(house: House, key: Key, commands: list[str], *, asks: str = "") -> AsyncIterator[None]:
    """The panel, once it was given each of them, over the wire as a page would, and all that it asked was agreed to."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
        async with client.get(house.link(key)) as page:
            address = str(page.url.with_path(f"{page.url.path}terminal"))
        socket = None
        for command in commands:
            if socket is None or socket.closed:  # one of them leaves
                socket = await client.ws_connect(address, headers={"Origin": f"http://127.0.0.1:{house.port}"})
                await settled(socket, HOME)
            with suppress(ConnectionError):  # where it has left before all keys were sent
                for keys, shown in (("\x1b[27u\x1b[27u1", ""), (f":{command}\r", asks), ("y", ""), ("\r", "")):
                    await socket.send_json(["stdin", keys])
                    await settled(socket, shown)
        yield


async def settled(socket: aiohttp.ClientWebSocketResponse, text: str = "") -> None:
    """Returns when it has shown `text`, and then nothing for a moment."""
    shown = b""
    while True:
        quiet = text.encode() in shown
        message = await socket.receive() if not quiet else await _within(socket, 0.1)
        if message is None or message.type is not aiohttp.WSMsgType.BINARY:
            return
        shown += message.data


async def _within(socket: aiohttp.ClientWebSocketResponse, limit_s: float) -> aiohttp.WSMessage | None:
    try:
        return await socket.receive(timeout=limit_s)
    except TimeoutError:
        return None


async def stop(tab: Tab, name: str) -> None:
    """What a person would press for it."""
    await answer(tab, "/", f"name:{name}")
    await tab.shows("1 of 5")
    await tab.shows("Detail")  # the prompt has closed
    await answer(tab, ":", f"stop {name}")


async def answer(tab: Tab, key: str, text: str) -> None:
    """Open a prompt, and give it `text`."""
    await tab.type(key)
    await tab.shows("esc Cancel")
    await tab.paste(text)
    await tab.shows(f"{key}{text}")
    await tab.key(*ENTER)


async def test_a_link_opens_one_browser_once(house: House, browser: Chromium) -> None:
    link = house.link(house.anna)
    await panel(browser, link)
    again = await browser.tab()
    await again.go(link)
    await again.until("document.body && document.body.innerText.includes('used, or is too old')")
    assert again.statuses[link] == 403


async def test_a_key_without_a_terminal_gets_no_link(house: House) -> None:
    dora = house.console.person("dora", "viewer", "restrict")
    await asyncio.to_thread(house.console.reload)
    done = house.console.client().run(dora, "web")
    assert done.stdout == b""
    assert b"a key that gets no terminal gets none in a browser" in done.stderr


async def test_a_page_of_another_port_gets_no_terminal(house: House, browser: Chromium) -> None:
    """Cookies know no ports: it has them, and the path too. The Origin header keeps it out."""
    tab = await panel(browser, house.link(house.anna))
    address = (await tab.run("document.querySelector('main').dataset.sessionWebsocketUrl")) + "?width=80&height=24"
    async with neighbour() as url:
        evil = await browser.tab()
        await evil.go(url)
        await evil.until("document.title === 'evil'")
        tried = f"new Promise(done => {{const tried = new WebSocket({address!r});"
        tried += "tried.onopen = () => done('open'); tried.onerror = () => done('refused')})"
        assert await evil.run(tried) == "refused"
        page = address.replace("ws:", "http:").partition("terminal")[0]
        read = f"fetch({page!r}, {{credentials: 'include'}}).then(() => 'read', () => 'refused')"
        assert await evil.run(read) == "refused"
        await evil.run(f"document.body.append(Object.assign(document.createElement('iframe'), {{src: {page!r}}})), 1")
        await until(lambda: any("frame-ancestors" in complaint for complaint in evil.complaints))
    lines = house.console.cli.ok("audit", "ls")
    assert "a page of another origin" in lines
    await tab.shows(HOME)


@asynccontextmanager
async def neighbour() -> AsyncIterator[str]:
    """Somebody else's page on this host."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<title>evil</title><body>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    number = port()
    await web.TCPSite(runner, "127.0.0.1", number).start()
    try:
        yield f"http://127.0.0.1:{number}/"
    finally:
        await runner.cleanup()


async def test_a_closed_tab_leaves_no_process(house: House, browser: Chromium) -> None:
    tab = await panel(browser, house.link(house.anna))
    assert house.console.guests() != []
    await tab.close()
    await asyncio.to_thread(house.console.alone)


async def test_a_new_session_follows_on_the_last(house: House, browser: Chromium) -> None:
    tab = await panel(browser, house.link(house.anna))
    await tab.type("q")
    await tab.until("getComputedStyle(document.getElementById('over')).display === 'flex'")
    assert "is a new one" in await tab.run("document.getElementById('over').innerText")
    await asyncio.to_thread(house.console.alone)
    x, y = await tab.run("(r => [r.x + 5, r.y + 5])(document.querySelector('#over a').getBoundingClientRect())")
    await tab.click(x, y)
    await tab.until("document.getElementById('over') && !document.body.classList.contains('-closed')")
    await tab.shows(HOME)


async def test_a_session_without_keys_ends_and_says_so(house: House, browser: Chromium) -> None:
    tab = await browser.tab()
    await tab.go(house.link(house.carl))
    await tab.until("document.getElementById('reason')?.innerText.includes('no key came for too long')")
    assert "recorded" not in await tab.run("document.querySelector('header').innerText")
    await asyncio.to_thread(house.console.alone)


async def test_a_session_is_listed_observed_and_recorded(house: House, browser: Chromium) -> None:
    tab = await panel(browser, house.link(house.vera))
    openssh = house.console.client()
    listed = [json.loads(line) for line in openssh.run(house.anna, "sessions --json").stdout.splitlines()]
    session = next(each for each in listed if each["person"] == "vera")
    assert (session["via"], session["command"], session["role"]) == ("web", [], "viewer")
    with openssh.on_terminal(house.anna, f"observe {session['id']}") as observer:
        await asyncio.to_thread(observer.sees, "guest")
        await tab.shows("anna observes")
    await tab.close()
    await asyncio.to_thread(house.console.alone)
    assert "vera" in house.console.cli.ok("recordings", "ls")


async def test_logging_out_is_for_all_tabs(house: House, browser: Chromium) -> None:
    tab = await panel(browser, house.link(house.anna))
    page = await tab.run("location.href")
    other = await panel(browser, page)
    x, y = await tab.run("(r => [r.x + 5, r.y + 5])(document.querySelector('header button').getBoundingClientRect())")
    await tab.click(x, y)
    await tab.until("document.body && document.body.innerText.includes('You have logged out')")
    await other.until("document.getElementById('reason').innerText.includes('you have logged out')")
    await asyncio.to_thread(house.console.alone)
    await tab.go(page)
    await tab.until("document.body && document.body.innerText.includes('not logged in')")


async def test_a_key_that_is_taken_away_closes_the_page(house: House, browser: Chromium) -> None:
    tab = await panel(browser, house.link(house.anna))
    lines = house.console.keys.read_text().splitlines(keepends=True)
    house.console.keys.write_text("".join(line for line in lines if "anna" not in line))
    try:
        await asyncio.to_thread(house.console.reload)
    finally:
        house.console.keys.write_text("".join(lines))
    await tab.until("document.getElementById('reason').innerText.includes('not permitted here any more')")
    await tab.go(await tab.run("location.href"))
    await tab.until("document.body && document.body.innerText.includes('not logged in')")
    await asyncio.to_thread(house.console.reload)


async def test_who_runs_the_server_has_a_link_too(house: House, browser: Chromium) -> None:
    begin = len(house.console.log.read_bytes())
    first = LINK.search(house.console.said())
    assert first is not None
    house.console._process.send_signal(signal.SIGUSR1)  # type: ignore[union-attr]
    house.console.until(lambda: LINK.search(house.console.said(begin)), "another link")
    second = LINK.search(house.console.said(begin))
    assert second is not None
    assert second[0] != first[0]
    tab = await panel(browser, second[0])
    assert "role admin" in await tab.run("document.querySelector('header').innerText")


@pytest.mark.parametrize(
    ("settings", "address", "says"),
    [
        ("", "127.0.0.1:TAKEN", "cannot listen at 127.0.0.1:TAKEN"),
        ("tls = false", "0.0.0.0:FREE", "is reached by others, and has no TLS"),
        ('certificate = "c.pem"\nkey = "k.pem"\ntls = true', "127.0.0.1:FREE", "is not a file"),
        ('names = ["a b"]', "127.0.0.1:FREE", "serve.web.names[0]"),
    ],
)
async def test_what_cannot_be_served_is_one_error(settings: str, address: str, says: str) -> None:
    root = Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp"))
    try:
        settings = f"[serve.web]\n{settings}"
        with Console(root, settings=settings) as console, socket.create_server(("127.0.0.1", 0)) as other:
            console.person("anna", "admin")
            taken = str(other.getsockname()[1])
            address = address.replace("TAKEN", taken).replace("FREE", str(port()))
            told = console.cli.refused(ExitCode.ROLLED_BACK, *console.words("--web", address))
            assert says.replace("TAKEN", taken) in told
            assert "hint: " in told
        assert processes_of(root) == []
    finally:
        shutil.rmtree(root, ignore_errors=True)


async def test_with_a_certificate_of_its_own(browser: Chromium) -> None:
    root = Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp"))
    try:
        with Console(root, settings="[serve.web]\ntls = true") as console:
            console.person("anna", "admin")
            console.up(PROFILE)
            console.start("--web", f"127.0.0.1:{port()}")
            link = LINK.search(console.said())
            assert link is not None
            assert link[0].startswith("https://")
            certificate = console.paths.state / "ssh/web/certificate.pem"
            shown = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest().upper()
            assert ":".join(shown[at : at + 2] for at in range(0, 64, 2)) in console.said()
            tab = await browser.tab()
            await tab.call("Security.setIgnoreCertificateErrors", ignore=True)
            await tab.go(link[0])
            await tab.until("document.body && document.body.classList.contains('-first-byte')")
            await tab.shows(HOME)
            await tab.close()
            await asyncio.to_thread(console.alone)
    finally:
        shutil.rmtree(root, ignore_errors=True)
