"""The guest's half of exec sessions, as root without a VM: its scripts in a root of their own, streams for vsock."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.support.guests import BUSYBOX, drain
from vmtui.guests import agent, binaries
from vmtui.guests.agent import CHUNK, GuestSession
from vmtui.guests.initramfs import HOME, SCRIPTS, SOURCED, Command

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to change the root"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox: apt-get install busybox-static"),
]
PLACE = """if True:  # the descriptors in the first three arguments as 3, 4 and 5, then the rest as a command
    import fcntl, os, sys
    for number, fd in enumerate([fcntl.fcntl(int(word), fcntl.F_DUPFD, 20) for word in sys.argv[1:4]]):
        os.dup2(fd, 3 + number)
        os.close(fd)
    os.execvp(sys.argv[4], sys.argv[4:])
"""
APPLETS = ("cat", "echo", "sh", "sleep", "true", "wc")


class Streams:
    """An agent.Slot over socket pairs."""

    def __init__(self) -> None:
        self.readers: list[asyncio.StreamReader] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def add(self, connected: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=connected, limit=CHUNK)
        self.readers.append(reader)
        self.writers.append(writer)

    async def aclose(self) -> None:
        for writer in self.writers:
            writer.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("root")
    home = made / HOME
    for folder in ("run", "cgroup", "bin"):
        (home / folder).mkdir(parents=True)
    for folder in ("bin", "proc", "dev"):
        (made / folder).mkdir()
    os.mknod(made / "dev/null", 0o666 | 0o020000, os.makedev(1, 3))
    for place in (home / "busybox", made / "bin/busybox"):
        shutil.copy(BUSYBOX, place)
    for name in APPLETS:
        (made / "bin" / name).symlink_to("busybox")
    (home / "fresh").write_bytes(binaries.FRESH)
    (home / "fresh").chmod(0o755)
    for name in SOURCED:
        shutil.copy(SCRIPTS / name, home)
    subprocess.run(["chroot", made, f"/{HOME}/busybox", "--install", "-s", f"/{HOME}/bin"], check=True)
    return made


@asynccontextmanager
async def session(root: Path, *argv: str) -> AsyncIterator[GuestSession]:
    """A command as a VM's agent runs it; its process namespace ends with it."""
    pairs = [socket.socketpair() for _ in range(3)]
    given = [theirs.fileno() for _, theirs in pairs]
    alone = ["unshare", "-mpf", "--kill-child", f"--mount-proc={root}/proc", "chroot", str(root)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PLACE, *map(str, given), *alone, f"/{HOME}/busybox", "sh", f"/{HOME}/exec"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=given,
    )
    streams = Streams()
    for ours, theirs in pairs:
        theirs.close()
        await streams.add(ours)

    async def ready() -> Streams:
        await agent.heard_ready(streams.readers[1])
        return streams

    try:
        made = await agent.open_session(ready, Command(argv=argv), tty=False, rows=1, columns=1)
        try:
            yield made
        finally:
            await made.aclose()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_a_command_ends_though_nobody_ends_its_input(root: Path) -> None:
    async with asyncio.timeout(20), session(root, "sh", "-c", "echo out; echo err >&2; exit 3") as made:
        assert await drain(made) == (3, b"out\n", b"err\n")


async def test_what_goes_in_comes_out(root: Path) -> None:
    data = os.urandom(1 << 20)
    async with asyncio.timeout(60), session(root, "cat") as made:

        async def feed() -> None:
            await made.write(data)
            await made.close_stdin()

        feeding = asyncio.create_task(feed())
        assert await drain(made) == (0, data, b"")
        await feeding


async def test_input_arrives_before_more_of_it(root: Path) -> None:
    async with asyncio.timeout(20), session(root, "sh", "-c", "read a; echo $a; read b; echo $b") as made:
        for word in (b"one\n", b"two\n"):
            await made.write(word)
            assert await made.read() == ("stdout", word)
        assert await made.wait() == 0


async def test_a_session_waits_for_what_the_command_left_behind(root: Path) -> None:
    async with asyncio.timeout(20), session(root, "sh", "-c", "(sleep 0.3; echo late) & exit 4") as made:
        assert await drain(made) == (4, b"late\n", b"")


async def test_a_program_that_is_not_there(root: Path) -> None:
    async with asyncio.timeout(20), session(root, "none") as made:
        assert await drain(made) == (127, b"", b"vmtui: none: command not found\n")
