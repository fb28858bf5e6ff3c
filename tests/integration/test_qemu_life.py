"""How VMs start and end: refusals, panics, kills at every moment, disks that boot, TAPs that come and go."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.contract.suite import until
from tests.support import claims, downloads
from tests.support.crash import Tick, killed_at
from tests.support.downloads import KERNEL
from tests.support.guests import inside, small, vm, want
from tests.support.hostview import HostView
from tests.support.remains import remains, remains_of
from vmtui.backends.qemu import qmp
from vmtui.backends.qemu.backend import QemuBackend
from vmtui.backends.qemu.options import QemuOptions
from vmtui.core.backend import Attachments, Context, DiskAttachment, ExecRequest, silent
from vmtui.core.errors import Conflict, InvalidInput, NotPermitted, OperationFailed
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Kind, Port, Ref, Status
from vmtui.core.specs import NetworkMode, VmSpec
from vmtui.core.units import Publish, Size
from vmtui.guests import run as files
from vmtui.host.paths import Paths
from vmtui.host.process import run

pytestmark = pytest.mark.real

REF = vm("life")
WAIT_S = 120.0


class Told(Context, frozen=True, kw_only=True):
    """A context whose workloads' parents leave a file when they tell of an end."""

    def reap_argv(self, ref: Ref) -> list[str]:
        return ["touch", str(self.paths.state / "told")]


@pytest.fixture
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    root = Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp"))
    paths = Paths(root / "s" / "vmtui", downloads.cache(tmp_path_factory), root / "r" / "vmtui")
    paths.make()
    context = Told(paths=paths, workspace=secrets.token_hex(4))
    try:
        yield context
    finally:
        asyncio.run(QemuBackend(context).delete(REF, purge=True))

        def look() -> HostView:
            (paths.state / "told").unlink(missing_ok=True)  # it may be told just now
            return HostView.of(context, [REF])

        left = asyncio.run(remains(look))
        shutil.rmtree(root)
        assert left == "", left


@pytest.fixture
async def backend(lab: Context) -> AsyncIterator[QemuBackend]:
    made = QemuBackend(lab)
    yield made
    await made.aclose()


async def ended(backend: QemuBackend) -> Status:
    async def over() -> bool:
        return (await backend.inspect(REF)).phase is not Phase.RUNNING

    await until("it has ended", over, WAIT_S)
    return await backend.inspect(REF)


async def booted(backend: QemuBackend) -> None:
    """Wait until its init is up: a boot may take longer than a command waits for it."""

    async def up() -> bool:
        return files.booted(backend.context.resource_dir(REF) / files.RUN)

    await until("it has booted", up, WAIT_S)


async def boot(backend: QemuBackend, spec: VmSpec, options: QemuOptions | None = None, **plugged: object) -> None:
    await backend.create(want(backend.context, REF, spec, options), silent)
    await backend.start(REF, Attachments(**plugged), silent)  # type: ignore[arg-type]


IDLE = small(rootfs="deb:busybox-static", command=("sleep", "600"), network_mode=NetworkMode.NONE)


async def test_its_parent_tells_how_it_ended(backend: QemuBackend, lab: Context) -> None:
    await boot(backend, small(rootfs="deb:busybox-static", command=("sh", "-c", "exit 42"), cmdline="loglevel=5"))
    status = await ended(backend)
    assert status.phase is Phase.EXITED
    assert status.exit is not None
    assert (status.exit.code, status.exit.reason) == (42, "command exited with 42")
    told = lab.paths.state / "told"

    async def is_told() -> bool:
        return told.exists()

    await until("its parent tells", is_told, WAIT_S)


async def test_a_panic_is_a_failure_with_its_text(backend: QemuBackend) -> None:
    await boot(backend, small(rootfs="deb:busybox-static", cmdline="rdinit=/nowhere"))
    status = await ended(backend)
    assert status.exit is not None
    assert status.exit.code == 1
    assert status.exit.reason.startswith("kernel panic: VFS: Unable to mount root fs")


