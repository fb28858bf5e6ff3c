"""What takes two: a verb that another person confirms, and a session that another one looks at or types in."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.ssh_clients.conftest import House, Open
from tests.support.ssh_clients import Client
from tests.support.ssh_keys import Key

ROLES = """
[role.careful]
about = "stops and deletes only together with another"
allow = [{ verbs = ["view", "logs", "stop", "start", "delete", "change", "create", "approve"] }]
approval = ["stop", "delete"]
"""
AGREED_S = 240.0  # for all that happens until the second person has answered


@pytest.fixture(scope="module")
def house(open_house: Open) -> House:
    return open_house(roles=ROLES)


@pytest.fixture(scope="module")
def carla(house: House) -> Key:
    key = house.console.person("carla", "careful")
    house.console.reload()
    return key


class Asked:
    """A verb that waits for a second person."""

    def __init__(self, openssh: Client, key: Key, *command: str) -> None:
        self._thread = threading.Thread(target=self._run, args=(openssh, key, *command), daemon=True)
        self._done: subprocess.CompletedProcess[bytes] | None = None
        self._thread.start()

    def _run(self, openssh: Client, key: Key, *command: str) -> None:
        self._done = openssh.run(key, *command, timeout=AGREED_S)

    def done(self) -> subprocess.CompletedProcess[bytes]:
        self._thread.join(AGREED_S)
        assert self._done is not None
        return self._done


def waiting(house: House, openssh: Client, key: Key) -> str:
    """The id of the one request that `key` sees."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        done = openssh.run(key, "approvals", "--json")
        found[:] = json.loads(done.stdout or b"[]")
        return len(found) == 1

    house.console.until(there, "a request")
    return str(found[0]["id"])


def state(house: House, openssh: Client, name: str) -> str:
    return openssh.run(house.vera, "ls", name).stdout.decode()


def test_a_second_person_agrees(house: House, openssh: Client, carla: Key) -> None:
    asked = Asked(openssh, carla, "stop", "web")
    request = waiting(house, openssh, house.anna)
    assert "running" in state(house, openssh, "web")
    own = openssh.run(carla, "approve", request)
    assert own.returncode not in (0, 1), own
    for nobody in (house.vera, house.olaf):
        assert openssh.run(nobody, "approve", request).returncode == 77
    assert "running" in state(house, openssh, "web")
    agreed = openssh.run(house.anna, "approve", request)
    assert agreed.returncode == 0, agreed.stderr
    done = asked.done()
    assert done.returncode == 0, done.stderr
    assert "stopped" in state(house, openssh, "web")
    assert openssh.run(house.olaf, "start", "web").returncode == 0


def test_a_second_person_refuses(house: House, openssh: Client, carla: Key) -> None:
    asked = Asked(openssh, carla, "stop", "web")
    refused = openssh.run(house.anna, "deny", waiting(house, openssh, house.anna))
    assert refused.returncode == 0, refused.stderr
    done = asked.done()
    assert done.returncode == 77, done
    assert "running" in state(house, openssh, "web")


def test_an_asker_that_leaves_has_withdrawn(house: House, openssh: Client, carla: Key) -> None:
    argv = openssh.argv(carla, "stop", "web", tty=False)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, env=openssh.environment, stderr=subprocess.DEVNULL) as process:
        request = waiting(house, openssh, house.anna)
        process.kill()
    house.console.alone()
    late = openssh.run(house.anna, "approve", request)
    assert late.returncode not in (0, 1), late
    assert "running" in state(house, openssh, "web")


def test_it_is_asked_for_in_the_panel_too(house: House, openssh: Client, carla: Key) -> None:
    with openssh.on_terminal(carla) as asking, openssh.on_terminal(house.anna) as agreeing:
        asking.sees("guest")
        agreeing.sees("guest")
        asking.send(b"/name:web\rG")
        asking.settle()
        asking.send(b"x")
        asking.sees("stop dev/container/web?")
        asking.send(b"y")
        asking.sees("second person")
        agreeing.sees("carla")  # for a few seconds only
        request = waiting(house, openssh, house.anna)
        assert openssh.run(house.anna, "approve", request).returncode == 0
        asking.sees("○ stopped")
        assert openssh.run(house.olaf, "start", "web").returncode == 0


