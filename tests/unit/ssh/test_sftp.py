"""Files over SFTP: only those of a volume, whatever is in it, and whatever is asked."""

from __future__ import annotations

import contextlib
import gc
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.sftp_server import files
from vmtui.core.errors import ResourceBusy
from vmtui.ssh import sftp_tree
from vmtui.ssh import sftp_wire as wire
from vmtui.ssh.sftp_files import Files
from vmtui.ssh.sftp_wire import Attributes, BadMessage, Packet

ROOT = Path(__file__).parents[3]
WEB = "/dev/container/web/data"
DISK = "/dev/disk/root/disk.qcow2"


class Place:
    """A volume with a secret beside it, and a client without a network."""

    def __init__(self, root: Path) -> None:
        self.volume = root / "volume"
        self.volume.mkdir()
        self.secret = root / "secret"
        self.secret.write_text("secret")
        self.image = root / "disk.qcow2"
        self.image.write_bytes(b"QFI\xfb" + bytes(100))
        self.noted: list[str] = []
        self.held: list[str] = []
        self.busy = False
        self.files: Files = files(
            str(self.volume), str(self.image), lambda volume, message: self.noted.append(f"{volume.ref} {message}"),
            self._hold,
        )  # fmt: skip

    @contextlib.contextmanager
    def _hold(self) -> Iterator[None]:
        if self.busy:
            raise ResourceBusy("the disk is in use by qemu (pid 7)", hint="ps -fp 7")
        self.held.append("begin")
        yield
        self.held.append("end")

    def ask(self, kind: int, *parts: bytes) -> tuple[int, Packet]:
        """The kind of the answer, and what is behind its number."""
        answer = Packet(self.files.answer(bytes([kind]) + struct.pack(">I", 7) + b"".join(parts)))
        answer.u32()
        kind = answer.byte()
        assert answer.u32() == 7
        return kind, answer

    def code(self, kind: int, *parts: bytes) -> int:
        answered, answer = self.ask(kind, *parts)
        assert answered == wire.STATUS
        return answer.u32()

    def open(self, path: str, flags: int = wire.FLAG_READ) -> tuple[int, Packet]:
        return self.ask(wire.OPEN, text(path), struct.pack(">I", flags), Attributes().encode())

    def handle(self, path: str, flags: int = wire.FLAG_READ) -> bytes:
        kind, answer = self.open(path, flags)
        assert kind == wire.HANDLE, answer.u32()
        return wire.string(answer.string())

    def refused(self, path: str, flags: int = wire.FLAG_READ) -> int:
        kind, answer = self.open(path, flags)
        assert kind == wire.STATUS
        return answer.u32()

    def read(self, path: str) -> bytes:
        handle = self.handle(path)
        kind, answer = self.ask(wire.READ, handle, struct.pack(">QI", 0, 4096))
        assert self.code(wire.CLOSE, handle) == wire.OK
        return answer.string() if kind == wire.DATA else b""

    def names(self, path: str) -> set[str]:
        kind, answer = self.ask(wire.OPENDIR, text(path))
        assert kind == wire.HANDLE
        handle = wire.string(answer.string())
        kind, answer = self.ask(wire.READDIR, handle)
        found = set()
        for _ in range(answer.u32() if kind == wire.NAME else 0):
            found.add(answer.string().decode())
            answer.string()
            answer.attributes()
        assert self.code(wire.CLOSE, handle) == wire.OK
        return found


def text(path: str) -> bytes:
    return wire.string(path.encode())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    with made.files:
        yield made


def test_the_folders_above_are_names_and_nothing_can_be_done_in_them(place: Place) -> None:
    assert place.names("/") == {"dev"}
    assert place.names("/dev") == {"container", "disk"}
    assert place.names("/dev/container/web") == {"data"}
    assert place.names("/dev/disk/root") == {"disk.qcow2"}
    assert place.refused("/etc/passwd") == wire.NO_SUCH_FILE
    assert place.refused("/dev/container/web/x", wire.FLAG_WRITE | wire.FLAG_CREATE) == wire.NO_SUCH_FILE
    assert place.code(wire.MKDIR, text("/dev/new"), Attributes().encode()) == wire.NO_SUCH_FILE
    for path in ("/", "/dev", "/dev/container/web"):
        assert place.code(wire.RMDIR, text(path)) == wire.PERMISSION_DENIED
        assert place.code(wire.RENAME, text(path), text(f"{WEB}/x")) == wire.PERMISSION_DENIED
    assert place.code(wire.RMDIR, text(WEB)) == wire.PERMISSION_DENIED