async def test_power_off_from_inside(backend: QemuBackend) -> None:
    await boot(backend, IDLE)
    await booted(backend)
    with contextlib.suppress(OperationFailed):  # it may be off before it can tell how the command ended
        assert (await inside(backend, REF, "poweroff"))[0] == 0
    status = await ended(backend)
    assert status.exit is not None
    assert status.exit.code == 143
    assert status.phase is Phase.EXITED


async def test_qemu_is_killed(backend: QemuBackend) -> None:
    await boot(backend, IDLE)
    pid = (await backend.inspect(REF)).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    status = await ended(backend)
    assert status.phase is Phase.EXITED
    assert status.exit is not None
    assert (status.exit.code, status.exit.reason) == (137, "qemu was killed by signal 9")


async def test_its_parent_is_killed(backend: QemuBackend, lab: Context) -> None:
    await boot(backend, IDLE)
    run_folder = lab.resource_dir(REF) / files.RUN
    parent = files.identity(run_folder / files.PARENT)
    assert parent is not None
    parent.signal(signal.SIGKILL)
    assert await parent.wait(60)
    (status,) = await backend.scan()
    assert status.phase is Phase.RUNNING
    assert [problem.code for problem in status.problems] == ["unwatched"]
    await booted(backend)
    assert (await inside(backend, REF, "echo still here"))[1] == b"still here\n"
    assert status.pid is not None
    os.kill(status.pid, signal.SIGKILL)
    status = await ended(backend)
    assert status.phase is Phase.EXITED
    assert status.exit is not None
    assert status.exit.reason == "qemu ended unseen: its parent process was killed"


async def _start_and_die(tick: Tick, context: Context, delay_s: float) -> None:
    asyncio.get_running_loop().call_later(delay_s, tick)
    backend = QemuBackend(context)
    await backend.start(REF, Attachments(), tick_nothing)
    await asyncio.sleep(delay_s)


def tick_nothing(_: object) -> None:
    return


async def test_the_front_end_is_killed_while_it_starts(backend: QemuBackend, lab: Context) -> None:
    desired = want(lab, REF, IDLE)
    for step in range(14):
        await backend.create(desired, silent)
        assert await asyncio.to_thread(killed_at, 1, _start_and_die, lab, step * 0.025)
        (status,) = await backend.scan()
        assert status.phase in (Phase.STOPPED, Phase.RUNNING)
        if step % 2:  # mended by a start, or removed as it is
            await backend.start(REF, Attachments(), silent)
            assert (await backend.inspect(REF)).phase is Phase.RUNNING
        await backend.delete(REF, purge=True)
        left = await remains_of(lab, [REF])
        assert left == "", f"killed after {step * 0.025:.2f} s:\n{left}"


async def test_a_port_in_use_is_a_conflict_before_anything_starts(backend: QemuBackend, lab: Context) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = (Publish(taken.getsockname()[1], 80, "127.0.0.1"),)
        desired = want(lab, REF, small(rootfs="deb:busybox-static", ports=ports))
        (problem,) = await backend.check(desired, ())
        assert problem.code == "conflict"
        await backend.create(desired, silent)
        before = HostView.of(lab, [REF])
        with pytest.raises(Conflict, match=str(ports[0].host_port)):
            await backend.start(REF, Attachments(), silent)
        assert await remains(lambda: before.diff(HostView.of(lab, [REF]))) == ""


async def test_what_qemu_refuses_is_said_and_undone(backend: QemuBackend, lab: Context) -> None:
    await backend.create(want(lab, REF, IDLE, QemuOptions(cpu="no-such-cpu")), silent)
    before = HostView.of(lab, [REF])
    with pytest.raises(OperationFailed) as caught:
        await backend.start(REF, Attachments(), silent)
    assert "no-such-cpu" in caught.value.details
    assert (await backend.inspect(REF)).phase is Phase.STOPPED

    def look() -> str:
        lines = before.diff(HostView.of(lab, [REF])).splitlines()
        return "\n".join(line for line in lines if "serial.log" not in line)

    assert await remains(look) == ""


