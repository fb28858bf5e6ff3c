"""Users and groups from a tree that nobody trusts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vmtui.core.errors import InvalidInput
from vmtui.runtime.users import User, read_in_root, resolve


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "etc").mkdir(parents=True)
    return tmp_path / "root"


@pytest.fixture
def root_fd(root: Path) -> Iterator[int]:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_without_files(root_fd: int) -> None:
    assert resolve(root_fd, "") == User()
    assert resolve(root_fd, "1000") == User(uid=1000)
    assert resolve(root_fd, "1000:7") == User(uid=1000, gid=7)
    for text in ("web", "0:web", "1:65536", "-1", "\u0661", "0x10"):
        with pytest.raises(InvalidInput):
            resolve(root_fd, text)


def test_with_files(root: Path, root_fd: int) -> None:
    (root / "etc/passwd").write_text(
        "damaged\nbig:x:99999999:0::/:/\nweb:x:33:44:w:/srv:/bin/sh\nodd:x:5:6::relative:\n"
    )
    (root / "etc/group").write_text("www:x:44:web\nextra:x:60:other,web\nhuge:x:70000:web\n")
    assert resolve(root_fd, "web") == User(uid=33, gid=44, groups=(60,), home="/srv")
    assert resolve(root_fd, "33") == resolve(root_fd, "web")
    assert resolve(root_fd, "web:extra") == User(uid=33, gid=60, home="/srv")
    assert resolve(root_fd, "odd") == User(uid=5, gid=6, home="/")
    with pytest.raises(InvalidInput):
        resolve(root_fd, "big")
    with pytest.raises(InvalidInput):
        resolve(root_fd, "web:huge")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../../../etc/passwd", "/proc/self/root/etc/passwd"])
def test_links_do_not_lead_out(root: Path, root_fd: int, target: str) -> None:
    (root / "etc/passwd").symlink_to(target)
    assert read_in_root(root_fd, "etc/passwd") == b""
    assert resolve(root_fd, "0").home == "/"
    (root / "etc/passwd").unlink()
    (root / "etc").rmdir()
    (root / "etc").symlink_to("/etc")
    assert read_in_root(root_fd, "etc/passwd") == b""


def test_only_regular_files_of_a_bounded_size(root: Path, root_fd: int) -> None:
    os.mkfifo(root / "etc/passwd")
    assert read_in_root(root_fd, "etc/passwd") == b""
    (root / "etc/passwd").unlink()
    with (root / "etc/passwd").open("wb") as file:
        file.truncate(1 << 34)
    assert len(read_in_root(root_fd, "etc/passwd")) == 1 << 20


@given(st.binary(max_size=300), st.binary(max_size=300), st.text(max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_bytes(root: Path, root_fd: int, passwd: bytes, group: bytes, text: str) -> None:
    (root / "etc/passwd").write_bytes(passwd)
    (root / "etc/group").write_bytes(group)
    try:
        user = resolve(root_fd, text)
    except InvalidInput:
        return
    assert 0 <= user.uid <= 65535
    assert 0 <= user.gid <= 65535
    assert user.home.startswith("/")
