"""A disk's life: made, resized, used by others, damaged, interrupted, removed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.support.crash import Tick, every_point, killed_at
from tests.support.disks import (
    MIB,
    content,
    disk,
    opened_by_qemu,
    opened_without_locks,
    path_of,
    qemu_img,
    served,
    tool,
)
from tests.support.hostview import HostView
from vmtui.backends.qcow2 import use
from vmtui.backends.qcow2.backend import Qcow2Backend
from vmtui.backends.records import Records
from vmtui.core.backend import Context, Desired, Progress, silent
from vmtui.core.errors import Conflict, NotFound, NotPermitted, OperationFailed, ResourceBusy
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Kind, Problem, Ref
from vmtui.core.specs import DiskSpec
from vmtui.core.units import Size

pytestmark = pytest.mark.real
GUEST, OTHER = Ref("dev", Kind.VM, "guest"), Ref("dev", Kind.VM, "other")


@pytest.fixture
def backend(context: Context) -> Qcow2Backend:
    return Qcow2Backend(context)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("sources")
    yield content(folder / "disk.raw")
    shutil.rmtree(folder)


async def broken(backend: Qcow2Backend, ref: Ref, code: str) -> Problem:
    """scan and inspect agree that it is broken, and why."""
    (seen,) = await backend.scan()
    assert (seen.ref, seen.phase, [problem.code for problem in seen.problems]) == (ref, Phase.BROKEN, [code])
    assert (await backend.inspect(ref)).problems == seen.problems
    assert seen.problems[0].hint
    return seen.problems[0]


async def purged(backend: Qcow2Backend, ref: Ref) -> None:
    await backend.delete(ref, purge=True)
    assert list(await backend.scan()) == []
    assert HostView.of(backend.context).empty


# Sizes


async def test_resizing_keeps_data_record_and_source(backend: Qcow2Backend, raw: Path) -> None:
    desired = disk(source=raw, source_format="raw")
    await backend.create(desired, silent)
    size = (await backend.inspect(desired.ref)).size_bytes
    assert size is not None
    grown = disk(source=raw, source_format="raw", size=2 * size)
    await backend.resize(grown, shrink=False, report=silent)
    assert (await backend.scan())[0].size_bytes == 2 * size
    qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, path_of(backend.context, desired.ref))
    record = json.loads((backend.context.resource_dir(desired.ref) / "record.json").read_text())
    assert record["desired"]["spec"]["size"] == str(Size(2 * size))
    elsewhere = disk(source="/elsewhere.raw", source_format="raw", size=3 * size)
    assert elsewhere.spec_hash != desired.spec_hash
    await backend.resize(elsewhere, shrink=False, report=silent)
    status = await backend.inspect(desired.ref)
    assert (status.size_bytes, status.spec_hash) == (3 * size, desired.spec_hash)
    smaller = disk(source=raw, source_format="raw", size=size // 2)
    with pytest.raises(NotPermitted) as caught:
        await backend.resize(smaller, shrink=False, report=silent)
    assert "shrink = true" in caught.value.hint
    assert (await backend.inspect(desired.ref)).size_bytes == 3 * size
    await backend.resize(smaller, shrink=True, report=silent)
    assert (await backend.inspect(desired.ref)).size_bytes == size // 2
    with pytest.raises(NotFound):
        await backend.resize(disk("none", size=MIB), shrink=False, report=silent)


@pytest.mark.parametrize("size", [1, 513, 100_000_000, MIB])
async def test_a_size_is_told_as_it_was_asked_for(backend: Qcow2Backend, size: int) -> None:
    desired = disk(size=size)
    await backend.create(desired, silent)
    assert (await backend.inspect(desired.ref)).size_bytes == size
    before = HostView.of(backend.context)
    await backend.resize(desired, shrink=False, report=silent)
    assert before.diff(HostView.of(backend.context)) == ""


# Others that use it


@pytest.mark.parametrize("user", ["qemu-io", "qemu-storage-daemon"])
async def test_an_image_in_use_is_never_written(backend: Qcow2Backend, tmp_path: Path, user: str) -> None:
    desired = disk(size=8 * MIB)
    await backend.create(desired, silent)
    path = path_of(backend.context, desired.ref)
    attachment = await backend.attach(desired.ref, GUEST)
    assert (attachment.path, attachment.format, attachment.serial) == (str(path), "qcow2", "data")
    with opened_by_qemu(path) if user == "qemu-io" else served(path, tmp_path) as pid:
        bytes_before = path.read_bytes()
        for refused in (
            backend.resize(disk(size=16 * MIB), shrink=False, report=silent),
            backend.delete(desired.ref, purge=True),
            backend.attach(desired.ref, OTHER),
            backend.export(desired.ref, tmp_path / "copy.raw", "raw", silent),
            backend.check_image(desired.ref),
        ):
            with pytest.raises(ResourceBusy) as caught:
                await refused
            assert f"(pid {pid})" in caught.value.message
            assert str(desired.ref) in caught.value.message or "disk.qcow2" in caught.value.message
        assert await backend.attach(desired.ref, GUEST) == attachment  # its own consumer, running already
        await backend.delete(desired.ref, purge=False)
        await backend.create(desired, silent)
        assert path.read_bytes() == bytes_before
        assert not (tmp_path / "copy.raw").exists()
        (seen,) = await backend.scan()
        assert (seen.phase, seen.fact("use")) == (Phase.AVAILABLE, "written")
        inspected = await backend.inspect(desired.ref)
        assert str(pid) in inspected.fact("used by")
        assert inspected.fact("attached to") == str(GUEST)
    assert (await backend.inspect(desired.ref)).fact("use") == "free"
    await backend.attach(desired.ref, OTHER)
    await purged(backend, desired.ref)


async def test_looking_does_not_get_in_the_way_of_a_guest(backend: Qcow2Backend) -> None:
    desired = disk(size=8 * MIB)
    await backend.create(desired, silent)
    stop = asyncio.Event()

    async def look() -> None:
        while not stop.is_set():
            await backend.scan()
            await backend.inspect(desired.ref)
            await asyncio.sleep(0)

    looking = asyncio.ensure_future(look())
    try:
        for _ in range(5):
            await asyncio.to_thread(_open_and_close, path_of(backend.context, desired.ref))
    finally:
        stop.set()
        await looking


def _open_and_close(path: Path) -> None:
    with opened_by_qemu(path):
        pass


async def test_readers_share_it_with_readers_alone(backend: Qcow2Backend, tmp_path: Path) -> None:
    desired = disk(size=8 * MIB)
    await backend.create(desired, silent)
    path = path_of(backend.context, desired.ref)
    with opened_by_qemu(path, writable=False):
        await backend.export(desired.ref, tmp_path / "copy.raw", "raw", silent)
        assert list(await backend.check_image(desired.ref)) == []
        assert (await backend.inspect(desired.ref)).fact("use") == "read"
        for refused in (
            backend.resize(disk(size=16 * MIB), shrink=False, report=silent),
            backend.delete(desired.ref, purge=True),
            backend.attach(desired.ref, GUEST),
        ):
            with pytest.raises(ResourceBusy):
                await refused


async def test_a_writer_without_locks_is_seen(backend: Qcow2Backend) -> None:
    desired = disk(size=8 * MIB)
    await backend.create(desired, silent)
    path = path_of(backend.context, desired.ref)
    with opened_without_locks(path) as pid:
        for refused in (
            backend.resize(disk(size=16 * MIB), shrink=False, report=silent),
            backend.delete(desired.ref, purge=True),
            backend.attach(desired.ref, GUEST),
        ):
            with pytest.raises(ResourceBusy, match=f"pid {pid}"):
                await refused


async def test_no_guest_opens_what_is_being_removed(backend: Qcow2Backend) -> None:
    desired = disk(size=8 * MIB)
    await backend.create(desired, silent)
    path = path_of(backend.context, desired.ref)
    with use.exclusive(path), pytest.raises(subprocess.CalledProcessError) as caught:
        qemu_img("info", "-f", "qcow2", path)
    assert "lock" in caught.value.stderr


async def test_a_source_that_a_guest_writes_is_not_imported(backend: Qcow2Backend) -> None:
    live = disk("live", size=8 * MIB)
    await backend.create(live, silent)
    path = path_of(backend.context, live.ref)
    with opened_by_qemu(path) as pid, pytest.raises(ResourceBusy, match=str(pid)):
        await backend.create(disk("copy", source=path, source_format="qcow2"), silent)
    assert [status.ref for status in await backend.scan()] == [live.ref]


async def test_serials_are_names_while_they_fit(backend: Qcow2Backend) -> None:
    serials = []
    for name in ("a", "b" * 20, "c" * 21, "c" * 22):
        await backend.create(disk(name, size=MIB), silent)
        serials.append((await backend.attach(disk(name).ref, GUEST)).serial)
    assert serials[:2] == ["a", "b" * 20]
    assert len(set(serials)) == 4
    assert all(len(serial) <= 20 for serial in serials)


# Damage


async def test_what_is_damaged_is_broken_and_never_overwritten(backend: Qcow2Backend) -> None:
    desired = disk(size=8 * MIB)
    await backend.create(desired, silent)
    path = path_of(backend.context, desired.ref)
    whole = path.read_bytes()
    for damaged, code in (
        (b"", "image-damaged"),
        (b"garbage" * 99, "image-damaged"),
        (whole[:1000], "image-damaged"),
        (whole[:8] + (400).to_bytes(8, "big") + whole[16:], "image-damaged"),  # somebody gave it a backing file
        (whole[:79] + b"\2" + whole[80:], "image-corrupt"),
    ):
        path.write_bytes(damaged)
        await broken(backend, desired.ref, code)
        for refused in (
            backend.create(desired, silent),
            backend.attach(desired.ref, GUEST),
            backend.resize(disk(size=16 * MIB), shrink=False, report=silent),
        ):
            with pytest.raises(OperationFailed):
                await refused
        assert [problem.code for problem in await backend.check_image(desired.ref)] == [code]
        await backend.delete(desired.ref, purge=False)
        assert path.read_bytes() == damaged
    path.unlink()
    path.symlink_to("/etc/passwd")
    await broken(backend, desired.ref, "image-unreadable")
    await purged(backend, desired.ref)
    assert Path("/etc/passwd").exists()


async def test_the_check_finds_what_a_header_does_not_show(backend: Qcow2Backend, raw: Path) -> None:
    desired = disk(source=raw, source_format="raw")
    await backend.create(desired, silent)
    path = path_of(backend.context, desired.ref)
    size = path.stat().st_size
    os.truncate(path, size - 3 * 65536)
    assert (await backend.inspect(desired.ref)).phase is Phase.AVAILABLE
    (problem,) = await backend.check_image(desired.ref)
    assert problem.code == "image-corrupt"
    assert problem.hint == f"qemu-img check -r all -f qcow2 {path}"
    with pytest.raises(NotFound):
        await backend.check_image(disk("none").ref)


async def test_leaked_clusters_are_told(backend: Qcow2Backend) -> None:
    desired = disk(size=8 * MIB)
    await backend.create(desired, silent)
    path = path_of(backend.context, desired.ref)
    tool("qemu-io", "-f", "qcow2", "-c", "write 0 1M", path)
    with path.open("r+b") as file:
        file.seek(40)
        file.seek(int.from_bytes(file.read(8), "big"))
        file.write(bytes(8))
    (problem,) = await backend.check_image(desired.ref)
    assert problem.code == "image-leaks"
    tool(*problem.hint.split())
    assert list(await backend.check_image(desired.ref)) == []


async def test_a_disk_whose_image_is_gone_is_mended_by_creating_it(backend: Qcow2Backend) -> None:
    desired = disk(size=8 * MIB)
    await backend.create(desired, silent)
    path_of(backend.context, desired.ref).unlink()
    await broken(backend, desired.ref, "image-missing")
    await backend.create(desired, silent)
    assert (await backend.inspect(desired.ref)).problems == ()
    path_of(backend.context, desired.ref).unlink()
    await backend.delete(desired.ref, purge=False)  # nothing is left to keep
    assert HostView.of(backend.context).empty


async def test_a_lost_record_does_not_lose_the_data(backend: Qcow2Backend) -> None:
    desired = disk(size=8 * MIB)
    await backend.create(desired, silent)
    record = backend.context.resource_dir(desired.ref) / "record.json"
    for damage in (b"", b"{}", b"null", b'{"mark": 3}', os.urandom(64)):
        record.write_bytes(damage)
        await broken(backend, desired.ref, "record-unreadable")
        with pytest.raises(OperationFailed, match="left as it is"):
            await backend.create(desired, silent)
        await backend.delete(desired.ref, purge=False)
        assert path_of(backend.context, desired.ref).exists()
    record.unlink()
    await broken(backend, desired.ref, "record-unreadable")
    await purged(backend, desired.ref)


async def test_what_is_not_ours_is_not_touched(backend: Qcow2Backend) -> None:
    desired = disk(size=8 * MIB)
    elsewhere = Records(backend.context, Kind.DISK, DiskSpec, "other")
    directory = elsewhere.begin(replace(desired, backend="other"))
    (directory / "disk.qcow2").write_bytes(b"theirs")
    before = HostView.of(backend.context)
    assert list(await backend.scan()) == []
    for refused in (backend.inspect(desired.ref), backend.attach(desired.ref, GUEST)):
        with pytest.raises(NotFound):
            await refused
    with pytest.raises(Conflict):
        await backend.create(desired, silent)
    assert [problem.code for problem in await backend.check(desired, ())] == ["conflict"]
    await backend.delete(desired.ref, purge=True)
    assert before.diff(HostView.of(backend.context)) == ""
    assert list(await Qcow2Backend(replace(backend.context, workspace="feed")).scan()) == []


async def test_another_source_does_not_replace_data(backend: Qcow2Backend, raw: Path) -> None:
    desired = disk(size=8 * MIB)
    await backend.create(desired, silent)
    with pytest.raises(NotPermitted) as caught:
        await backend.create(disk(source=raw, source_format="raw"), silent)
    assert "--recreate disk/data" in caught.value.hint
    assert (await backend.inspect(desired.ref)).spec_hash == desired.spec_hash


# Interruptions


async def _import(tick: Tick, context: Context, source: str) -> None:
    await Qcow2Backend(context).create(disk(source=source, source_format="raw"), tick)


async def test_killed_at_any_progress_of_an_import(backend: Qcow2Backend, raw: Path) -> None:
    desired = disk(source=raw, source_format="raw")
    points = 0
    for point in every_point(_import, backend.context, str(raw)):
        points += 1
        seen = await backend.scan()
        assert point == 1 or seen
        for status in seen:
            assert (status.ref, status.phase, status.problems[0].code) == (desired.ref, Phase.BROKEN, "half-made")
        await _no_tool_is_left(backend.context)
        if point % 2:
            await backend.create(desired, silent)
            qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, path_of(backend.context, desired.ref))
        await purged(backend, desired.ref)
    assert points >= 3


async def _no_tool_is_left(context: Context) -> None:
    """qemu-img ends with the front end that started it."""
    deadline = time.monotonic() + 60
    while True:
        words = str(context.paths.state)
        running = [line for line in HostView.take(words=[words]).sections["processes"] if "qemu-img" in line]
        if not running:
            return
        assert time.monotonic() < deadline, running
        await asyncio.sleep(0.02)


async def _begin(tick: Tick, context: Context) -> None:
    desired = disk(size=8 * MIB)
    records: Records[DiskSpec] = Records(context, Kind.DISK, DiskSpec, "qcow2")
    directory = context.resource_dir(desired.ref)
    directory.mkdir(parents=True)
    tick()
    (directory / ".record.json.x").write_bytes(b"half")
    tick()
    records.begin(desired)
    tick()
    (directory / "disk.qcow2.partial").write_bytes(b"half")
    tick()
    qemu_img("create", "-f", "qcow2", directory / "disk.qcow2", "8M")
    tick()
    await asyncio.sleep(0)


async def test_killed_between_any_two_files(backend: Qcow2Backend) -> None:
    desired = disk(size=8 * MIB)
    for point in range(1, 6):
        for purge in (False, True):
            assert killed_at(point, _begin, backend.context)
            await broken(backend, desired.ref, "record-unreadable" if point < 3 else "half-made")
            await backend.delete(desired.ref, purge=purge)
            assert HostView.of(backend.context).empty
        assert killed_at(point, _begin, backend.context)
        await backend.create(desired, silent)
        assert (await backend.inspect(desired.ref)).problems == ()
        assert sorted(os.listdir(backend.context.resource_dir(desired.ref))) == ["disk.qcow2", "record.json"]
        await purged(backend, desired.ref)


class Canceller:
    """A Report that cancels what reports to it, at its `point`-th call."""

    def __init__(self, point: int) -> None:
        self.left = point
        self.task: asyncio.Task[None] | None = None

    def __call__(self, progress: Progress) -> None:
        self.left -= 1
        if self.left == 0 and self.task is not None:
            self.task.cancel()


async def test_cancelled_at_any_progress_of_an_import(backend: Qcow2Backend, raw: Path) -> None:
    for point in range(1, 100):
        canceller = Canceller(point)
        canceller.task = asyncio.create_task(backend.create(disk(source=raw, source_format="raw"), canceller))
        try:
            await canceller.task
        except asyncio.CancelledError:
            assert HostView.of(backend.context).empty
            continue
        await purged(backend, disk().ref)
        if canceller.left > 0:
            assert point > 3
            return


@pytest.mark.parametrize("fraction", [0.0, 1.0])
async def test_a_report_that_fails_undoes_the_import(backend: Qcow2Backend, raw: Path, fraction: float) -> None:
    def fail(progress: Progress) -> None:
        if progress.fraction == fraction:
            raise RuntimeError("the front end is gone")

    with pytest.raises(RuntimeError):
        await backend.create(disk(source=raw, source_format="raw"), fail)
    assert HostView.of(backend.context).empty


# Many, and changes


async def test_a_hundred_disks_are_scanned_at_once(backend: Qcow2Backend) -> None:
    first = disk("n0", size=8 * MIB)
    await backend.create(first, silent)
    records: Records[DiskSpec] = Records(backend.context, Kind.DISK, DiskSpec, "qcow2")
    for number in range(1, 100):
        desired: Desired[DiskSpec] = disk(f"n{number}", size=8 * MIB)
        shutil.copy(path_of(backend.context, first.ref), records.begin(desired) / "disk.qcow2")
        records.finish(desired)

    found = list(await backend.scan())
    assert len(found) == 100
    assert all(status.phase is Phase.AVAILABLE for status in found)


def test_importing_the_backend_is_light() -> None:
    heavy = ("pyroute2", "qemu", "zstandard", "wasmtime", "textual", "sqlite3")
    code = f"import sys, vmtui.backends.qcow2.backend; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=180)
    assert done.stdout.strip() == "[]"


async def test_changes_from_elsewhere_are_told(backend: Qcow2Backend) -> None:
    heard: asyncio.Queue[Ref] = asyncio.Queue()

    async def listen() -> None:
        async for ref in backend.watch():
            heard.put_nowait(ref)

    async def expect(ref: Ref) -> None:
        async with asyncio.timeout(60):
            while await heard.get() != ref:
                pass
            while True:  # let what follows it pass
                try:
                    async with asyncio.timeout(0.2):
                        await heard.get()
                except TimeoutError:
                    return

    listener = asyncio.ensure_future(listen())
    await asyncio.sleep(0.1)
    other = Qcow2Backend(backend.context)
    try:
        for name in ("one", "two"):
            await other.create(disk(name, size=MIB), silent)
            await expect(disk(name).ref)
        image = path_of(backend.context, disk("one").ref)
        image.rename(image.with_name("moved"))
        await expect(disk("one").ref)
        await other.delete(disk("two").ref, purge=True)
        await expect(disk("two").ref)
        await other.delete(disk("one").ref, purge=True)  # the last one takes the directories with it
        await expect(disk("one").ref)
        await other.create(disk("three", size=MIB), silent)
        await expect(disk("three").ref)
    finally:
        listener.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listener
    open_files = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path)]
    assert not [name for name in open_files if "inotify" in name]


async def test_strange_names_in_the_directories_are_ignored(backend: Qcow2Backend) -> None:
    for name in ("UPPER", "a b", "-x", "x" * 41):
        (backend.context.paths.state / "resources/dev/disk" / name).mkdir(parents=True)
    assert list(await backend.scan()) == []


def test_a_child_that_is_just_starting_uses_no_image(tmp_path: Path) -> None:
    """Until its exec it holds all that its parent has open."""
    path = tmp_path / "image"
    path.write_bytes(b"image")
    seen, go_on = os.pipe()
    with use.exclusive(path):
        child = os.fork()
        if child == 0:
            os.close(go_on)
            os.read(seen, 1)
            os._exit(0)
        try:
            assert use.holders(path) == ()
        finally:
            os.close(go_on)
            os.waitpid(child, 0)
            os.close(seen)
    with pytest.raises(ResourceBusy), opened_without_locks(path):
        use.refuse_writers(path)
