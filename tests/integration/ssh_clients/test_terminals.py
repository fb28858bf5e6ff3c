"""What terminals are and send: their names, bytes that are no text, keys of job control, and more than one can type."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bench.ssh import tree
from bench.ssh.visitor import Visitor
from tests.integration.ssh_clients.conftest import House
from tests.support.ssh_clients import Client

PASTE_BYTES = 10_000_000
MOST_GROWTH = 16 << 20  # of the server, whatever a session is sent
ESCAPE = b"\x1b[27u"  # as the kitty keyboard protocol writes it: no key behind it makes it another
JUNK = (
    bytes(range(0x80, 0x100)),
    b"\xc3\x28\xa0\xa1\xe2\x28\xa1\xf0\x28\x8c\xbc\xfe\xff\xed\xa0\x80",
    b"\x1b[M\xff\xff\xff\x1b[<999999999;-1;4M\x1b]52;c;AAAA\x07\x1bP+x\x1b\\",
    random.Random(1).randbytes(2_000).translate(None, bytes(range(32)) + b"qQ:"),  # of these one could be asked to end
)


@pytest.mark.parametrize("term", ["xterm", "xterm-256color", "screen", "linux", "vt100"])
def test_a_screen_gets_the_panel(house: House, openssh: Client, term: str) -> None:
    with openssh.on_terminal(house.vera, environment={"TERM": term, "COLORTERM": ""}) as terminal:
        terminal.sees("Resources")
        terminal.sees("guest")
        terminal.send(b"q")
        assert terminal.end() == 0


@pytest.mark.parametrize("term", ["dumb", "", "unknown", "../../etc/passwd", "x" * 500, "xterm\x1b]0;a\x07"])
def test_what_is_no_screen_gets_the_list(house: House, openssh: Client, term: str) -> None:
    with openssh.on_terminal(house.vera, environment={"TERM": term}) as terminal:
        terminal.sees("dev/container/web")
        assert terminal.end() == 0
    assert b"\x1b[?1049h" not in terminal.raw


def test_a_size_that_is_none(house: House, openssh: Client) -> None:
    for rows, columns in ((0, 0), (1, 1), (5, 2000)):
        with openssh.on_terminal(house.vera, rows=rows, columns=columns) as terminal:
            terminal.until(lambda raw: b"\x1b[?1049h" in raw)
            terminal.resize(24, 80)
            terminal.sees("▸ Resources")
            terminal.send(b"q")
            assert terminal.end() == 0


def test_bytes_that_are_no_text(house: House, openssh: Client) -> None:
    with openssh.on_terminal(house.vera) as terminal:
        terminal.sees("guest")
        for junk in JUNK:
            for begin in range(0, len(junk), 1000):
                terminal.send(junk[begin : begin + 1000])
                terminal.settle(0.05, 5.0)
        terminal.send(b"\x1b\\")
        for _ in range(100):  # whatever it has opened, it can be left
            terminal.send(ESCAPE + b"6")
            terminal.settle(0.5)
            if "▸ Map" in terminal.screen():
                break
        else:
            pytest.fail(f"it cannot be used any more; the screen is\n{terminal.screen()}")
        terminal.send(b"q")
        assert terminal.end() == 0


def test_job_control_does_not_stop_the_panel(house: House, openssh: Client) -> None:
    with openssh.on_terminal(house.olaf) as terminal:
        terminal.sees("guest")
        terminal.send(b"\x1a")
        terminal.send(b"2")
        terminal.sees("▸ Logs")
        states = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in house.console.guests()]
        assert states
        assert "T" not in states
        terminal.send(b"\x1c1")  # Ctrl+\
        terminal.sees("▸ Resources")
        terminal.send(b"q")
        assert terminal.end() == 0


async def test_a_paste_of_ten_megabytes(house: House) -> None:
    """Only what a person could have typed is waited for: the session takes its time, the server keeps nothing."""
    pid = house.console.pid
    async with Visitor(house.console.door, house.vera) as pasting, Visitor(house.console.door, house.olaf) as other:
        await pasting.shows("guest")
        await other.shows("guest")
        before = tree.rss_bytes(pid)
        pasting.send(b"\x1b[200~" + b"0123456789 " * (PASTE_BYTES // 11) + b"\x1b[201~")
        since = len(other.raw)
        other.send(b"6")
        await other.shows("Map", since=since)
        grown = tree.rss_bytes(pid) - before
        assert grown < MOST_GROWTH, f"{grown >> 20} MiB"
        await pasting.drained()
        since = len(pasting.raw)
        pasting.send(b"6")
        await pasting.shows("Map", since=since)
        grown = tree.rss_bytes(pid) - before
        assert grown < MOST_GROWTH, f"{grown >> 20} MiB"
    house.console.alone()
