"""A panel that is run once in the fork server, before any session: what it parses and remembers is then shared by all.

A fifth less memory for each session, and a first frame sooner.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import shutil
import signal
import tempfile

OPEN_S = 20.0
LOOK_S = 0.3  # for the first look at an empty workspace
SIZE = (120, 40)


def warm() -> None:
    """Its workspace is an empty one that is removed. Whatever it raises costs no more than what would be shared."""
    folder = tempfile.mkdtemp(prefix="vmtui-")
    before = dict(os.environ)
    try:
        for name in ("STATE", "CACHE", "CONFIG"):
            os.environ[f"XDG_{name}_HOME"] = f"{folder}/{name}"
        os.environ |= {"XDG_RUNTIME_DIR": folder, "HOME": folder, "TERM": "xterm-256color", "LANG": "C.UTF-8"}
        contextvars.Context().run(asyncio.run, _panel())
    finally:
        os.environ.clear()
        os.environ.update(before)
        signal.set_wakeup_fd(-1)
        shutil.rmtree(folder, ignore_errors=True)


async def _panel() -> None:
    from vmtui.engine.workspace import Workspace
    from vmtui.host.paths import Paths
    from vmtui.tui.app import Panel
    from vmtui.tui.styles import keep_parsed

    keep_parsed()
    opened = asyncio.Event()

    async def opener() -> Workspace:
        workspace = await Workspace.open(Paths.from_environment())
        opened.set()
        return workspace

    panel = Panel(opener=opener)
    running = asyncio.create_task(panel.run_async(headless=True, size=SIZE))
    try:
        async with asyncio.timeout(OPEN_S):
            await opened.wait()
            await asyncio.sleep(LOOK_S)
    finally:
        panel.exit()
        await running
