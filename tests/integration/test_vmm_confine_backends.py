"""qemu-storage-daemon and virtiofsd as they really are, confined: they serve, and reach nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.confined_backends import UID, enquire

pytestmark = pytest.mark.real

NOBODY = 65534
NONE = "0000000000000000"
NAMESPACES = ["cgroup", "ipc", "mnt", "net", "pid", "uts"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not tmp_path, which only its owner may enter."""
    with tempfile.TemporaryDirectory(prefix="vt-", dir="/tmp") as path:
        Path(path).chmod(0o755)
        yield Path(path)


@pytest.mark.parametrize("user", [None, NOBODY], ids=["root", "user"])
def test_a_storage_daemon_serves_its_images_alone(folder: Path, user: int | None) -> None:
    said = enquire("storage", folder, user)
    assert said["missing"] == []
    assert said["spoken"] == [True, True]  # it takes the next connection when one ends
    assert (said["resize"], said["size"], said["owner"]) == ("done", 16 << 20, True)  # files stay whose they are
    assert said["shadow"].endswith("'/etc/shadow': No such file or directory")
    assert said["other"].endswith("other.raw': No such file or directory")
    assert said["backing"].endswith("base.qcow2': Read-only file system")
    assert said["program"].endswith("'/usr/bin/env': Permission denied")
    assert said["tcp"] == "Failed to create socket family 2: Operation not permitted"
    assert said["unix"] == "Failed to create socket: Operation not permitted"
    facts = said["facts"]
    assert facts["Uid"] == facts["Gid"] == str(user or UID)
    assert facts["groups"] == []
    assert facts["CapEff"] == facts["CapBnd"] == NONE
    assert (facts["NoNewPrivs"], facts["Seccomp"], facts["core"]) == ("1", "2", "0")
    assert facts["new"] == NAMESPACES + (["user"] if user else [])
    assert "/proc" not in facts["mounts"]
    assert said["ended"] == 0
    assert said["log"] == ""


def test_a_machine_as_the_host_sees_it(folder: Path) -> None:
    seen = enquire("machine", folder)
    assert seen["Uid"] == seen["Gid"] == str(UID)
    assert seen["groups"] == []
    assert seen["CapEff"] == seen["CapBnd"] == NONE
    assert (seen["NoNewPrivs"], seen["Seccomp"], seen["core"]) == ("1", "2", "0")
    assert seen["new"] == NAMESPACES
    assert seen["mounts"] == ["/"]


def test_a_file_system_that_cannot_map_owners(folder: Path) -> None:
    said = enquire("overlay", folder)
    assert (said["resize"], said["ended"]) == ("done", 0)
    assert (said["uid"], said["capabilities"]) == ("1234", NONE)


def test_virtiofsd_has_power_over_its_share_alone(folder: Path) -> None:
    said = enquire("virtiofsd", folder)
    assert said["missing"] == []
    assert said["spoken"]
    assert said["root"] == ["file"]
    for process in (said["outer"], said["inner"]):
        assert process["new"] == [*NAMESPACES, "user"]
        assert (process["NoNewPrivs"], process["Seccomp"], process["core"]) == ("1", "2", "0")
        assert process["CapBnd"] == NONE
        assert process["mounts"] == ["/"]
    assert said["outer"]["CapEff"] == NONE
    assert int(said["inner"]["CapEff"], 16) & 1 << 21 == 0  # CAP_SYS_ADMIN, which it built its sandbox with


def test_back_ends_end_with_their_monitor(folder: Path) -> None:
    assert enquire("orphan", folder) == ["gone", "gone"]


def test_what_cannot_be_started_is_told(folder: Path) -> None:
    absent, outside, share = enquire("broken", folder)
    assert absent.startswith("/usr/bin/no-such-program: ")
    assert absent.endswith("No such file or directory: '/usr/bin/no-such-program'")
    assert outside.startswith(f"{folder}/program is not in /usr, ")
    assert share.endswith(f"No such file or directory: '{folder}/absent'")
