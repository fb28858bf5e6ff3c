"""Commands in a VM on the bundled VMM, and what its init reports, both over vsock: Debian's kernel, our init."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.support.kernels import kernel
from tests.lab.support.vmm import CMDLINE, END_S, Caller, Vmm, vmm
from tests.support.guests import BUSYBOX, drain
from vmtui.core.errors import OperationFailed
from vmtui.guests import cpio, initramfs, vsock_agent
from vmtui.guests.agent import GuestSession
from vmtui.guests.initramfs import Command

APPLETS = ("cat", "echo", "false", "head", "id", "ls", "sha256sum", "sh", "sleep", "stty", "touch", "wc")
MAIN = "while [ ! -e /run/over ]; do sleep 0.1; done; exit 7"
PORT = 5000


@pytest.fixture(scope="module")
def started() -> Iterator[tuple[Vmm, Caller]]:
    """And who is told that it has booted: that is said once."""
    folder = Path(tempfile.mkdtemp(prefix="vmm-", dir="/tmp"))
    image = [cpio.directory("bin"), cpio.file("bin/busybox", BUSYBOX.read_bytes(), mode=0o755)]
    image += [cpio.link(f"bin/{name}", "busybox") for name in APPLETS]
    base, initrd = folder / "image", folder / "initrd"
    base.write_bytes(cpio.archive(image))
    found = kernel()
    command = Command(argv=("sh", "-c", MAIN))
    initramfs.write(initrd, base, BUSYBOX, found.modules, "guest", command, dhcp=False)
    try:
        with vmm(folder / "vm", found, initrd, vsock_cid=3, cpus=2, cmdline=f"{CMDLINE} rdinit=/.vmtui/init") as vm:
            caller = vm.connect()
            caller.socket.settimeout(END_S)
            yield vm, caller
            print(vm.trouble())  # shown where a test failed
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def booted(started: tuple[Vmm, Caller]) -> Vmm:
    vm, _ = started
    vm.await_text(vm.run / "status", "\n")  # a boot may take longer than a command waits for it
    return vm


async def session(vm: Vmm, *argv: str, tty: bool = False) -> GuestSession:
    return await vsock_agent.open_session(vm.sockets, Command(argv=argv), tty=tty, rows=31, columns=97)


async def test_the_guest_reports_that_it_has_booted(started: tuple[Vmm, Caller], booted: Vmm) -> None:
    _, caller = started
    assert caller.await_event("ready") == {"event": "ready"}
    assert re.match(r"booted \d+\.\d\d\n", booted.await_text(booted.run / "status", "\n"))
    caller.close()


async def test_a_command_runs_and_its_code_comes_back(booted: Vmm) -> None:
    made = await session(booted, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert await drain(made) == (3, b"out\n", b"err\n")


async def test_what_goes_in_comes_out(booted: Vmm) -> None:
    data = os.urandom(1 << 20)
    made = await session(booted, "cat")

    async def feed() -> None:
        for at in range(0, len(data), 1 << 16):
            await made.write(data[at : at + (1 << 16)])
        await made.close_stdin()

    feeding = asyncio.create_task(feed())
    code, out, _ = await drain(made)
    await feeding
    assert (code, len(out)) == (0, len(data))
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


async def test_a_terminal_has_its_size(booted: Vmm) -> None:
    made = await session(booted, "sh", "-c", "stty size; read line; stty size; echo got $line", tty=True)
    seen = b""
    while b"31 97" not in seen:
        item = await made.read()
        assert item is not None, seen
        seen += item[1]
    await made.resize(40, 120)
    await asyncio.sleep(0.3)
    await made.write(b"word\r")
    code, out, _ = await drain(made)
    assert code == 0
    assert b"40 120" in out
    assert b"got word" in out


async def test_many_at_once(booted: Vmm) -> None:
    async def one(number: int) -> tuple[int, bytes, bytes]:
        return await drain(await session(booted, "sh", "-c", f"echo {number}; exit {number}"))

    assert await asyncio.gather(*map(one, range(12))) == [(n, b"%d\n" % n, b"") for n in range(12)]


async def test_who_hangs_up_ends_what_runs(booted: Vmm) -> None:
    made = await session(booted, "sh", "-c", "echo begun; sleep 1000")
    assert await made.read() == ("stdout", b"begun\n")
    await made.aclose()
    for _ in range(50):
        _, out, _ = await drain(await session(booted, "sh", "-c", "cat /proc/[0-9]*/cmdline"))
        if b"sleep\x001000" not in out:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it still runs")


async def test_a_port_that_nobody_listens_on(booted: Vmm) -> None:
    with pytest.raises(ConnectionRefusedError):
        await vsock_agent.dial(booted.sockets, PORT)


async def test_the_guest_connects_to_a_socket_of_the_host(booted: Vmm) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(booted.sockets / f"vsock.sock_{PORT}"))
        listener.listen()
        listener.settimeout(30)

        def answer() -> None:
            connected, _ = listener.accept()
            with connected, connected.makefile("rb") as lines:
                connected.sendall(b"heard " + lines.readline())

        thread = threading.Thread(target=answer)
        thread.start()
        script = f"exec /.vmtui/vsock connect {PORT} 9 /bin/sh -c 'echo hello >&9; cat <&9'"
        assert await drain(await session(booted, "sh", "-c", script)) == (0, b"heard hello\n", b"")
        thread.join()


async def test_only_root_reports_to_the_host(booted: Vmm) -> None:
    """And nobody else can pretend that the command has ended."""
    script = "exec /.vmtui/vsock connect 1024 9 /bin/sh -c 'echo exit 0 >&9'"
    made = await vsock_agent.open_session(
        booted.sockets, Command(argv=("sh", "-c", script), user="1000"), tty=False, rows=1, columns=1
    )
    code, _, _ = await drain(made)
    assert code != 0
    assert "exit" not in (booted.run / "status").read_text()


async def test_z_the_end_is_reported(booted: Vmm) -> None:
    """Last: it ends the VM that all share."""
    assert (await drain(await session(booted, "touch", "/run/over")))[0] == 0
    ended = booted.ending()
    assert (ended["code"], ended["reason"]) == (0, "the guest powered off")
    assert (booted.run / "status").read_text().splitlines()[-1] == "exit 7"
    with pytest.raises(OperationFailed, match="gone"):
        await session(booted, "true")
