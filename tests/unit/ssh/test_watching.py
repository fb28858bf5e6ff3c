"""What of a session reaches the terminal of somebody else who sees it."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.ssh_sessions import BERT, PATIENCE_S, Client
from vmtui.ssh.watching import Watching

HOSTILE = (
    "one\x1b]0;title\x07 \x1b]52;c;cm0gLXJm\x07two \x1b[c\x1b[6n\x1bP$qm\x1b\\\x1b[?1003h\x1b[>1u"
    "\x1b[8;1;1t\x1b[31mthr\u00e9e\x1b[0m\x9b5n"
).encode()
RESTORED = b"\x1b[<u\x1b[?1003l\x1b[?1049l\x1b[0m"


async def seen(*, drives: bool, step: int) -> bytes:
    client = Client()
    watching = Watching(
        client, BERT, drives=drives, limit_bytes=1 << 16, keys=lambda _: None, restore=lambda: RESTORED,
        gone=lambda _: None,
    )  # fmt: skip
    for at in range(0, len(HOSTILE), step):
        watching.show(HOSTILE[at : at + step])
    watching.end("over")
    async with asyncio.timeout(PATIENCE_S):
        await watching.wait()
    return client.out


@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_what_a_guest_says_only_draws_on_the_terminal_of_who_looks(step: int) -> None:
    """Else it could have its own words typed by that terminal, or put into its clipboard."""
    expected = "one two \x1b[31mthr\u00e9e\x1b[0m\x1b[?1049l\x1b[0m"
    assert (await seen(drives=False, step=step)).decode() == expected


async def test_who_drives_has_the_terminal_that_the_session_has() -> None:
    assert await seen(drives=True, step=1000) == HOSTILE + RESTORED