def test_files_are_written_and_read(place: Place) -> None:
    handle = place.handle(f"{WEB}/a", wire.FLAG_WRITE | wire.FLAG_CREATE)
    assert place.code(wire.WRITE, handle, struct.pack(">Q", 2), wire.string(b"hello")) == wire.OK
    assert place.code(wire.WRITE, handle, struct.pack(">Q", 0), wire.string(b"> ")) == wire.OK
    assert place.code(wire.CLOSE, handle) == wire.OK
    assert (place.volume / "a").read_bytes() == b"> hello"
    assert place.read(f"{WEB}/a") == b"> hello"
    assert place.noted == ["dev/container/web writes data/a", "dev/container/web reads data/a"]
    assert place.code(wire.CLOSE, handle) == wire.FAILURE
    assert place.refused(f"{WEB}/a", wire.FLAG_WRITE | wire.FLAG_CREATE | wire.FLAG_EXCLUSIVE) == wire.FAILURE
    place.code(wire.CLOSE, place.handle(f"{WEB}/a", wire.FLAG_WRITE | wire.FLAG_TRUNCATE))
    assert (place.volume / "a").read_bytes() == b""


@pytest.mark.parametrize(
    "link",
    ["../secret", "/etc/passwd", "{root}/secret", "/proc/self/root/etc/passwd", "/proc/self/cwd", "up/up/secret"],
)
def test_links_of_a_volume_stay_in_it(place: Place, link: str) -> None:
    (place.volume / "up").symlink_to("..")
    (place.volume / "hostile").symlink_to(link.format(root=place.volume.parent))
    hostile = f"{WEB}/hostile"
    for flags in (wire.FLAG_READ, wire.FLAG_WRITE, wire.FLAG_WRITE | wire.FLAG_TRUNCATE):
        assert place.refused(hostile, flags) == wire.NO_SUCH_FILE
    # a link that leads nowhere in the volume is not made into what it names
    assert place.refused(hostile, wire.FLAG_WRITE | wire.FLAG_CREATE) == wire.NO_SUCH_FILE
    assert place.code(wire.STAT, text(hostile)) == wire.NO_SUCH_FILE
    assert place.code(wire.SETSTAT, text(hostile), Attributes(mode=0o777).encode()) == wire.NO_SUCH_FILE
    assert place.secret.read_text() == "secret"
    assert stat.S_IMODE(place.secret.stat().st_mode) != 0o777
    assert {entry.name for entry in place.volume.parent.iterdir()} == {"volume", "secret", "disk.qcow2"}


@pytest.mark.parametrize(
    "path",
    ["/../secret", "/../../secret", "/up/secret", "/up/../secret", "/../../../../../../etc/passwd", "//../secret"],
)
def test_dots_lead_nowhere(place: Place, path: str) -> None:
    (place.volume / "up").symlink_to("..")
    assert place.refused(WEB + path) == wire.NO_SUCH_FILE
    place.open(WEB + path, wire.FLAG_WRITE | wire.FLAG_CREATE | wire.FLAG_TRUNCATE)  # perhaps one in the volume
    assert place.secret.read_text() == "secret"
    assert {entry.name for entry in place.volume.parent.iterdir()} == {"volume", "secret", "disk.qcow2"}


def test_a_folder_that_is_a_link_is_followed_within_the_volume(place: Place) -> None:
    (place.volume / "real").mkdir()
    (place.volume / "real" / "file").write_text("inside")
    (place.volume / "absolute").symlink_to("/real")
    (place.volume / "out").symlink_to("/")
    assert place.read(f"{WEB}/absolute/file") == b"inside"
    assert place.names(f"{WEB}/out") == {"real", "absolute", "out"}
    assert place.code(wire.REMOVE, text(f"{WEB}/out/real/file")) == wire.OK
    assert place.code(wire.MKDIR, text(f"{WEB}/out/made"), Attributes().encode()) == wire.OK
    assert (place.volume / "made").is_dir()


