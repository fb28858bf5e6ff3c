"""A viewer in the panel, over SSH: every key of every view, and every command, with whatever it asks agreed to."""

from __future__ import annotations

import string
from collections.abc import Iterator

import pytest

from bench.pty import Gone
from tests.integration.ssh_clients.conftest import House
from tests.support.ssh_clients import Client
from tests.support.terminal import Watched
from vmtui.tui.commands import ALIASES, COMMANDS

pytestmark = pytest.mark.usefixtures("unchanged")

ESCAPE, ENTER = b"\x1b[27u", b"\r"  # the first as the kitty keyboard protocol writes it: it begins no other key
LEAVING = b"qQ\x03\x11"
VIEWS = b"1234567"
TYPED = [bytes([code]) for code in (*range(1, 32), *string.printable[:95].encode()) if code not in b"\x1b" + LEAVING]
OTHERS = [
    *(b"\x1b[%d~" % code for code in range(1, 25)),
    *(b"\x1bO%c" % code for code in b"PQRSABCDHF"),
    *(b"\x1b[1;%d%c" % (modifier, code) for modifier in (2, 3, 5) for code in b"ABCDHF"),
    *(b"\x1b%c" % code for code in string.ascii_letters.encode()),
]
ARGUMENTS = ("", "web", "dev/container/web", "--all", "vm", "/tmp/x.toml", "web sh -c id")
QUIET_S, FOR_S = 0.02, 2.0


class Panel:
    """The viewer's panel; opened again when something has ended it."""

    def __init__(self, house: House, client: Client) -> None:
        self._house, self._client = house, client
        self.terminal: Watched | None = None

    def press(self, keys: bytes) -> None:
        if self.terminal is None or self.terminal.process.poll() is not None:
            self.close()
            self.terminal = self._client.on_terminal(self._house.vera)
            self.terminal.sees("guest")
        self.terminal.send(keys)
        try:
            self.terminal.settle(QUIET_S, FOR_S)
        except Gone:
            self.close()

    def close(self) -> None:
        if self.terminal is not None:
            self.terminal.__exit__(None, None, None)
            self.terminal = None


@pytest.fixture
def panel(house: House, openssh: Client) -> Iterator[Panel]:
    made = Panel(house, openssh)
    yield made
    made.close()


@pytest.mark.parametrize("view", [VIEWS[at : at + 1] for at in range(len(VIEWS))])
def test_every_key(panel: Panel, view: bytes) -> None:
    """With a resource chosen that runs."""
    for key in TYPED + (OTHERS if view == b"1" else []):
        panel.press(b"1/name:web" + ENTER + b"G" + view + key + b"y" + ENTER)
        panel.press(ESCAPE * 3)


def test_every_command(panel: Panel) -> None:
    for name in (*COMMANDS, *ALIASES):
        for words in ARGUMENTS:
            panel.press(b"1:" + f"{name} {words}".encode() + ENTER + b"y" + ENTER)
            panel.press(ESCAPE * 3)


def test_leaving(house: House, openssh: Client) -> None:
    for key in (b"q", b"\x11"):
        with openssh.on_terminal(house.vera) as terminal:
            terminal.sees("guest")
            terminal.send(key)
            assert terminal.end() == 0
