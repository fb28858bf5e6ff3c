"""A console that is served, for all tests of a file: its people, its resources, and what must hold when all is over."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.ssh_clients import PROGRAMS, Client
from tests.support.ssh_keys import Key
from tests.support.ssh_server import Console, processes_of

PROFILE = """
[network.lab]
backend = "fake"
[disk.data]
backend = "fake"
size = "1GiB"
[vm.guest]
backend = "fake"
kernel = "deb:linux-image-cloud-amd64"
disks = ["data"]
networks = ["lab"]
[container.web]
backend = "fake"
image = "docker://web"
networks = ["lab"]
fake = { log = ["one", "two"] }
[sandbox.hello]
backend = "fake"
module = "/hello.wat"
"""

missing = [name for name in ("ssh", "dbclient", "plink", "puttygen", "dropbearconvert") if shutil.which(name) is None]


@pytest.fixture(autouse=True)
def _clients() -> None:
    if missing:
        pytest.skip(f"not in PATH: {', '.join(missing)}")


@dataclass
class House:
    """A console with three people: anna is an admin, olaf an operator, vera a viewer."""

    console: Console
    anna: Key
    olaf: Key
    vera: Key


Open = Callable[..., House]


@pytest.fixture(scope="module")
def open_house() -> Iterator[Open]:
    """Makes one; `roles` and `settings` are text of serve.toml. At its end its records and processes are looked at."""
    made: list[House] = []

    def make(*, roles: str = "", settings: str = "", profile: str = PROFILE) -> House:
        console = Console(Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp")), roles=roles, settings=settings)
        people = [console.person(name, role) for name, role in PEOPLE.items()]
        made.append(House(console, *people))
        console.up(profile)
        console.start()
        return made[-1]

    yield make
    try:
        for house in made:
            with house.console as console:
                assert "Traceback" not in console.said(), console.said()
                console.cli.ok("audit", "verify")
            assert processes_of(console.root) == []
    finally:
        for house in made:
            shutil.rmtree(house.console.root, ignore_errors=True)


PEOPLE = {"anna": "admin", "olaf": "operator", "vera": "viewer"}


@pytest.fixture
def unchanged(house: House) -> Iterator[None]:
    """The workspace is as it was before, and nothing lies where a command of a shell would have put it."""
    before = house.console.contents()
    yield
    house.console.alone()
    after = house.console.contents()
    assert {name: before.get(name) for name in after} == after
    assert before.keys() == after.keys()
    assert not (house.console.root / "mark").exists()


@pytest.fixture
def spare() -> Iterator[Console]:
    """A console with one admin that nobody has started."""
    root = Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp"))
    try:
        with Console(root) as console:
            console.person("anna", "admin")
            yield console
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def house(open_house: Open) -> House:
    return open_house()


@pytest.fixture(params=list(PROGRAMS))
def client(house: House, request: pytest.FixtureRequest) -> Client:
    """Each of the four clients in turn."""
    return house.console.client(request.param)


@pytest.fixture
def openssh(house: House) -> Client:
    return house.console.client("openssh")
