"""Images: what may be a disk, and that no two programs write to one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from vmtui.vmm.devices.blk.image import Image

needs_qemu = pytest.mark.skipif(not shutil.which("qemu-io"), reason="needs qemu-io (apt install qemu-utils)")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(1 << 20))
    return path


def qemu_io(path: Path, command: str, *options: str) -> str:
    argv = ["qemu-io", *options, "-f", "raw", "-c", command, str(path)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False).stderr


def test_one_writer(path: Path) -> None:
    image = Image(str(path), writable=True)
    for writable in (True, False):
        with pytest.raises(OSError, match="another program uses the image"):
            Image(str(path), writable=writable)
    image.close()
    Image(str(path), writable=True).close()


def test_many_readers(path: Path) -> None:
    first, second = Image(str(path), writable=False), Image(str(path), writable=False)
    with pytest.raises(OSError, match="another program uses the image"):
        Image(str(path), writable=True)
    first.close()
    second.close()


@needs_qemu
def test_qemu_is_kept_off(path: Path) -> None:
    image = Image(str(path), writable=True)
    assert 'Failed to get "write" lock' in qemu_io(path, "write 0 512")
    assert qemu_io(path, "read 0 512", "-r") == ""  # it does not mind others that write
    image.close()
    assert qemu_io(path, "write 0 512") == ""


@needs_qemu
def test_qemu_keeps_us_off(path: Path) -> None:
    argv = ["qemu-io", "-f", "raw", str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("length\n")
        process.stdin.flush()
        process.stdout.readline()
        with pytest.raises(OSError, match="another program uses the image"):
            Image(str(path), writable=True)
        process.stdin.close()
    Image(str(path), writable=True).close()


def test_what_is_no_disk(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(bytes(511))
    os.mkfifo(tmp_path / "fifo")
    for name in ("small", "fifo", "", "absent"):
        with pytest.raises(OSError):
            Image(str(tmp_path / name), writable=False)
    with pytest.raises(OSError, match="neither a file nor a block device"):
        Image("/dev/null", writable=True)


def test_what_does_not_fill_a_sector_is_left_out(path: Path) -> None:
    os.truncate(path, 1025)
    image = Image(str(path), writable=True)
    assert image.size_bytes == 1024
    image.close()


def test_growing(path: Path) -> None:
    image = Image(str(path), writable=True)
    os.truncate(path, 4 << 20)  # another has grown it already
    image.grow(2 << 20)
    assert path.stat().st_size == 4 << 20
    image.grow(8 << 20)
    assert path.stat().st_size == image.size_bytes == 8 << 20
    image.close()


@pytest.mark.real
def test_a_block_device(path: Path) -> None:
    os.truncate(path, 4 << 20)
    loop = subprocess.run(["losetup", "--find", "--show", path], capture_output=True, text=True, check=False)
    if loop.returncode != 0:
        pytest.skip(f"no loop device: {loop.stderr.strip()}")
    device = loop.stdout.strip()
    try:
        image = Image(device, writable=True)
        assert (image.size_bytes, image.is_device) == (4 << 20, True)
        os.pwrite(image.fd, b"x" * 8192, 4096)
        image.zero(4096, 4096, unmap=True)
        image.discard(8192, 4096)
        assert os.pread(image.fd, 4096, 4096) == bytes(4096)
        with pytest.raises(OSError, match="less than"):
            image.grow(8 << 20)
        with pytest.raises(OSError, match="busy"):
            Image(device, writable=True)
        image.close()
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
