"""Commands that say too much, and that outlive who started them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from vmtui.host.faults import CommandFailed
from vmtui.host.process import ProcessId, run

PARENT = """
import asyncio, sys
from vmtui.host.process import run
asyncio.run(run(["sh", "-c", "echo $$ > $0; exec sleep 300", sys.argv[1]], timeout=None, die_with_parent=True))
"""


@pytest.mark.parametrize("to", ["1", "2"])
async def test_a_command_that_says_too_much_is_killed(to: str) -> None:
    with pytest.raises(CommandFailed, match="sh said more than 100000 bytes") as caught:
        await run(["sh", "-c", f"while :; do echo loud >&{to}; done"], timeout=120, output_limit_bytes=100_000)
    assert caught.value.details.endswith("loud")


async def test_what_is_within_the_limit_is_returned_whole() -> None:
    heard: list[bytes] = []
    said = await run(
        ["sh", "-c", "cat; echo err >&2"], stdin=b"in" * 1000, output_limit_bytes=3000, on_stdout=heard.append
    )
    assert (b"".join(heard), said.stdout, said.stderr) == (b"in" * 1000, b"in" * 1000, b"err\n")


async def test_a_listener_that_fails_ends_the_command() -> None:
    pids: list[int] = []

    def fail(chunk: bytes) -> None:
        pids.append(int(chunk))
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        await run(["sh", "-c", "echo $$; exec sleep 300"], on_stdout=fail)
    assert ProcessId.of(pids[0]) is None


async def test_a_command_ends_with_who_started_it(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, told, cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 120
        while not told.exists() or not told.read_text().strip():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        await parent.wait()
    child = ProcessId.of(int(told.read_text()))
    assert child is None or await child.wait(60)
