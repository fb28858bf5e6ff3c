"""Images that come in and go out: every format, and hostile ones."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.disks import MIB, content, disk, made, opened_without_locks, path_of, qemu_img, small_file_system
from tests.support.hostview import HostView
from vmtui.backends.qcow2.backend import Qcow2Backend
from vmtui.backends.qcow2.formats import FORMATS
from vmtui.core.backend import Context, Progress, silent
from vmtui.core.errors import Conflict, InvalidInput, MissingCapability, NotPermitted, OperationFailed, ResourceBusy
from vmtui.core.lifecycle import Phase
from vmtui.core.units import Size
from vmtui.host import process

pytestmark = pytest.mark.real
SIZE = 24 * MIB


@pytest.fixture
def backend(context: Context) -> Qcow2Backend:
    return Qcow2Backend(context)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("images")
    yield content(folder / "disk.raw", SIZE)
    shutil.rmtree(folder)


async def refused(backend: Qcow2Backend, source: Path, image_format: str, word: str) -> InvalidInput:
    """`create` and `check` both refuse it, with the path in the message, and nothing is left."""
    desired = disk("bad", source=source, source_format=image_format)
    with pytest.raises(InvalidInput) as caught:
        await backend.create(desired, silent)
    fault = caught.value
    assert str(source) in fault.message
    assert "/proc/self/fd" not in fault.message + fault.details
    assert word in fault.message + fault.details
    assert list(await backend.scan()) == []
    assert not list(backend.context.paths.state.iterdir())
    return fault


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("raw", ()),
        ("qcow2", ()),
        ("qcow2", ("compat=0.10",)),
        ("qcow2", ("compression_type=zstd", "cluster_size=4096")),
        ("qcow2", ("extended_l2=on",)),
        ("vmdk", ()),
        ("vmdk", ("subformat=streamOptimized",)),
        ("vdi", ()),
        ("vdi", ("static=on",)),
        ("vhdx", ()),
        ("vhdx", ("subformat=fixed",)),
        ("vpc", ("force_size=on",)),
        ("vpc", ("subformat=fixed", "force_size=on")),
    ],
)
async def test_an_import_has_the_content_of_its_source(
    backend: Qcow2Backend, raw: Path, image_format: str, options: tuple[str, ...]
) -> None:
    source = raw if image_format == "raw" else made(raw, image_format, *options)
    desired = disk(source=source, source_format=image_format)
    assert list(await backend.check(desired, ())) == []
    heard: list[Progress] = []
    await backend.create(desired, heard.append)
    path = path_of(backend.context, desired.ref)
    qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, path)
    assert heard[-1].fraction == 1.0
    fractions = [progress.fraction for progress in heard if progress.fraction is not None]
    assert fractions == sorted(fractions)
    status = await backend.inspect(desired.ref)
    assert (status.phase, status.size_bytes, status.problems) == (Phase.AVAILABLE, SIZE, ())
    assert status.spec_hash == desired.spec_hash
    assert list(await backend.check_image(desired.ref)) == []
    assert path.stat().st_mode & 0o777 == 0o600
    if source != raw:
        source.unlink()
        await backend.create(desired, silent)  # the source is needed once


@pytest.mark.parametrize("image_format", FORMATS)
async def test_an_export_has_the_content_of_the_disk(
    backend: Qcow2Backend, raw: Path, tmp_path: Path, image_format: str
) -> None:
    desired = disk(source=raw, source_format="raw")
    await backend.create(desired, silent)
    target, heard = tmp_path / f"copy.{image_format}", list[Progress]()
    await backend.export(desired.ref, target, image_format, heard.append)
    qemu_img("compare", "-f", "raw", "-F", image_format, raw, target)
    assert heard[-1].fraction == 1.0
    assert os.listdir(tmp_path) == [target.name]
    assert not (image_format == "vmdk" and b".vmtui" in target.read_bytes()[:65536])
    with pytest.raises(Conflict, match="exists"):
        await backend.export(desired.ref, target, image_format, silent)
    again = disk("again", source=target, source_format=image_format)
    await backend.create(again, silent)
    qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, path_of(backend.context, again.ref))


async def test_exports_that_cannot_be(backend: Qcow2Backend, tmp_path: Path) -> None:
    desired = disk(size=MIB)
    await backend.create(desired, silent)
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(Conflict):
        await backend.export(desired.ref, tmp_path / "dangling", "raw", silent)
    with pytest.raises(InvalidInput, match="'iso'"):
        await backend.export(desired.ref, tmp_path / "x", "iso", silent)
    with pytest.raises(InvalidInput, match="no such directory"):
        await backend.export(desired.ref, tmp_path / "none" / "x", "raw", silent)
    assert os.listdir(tmp_path) == ["dangling"]


async def test_an_export_that_is_cancelled_or_was_killed_leaves_nothing(
    backend: Qcow2Backend, raw: Path, tmp_path: Path
) -> None:
    desired = disk(source=raw, source_format="raw")
    await backend.create(desired, silent)

    def stop(progress: Progress) -> None:
        task.cancel()

    task = asyncio.ensure_future(backend.export(desired.ref, tmp_path / "x.vmdk", "vmdk", stop))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert os.listdir(tmp_path) == []
    leftover = tmp_path / f".vmtui-{desired.ref.token(backend.context.workspace, str(tmp_path / 'x.vmdk'))}"
    leftover.mkdir()
    (leftover / "x.vmdk").write_bytes(b"half")
    await backend.export(desired.ref, tmp_path / "x.vmdk", "vmdk", silent)
    assert os.listdir(tmp_path) == ["x.vmdk"]


async def test_an_export_without_space(backend: Qcow2Backend, raw: Path, tmp_path: Path) -> None:
    desired = disk(source=raw, source_format="raw")
    await backend.create(desired, silent)
    with small_file_system(tmp_path / "small", MIB) as small:
        with pytest.raises(OperationFailed, match="no space left"):
            await backend.export(desired.ref, small / "x.raw", "raw", silent)
        assert os.listdir(small) == []


async def test_source_and_size(backend: Qcow2Backend, raw: Path) -> None:
    larger = disk("larger", source=raw, source_format="raw", size=2 * SIZE)
    await backend.create(larger, silent)
    assert (await backend.inspect(larger.ref)).size_bytes == 2 * SIZE
    qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, path_of(backend.context, larger.ref))
    smaller = disk("smaller", source=raw, source_format="raw", size=SIZE // 2)
    with pytest.raises(NotPermitted) as caught:
        await backend.create(smaller, silent)
    assert "shrink = true" in caught.value.hint
    (problem,) = await backend.check(smaller, ())
    assert "shrink = true" in problem.hint
    told = disk("told", source=raw, source_format="raw", size=SIZE // 2, shrink=True)
    await backend.create(told, silent)
    assert (await backend.inspect(told.ref)).size_bytes == SIZE // 2
    assert {status.ref for status in await backend.scan()} == {larger.ref, told.ref}


async def test_hostile_qcow2(backend: Qcow2Backend, raw: Path, tmp_path: Path) -> None:
    backed = tmp_path / "backed.qcow2"
    qemu_img("create", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", backed, "1M")
    fault = await refused(backend, backed, "qcow2", "backing file")
    assert fault.hint.startswith("qemu-img convert -f qcow2")
    outside = tmp_path / "outside.qcow2"
    secret = tmp_path / "secret.raw"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={secret},data_file_raw=on", outside, "1M")
    secret.write_bytes(b"secret".ljust(MIB, b"!"))
    await refused(backend, outside, "qcow2", "external data file")
    assert secret.read_bytes() == b"secret".ljust(MIB, b"!")
    encrypted = tmp_path / "luks.qcow2"
    make_encrypted(encrypted)
    await refused(backend, encrypted, "qcow2", "encrypted")


def make_encrypted(path: Path) -> None:
    """On a busy machine qemu-img may fail to measure how long a hash takes; a longer time is measured better."""
    secret = ("--object", "secret,id=k,data=secret")
    for iter_time_ms in (10, 100, 400, 1000):
        options = f"encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time={iter_time_ms}"
        try:
            qemu_img("create", "-f", "qcow2", *secret, "-o", options, path, "1M")
        except subprocess.CalledProcessError:
            path.unlink(missing_ok=True)
        else:
            return
    raise AssertionError("qemu-img makes no encrypted image")


async def test_hostile_images_of_other_formats(backend: Qcow2Backend, raw: Path, tmp_path: Path) -> None:
    for subformat in ("monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"):
        descriptor = tmp_path / f"{subformat}.vmdk"
        qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", raw, descriptor)
        await refused(backend, descriptor, "vmdk", "refers to other files")
    passwd = tmp_path / "passwd.vmdk"
    passwd.write_text(
        '# Disk DescriptorFile\nversion=1\nCID=1\ncreateType="monolithicFlat"\nRW 4 FLAT "/etc/passwd" 0\n'
    )
    await refused(backend, passwd, "vmdk", "refers to other files")
    parent = tmp_path / "parent.vmdk"
    shutil.copy(made(raw, "vmdk"), parent)
    with parent.open("r+b") as file:
        descriptor_text = file.read(65536)
        at = descriptor_text.index(b'createType="')
        file.seek(at)
        file.write(b'parentFileNameHint="/etc/passwd"\n')
    await refused(backend, parent, "vmdk", "parent")
    vhdx = tmp_path / "child.vhdx"
    shutil.copy(made(raw, "vhdx"), vhdx)
    with vhdx.open("r+b") as file:
        metadata = file.read(4 << 20).index(b"metadata")
        file.seek(metadata + 32 + 16)
        (offset,) = struct.unpack("<I", file.read(4))
        file.seek(metadata + offset + 4)
        file.write(struct.pack("<I", 2))
    await refused(backend, vhdx, "vhdx", "parent")


@pytest.mark.parametrize("image_format", [name for name in FORMATS if name not in ("raw", "vpc")])
async def test_cut_off_images(backend: Qcow2Backend, raw: Path, tmp_path: Path, image_format: str) -> None:
    whole = made(raw, image_format)
    for kept in (whole.stat().st_size - (1 << 20) - 600, whole.stat().st_size // 2, 70_000, 511, 100, 10, 0):
        cut = tmp_path / "cut"
        shutil.copy(whole, cut)
        os.truncate(cut, kept)
        await refused(backend, cut, image_format, "")


async def test_cut_off_vpc_images(backend: Qcow2Backend, raw: Path, tmp_path: Path) -> None:
    for options in ((), ("subformat=fixed",)):
        whole = made(raw, "vpc", *options)
        for kept in (whole.stat().st_size // 2, 511, 0):
            shutil.copy(whole, tmp_path / "cut")
            os.truncate(tmp_path / "cut", kept)
            await refused(backend, tmp_path / "cut", "vpc", "")


@pytest.mark.parametrize("image_format", [name for name in FORMATS if name != "raw"])
async def test_what_is_not_an_image(backend: Qcow2Backend, raw: Path, tmp_path: Path, image_format: str) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_bytes(os.urandom(1 << 20))
    await refused(backend, garbage, image_format, f"not a {image_format} image")
    whole = made(raw, image_format)
    for seed in range(6):  # tables of noise behind a good magic
        mangled = bytearray(whole.read_bytes())
        noise = content(tmp_path / "noise", MIB, seed=seed).read_bytes()
        start = 16 + seed * 4096
        mangled[start : start + 8192] = noise[:8192]
        garbage.write_bytes(mangled)
        with contextlib.suppress(InvalidInput, MissingCapability):
            await backend.create(disk("bad", source=garbage, source_format=image_format), silent)
        await backend.delete(disk("bad").ref, purge=True)
        assert not list(backend.context.paths.state.iterdir())


async def test_a_raw_disk_that_claims_to_be_qcow2_is_a_raw_disk(backend: Qcow2Backend, tmp_path: Path) -> None:
    claim = tmp_path / "claim.raw"
    qemu_img("create", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", claim, "1M")
    os.truncate(claim, MIB)
    desired = disk(source=claim, source_format="raw")
    await backend.create(desired, silent)
    assert (await backend.inspect(desired.ref)).size_bytes == MIB
    qemu_img("compare", "-f", "raw", "-F", "qcow2", claim, path_of(backend.context, desired.ref))
    copy = tmp_path / "copy.raw"
    await backend.export(desired.ref, copy, "raw", silent)
    assert copy.read_bytes() == claim.read_bytes()


async def test_a_bomb_does_not_go_off(backend: Qcow2Backend, tmp_path: Path) -> None:
    """A terabyte whose every cluster is the same compressed one: little to read, much to write."""
    bomb = tmp_path / "bomb.qcow2"
    source = tmp_path / "ones.raw"
    source.write_bytes(b"\1" * 65536)
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", source, bomb)
    with bomb.open("r+b") as file:
        head = file.read(104)
        (l1_offset,) = struct.unpack_from(">Q", head, 40)
        file.seek(l1_offset)
        (l2_entry,) = struct.unpack(">Q", file.read(8))
        file.seek(l2_entry & 0x00FFFFFFFFFFFE00)
        (cluster,) = struct.unpack(">Q", file.read(8))
        entries = 2048
        end = os.path.getsize(bomb) + 65536 & ~0xFFFF
        file.seek(end)
        file.write(struct.pack(">Q", cluster) * 8192)
        file.write(struct.pack(">Q", end) * entries)
        file.seek(24)
        file.write(struct.pack(">Q", entries << 29))
        file.seek(36)
        file.write(struct.pack(">IQ", entries, end + 65536))
    with pytest.raises((InvalidInput, MissingCapability)) as caught:
        await backend.create(disk(source=bomb, source_format="qcow2"), silent)
    assert str(bomb) in caught.value.message
    assert not list(backend.context.paths.state.iterdir())


async def test_a_source_that_is_still_written_is_not_imported(backend: Qcow2Backend, raw: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(raw)
    desired = disk(source=link, source_format="raw")
    with opened_without_locks(raw) as pid:
        with pytest.raises(ResourceBusy, match=f"pid {pid}"):
            await backend.create(desired, silent)
        assert len(await backend.check(desired, ())) == 1
        assert not list(backend.context.paths.state.iterdir())
    await backend.create(desired, silent)


async def test_a_raw_source_of_any_size(backend: Qcow2Backend, tmp_path: Path) -> None:
    for size in (1, 511, 513, 70_001):
        odd = tmp_path / str(size)
        odd.write_bytes(b"x" * size)
        await backend.create(disk(f"n{size}", source=odd, source_format="raw"), silent)
        assert (await backend.inspect(disk(f"n{size}").ref)).size_bytes == -(-size // 512) * 512
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(1 << 43)
    await backend.create(disk("sparse", source=sparse, source_format="raw"), silent)
    assert (await backend.inspect(disk("sparse").ref)).size_bytes == 1 << 43


async def test_sources_that_cannot_be_read(backend: Qcow2Backend, tmp_path: Path) -> None:
    await refused(backend, tmp_path / "none", "raw", "no such file")
    await refused(backend, tmp_path, "raw", "not a regular file")
    os.mkfifo(tmp_path / "fifo")
    await refused(backend, tmp_path / "fifo", "raw", "not a regular file")
    await refused(backend, Path("/dev/zero"), "raw", "not a regular file")
    (problem,) = await backend.check(disk(source=tmp_path / "none", source_format="raw"), ())
    assert (problem.code, problem.message) == ("invalid", f"{tmp_path}/none: no such file or directory")


async def test_an_import_without_space(backend: Qcow2Backend, raw: Path, tmp_path: Path) -> None:
    desired = disk(source=raw, source_format="raw")
    with small_file_system(backend.context.paths.state, 2 * MIB):
        with pytest.raises(MissingCapability, match="are free") as caught:
            await backend.create(desired, silent)
        assert caught.value.hint.startswith("fallocate --dig-holes")
        (problem,) = await backend.check(desired, ())
        assert problem.code == "missing-capability"
        assert not list(backend.context.paths.state.iterdir())


async def test_space_that_goes_while_it_is_imported(backend: Qcow2Backend, raw: Path) -> None:
    state = backend.context.paths.state
    with small_file_system(state, 6 * MIB):

        def fill(progress: Progress) -> None:
            if progress.fraction is not None and not (state / "filler").exists():
                (state / "filler").write_bytes(bytes(5 * MIB))

        with pytest.raises(OperationFailed, match=r"no space left for .*disk\.qcow2") as caught:
            await backend.create(disk(source=raw, source_format="raw"), fill)
        assert caught.value.hint.startswith("df -h")
        assert os.listdir(state) == ["filler"]


async def test_no_space_for_anything(backend: Qcow2Backend) -> None:
    state = backend.context.paths.state
    with small_file_system(state, 64 << 10):
        for free in range(12):
            filler = state / "filler"
            with filler.open("wb") as file:
                try:
                    file.write(bytes((16 - free) * 4096))
                    file.flush()
                except OSError:
                    pass
            with pytest.raises(OperationFailed, match="no space left") as caught:
                await backend.create(disk(size=Size(MIB)), silent)
            assert caught.value.hint.startswith("df -h")
            assert os.listdir(state) == ["filler"]


async def test_without_qemu_img(backend: Qcow2Backend, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    probe = await backend.probe()
    assert not probe.usable
    assert probe.problems[0].code == "missing-capability"
    assert probe.problems[0].hint == "apt-get install qemu-utils"
    assert "qemu-img" in probe.summary
    with pytest.raises(MissingCapability):
        await backend.create(disk(size=MIB), silent)
    (problem,) = await backend.check(disk(size=MIB), ())
    assert problem.code == "missing-capability"
    assert HostView.of(backend.context).empty


async def test_a_broken_qemu_img(backend: Qcow2Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for script in ("exit 1", "kill -9 $$", "echo nonsense", "while :; do echo loud loud loud loud >&2; done"):
        tool = tmp_path / "qemu-img"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        assert process.which("qemu-img") == str(tool)
        probe = await backend.probe()
        assert not probe.usable
        assert probe.problems


async def test_the_probe_leaves_nothing(backend: Qcow2Backend) -> None:
    probe = await backend.probe()
    assert probe.usable, probe.problems
    assert dict(probe.facts)["qemu-img"]
    assert HostView.of(backend.context).empty