def test_a_link_is_removed_and_renamed_as_a_link(place: Place) -> None:
    (place.volume / "a").symlink_to(place.secret)
    assert place.code(wire.RENAME, text(f"{WEB}/a"), text(f"{WEB}/b")) == wire.OK
    kind, answer = place.ask(wire.READLINK, text(f"{WEB}/b"))
    assert (kind, answer.u32(), answer.string().decode()) == (wire.NAME, 1, str(place.secret))
    assert place.code(wire.REMOVE, text(f"{WEB}/b")) == wire.OK
    assert place.secret.exists()


def test_what_is_no_file_is_not_opened(place: Place) -> None:
    os.mkfifo(place.volume / "fifo")
    for flags in (wire.FLAG_READ, wire.FLAG_WRITE, wire.FLAG_WRITE | wire.FLAG_CREATE):
        assert place.refused(f"{WEB}/fifo", flags) == wire.PERMISSION_DENIED
    assert place.code(wire.SETSTAT, text(f"{WEB}/fifo"), Attributes(mode=0).encode()) == wire.PERMISSION_DENIED
    assert place.refused(WEB) == wire.PERMISSION_DENIED


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device")
def test_a_device_is_not_opened(place: Place) -> None:
    os.mknod(place.volume / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert place.refused(f"{WEB}/null") == wire.PERMISSION_DENIED
    assert place.refused(f"{WEB}/null", wire.FLAG_WRITE) == wire.PERMISSION_DENIED


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_is_made_belongs_to_whom_the_folder_does(place: Place) -> None:
    os.chown(place.volume, 4242, 4243)
    place.handle(f"{WEB}/a", wire.FLAG_WRITE | wire.FLAG_CREATE)
    place.code(wire.MKDIR, text(f"{WEB}/b"), Attributes().encode())
    for name in ("a", "b"):
        found = (place.volume / name).stat()
        assert (found.st_uid, found.st_gid) == (4242, 4243)


def test_nobody_makes_a_set_user_id_file(place: Place) -> None:
    place.ask(wire.OPEN, text(f"{WEB}/a"), struct.pack(">I", wire.FLAG_WRITE | wire.FLAG_CREATE),
              Attributes(mode=0o4755).encode())  # fmt: skip
    place.code(wire.SETSTAT, text(f"{WEB}/a"), Attributes(mode=0o6755).encode())
    place.code(wire.MKDIR, text(f"{WEB}/b"), Attributes(mode=0o7777).encode())
    for name in ("a", "b"):
        assert not (place.volume / name).stat().st_mode & 0o7000


def test_the_image_of_a_disk_is_read_while_nobody_uses_it_and_never_written(place: Place) -> None:
    handle = place.handle(DISK)
    assert place.held == ["begin"]
    assert place.ask(wire.READ, handle, struct.pack(">QI", 0, 4))[1].string() == b"QFI\xfb"
    assert place.code(wire.WRITE, handle, struct.pack(">Q", 0), wire.string(b"x")) == wire.FAILURE
    assert place.code(wire.FSETSTAT, handle, Attributes(size=0).encode()) == wire.PERMISSION_DENIED
    assert place.code(wire.CLOSE, handle) == wire.OK
    assert place.held == ["begin", "end"]
    for flags in (wire.FLAG_WRITE, wire.FLAG_WRITE | wire.FLAG_TRUNCATE, wire.FLAG_WRITE | wire.FLAG_CREATE):
        assert place.refused(DISK, flags) == wire.PERMISSION_DENIED
    for kind, *more in (
        (wire.REMOVE,), (wire.SETSTAT, Attributes(size=0).encode()), (wire.RENAME, text(f"{WEB}/x")),
        (wire.MKDIR, Attributes().encode()),
    ):  # fmt: skip
        assert place.code(kind, text(DISK), *more) == wire.PERMISSION_DENIED
    assert place.code(wire.RENAME, text(f"{WEB}/x"), text(DISK)) in (wire.PERMISSION_DENIED, wire.NO_SUCH_FILE)
    assert place.image.stat().st_size == 104
    place.busy = True
    kind, answer = place.open(DISK)
    assert (kind, answer.u32(), answer.string()) == (
        wire.STATUS, wire.FAILURE, b"the disk is in use by qemu (pid 7) (ps -fp 7)",
    )  # fmt: skip


def test_what_is_left_open_is_closed(place: Place) -> None:
    gc.collect()  # what is garbage already may hold some
    before = len(os.listdir("/proc/self/fd"))
    for number in range(wire.MAX_HANDLES):
        place.handle(f"{WEB}/{number}", wire.FLAG_WRITE | wire.FLAG_CREATE)
    assert place.refused(f"{WEB}/more", wire.FLAG_WRITE | wire.FLAG_CREATE) == wire.FAILURE
    place.files.__exit__()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("path", "found"),
    [("", "/"), (".", "/"), ("/a/../..", "/"), ("a//b/.", "/a/b"), ("/../../x", "/x"), ("/a/./b/../c/", "/a/c")],
)
def test_names_are_made_plain_without_looking(path: str, found: str) -> None:
    assert sftp_tree.normal(path) == found