@pytest.fixture
def session(house: House, openssh: Client) -> Iterator[None]:
    house.console.alone()
    yield
    house.console.alone()


def session_of(house: House, openssh: Client, person: str, *command: str) -> str:
    """The id of the one session in which they run this, the panel if nothing."""
    done = openssh.run(house.anna, "sessions", "--json")
    assert done.returncode == 0, done
    lines = map(json.loads, done.stdout.splitlines())
    (found,) = [line for line in lines if line["person"] == person and line["command"] == [*command]]
    return str(found["id"])


@pytest.mark.usefixtures("session")
def test_looking_at_a_session(house: House, openssh: Client) -> None:
    with openssh.on_terminal(house.olaf, rows=30, columns=100) as watched:
        watched.sees("guest")
        name = session_of(house, openssh, "olaf")
        with openssh.on_terminal(house.anna, "observe", name, rows=30, columns=100) as watching:
            watching.sees("guest")  # what was drawn before
            watched.sees("anna")
            watched.send(b"6")
            watching.sees("▸ Map")
            watched.sees("▸ Map")
            watching.send(b"1")
            watched.settle()
            assert "▸ Map" in watched.screen()
            watching.send(b"\x1d")
            assert watching.end() == 0
        watched.until(lambda _: "anna" not in watched.screen(), since=len(watched.raw))
        watched.send(b"q")
        assert watched.end() == 0


@pytest.mark.usefixtures("session")
def test_typing_in_a_session(house: House, openssh: Client) -> None:
    with openssh.on_terminal(house.olaf, "console", "guest") as watched:
        watched.sees(":/#")
        name = session_of(house, openssh, "olaf", "console", "guest")
        with openssh.on_terminal(house.anna, "drive", name) as driving:
            driving.sees(":/#")
            driving.send(b"echo from${x}anna\r")
            driving.sees("\nfromanna")
            watched.sees("\nfromanna")
            driving.send(b"\x1d")
            assert driving.end() == 0
        watched.send(b"\x1d")
        assert watched.end() == 0


def test_others_may_not_look(house: House, openssh: Client, carla: Key) -> None:
    with openssh.on_terminal(house.anna) as terminal:
        terminal.sees("guest")
        name = session_of(house, openssh, "anna")
        for nobody in (house.olaf, house.vera, carla):
            for verb in ("observe", "drive"):
                assert openssh.run(nobody, verb, name).returncode == 77
            assert openssh.run(nobody, "sessions").returncode == 77
        assert "olaf" not in terminal.screen()
    house.console.alone()


def test_it_is_all_in_the_records(house: House, openssh: Client) -> None:
    done = openssh.run(house.anna, "audit", "ls", "-n", "1000", "--json")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    seen = {(record["who"], record["verb"], record["result"]) for record in records}
    for expected in (("carla", "stop", "asked"), ("carla", "stop", "done"), ("olaf", "start", "done")):
        assert expected in seen, seen
    assert {record["key"] for record in records if record["who"] == "anna"} == {house.anna.fingerprint}
    verified = openssh.run(house.anna, "audit", "verify")
    assert verified.returncode == 0, verified
    assert openssh.run(house.vera, "audit", "ls").returncode == 77


def test_recordings_are_private_and_play(house: House, openssh: Client) -> None:
    with house.console.client("dropbear").on_terminal(house.olaf, "console", "guest") as terminal:
        terminal.sees("recorded")
        terminal.sees(":/#")
        terminal.send(b"echo seen${x}here\r")
        terminal.sees("\nseenhere")
        terminal.send(b"\x1d")
        assert terminal.end() == 0
    house.console.alone()
    files = sorted((house.console.paths.state / "recordings").iterdir())
    assert files
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o600"}
    (mine,) = [file for file in files if "seenhere" in file.read_text()]
    assert json.loads(mine.read_text().splitlines()[0])["version"] == 2
    with openssh.on_terminal(house.anna, "recordings", "play", "--speed", "100", mine.name) as playing:
        playing.sees("seenhere")
        assert playing.end() == 0
    assert openssh.run(house.vera, "recordings", "play", mine.name).returncode == 77
