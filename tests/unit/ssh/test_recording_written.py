"""What a session showed, as a file that others read: whole events, bounded, of nobody else."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.ssh_sessions import request
from vmtui.engine import recordings
from vmtui.ssh.recording import Recording


def recorded(folder: Path, limit: int = 1 << 20, session: str = "abc123") -> Recording:
    return Recording(folder, request(size=(40, 120)), session, 0.0, limit)


def events(recording: Recording) -> list[tuple[str, str]]:
    recording.close()
    return [(event.code, event.data) for event in recordings.events(recording.path)]


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    recording = recorded(tmp_path / "recordings")
    recording.output(b"hello\r\n")
    recording.resize(50, 132)
    assert events(recording) == [("o", "hello\r\n"), ("r", "132x50")]
    described = recordings.describe(recording.path)
    assert (described.header.width, described.header.height) == (120, 40)
    assert (described.person, described.session) == ("ann", "abc123")


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    recording = recorded(tmp_path / "recordings")
    assert stat.S_IMODE(recording.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(recording.path.parent.stat().st_mode) == 0o700
    recording.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.binary(max_size=40)))
def test_any_bytes_cut_anywhere_are_text(tmp_path: Path, pieces: list[bytes]) -> None:
    recording = recorded(tmp_path, session=os.urandom(8).hex())
    for piece in pieces:
        recording.output(piece)
    whole = b"".join(pieces)
    shown = "".join(data for _, data in events(recording))
    assert whole.decode("utf-8", "replace").startswith(shown)


def test_a_character_that_is_cut_is_whole(tmp_path: Path) -> None:
    recording = recorded(tmp_path)
    recording.output("ü".encode()[:1])
    recording.output("ü".encode()[1:])
    assert events(recording) == [("o", "ü")]


def test_it_ends_with_a_word_when_it_is_full(tmp_path: Path) -> None:
    recording = recorded(tmp_path, limit=4000)
    for _ in range(100):
        recording.output(b"x" * 100)
    assert recording.closed
    assert recording.path.stat().st_size < 4400
    *_, (_, last) = events(recording)
    assert "the recording ends here" in last


def test_one_of_another_session_is_never_written_over(tmp_path: Path) -> None:
    recorded(tmp_path).close()
    with pytest.raises(FileExistsError):
        recorded(tmp_path)


def test_it_leaves_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, free = os.statvfs, [1 << 40]

    def statvfs(where: Path | int) -> SimpleNamespace:
        disk = real(where)
        return SimpleNamespace(f_bavail=free[0] // disk.f_frsize, f_frsize=disk.f_frsize, f_blocks=1 << 40)

    monkeypatch.setattr("os.statvfs", statvfs)
    recording = recorded(tmp_path / "recordings", limit=64 << 20)
    recording.output(b"x" * (1 << 20))
    free[0] = 1 << 20
    with pytest.raises(OSError, match="No space left"):
        recording.output(b"x" * (1 << 20))
    assert recording.closed
    with pytest.raises(OSError, match="No space left"):
        recorded(tmp_path / "recordings", session="def456")
    assert [path.name for path in (tmp_path / "recordings").iterdir()] == [recording.path.name]
