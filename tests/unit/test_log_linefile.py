"""Rows of files, from any place, against a reading of the whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vmtui.host import linefile
from vmtui.host.linefile import Change, LineFile, RowReader

BLOCK = 16
QUICK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linefile, "BLOCK_BYTES", BLOCK)


@contextmanager
def opened(path: Path, data: bytes) -> Iterator[LineFile]:
    path.write_bytes(data)
    file = LineFile(path)
    try:
        yield file
    finally:
        file.close()


def starts_of(data: bytes) -> list[int]:
    """By the definition: at 0, behind a newline, and behind a block without one unless a newline is next."""
    return [
        at
        for at in range(len(data))
        if at == 0
        or data[at - 1 : at] == b"\n"
        or (at % BLOCK == 0 and b"\n" not in data[at - BLOCK : at] and data[at : at + 1] != b"\n")
    ]


lines = st.lists(st.one_of(st.integers(0, 8), st.integers(0, 90)), max_size=12)


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    parts = [bytes([97 + number % 26]) * length for number, length in enumerate(draw(lines))]
    return b"\n".join(parts) + draw(st.sampled_from([b"", b"\n", b"\r\n", b"\xff\x00"]))


@QUICK
@given(contents(), st.sampled_from([1, 40, 1000]))
def test_rows_from_both_ends(tmp_path: Path, data: bytes, window: int) -> None:
    expected = starts_of(data)
    with opened(tmp_path / "log", data) as file:
        rows = RowReader(file, window)
        forwards, at = [], 0
        while at < file.size:
            forwards.append(at)
            at = rows.end_of(at)
        assert forwards == expected
        backwards: list[int] = []
        before = rows.before(file.size)
        while before is not None:
            backwards.append(before)
            before = rows.before(before)
        assert backwards[::-1] == expected
        ends = [*expected[1:], len(data)]
        assert [rows.bytes_of(start) for start in expected] == [
            data[start:end] for start, end in zip(expected, ends, strict=False)
        ]
        for offset in range(len(data)):
            assert rows.start_of(offset) == max(start for start in expected if start <= offset)
            assert rows.first_from(offset) == min((s for s in expected if s >= offset), default=len(data))


@QUICK
@given(contents(), contents())
def test_what_is_appended_moves_no_row(tmp_path: Path, data: bytes, more: bytes) -> None:
    with opened(tmp_path / "log", data) as file:
        rows = RowReader(file)
        rows.window(0, file.size)
        with file.path.open("ab") as writer:
            writer.write(more)
        assert file.refresh() is (Change.GREW if more else Change.NONE)
        whole = data + more
        assert starts_of(whole)[: len(starts_of(data))] == starts_of(data)
        found, at = [], 0
        while at < file.size:
            found.append(at)
            at = rows.end_of(at)
        assert found == starts_of(whole)


def test_a_cut_file_is_told_from_a_grown_one(tmp_path: Path) -> None:
    with opened(tmp_path / "log", b"one\ntwo\n") as file:
        file.path.write_bytes(b"one\n")
        assert file.refresh() is Change.CUT
        assert file.refresh() is Change.NONE
        file.path.write_bytes(b"other text\nand more\n")
        assert file.refresh() is Change.CUT
        file.path.write_bytes(b"other text\nand more\nlast\n")
        assert file.refresh() is Change.GREW


def test_what_is_removed_stays_readable(tmp_path: Path) -> None:
    with opened(tmp_path / "log", b"one\ntwo") as file:
        file.path.unlink()
        assert RowReader(file).bytes_of(4) == b"two"
        assert file.refresh() is Change.NONE


def test_closed(tmp_path: Path) -> None:
    with opened(tmp_path / "log", b"one\n") as file:
        file.close()
        assert file.read(0, 4) == b""
        file.close()


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        LineFile(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        LineFile(tmp_path)
    with pytest.raises(FileNotFoundError):
        LineFile(tmp_path / "none")
