"""What the page in a browser makes of keys, pastes and the mouse, and of hostile output; its sessions only echo."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support import chromium
from tests.support.chromium import Chromium, Tab
from tests.support.web_console import Console, console
from tests.support.web_sessions import Echo
from vmtui.ssh.web.terminal import MESSAGE_BYTES

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),
    pytest.mark.skipif(chromium.PROGRAM is None, reason="chromium is not in PATH"),
]
PASTED = "(text => {{const data = new DataTransfer(); data.setData('text/plain', text);" + (
    "document.querySelector('.xterm-helper-textarea').dispatchEvent("
    "new ClipboardEvent('paste', {{clipboardData: data, bubbles: true, cancelable: true}})); return true}})({})"
)


class Page:
    """A page, its session, and the browser that has it."""

    def __init__(self, browser: Chromium, tab: Tab, it: Console) -> None:
        self.browser = browser
        self.tab = tab
        self.it = it

    @property
    def session(self) -> Echo:
        return self.it.sessions.opened[-1]

    @property
    def got(self) -> bytes:
        return b"".join(self.session.pieces)

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(chromium.WAIT_S):
            while True:
                if true():
                    return
                await asyncio.sleep(chromium.LOOK_S)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Chromium]:
    async with Chromium() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def page(tmp_path: Path, browser: Chromium) -> AsyncIterator[Page]:
    async with console(tmp_path) as it:
        tab = await browser.tab()
        await tab.go(it.base + it.link())
        await tab.until("document.body && document.body.classList.contains('-first-byte')")
        await tab.shows("anna is viewer")
        yield Page(browser, tab, it)
        await browser.close_tabs()


async def test_a_large_paste_arrives_whole_and_in_pieces(page: Page) -> None:
    text = "ä🐍x" * 200_000
    await page.tab.run(PASTED.format("'ä🐍x'.repeat(200_000)"))
    await page.until(lambda: len(page.got) >= len(text.encode()))
    assert page.got.decode() == text
    assert max(map(len, page.session.pieces)) < MESSAGE_BYTES
    assert page.tab.complaints == []


async def test_a_paste_is_bracketed_where_a_program_asks_for_it(page: Page) -> None:
    page.session.say(b"\x1b[?2004hready")
    await page.tab.shows("ready")
    await page.tab.run(PASTED.format("'rm -rf x\\n'"))
    await page.until(lambda: page.got.endswith(b"\x1b[201~"))
    assert page.got == b"\x1b[200~rm -rf x\r\x1b[201~"


async def test_half_a_character_does_not_end_the_session(page: Page) -> None:
    await page.tab.run(PASTED.format("'\\ud83d' + 'a'.repeat(9000)"))
    await page.until(lambda: len(page.got) >= 9000)
    assert page.got.decode() == "\N{REPLACEMENT CHARACTER}" + "a" * 9000


async def test_the_mouse_arrives_where_a_program_asks_for_it(page: Page) -> None:
    page.session.say(b"\x1b[?1000h\x1b[?1006hready")
    await page.tab.shows("ready")
    await page.tab.click(100, 100)
    await page.until(lambda: b"m" in page.got)
    assert page.got.startswith(b"\x1b[<0;")


async def test_the_terminal_has_the_size_of_the_window(page: Page) -> None:
    await page.tab.size(600, 300)
    await page.until(lambda: page.session.sizes[-1] == ((300 - 28) // 19, 600 // 8))
    await page.tab.size(1600, 1000)
    await page.until(lambda: page.session.sizes[-1] == ((1000 - 28) // 19, 1600 // 8))


async def test_no_program_reads_the_clipboard(page: Page) -> None:
    """Not even where the person has allowed it to this page."""
    await page.browser.call("Browser.grantPermissions", permissions=["clipboardReadWrite"], origin=page.it.base)
    page.session.say(b"\x1b]52;c;?\x07asked")
    await page.tab.shows("asked")
    assert "NotAllowed" in await page.tab.run("navigator.clipboard.readText().catch(error => error.name)")
    await page.tab.type("z")
    await page.until(lambda: b"z" in page.got)
    assert page.got == b"z"


async def test_no_script_runs_but_those_of_the_console(page: Page) -> None:
    for tag in ("script", "img"):
        made = f"Object.assign(document.createElement('{tag}'), {{textContent: 'window.ran = 1', src: ''}})"
        await page.tab.run(f"document.body.append({made}), 1")
    await page.tab.run("document.body.insertAdjacentHTML('beforeend', '<b onclick=\"window.ran=1\" id=b>b</b>'), 1")
    await page.tab.run("document.getElementById('b').click()")
    assert await page.tab.run("window.ran === undefined")
    assert any("Content Security Policy" in complaint for complaint in page.tab.complaints)


@pytest.mark.parametrize(
    "output",
    [
        bytes(range(128, 256)) * 500,
        bytes(range(256)) * 500,
        b"\x1b]0;" + b"A" * 1_000_000 + b"\x07",
        b"\x1b]8;;javascript:alert(1)\x07link\x1b]8;;\x07",
        b"\x1b[999999999;999999999H\x1b[999L\x1b[38;2;999;999;999m\x1bP$q\x1b\\",
        "e\u0301\u202e\u200d🏳️‍🌈".encode() * 1000,
    ],
)
async def test_hostile_output_is_only_output(page: Page, output: bytes) -> None:
    page.session.say(output + b"\x18\x1bcstill here")
    await page.tab.shows("still here")
    assert await page.tab.run("document.title") == "vmtui"
    assert not page.session.hung_up
    assert page.tab.complaints == []


async def test_what_a_browser_has_no_webgl_for_is_drawn(tmp_path: Path) -> None:
    async with console(tmp_path) as it, Chromium("--disable-3d-apis") as browser:
        tab = await browser.tab()
        await tab.go(it.base + it.link())
        await tab.until("document.body && document.body.classList.contains('-first-byte')")
        await tab.shows("anna is viewer")
        assert tab.complaints == []