def test_openssh_copies_there_and_back(tmp_path: Path) -> None:
    place = Place(tmp_path)
    (tmp_path / "local").write_bytes(bytes(range(256)) * 4000)
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "file").write_text("x")
    server = tmp_path / "server"
    command = f"exec {sys.executable} -m tests.support.sftp_server {place.volume} {place.image}"
    server.write_text(f"#!/bin/sh\n{command}\n")
    server.chmod(0o755)
    commands = f"""
        cd {WEB}
        put local
        put -r tree
        get local back
        rename local other
        ln -s other link
        symlink /etc/passwd evil
        mkdir new
        chmod 600 other
        ls -la
        get {DISK} copy
        -get evil stolen
        -rm {DISK}
        -put local {DISK}
        rm link
        rmdir new
        ls -l /dev
        """
    done = subprocess.run(
        ["sftp", "-D", str(server), "-b", "-"], input=commands.encode(), capture_output=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done
    assert (tmp_path / "back").read_bytes() == (tmp_path / "local").read_bytes()
    assert (place.volume / "other").read_bytes() == (tmp_path / "local").read_bytes()
    assert stat.S_IMODE((place.volume / "other").stat().st_mode) == 0o600
    assert (place.volume / "tree/deep/file").read_text() == "x"
    assert (tmp_path / "copy").read_bytes() == place.image.read_bytes()
    assert not (tmp_path / "stolen").exists()
    assert {entry.name for entry in place.volume.iterdir()} == {"other", "tree", "evil"}
    assert b"container" in done.stdout


PACKETS = st.one_of(
    st.binary(max_size=100),
    st.builds(
        lambda kind, parts: bytes([kind]) + struct.pack(">I", 7) + b"".join(parts),
        st.integers(0, 255),
        st.lists(
            st.one_of(
                st.binary(max_size=20),
                st.sampled_from(
                    [text(path) for path in ("/", WEB, f"{WEB}/a", f"{WEB}/../a", DISK, "\0", f"{WEB}/a/b")]
                ),
                st.sampled_from([wire.string(struct.pack(">Q", number)) for number in range(3)]),
                st.integers(0, 2**32 - 1).map(lambda number: struct.pack(">I", number)),
                st.integers(0, 2**64 - 1).map(lambda number: struct.pack(">Q", number)),
            ),
            max_size=5,
        ),
    ),
)


@given(st.lists(PACKETS, max_size=10))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_packets_are_answered_or_end_it_and_nothing_is_outside(place: Place, packets: list[bytes]) -> None:
    for data in packets:
        try:
            answer = place.files.answer(data)
        except BadMessage:
            continue
        assert int.from_bytes(answer[:4], "big") == len(answer) - 4
    assert place.secret.read_text() == "secret"
    assert {entry.name for entry in place.volume.parent.iterdir()} == {"volume", "secret", "disk.qcow2"}
    assert place.image.stat().st_size == 104
