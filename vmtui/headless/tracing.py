"""`--trace`: what is really done to the host, on stderr as it is done."""

from __future__ import annotations

import asyncio

from vmtui.engine.workspace import Workspace
from vmtui.headless import text
from vmtui.headless.session import Command, Session
from vmtui.host import trace
from vmtui.host.trace import Act


def traced(command: Command) -> Command:
    """The same command, telling its acts as a shell's `set -x` does; a system call as what would do the same."""

    async def run(here: Session, workspace: Workspace) -> int:
        loop = asyncio.get_running_loop()

        def tell(line: str) -> None:
            here.screen.say(f"+ {text.clean(workspace.guard.text(line))}")

        def heard(act: Act) -> None:  # in the thread that acts
            if act.elapsed_s is None and not act.reads:
                loop.call_soon_threadsafe(tell, act.line)

        end = trace.subscribe(heard)
        try:
            return await command(here, workspace)
        finally:
            end()

    return run