async def test_an_image_that_does_not_fit_into_memory(backend: QemuBackend, lab: Context, tmp_path: Path) -> None:
    from tests.support.oci import make_layout

    reference = make_layout(tmp_path / "image", layers=[{"big": bytes(48 << 20)}])
    with pytest.raises(InvalidInput, match="too small") as caught:
        await backend.create(want(lab, REF, small(rootfs=reference)), silent)
    assert caught.value.hint == 'set memory = "192MiB"'
    assert list(await backend.scan()) == []


def boot_sector(text: bytes) -> bytes:
    """For each letter: mov dx, 0x3f8; mov al, letter; out dx, al. Then cli; hlt."""
    code = b"".join(b"\xba\xf8\x03\xb0" + bytes([letter]) + b"\xee" for letter in text)
    return (code + b"\xfa\xf4").ljust(510, b"\0") + b"\x55\xaa"


async def test_a_disk_boots(backend: QemuBackend, lab: Context, tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(boot_sector(b"hello from the disk\r\n").ljust(1 << 20, b"\0"))
    disk = DiskAttachment(ref=Ref("test", Kind.DISK, "boot"), path=str(image), format="raw", serial="boot")
    spec = VmSpec(disks=("boot",), network_mode=NetworkMode.NONE, memory=Size(64 << 20))
    await boot(backend, spec, disks=(disk,))

    async def said() -> bool:
        return [line.text async for line in backend.logs(REF, tail=None, follow=False)] == ["hello from the disk"]

    await until("the disk speaks", said, WAIT_S)
    status = await backend.inspect(REF)
    assert status.fact("machine").startswith("q35")
    with pytest.raises(NotPermitted, match="not booted from an image"):
        await backend.exec(REF, ExecRequest(argv=("true",)))
    await backend.stop(REF, grace_s=0.5)  # nobody there hears the power button
    assert (await backend.inspect(REF)).phase is Phase.STOPPED


async def test_a_microvm_is_had_for_the_asking(backend: QemuBackend) -> None:
    await boot(backend, IDLE, QemuOptions(machine="microvm", accel="tcg"))
    status = await backend.inspect(REF)
    assert (status.phase, status.fact("machine"), status.fact("why")) == (
        Phase.RUNNING,
        "microvm (asked for)",
        "asked for",
    )
    socket_path = files.socket_path(str(backend.context.runtime_dir(REF)), "qmp")
    devices = await qmp.execute(socket_path, "query-pci")
    assert devices == []


async def test_a_kernel_of_our_own_with_an_initrd(backend: QemuBackend, lab: Context, tmp_path: Path) -> None:
    """What `kernel` and `initrd` are as paths: the init of the initrd is the user's."""
    from vmtui.guests import cpio, kernel

    found = await kernel.resolve(KERNEL, lab.paths.cache, silent)
    script = b"#!/busybox sh\n/busybox echo own init\n/busybox poweroff -f\n"
    entries = [
        cpio.file("busybox", Path("/bin/busybox").read_bytes(), mode=0o755),
        cpio.file("init", script, mode=0o755),
    ]
    (tmp_path / "initrd").write_bytes(cpio.archive([cpio.directory("dev"), *entries]))
    await boot(backend, VmSpec(kernel=str(found.image), initrd=str(tmp_path / "initrd"), memory=Size(128 << 20)))
    status = await ended(backend)
    assert status.exit is not None
    assert (status.exit.code, status.exit.reason) == (0, "the guest powered off")
    assert "own init" in [line.text async for line in backend.logs(REF, tail=None, follow=False)]


@pytest.fixture
async def bridge() -> AsyncIterator[tuple[str, str, Port]]:
    """A bridge with a DHCP server and a TAP; its subnet's prefix, and the port."""
    mark = secrets.token_hex(3)
    name, tap, subnet = f"vtb{mark}", f"vtt{mark}", claims.subnet()
    mac = "52:54:00:" + ":".join(mark[at : at + 2] for at in (0, 2, 4))
    port = Port(
        network=Ref("test", Kind.NETWORK, "lab"), consumer=REF, index=0, medium="tap", interface=tap, mac=mac,
        address=f"{subnet}.9", gateway=f"{subnet}.1",
    )  # fmt: skip
    server = None
    with tempfile.TemporaryDirectory(prefix="vt-", dir="/tmp") as folder:
        try:
            # An address of its own: else the bridge's is that of its lowest port, and changes with the TAP.
            await run(["ip", "link", "add", name, "address", "52:54:00:00:00:01", "type", "bridge"])
            await run(["ip", "addr", "add", f"{subnet}.1/24", "dev", name])
            await run(["ip", "link", "set", name, "up"])
            await plug(name, tap)
            server = subprocess.Popen(  # noqa: ASYNC220
                ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--bind-interfaces", f"--interface={name}",
                 "--except-interface=lo", "--port=0", f"--dhcp-leasefile={folder}/leases", f"--pid-file={folder}/pid",
                 f"--dhcp-range={subnet}.9,{subnet}.9", f"--dhcp-host={mac},{subnet}.9"],
                stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            yield name, subnet, port
        finally:
            if server is not None:
                server.terminate()
                server.wait()
            for link in (tap, name):
                with suppress(Exception):
                    await run(["ip", "link", "del", link])


async def plug(bridge: str, tap: str) -> None:
    await run(["ip", "tuntap", "add", tap, "mode", "tap"])
    await run(["ip", "link", "set", tap, "master", bridge, "up"])


async def test_a_tap_gives_an_address_and_comes_back(backend: QemuBackend, bridge: tuple[str, str, Port]) -> None:
    name, subnet, port = bridge
    spec = small(rootfs="deb:busybox-static", command=("sleep", "600"), networks=("lab",))
    await boot(backend, spec, ports=(port,))

    async def has_lease() -> bool:
        status = await backend.inspect(REF)
        return [(a.network, a.address, a.interface) for a in status.addresses] == [("lab", f"{subnet}.9", "eth0")]

    await until("it has a lease", has_lease, WAIT_S)
    assert (await backend.inspect(REF)).addresses[0].mac == port.mac

    async def reaches() -> bool:
        return (await inside(backend, REF, f"ping -c 1 -W 5 {subnet}.1 >/dev/null"))[0] == 0

    await until("it reaches the bridge", reaches, WAIT_S)
    sample = await backend.stats(REF)
    assert sample.net_rx_bytes
    assert sample.net_tx_bytes
    pid = (await backend.inspect(REF)).pid

    await run(["ip", "link", "del", port.interface])
    await plug(name, port.interface)
    assert (await inside(backend, REF, f"ping -c 1 -W 1 {subnet}.1 >/dev/null"))[0] != 0
    await backend.reconnect(REF, (port,))
    await until("it reaches the bridge again", reaches, WAIT_S)
    bulk = "cat /dev/zero | head -c 2000000 | nc -l -p 5000 & sleep 0.3; echo listening"
    assert (await inside(backend, REF, f"(({bulk}) >/dev/null 2>&1 &)"))[0] == 0

    def receive() -> int:
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                stream = socket.create_connection((f"{subnet}.9", 5000), 5)
                break
            except OSError:  # it does not listen yet
                assert time.monotonic() < deadline
                time.sleep(0.1)
        with stream:
            stream.settimeout(WAIT_S)
            return sum(len(chunk) for chunk in iter(lambda: stream.recv(1 << 16), b""))

    assert await asyncio.to_thread(receive) == 2000000
    await backend.reconnect(REF, (port,))  # again: nothing to do
    assert (await backend.inspect(REF)).pid == pid
    with pytest.raises(OperationFailed, match="has 1 TAPs, not 0"):
        await backend.reconnect(REF, ())
