"""A headless Chromium, driven by the DevTools protocol: a page as its user has it."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

WAIT_S = 120.0
LOOK_S = 0.1
SHIFT = 8  # held, the mouse selects even where the program in the terminal wants it
COPY = """(() => {
  const event = new ClipboardEvent("copy", {clipboardData: new DataTransfer(), bubbles: true, cancelable: true});
  document.querySelector(".xterm").dispatchEvent(event);
  return event.clipboardData.getData("text/plain");
})()"""
PROGRAM = shutil.which("chromium")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--remote-debugging-port=0",
)


class Chromium:
    """The browser. With it go its profile, which is new each time, and all of its processes."""

    def __init__(self, *flags: str) -> None:
        self._flags = flags
        self._profile = Path(tempfile.mkdtemp(prefix="vt-chromium-"))
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.tabs: dict[str, Tab] = {}

    async def __aenter__(self) -> Self:
        assert PROGRAM is not None
        self._process = await asyncio.create_subprocess_exec(
            PROGRAM,
            *FLAGS,
            *self._flags,
            f"--user-data-dir={self._profile}",
            "about:blank",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            told = self._profile / "DevToolsActivePort"
            async with asyncio.timeout(WAIT_S):
                while True:
                    lines = told.read_text().split() if told.exists() else []
                    if len(lines) == 2:
                        break
                    await asyncio.sleep(LOOK_S)
            self._http = aiohttp.ClientSession()
            self._socket = await self._http.ws_connect(f"ws://127.0.0.1:{lines[0]}{lines[1]}", max_msg_size=0)
            self._reading = asyncio.create_task(self._read())
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reading.cancel()
        await self._socket.close()
        await self._http.close()
        await self._end()

    async def _end(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        for _ in range(100):  # those that it had started may still write
            shutil.rmtree(self._profile, ignore_errors=True)
            if not self._profile.exists():
                break
            await asyncio.sleep(LOOK_S)

    async def call(self, method: str, session: str = "", **words: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        told = {"id": number, "method": method, "params": words, **({"sessionId": session} if session else {})}
        await self._socket.send_str(json.dumps(told))
        async with asyncio.timeout(WAIT_S):
            answer = await self._waiting[number]
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def _read(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                self._waiting.pop(told["id"]).set_result(told)
            elif (tab := self.tabs.get(told.get("sessionId", ""))) is not None:
                tab.heard(told["method"], told["params"])

    async def close_tabs(self) -> None:
        while self.tabs:
            await self.tabs.popitem()[1].close()

    async def tab(self, width: int = 1000, height: int = 700) -> Tab:
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        tab = self.tabs[session] = Tab(self, target, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await tab.call(f"{domain}.enable")
        await tab.size(width, height)
        return tab


class Tab:
    """A page. `complaints` are its errors and warnings, `statuses` what the server answered, by URL."""

    def __init__(self, browser: Chromium, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session
        self.complaints: list[str] = []
        self.statuses: dict[str, int] = {}

    def heard(self, event: str, words: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            self.complaints.append(str(words["exceptionDetails"]))
        elif event == "Log.entryAdded" and words["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{words['entry']['text']} {words['entry'].get('url', '')}")
        elif event == "Network.responseReceived":
            self.statuses[words["response"]["url"]] = words["response"]["status"]
        elif event == "Network.webSocketHandshakeResponseReceived":
            self.statuses["websocket"] = words["response"]["status"]

    async def call(self, method: str, **words: Any) -> dict[str, Any]:
        return await self._browser.call(method, self._session, **words)

    async def go(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def size(self, width: int, height: int) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def run(self, script: str) -> Any:
        """The value of an expression, a promise awaited."""
        told = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in told:
            raise RuntimeError(str(told["exceptionDetails"]))
        return told["result"].get("value")

    async def until(self, script: str) -> Any:
        """What the expression is, once that is true. Raises TimeoutError."""
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    try:
                        if found := await self.run(script):
                            return found
                    except RuntimeError:  # between two pages there is nothing to ask
                        pass
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            text = await self.run("document.body ? document.body.innerText : ''")
            raise TimeoutError(f"{script} is not true; {self.complaints}; the page says {text!r}") from None

    async def type(self, text: str) -> None:
        for character in text:
            await self.key(character)

    async def key(self, key: str, code: int = 0, text: str | None = None) -> None:
        """`code` is the virtual key code of a key that stands for no character."""
        words = {"key": key, "windowsVirtualKeyCode": code or ord(key.upper()[0])}
        shown = text if text is not None else ("" if code else key)
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=shown, **words)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **words)

    async def paste(self, text: str) -> None:
        await self.call("Input.insertText", text=text)

    async def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def terminal(self) -> str:
        """What the terminal of the page shows: all of it is selected, and copied."""
        left, top, right, bottom = await self.run(
            "(({left, top, right, bottom}) => [left, top, right, bottom])"
            "(document.querySelector('.xterm-screen').getBoundingClientRect())"
        )
        modifiers = SHIFT if await self.run("!!document.querySelector('.xterm.enable-mouse-events')") else 0
        for kind, x, y, buttons in (
            ("mousePressed", left + 1, top + 1, 1),
            ("mouseMoved", right - 1, bottom - 1, 1),
            ("mouseReleased", right - 1, bottom - 1, 0),
        ):
            held = {"button": "left", "buttons": buttons, "clickCount": 1, "modifiers": modifiers}
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **held)
        return str(await self.run(COPY))

    async def shows(self, text: str) -> str:
        """Its screen, once that has `text`. Raises TimeoutError."""
        screen = ""
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    if text in (screen := await self.terminal()):
                        return screen
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise TimeoutError(f"{text!r} is not shown; {self.complaints}\n{screen}") from None

    async def picture(self, path: Path) -> None:
        told = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(told["data"]))

    async def close(self) -> None:
        self._browser.tabs.pop(self._session, None)
        await self._browser.call("Target.closeTarget", targetId=self._target)
