"""One VM booted from an image by Debian's cloud kernel, and everything that is done to it while it runs."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import re
import secrets
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import claims, downloads
from tests.support.crash import Tick, killed_at
from tests.support.guests import busybox_image, drain, inside, small, vm, want
from tests.support.remains import remains_of
from vmtui.backends.qemu import qmp
from vmtui.backends.qemu.backend import QemuBackend
from vmtui.core.backend import Attachments, Context, DiskAttachment, ExecRequest, silent
from vmtui.core.errors import ResourceBusy
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Kind, Ref
from vmtui.core.units import Publish
from vmtui.guests import owner
from vmtui.guests import run as files
from vmtui.host.paths import Paths
from vmtui.host.process import run

pytestmark = pytest.mark.real

SCRIPT = """
trap 'exit 0' TERM
id; pwd; echo "GREETING=$GREETING HOME=$HOME"; grep SigIgn /proc/self/status
echo served > index.html
httpd -f -p 8080 &
echo guest is ready
while :; do wait; done
"""
APPLETS = ("cat", "grep", "httpd", "id", "kill", "ls", "mke2fs", "mount", "mkdir", "ps", "sh", "sha256sum", "sleep",
           "stty", "umount", "test", "dd", "true")  # fmt: skip
SECTORS = (64 << 20) // 512


@dataclass(frozen=True)
class Booted:
    context: Context
    ref: Ref
    disk: Path
    port: int


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    root = Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp"))
    paths = Paths(root / "s" / "vmtui", downloads.cache(tmp_path_factory), root / "r" / "vmtui")
    paths.make()
    guest = Booted(Context(paths=paths, workspace=secrets.token_hex(4)), vm(), root / "disk", claims.port())
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", guest.disk, "64M"], check=True)
    wishes = {
        "User": "web",
        "WorkingDir": "/srv",
        "Env": ["PATH=/bin", 'GREETING=it\'s "quoted"'],
        "Entrypoint": ["sh"],
        "Cmd": ["-c", SCRIPT],
    }
    spec = small(
        rootfs=busybox_image(root, APPLETS, wishes),
        disks=("data",),
        ports=(Publish(guest.port, 8080, "127.0.0.1"),),
    )
    disk = DiskAttachment(ref=Ref("test", Kind.DISK, "data"), path=str(guest.disk), format="qcow2", serial="vmtui-data")

    async def boot() -> None:
        backend = QemuBackend(guest.context)
        desired = want(guest.context, guest.ref, spec)
        assert list(await backend.check(desired, ())) == []
        await backend.create(desired, silent)
        await backend.start(guest.ref, Attachments(disks=(disk,)), silent)
        await log_of(backend, guest.ref, "guest is ready")  # a boot may take longer than a command waits for it
        await inside(backend, guest.ref, "true")

    async def end() -> None:
        await QemuBackend(guest.context).delete(guest.ref, purge=True)

    try:
        asyncio.run(boot())
        yield guest
    finally:
        asyncio.run(end())
        left = asyncio.run(remains_of(guest.context, [guest.ref]))
        shutil.rmtree(root)
        assert left == "", left


@pytest.fixture
async def backend(booted: Booted) -> AsyncIterator[QemuBackend]:
    made = QemuBackend(booted.context)  # not the one that started it
    yield made
    await made.aclose()


async def log_of(backend: QemuBackend, ref: Ref, wanted: str) -> list[str]:
    async with asyncio.timeout(120):
        while True:
            lines = [line.text async for line in backend.logs(ref, tail=None, follow=False)]
            if any(wanted in line for line in lines):
                return lines
            await asyncio.sleep(0.1)


async def test_the_image_is_run_as_it_wishes(backend: QemuBackend, booted: Booted) -> None:
    lines = await log_of(backend, booted.ref, "guest is ready")
    assert "uid=1234(web) gid=1235(web) groups=1235(web)" in lines
    assert "/srv" in lines
    assert 'GREETING=it\'s "quoted" HOME=/srv' in lines
    # busybox's shell ignores SIGQUIT itself; SIGINT would be ignored by whatever a shell starts in the background
    (ignored,) = [int(line.split()[1], 16) for line in lines if line.startswith("SigIgn")]
    assert ignored & 0b10 == 0


async def test_status_says_what_was_chosen(backend: QemuBackend, booted: Booted) -> None:
    deadline = time.monotonic() + 60
    while (status := await backend.inspect(booted.ref)).problems:  # a busy one does not always answer in time
        assert time.monotonic() < deadline, status.problems
        await asyncio.sleep(0.1)
    assert status.phase is Phase.RUNNING
    assert status.fact("accelerator") in ("kvm", "tcg")
    assert status.fact("why")
    assert status.fact("machine").split()[0] in ("microvm", "q35")
    assert "vmlinuz" in status.fact("kernel")
    assert re.fullmatch(r"\d+\.\d+\.\d+", status.fact("qemu"))
    (address,) = status.addresses
    assert (address.network, address.address, address.interface) == ("user", "10.0.2.15", "eth0")


async def test_it_runs_without_privileges(backend: QemuBackend, booted: Booted) -> None:
    pid = (await backend.inspect(booted.ref)).pid
    said = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    uid = owner.uid_of(booted.ref.token(booted.context.workspace))
    assert said["Uid"].split() == said["Gid"].split() == [str(uid)] * 4
    assert int(said["CapEff"], 16) == int(said["CapPrm"], 16) == 0
    assert (said["NoNewPrivs"], said["Seccomp"]) == ("1", "2")


async def test_the_disk_is_there_and_is_locked(backend: QemuBackend, booted: Booted) -> None:
    script = "cat /sys/block/vda/size /sys/block/vda/serial"
    code, said, _ = await inside(backend, booted.ref, script)
    assert (code, said.decode().split()) == (0, [str(SECTORS), "vmtui-data"])
    script = """
    mke2fs /dev/vda >/dev/null && mkdir -p /m && mount -t ext4 /dev/vda /m && echo kept > /m/f && umount /m &&
    mount /dev/vda /m && cat /m/f; umount /m
    """
    assert await inside(backend, booted.ref, script) == (0, b"kept\n", b"")
    other = await run(["qemu-img", "info", booted.disk], check=False)
    assert other.code != 0
    assert b"lock" in other.stderr
    sample = await backend.stats(booted.ref)
    assert sample.block_write_bytes is not None
    assert sample.block_write_bytes > 0


async def test_a_published_port_is_reached(backend: QemuBackend, booted: Booted) -> None:
    await log_of(backend, booted.ref, "guest is ready")

    def fetch() -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{booted.port}/", timeout=60) as answer:
            content: bytes = answer.read()
            return content

    assert await asyncio.to_thread(fetch) == b"served\n"


async def test_a_port_of_a_running_vm_is_not_its_own_conflict(backend: QemuBackend, booted: Booted) -> None:
    record = backend._records.read(booted.ref)
    assert record is not None
    assert list(await backend.check(record.desired, ())) == []


async def test_exec_is_clean_for_bytes_both_ways(backend: QemuBackend, booted: Booted) -> None:
    data = random.Random(1).randbytes(1 << 20)
    session = await backend.exec(booted.ref, ExecRequest(argv=("sh", "-c", "cat; echo done >&2; exit 9"), user="0"))

    async def feed() -> None:
        for at in range(0, len(data), 1 << 16):
            await session.write(data[at : at + (1 << 16)])
        await session.close_stdin()

    feeding = asyncio.create_task(feed())
    code, out, err = await drain(session)
    await feeding
    assert (code, hashlib.sha256(out).digest(), err) == (9, hashlib.sha256(data).digest(), b"done\n")


async def test_exec_takes_on_the_images_user_and_environment(backend: QemuBackend, booted: Booted) -> None:
    request = ExecRequest(argv=("sh", "-c", 'id -u; pwd; echo "$GREETING $MORE"'), environment=(("MORE", "a\nb'$x"),))
    session = await backend.exec(booted.ref, request)
    assert (await drain(session))[1] == b"1234\n/srv\nit's \"quoted\" a\nb'$x\n"
    request = ExecRequest(argv=("sh", "-c", "id -u; id -g; pwd; echo $HOME"), user="77:88", working_dir="/etc")
    assert (await drain(await backend.exec(booted.ref, request)))[1] == b"77\n88\n/etc\n/\n"
    for wrong in (ExecRequest(argv=("true",), user="nobody-here"), ExecRequest(argv=("true",), working_dir="/nowhere")):
        code, _, err = await drain(await backend.exec(booted.ref, wrong))
        assert code == 126
        assert err.startswith(b"vmtui: ")


async def test_sessions_run_side_by_side_until_all_slots_are_taken(backend: QemuBackend, booted: Booted) -> None:
    request = ExecRequest(argv=("sleep", "600"))
    sleepers = await asyncio.gather(*(backend.exec(booted.ref, request) for _ in range(6)))
    try:
        with pytest.raises(ResourceBusy):
            await backend.exec(booted.ref, ExecRequest(argv=("true",)))
    finally:
        await asyncio.gather(*(sleeper.aclose() for sleeper in sleepers))
    answers = await asyncio.gather(*(inside(backend, booted.ref, f"echo {number}") for number in range(5)))
    assert [out for _, out, _ in answers] == [b"%d\n" % number for number in range(5)]
    assert (await inside(backend, booted.ref, "while ps | grep -q '[s]leep 600'; do sleep 0.1; done"))[0] == 0


async def test_a_terminal_has_a_size_and_control_keys(backend: QemuBackend, booted: Booted) -> None:
    request = ExecRequest(argv=("sh",), user="0", tty=True, rows=33, columns=101)
    session = await backend.exec(booted.ref, request)
    seen = b""

    async def until(wanted: bytes) -> None:
        nonlocal seen
        async with asyncio.timeout(90):
            while wanted not in seen:
                item = await session.read()
                assert item is not None, seen
                seen += item[1]

    try:
        await session.write(b"stty size\r")
        await until(b"33 101")
        await session.resize(50, 255)
        await session.write(b"stty size\r")
        await until(b"50 254")  # a low byte of 255 cannot be sent
        await session.write(b"echo pa''used; sleep 600; echo went''on\r")
        await until(b"paused")
        await asyncio.sleep(0.5)
        await session.write(b"\x03")
        await session.write(b"echo inter''rupted\r")
        await until(b"interrupted")
        assert b"wenton" not in seen
        await session.write(b"printf '\\377\\376\\n'; exit 5\r")
        await until(b"\xff\xfe")
        assert await session.wait() == 5
    finally:
        await session.aclose()


async def _sleep_inside(tick: Tick, context: Context, ref: Ref) -> None:
    await QemuBackend(context).exec(ref, ExecRequest(argv=("sleep", "4242"), user="0"))
    await asyncio.sleep(0.5)
    tick()


async def test_a_command_ends_with_its_front_end(backend: QemuBackend, booted: Booted) -> None:
    assert await asyncio.to_thread(killed_at, 1, _sleep_inside, booted.context, booted.ref)
    assert (await inside(backend, booted.ref, "while ps | grep -q '[s]leep 4242'; do sleep 0.1; done"))[0] == 0


async def test_the_console_has_one_user(backend: QemuBackend, booted: Booted) -> None:
    first = await backend.console(booted.ref)
    try:
        with pytest.raises(ResourceBusy):
            await QemuBackend(booted.context).console(booted.ref)
    finally:
        await first.aclose()
    await (await backend.console(booted.ref)).aclose()


async def test_inspect_asks_qemu_itself_whether_it_is_paused(backend: QemuBackend, booted: Booted) -> None:
    socket = files.socket_path(str(booted.context.runtime_dir(booted.ref)), "qmp")
    await qmp.execute(socket, "stop")
    try:
        assert (await backend.inspect(booted.ref)).phase is Phase.PAUSED
    finally:
        await qmp.execute(socket, "cont")
    assert (await backend.inspect(booted.ref)).phase is Phase.RUNNING


async def test_what_runs_holds_no_file_of_the_start(booted: Booted) -> None:
    folder = booted.context.resource_dir(booted.ref)
    assert not (folder / "initrd").exists()
    assert not (folder / "kernel").exists()
    assert os.stat(booted.context.runtime_dir(booted.ref)).st_mode & 0o777 == 0o700
