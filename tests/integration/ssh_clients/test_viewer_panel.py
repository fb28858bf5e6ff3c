"""A viewer in the panel, over SSH: every key of every view, and every command, with whatever it asks agreed to."""

from __future__ import annotations

import string
from collections.abc import Iterator
from contextlib import suppress

import pytest

from bench.pty import Gone, Pty
from bench.ssh import tree
from tests.integration.ssh_clients.conftest import House, Open
from tests.support.ssh_clients import Client
from tests.support.ssh_keys import Key
from tests.support.ssh_server import Console
from vmtui.tui.commands import ALIASES, COMMANDS

ENTER = b"\r"
BACK = b"\x1b[27u" * 3 + b"1G"  # escape as the kitty keyboard protocol writes it: there it begins no other key
LEAVING = b"qQ\x03\x11"
VIEWS = b"234567"
CONTROLS = [bytes([code]) for code in range(1, 32) if code not in b"\x1b" + LEAVING]
TYPED = [bytes([code]) for code in string.printable[:95].encode() if code not in LEAVING]
FUNCTIONS = [b"\x1b[%d~" % code for code in range(1, 25)]
ALTS = [b"\x1b%c" % code for code in string.ascii_lowercase.encode()]
LETTERS = [*(key for key in TYPED if key.islower()), ENTER, b" ", b"\x04", b"\x13"]
ONE = '[container.web]\nbackend = "fake"\nimage = "docker://web"\n'
ARGUMENTS = ("", "web sh -c id")
ROWS, COLUMNS = 12, 80  # it draws much
LOOKS, LOOK_S = 2, 0.004  # so often, and each so much later, nobody on the way of a key must have anything to do
long = pytest.mark.timeout(900)  # hundreds of keys, each until nobody has anything to do


class Panel:
    """Somebody's panel; opened again when something has ended it. What it draws is looked at only to see it begin."""

    def __init__(self, console: Console, client: Client, key: Key) -> None:
        self._console, self._client, self._key = console, client, key
        self._terminal: Pty | None = None

    def press(self, keys: bytes) -> None:
        """Type them, and wait until all is done that follows."""
        if self._terminal is None or self._terminal.process.poll() is not None:
            self.close()
            argv = self._client.argv(self._key, tty=True)
            self._terminal = Pty(
                argv, rows=ROWS, columns=COLUMNS, environment=self._client.environment, folder=self._client.home
            )
            self._terminal.shows("web")
            keys = BACK + keys
        self._terminal.send(keys)
        with suppress(Gone):
            looks = 0
            while looks < LOOKS:
                looks = 0 if self._terminal.read(LOOK_S) or self._busy(self._terminal) else looks + 1

    def _busy(self, terminal: Pty) -> bool:
        """Whether a process between the keyboard and the panel runs, or waits for a processor."""
        return any(map(tree.runs, (terminal.process.pid, self._console.pid, *self._console.guests())))

    def agree_to(self, keys: bytes) -> None:
        """Type them, say yes to whatever asks, and leave what has opened."""
        self.press(keys)
        self.press(b"y" + ENTER + BACK)

    def close(self) -> None:
        if self._terminal is not None:
            self._terminal.__exit__(None, None, None)
            self._terminal = None


@pytest.fixture(scope="module")
def house(open_house: Open) -> House:
    """With one resource, on which the cursor is."""
    return open_house(profile=ONE)


@pytest.fixture
def panel(house: House, openssh: Client) -> Iterator[Panel]:
    made = Panel(house.console, openssh, house.vera)
    yield made
    made.close()


@long
@pytest.mark.usefixtures("unchanged")
def test_every_key_of_the_list(panel: Panel) -> None:
    for key in CONTROLS + TYPED + FUNCTIONS + ALTS:
        panel.agree_to(key)


@long
@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("view", [VIEWS[at : at + 1] for at in range(len(VIEWS))])
def test_every_letter_of_the_other_views(panel: Panel, view: bytes) -> None:
    for key in LETTERS:
        panel.agree_to(view + key)


@long
@pytest.mark.usefixtures("unchanged")
def test_every_command(panel: Panel) -> None:
    for name in (*COMMANDS, *ALIASES):
        for words in ARGUMENTS:
            panel.agree_to(b":" + f"{name} {words}".encode() + ENTER)


def test_the_same_keys_change_something_for_others(house: House, openssh: Client) -> None:
    others = Panel(house.console, openssh, house.olaf)
    try:
        for key, state in ((b"x", b"stopped"), (b"r", b"running")):
            others.agree_to(key)
            house.console.until(
                lambda state=state: state in openssh.run(house.vera, "ls", "web").stdout, f"it to be {state!r}"
            )
    finally:
        others.close()


def test_leaving(house: House, openssh: Client) -> None:
    for key in (b"q", b"\x11"):
        with openssh.on_terminal(house.vera) as terminal:
            terminal.sees("web")
            terminal.send(key)
            assert terminal.end() == 0
