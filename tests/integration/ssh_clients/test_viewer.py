"""A viewer's key changes nothing, by whichever way it comes in: afterwards all is as it was, each byte and each row.

Each test tries everything of one way in; `unchanged` compares. What the panel offers is tried in test_viewer_panel.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import asyncssh
import pytest

from tests.integration.ssh_clients.conftest import House
from tests.support.ssh_clients import HOST, LOGIN, Client
from tests.support.ssh_tries import INJECTED, LOOKING, PROFILE, TRIES, VARIABLES, WITHOUT_A_VERB
from vmtui.headless.commands import VERBS

CHANGES, USAGE, LACKS, CANNOT, DENIED = 2, 64, 69, 71, 77
TIMEOUT_S = 90.0
pytestmark = pytest.mark.usefixtures("unchanged")


@asynccontextmanager
async def connected(house: House) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """A connection of the viewer's, to be used for many sessions one after the other."""
    async with asyncssh.connect(
        HOST, house.console.port, username=LOGIN, client_keys=[str(house.vera.path)], known_hosts=None, config=None,
        agent_path=None,
    ) as connection:  # fmt: skip
        yield connection


async def run(
    connection: asyncssh.SSHClientConnection, command: str, env: Mapping[str, str] | None = None
) -> tuple[int | None, bytes, str]:
    """With a profile on stdin, as far as it is read: exit code, stdout and stderr."""
    process = await connection.create_process(command, encoding=None, env=dict(env or {}))
    with suppress(OSError):
        process.stdin.write(PROFILE)
        process.stdin.write_eof()
    done = await process.wait(timeout=TIMEOUT_S)
    out, said = (data if isinstance(data, bytes) else b"" for data in (done.stdout, done.stderr))
    return done.returncode, out, said.decode("utf-8", "replace")


def test_every_verb_is_tried() -> None:
    assert set(TRIES) == set(VERBS)


@pytest.mark.parametrize("verb", list(TRIES))
async def test_verbs(house: House, verb: str) -> None:
    async with connected(house) as connection:
        for words in TRIES[verb]:
            code, out, said = await run(connection, words)
            assert "Traceback" not in said, said
            if verb in LOOKING and "/" not in words:
                assert code in (0, CHANGES, CANNOT, LACKS), (words, said)
            else:
                assert code in (USAGE, DENIED), (words, code, said)
                assert "error: " in said or b'"diagnostic"' in out, (words, out, said)


async def test_commands_that_are_none(house: House) -> None:
    mark = str(house.console.root / "mark")
    async with connected(house) as connection:
        for words in (*WITHOUT_A_VERB, *(text.format(mark=mark) for text in INJECTED)):
            code, _, said = await run(connection, words)
            assert code is not None, words
            assert "Traceback" not in said, (words, said)


async def test_ten_thousand_words(house: House) -> None:
    async with connected(house) as connection:
        for words in (" ".join(["stop", *["web"] * 10_000]), " ".join(["ls", *["x"] * 10_000]), "x" * 200_000):
            code, _, said = await run(connection, words)
            assert code not in (None, 1), said[:1000]


async def test_variables_of_the_environment(house: House) -> None:
    async with connected(house) as connection:
        for command in ("ls", "stop web", "apply"):
            code, _, said = await run(connection, command, env=VARIABLES)
            assert code == (0 if command == "ls" else DENIED), (command, said)
        for name, value in VARIABLES.items():
            code, out, said = await run(connection, "ls --plain", env={name: value})
            assert (code, b"dev/container/web" in out) == (0, True), (name, said)


async def test_subsystems(house: House) -> None:
    async with connected(house) as connection:
        for name in ("sftp", "netconf", "vmtui", "shell", "../sftp", "ls", "stop web", "/bin/sh"):
            try:
                _, session = await connection.create_session(asyncssh.SSHClientSession, subsystem=name)
            except asyncssh.Error:
                continue
            raise AssertionError(f"there is a subsystem {name!r}: {session}")


async def test_forwarding(house: House) -> None:
    port = house.console.port
    async with connected(house) as connection:
        for target in ("web", "container/web", "dev/container/web", HOST, "localhost", "::1", "10.0.0.1", "0x7f000001"):
            for number in (80, port):
                with pytest.raises(asyncssh.ChannelOpenError):
                    await connection.open_connection(target, number)
        for path in ("/run/docker.sock", str(house.console.paths.runtime / "x"), "\0abstract"):
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.open_unix_connection(path)
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("", 0, HOST, port)
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port(HOST, 0, HOST, port)
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_path(str(house.console.root / "mark"), str(house.console.root / "there"))


def test_what_openssh_offers_beside_a_session(house: House, openssh: Client) -> None:
    """An agent, X11, a tunnel, a jump: whether it is refused or ignored, nothing is there."""
    agent = house.console.root / "agent"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(agent))
        listening.listen()
        listening.settimeout(0)
        offers = (f"-oForwardAgent={agent}", "-X", "-Y", "-oTunnel=yes", "-R0:127.0.0.1:1", "-R0")
        for offer in offers:
            done = openssh.run(house.vera, "ls", "--plain", more=(offer,), environment={"DISPLAY": ":77"})
            assert b"dev/container/web" in done.stdout or done.returncode == 255, (offer, done)
        with pytest.raises(BlockingIOError):
            listening.accept()
    agent.unlink()
    done = openssh.run(house.vera, more=("-W", "web:80"))
    assert done.returncode == 255, done


def test_sftp_and_scp(house: House, openssh: Client) -> None:
    file = openssh.home / "file"
    file.write_text("x")
    place = f"{LOGIN}@{HOST}"
    port = ("-P", str(house.console.port))
    for argv in (
        [*openssh.openssh(house.vera, "scp"), *port, str(file), f"{place}:mark"],
        [*openssh.openssh(house.vera, "scp"), "-O", *port, str(file), f"{place}:{house.console.root}/mark"],
        [*openssh.openssh(house.vera, "scp"), "-O", *port, f"{place}:/etc/passwd", str(file)],
        [*openssh.openssh(house.vera, "sftp"), *port, "-b", "-", place],
    ):
        done = subprocess.run(
            argv, input=f"put {file} /mark\n".encode(), capture_output=True, env=openssh.environment,
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode != 0, done
    assert file.read_text() == "x"
