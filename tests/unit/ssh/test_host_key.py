"""The host key: made once, refused where it is no secret, replaced without surprising those who know it."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from vmtui.core.errors import Conflict, InvalidInput, NotFound
from vmtui.ssh import host_key

WEEK_S = 7 * 86400.0


def test_the_first_start_makes_a_key_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "ssh" / "host_ed25519"
    keys = host_key.open_or_make(path, WEEK_S)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    shown = subprocess.run(["ssh-keygen", "-lf", path], capture_output=True, text=True, check=True).stdout
    assert host_key.fingerprint(keys.current) in shown
    assert host_key.fingerprint(host_key.open_or_make(path, WEEK_S).current) in shown
    assert path.with_name("host_ed25519.pub").read_bytes() == keys.current.export_public_key("openssh")
    assert sorted(os.listdir(path.parent)) == ["host_ed25519", "host_ed25519.pub"]


def test_many_first_starts_at_once_have_one_key(tmp_path: Path) -> None:
    path = tmp_path / "host_ed25519"
    found: list[str] = []
    start = threading.Barrier(8)

    def begin() -> None:
        start.wait()
        found.append(host_key.fingerprint(host_key.open_or_make(path, WEEK_S).current))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "host_ed25519"
    host_key.make(path)
    path.chmod(mode)
    with pytest.raises(InvalidInput, match=f"mode {mode:04o}") as caught:
        host_key.open_or_make(path, WEEK_S)
    assert caught.value.hint.startswith(f"chmod 600 {path}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "host_ed25519"
    host_key.make(path)
    os.chown(path, 65534, -1)
    with pytest.raises(InvalidInput, match="belongs to nobody") as caught:
        host_key.read(path)
    assert caught.value.hint == f"chown root {path}"


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "host_ed25519"
    with pytest.raises(NotFound):
        host_key.read(path)
    path.write_text("hello\n")
    path.chmod(0o600)
    with pytest.raises(InvalidInput, match="is not a private key"):
        host_key.open_or_make(path, WEEK_S)
    path.unlink()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", path], check=True)
    with pytest.raises(InvalidInput, match="has a passphrase") as caught:
        host_key.read(path)
    assert caught.value.hint.startswith("ssh-keygen -p")
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(InvalidInput, match="not a regular file"):
        host_key.read(path)


def test_a_new_key_is_announced_and_then_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "host_ed25519"
    old = host_key.fingerprint(host_key.open_or_make(path, WEEK_S).current)
    new = host_key.fingerprint(host_key.rotate(path, WEEK_S))
    assert new != old
    keys = host_key.open_or_make(path, WEEK_S)
    assert [host_key.fingerprint(key) for key in keys.served] == [old, new]
    with pytest.raises(Conflict, match="takes the place"):
        host_key.rotate(path, WEEK_S)
    made = host_key.coming_path(path).stat().st_mtime
    assert host_key.open_or_make(path, WEEK_S, now=made + WEEK_S - 1).coming is not None
    later = host_key.open_or_make(path, WEEK_S, now=made + WEEK_S)
    assert [host_key.fingerprint(key) for key in later.served] == [new]
    assert not host_key.coming_path(path).exists()
    assert later.current.export_public_key("openssh") == path.with_name("host_ed25519.pub").read_bytes()


def test_a_coming_key_that_cannot_be_used_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "host_ed25519"
    host_key.open_or_make(path, WEEK_S)
    before = path.read_bytes()
    coming = host_key.coming_path(path)
    coming.write_text("hello\n")
    coming.chmod(0o600)
    with pytest.raises(InvalidInput, match="is not a private key"):
        host_key.open_or_make(path, 0.0)
    assert path.read_bytes() == before
