"""What a host may lack or have in the way: each has its code and one error, and leaves nothing behind."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.support import hosts
from tests.support.bad_images import file, image
from tests.support.disks import small_file_system
from tests.support.refusals import (
    Place,
    Prepare,
    Refusal,
    assert_as_before,
    assert_harmless,
    assert_told,
    check,
    traces,
)
from tests.support.wat import SLEEP

pytestmark = pytest.mark.real

CONTAINER = '[container.one]\nimage = "{image}"\ncommand = ["sleep", "1000"]\nstop_grace_period = "0s"\n'
FETCHED = CONTAINER.replace("{image}", "oci:{dir}/image")
NETWORK = '[network.net]\nsubnet = "{net}.0/24"\n'
DISK = '[disk.one]\nsize = "1MiB"\n'
VM = '[vm.one]\ndisks = ["one"]\nnetwork_mode = "none"\nstop_grace_period = "0s"\n'
MODULE = '[sandbox.one]\nmodule = "module.wat"\n'


def missing(program: str, package: str, profile: str) -> Refusal:
    hint = f"^apt-get install {package}$"
    return Refusal(f"no {program}", profile, 69, f"{program} is not in PATH", hint, prepare=hosts.without(program))


def fetched_without(program: str) -> Refusal:
    def prepare(place: Place) -> None:
        image()(place)
        hosts.without(program)(place)

    return Refusal(f"no {program}", FETCHED, 69, f"{program} is not in PATH", f"install {program}$", prepare=prepare)


MISSING = [
    fetched_without("skopeo"),
    missing("runc", "runc", CONTAINER + '[container.one.oci]\nruntime = "runc"\n'),
    missing("conmon", "conmon", CONTAINER),
    missing("qemu-img", "qemu-utils", DISK),
    missing("qemu-system-x86_64", "qemu-system-x86", DISK + VM),
    missing("dnsmasq", "dnsmasq-base", NETWORK),
    missing("nft", "nftables", NETWORK),
    Refusal("no apt", CONTAINER.replace("{image}", "deb:cowsay"), 69, "apt-get is not in PATH", "install apt$",
            prepare=hosts.without("apt-get")),
    Refusal("a useless kvm", DISK + VM + '[vm.one.qemu]\naccel = "kvm"\n', 69, "bad/vm/one: KVM boots no guest here: ",
            'accel = "auto"', prepare=hosts.useless_kvm),
]  # fmt: skip


def other(profile: str, folder_of: str = "other.toml") -> Prepare:
    """Another profile that is up, with what this one wants."""

    def prepare(place: Place) -> None:
        done = place.vmtui("--profile", str(place.write(folder_of, place.fill(profile))))
        assert done.returncode == 0, done.stderr

    return prepare


PUBLISHED = 'networks = ["net"]\nports = ["127.0.0.1:{port}:80"]\n'
HIGHER = '[network.net]\nsubnet = "{net}.128/25"\n'


@contextmanager
def held_lock(place: Place) -> Iterator[None]:
    place.paths.make()
    with (place.paths.state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("pid 4242, apply\x1b[31m dev")
        lock.flush()
        yield


def full(which: str, size: int) -> Prepare:
    """A directory of the workspace on a file system of `size` KiB."""

    def prepare(place: Place) -> AbstractContextManager[object]:
        file("module.wat", SLEEP)(place)
        if which == "cache":
            place.environment["XDG_CACHE_HOME"] = str(place.root / "c")
            return small_file_system(place.root / "c" / "vmtui", size << 10)
        return small_file_system(getattr(place.paths, which), size << 10)

    return prepare


def unusable(root: str, variable: str) -> Refusal:
    def prepare(place: Place) -> None:
        if root == "cache":
            place.environment["XDG_CACHE_HOME"] = str(place.root / "c")
        folder = place.root / "c" / "vmtui" if root == "cache" else getattr(place.paths, root)
        folder.parent.mkdir(exist_ok=True)
        folder.write_bytes(b"")

    error = f"^cannot use the {root} directory /.*: file exists"
    return Refusal(f"no {root} directory", DISK, 71, error, f"export {variable}=", prepare=prepare, traces=False)


def read_only(place: Place) -> AbstractContextManager[object]:
    held = small_file_system(place.paths.state.parent, 1 << 20)
    return remounted(held, place.paths.state.parent)


@contextmanager
def remounted(held: AbstractContextManager[Path], folder: Path) -> Iterator[None]:
    with held:
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        yield


IN_THE_WAY = [
    Refusal("port of another profile", NETWORK.replace("{net}", "{more}") + CONTAINER + PUBLISHED, 71,
            "bad/container/one: host port {port}/tcp is published by other/container/two", "nft list",
            result="rolled-back", prepare=other(NETWORK + CONTAINER.replace("one]", "two]") + PUBLISHED)),
    Refusal("subnet of another profile", HIGHER, 71, "net: subnet {net}.128/25 overlaps .*other/network/net",
            "choose another subnet", prepare=other(NETWORK)),
    Refusal("held lock", DISK, 75, r"another vmtui changes this workspace \(pid 4242, apply", "wait for it",
            prepare=held_lock),
    Refusal("no room for anything", DISK, 71, "state.db cannot be written: database or disk is full|disk I/O", "^df -h",
            prepare=full("state", 8), traces=False),
    Refusal("no room for the state", DISK, 71, "less than 512 KiB left", "^df -h", prepare=full("state", 400)),
    Refusal("no room for a disk", DISK, 71, "no space left for ", "^df -h", "", result="rolled-back",
            prepare=full("state", 740)),
    Refusal("no room to fetch", FETCHED, 71, "no space left to fetch image oci:", "^df -h", result="rolled-back",
            prepare=lambda place: (image()(place), full("cache", 64)(place))[1]),
    Refusal("no room to unpack", FETCHED, 71, "no space left for layer sha256:", "^df -h", result="rolled-back",
            prepare=lambda place: (image()(place), full("cache", 1500)(place))[1]),
    Refusal("no room to run", CONTAINER, 71, "bad/container/one cannot be started", "^df -h", result="rolled-back",
            prepare=full("runtime", 4)),
    unusable("state", "XDG_STATE_HOME"),
    unusable("cache", "XDG_CACHE_HOME"),
    unusable("runtime", "XDG_RUNTIME_DIR"),
    Refusal("read-only", DISK, 71, "cannot use the state directory .*: read-only file system", "export XDG_STATE_HOME",
            prepare=read_only, traces=False),
]  # fmt: skip


@pytest.mark.parametrize("case", [*MISSING, *IN_THE_WAY], ids=lambda case: case.name.replace(" ", "-"))
def test_refused(place: Place, case: Refusal) -> None:
    place.words["{more}"] = place.words["{net}"].replace("10.2", "10.1", 1)
    check(place, case)


@pytest.mark.parametrize("size", [612, 652, 900, 948])
def test_no_room_at_any_moment(place: Place, size: int) -> None:
    """Whatever it was doing when the room was gone: it is taken back, and what is there can be taken down."""
    profile = place.fill(NETWORK + CONTAINER + 'networks = ["net"]\n' + MODULE + "[disk.two]\nsize = '1GiB'\n")
    place.vmtui("--profile", str(place.write("warm.toml", place.fill(CONTAINER))))
    place.vmtui("down", "warm")
    with full("state", size)(place) or ExitStack():
        before = traces(place)
        done = place.vmtui("--profile", str(place.write("bad.toml", profile)))
        shown = done.stderr.decode()
        assert done.returncode == 71, shown
        assert shown.count("error: ") == 1, shown
        assert "hint: df -h" in shown
        assert_harmless(done, shown)
        assert_as_before(place, before)
        assert place.vmtui("down", "bad").returncode == 64  # there is none


NOBODY = [
    Refusal("container", CONTAINER, 69, "bad/container/one: containers need root", "^sudo", traces=False),
    Refusal("network", NETWORK, 69, "bad/network/net: networks need root", "^sudo", traces=False),
    Refusal("kvm", DISK + VM + '[vm.one.qemu]\naccel = "kvm"\n', 69, "KVM boots no guest here: /dev/kvm", "accel",
            traces=False),
    Refusal("module", MODULE, 65, "cannot read {dir}/module.wat: Permission denied", "ls -l", traces=False),
    Refusal("profile", DISK, 65, "^{dir}/bad.toml: cannot read it: permission denied", "", traces=False),
    Refusal("state", DISK, 71, "cannot use the state directory .*: permission denied", "XDG_STATE_HOME", traces=False),
]  # fmt: skip


@pytest.mark.parametrize("case", NOBODY, ids=lambda case: case.name)
def test_not_root(place: Place, case: Refusal) -> None:
    assert isinstance(case.profile, str)
    hosts.nobody(place)
    if reason := hosts.why_not(place):
        pytest.skip(f"another user cannot run this interpreter: {reason}")
    place.write("module.wat", "(module)").chmod(0)
    path = place.write("bad.toml", place.fill(case.profile))
    if case.name == "profile":
        path.chmod(0)
    if case.name == "state":
        os.chown(place.paths.state.parent, 0, 0)
    check(place, case)
    assert not (place.paths.state / "resources").exists()


def test_not_root_is_enough_for_a_disk(place: Place) -> None:
    hosts.nobody(place)
    if reason := hosts.why_not(place):
        pytest.skip(f"another user cannot run this interpreter: {reason}")
    done = place.vmtui("--profile", str(place.write("bad.toml", DISK)))
    assert done.returncode == 0, done.stderr
    assert place.vmtui("down", "bad", "--purge", "--yes").returncode == 0


def test_a_useless_kvm_is_not_used_and_doctor_says_why(place: Place) -> None:
    hosts.useless_kvm(place)
    probes = json.loads(place.vmtui("doctor", "--json").stdout)
    qemu = next(probe for probe in probes if probe["backend"] == "qemu")
    assert qemu["usable"]
    facts = dict(qemu["facts"])
    assert facts["accelerator"] == "tcg"
    assert facts["why"].startswith("no KVM: ")
    assert [problem["code"] for problem in qemu["problems"]] == ["no-kvm"]


def up(place: Place, profile: str, code: int = 0) -> str:
    done = place.vmtui("--profile", str(place.write("bad.toml", place.fill(profile))))
    shown = done.stderr.decode("utf-8", "replace")
    assert done.returncode == code, shown
    assert_harmless(done, shown)
    return shown


def database(place: Place, statement: str) -> None:
    with closing(sqlite3.connect(place.paths.state / "state.db")) as db:
        db.execute(statement)
        db.commit()


@pytest.mark.parametrize(
    "statement",
    [
        "update resource set desired = '{}'",
        "update resource set desired = x'ff00'",
        "update resource set intent = 'fly'",
        "update resource set kind = 'castle'",
        "insert into journal (run, ref, verb, at) values ('x', 'not a name', 'create', 0)",
        "delete from resource",
    ],
)
def test_damaged_rows_count_as_lost(place: Place, statement: str) -> None:
    """What is there is found by its marks, adopted, and taken down."""
    up(place, DISK)
    database(place, statement)
    assert b"bad/disk/one" in place.vmtui("ls").stdout
    assert "1 ready" in up(place, DISK)
    assert "1 ready, 0 changes" in up(place, DISK)
    assert place.vmtui("down", "bad", "--purge", "--yes").returncode == 0


@pytest.mark.parametrize("damage", ["not a database", "torn pages", "lost table"])
def test_a_damaged_database_orphans_nothing(place: Place, damage: str) -> None:
    """It is refused by every command alike; put aside as the hint says, all is found again."""
    up(place, DISK)
    path = place.paths.state / "state.db"
    if damage == "not a database":
        path.write_bytes(b"x" * 8192)
    elif damage == "lost table":
        database(place, "drop table resource")
    else:
        database(place, "pragma wal_checkpoint(truncate)")
        with path.open("r+b") as torn:
            torn.seek(4096)
            torn.write(b"\xff" * 8192)
    case = Refusal("damaged", DISK, 71, "state.db cannot be used: ", "^mv -t /var/tmp .*/state.db", traces=False)
    check(place, case)
    done = place.vmtui("ls")
    assert done.returncode == 71
    hint = next(line for line in done.stderr.decode().splitlines() if line.startswith("hint: "))
    command = hint.removeprefix("hint: ").partition(";")[0].replace("/var/tmp", str(place.root))
    subprocess.run(["sh", "-ec", command], check=True)
    assert b"bad/disk/one" in place.vmtui("ls").stdout
    assert "1 ready, 1 change" in up(place, DISK)  # adopted
    assert "1 ready, 0 changes" in up(place, DISK)


def test_a_damaged_identity_is_never_replaced(place: Place) -> None:
    up(place, DISK)
    file_ = place.paths.state / "workspace"
    identity = file_.read_text()
    file_.write_text("\x1b[31mhello")
    check(place, Refusal("identity", DISK, 71, "workspace is damaged", "grep -rhoE", traces=False))
    done = place.vmtui("ls")
    look = done.stderr.decode().partition("marks: ")[2].strip()
    found = subprocess.run(["sh", "-ec", look], check=True, capture_output=True, text=True).stdout.split()
    assert found == [f"vmtui:{identity}"]
    file_.write_text(identity)
    assert "1 ready, 0 changes" in up(place, DISK)


@pytest.mark.parametrize(
    ("profile", "left"), [(CONTAINER, 0), (MODULE, 0), (NETWORK, 0), (DISK, 71)],
    ids=["container", "sandbox", "network", "disk"],
)  # fmt: skip
@pytest.mark.parametrize("data", [b"", b'{"mark":"\\u001b[2J"}'], ids=["empty", "foreign"])
def test_a_damaged_record(place: Place, profile: str, left: int, data: bytes) -> None:
    """It shows, and the next run makes the resource anew; but never a disk, which is data."""
    file("module.wat", SLEEP)(place)
    up(place, profile)
    record = next(place.paths.state.glob("resources/bad/*/*/record.json"))
    record.write_bytes(data)
    listed = place.vmtui("ls")
    assert b"broken" in listed.stdout
    assert_harmless(listed, str(listed))
    assert place.vmtui("--profile", str(place.folder / "bad.toml"), "--check").returncode == 2
    up(place, profile, left)
    assert place.vmtui("down", "bad", "--purge", "--yes").returncode == 0
    assert not list(place.paths.state.glob("resources/*"))


def test_a_damaged_layer_store_is_filled_again(place: Place) -> None:
    place.environment["XDG_CACHE_HOME"] = str(place.root / "c")
    cache = place.root / "c" / "vmtui"
    for damage in ("no tree", "no note", "empty note", "no record", "bad record", "nothing"):
        up(place, CONTAINER)
        assert place.vmtui("down", "bad").returncode == 0
        (layer,) = cache.glob("layers/sha256/*")
        (reference,) = cache.glob("images/references/*")
        if damage == "no tree":
            shutil.rmtree(layer / "tree")
        elif damage == "no note":
            (layer / "layer.json").unlink()
        elif damage == "empty note":
            (layer / "layer.json").write_bytes(b"")
        elif damage == "no record":
            reference.unlink()
        elif damage == "bad record":
            reference.write_bytes(b'{"reference":')
    (layer / "layer.json").write_bytes(b"{")
    reference.unlink()
    shown = up(place, CONTAINER, 71)
    assert f"hint: rm -r {layer}" in shown


GUEST = """
[vm.one]
kernel = "{kernel}"
memory = "128MiB"
network_mode = "none"
stop_grace_period = "0s"
ready = { log = "^never$", timeout = "{boot}" }
"""
KEPT = "^vmtui --profile .*bad.toml --on-failure keep; vmtui logs bad/"


@pytest.mark.parametrize(
    ("more", "code", "error", "details"),
    [
        ('initrd = "initrd"\n', 124, "bad/vm/one was not ready after 100 s: waited for its log", "Kernel panic"),
        ('rootfs = "{image}"\ncommand = ["false"]\n', 71, "bad/vm/one ended with code 1 before it was ready", ""),
        ('rootfs = "{image}"\ncommand = ["fnord"]\n', 71, "bad/vm/one ended with code 127 before", "fnord"),
    ],
    ids=["no root to mount", "powers off at once", "no such command"],
)
def test_a_guest_that_ends_at_once(
    place: Place, warm_cache: Path, more: str, code: int, error: str, details: str
) -> None:
    place.words["{kernel}"] = str(next(warm_cache.glob("kernels/*/boot/vmlinuz-*")))
    place.environment["XDG_CACHE_HOME"] = str(warm_cache.parent)
    place.words["{boot}"] = "100s" if code == 124 else "170s"  # a whole boot, emulated, beside three others
    place.write("initrd", os.urandom(5000))
    case = Refusal("guest", GUEST + more, code, error, KEPT, details=details, result="rolled-back")
    before = traces(place)
    assert_told(place, case, place.vmtui("--profile", str(place.write("bad.toml", place.fill(GUEST + more)))))
    assert_as_before(place, before)
