"""Where a forwarded port leads: to what a resource has, and never where its words say."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.acting import person, role
from tests.support.fakes import open_fakes, profile
from vmtui.core.errors import Denied, Fault, NotFound, NotPermitted
from vmtui.core.lifecycle import Phase
from vmtui.core.policy import BUILTIN, Allow, Role
from vmtui.core.resource import Address, Kind, Ref, Status
from vmtui.core.specs import ContainerSpec, NetworkSpec, Spec, VmSpec
from vmtui.core.units import Publish
from vmtui.engine.authority import Authority
from vmtui.host.paths import Paths
from vmtui.ssh import forward

WEB = Ref("dev", Kind.CONTAINER, "web")


@pytest.fixture
def here() -> Iterator[int]:
    """A port of this host that answers: what nobody may be led to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
async def _workspace(paths: Paths, here: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """What somebody would make who wants to come out at this host, or at a neighbour of it."""
    for name, value in paths.environment().items():
        monkeypatch.setenv(name, value)
    specs: dict[str, Spec] = {
        "network/loop": NetworkSpec(backend="fake", subnet="127.0.0.0/24", gateway="127.0.0.254"),
        "container/web": ContainerSpec(backend="fake", image="x", networks=("loop",)),
        "vm/guest": VmSpec(backend="fake", ports=(Publish(here, 80),)),
        "vm/web": VmSpec(backend="fake"),
    }
    opened = open_fakes(paths)
    for name in ("dev", "prod"):
        made = profile(name, specs if name == "dev" else {"container/secret": ContainerSpec(backend="fake", image="x")})
        outcome = await opened.apply(await opened.plan(made, check=False), emit=lambda _: None)
        assert outcome.result == "converged"
    yield
    await opened.aclose()


def who(given: Role) -> Authority:
    return Authority(person("olaf"), given)


async def refused(host: str, port: int, given: Role = BUILTIN["operator"]) -> Fault:
    with pytest.raises(Fault) as caught:
        await forward._connected(who(given), host, port)
    return caught.value


@pytest.mark.usefixtures("_workspace")
async def test_no_words_of_a_resource_lead_to_this_host(here: int) -> None:
    for host, port in (("guest", 80), ("guest.dev", 80), ("container/web", here), ("dev/container/web", here)):
        fault = await refused(host, port)
        assert isinstance(fault, NotPermitted), (host, fault)
        assert not isinstance(fault, Denied)


@pytest.mark.usefixtures("_workspace")
async def test_only_names_of_resources_are_known(here: int) -> None:
    for host in ("127.0.0.1", "localhost", "::1", "0", "0x7f000001", "guest.dev.", ".", "", "x" * 5000, "a/b/c/d", "*",
                 "guest.prod", "guest.container.dev", "dev.guest", "../guest", "guest\0"):  # fmt: skip
        assert isinstance(await refused(host, here), NotFound), host


@pytest.mark.usefixtures("_workspace")
async def test_a_name_that_can_mean_two_is_told() -> None:
    for host in ("web", "web.dev"):
        assert "web" in str(await refused(host, 80))
        assert "can mean" in str(await refused(host, 80))


@pytest.mark.usefixtures("_workspace")
async def test_who_may_not_see_it_or_not_connect() -> None:
    looks = role(Allow(verbs=("view",)))
    assert isinstance(await refused("guest", 80, looks), Denied)
    assert isinstance(await refused("guest", 80, BUILTIN["viewer"]), Denied)
    dev = role(Allow(verbs=("view", "connect"), names=("dev/*",)))
    for host in ("secret", "secret.prod", "prod/container/secret"):
        fault = await refused(host, 80, dev)
        assert isinstance(fault, NotFound)
        assert "prod/container/secret" not in str(fault) or host == "prod/container/secret"


def status(**words: object) -> Status:
    return Status(ref=WEB, backend="tap", phase=Phase.RUNNING, **words)  # type: ignore[arg-type]


def test_the_way_is_that_of_the_interface_that_is_there() -> None:
    address = Address(network="lab", address="10.88.9.2", interface="lo")
    assert forward._way(status(addresses=(address,)), "10.88.9.2", 80) is None
    none = Address(network="lab", address="10.88.9.2", interface="../../../../etc")
    assert forward._way(status(addresses=(none,)), "10.88.9.2", 80) is None
    assert forward._way(status(addresses=(Address(network="lab", address="10.88.9.2"),)), "10.88.9.2", 80) is None


def test_a_published_port_is_the_one_that_its_own_process_listens_at(here: int) -> None:
    assert forward._way(status(pid=os.getpid()), "127.0.0.1", here) == ""
    assert forward._way(status(pid=os.getppid()), "127.0.0.1", here) is None
    assert forward._way(status(), "127.0.0.1", here) is None


@pytest.mark.parametrize(
    ("pattern", "host", "port", "fits"),
    [
        ("web:80", "web", 80, True),
        ("web:*", "web", 8080, True),
        ("web:80", "web", 81, False),
        ("web:80", "web2", 80, False),
    ],
)
def test_permitopen_names_what_is_asked_for(pattern: str, host: str, port: int, fits: bool) -> None:
    assert forward._opens(pattern, host, port) is fits
