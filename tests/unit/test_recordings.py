"""The recordings of sessions: their names, what is read of them, and what is no recording."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.casts import cast, write
from vmtui.core.errors import InvalidInput, NotFound
from vmtui.engine import recordings
from vmtui.engine.recordings import Event

NAME = "20261130-101500-anna-7f3a.cast"


def test_a_name_has_the_time_the_person_and_the_session() -> None:
    assert recordings.file_name(1_796_033_700, "anna", "7f3a") == NAME


@given(st.text(), st.text(), st.floats(0, 2e9))
def test_any_person_makes_a_name_of_the_folder_itself(person: str, session: str, at: float) -> None:
    name = recordings.file_name(at, person, session)
    assert recordings.NAME.fullmatch(name)
    assert os.path.basename(name) == name


def test_what_was_recorded_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / NAME, (0.25, "o", "hello\x1b[1m"), (1, "r", "100x30"), (2.5, "o", "é\n"))
    assert list(recordings.events(path)) == [
        Event(0.25, "o", "hello\x1b[1m"),
        Event(1.0, "r", "100x30"),
        Event(2.5, "o", "é\n"),
    ]
    found = recordings.describe(path)
    assert (found.person, found.session, found.length_s) == ("anna", "7f3a", 2.5)
    assert found.size_bytes == path.stat().st_size
    assert b"".join(recordings.lines(path)) == path.read_bytes()


def test_a_file_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = write(tmp_path / NAME, (0.5, "o", "one"), (1.5, "o", "two"))
    whole = path.read_bytes()
    header = whole.index(b"\n") + 1
    for size in range(header, len(whole)):
        path.write_bytes(whole[:size])
        events = list(recordings.events(path))
        assert [event.data for event in events] == ["one", "two"][: whole[header:size].count(b"\n")]
        assert recordings.describe(path).length_s == (events[-1].at_s if events else 0.0)


def test_the_length_of_one_with_long_events(tmp_path: Path) -> None:
    path = write(tmp_path / NAME, (0.5, "o", "x" * 300_000), (7.5, "o", "y" * 100_000))
    assert recordings.describe(path).length_s == 7.5


def test_it_is_found_by_what_names_it(tmp_path: Path) -> None:
    path = write(tmp_path / NAME)
    other = write(tmp_path / "20261130-111500-bert-91bc.cast", person="bert", session="91bc")
    for text in (NAME, NAME.removesuffix(".cast"), "7f3a", "20261130-10"):
        assert recordings.find(tmp_path, text) == path
    assert recordings.find(tmp_path, "91bc") == other
    for text in ("20261130", "", "carl", "../" + NAME, str(path)):
        with pytest.raises(NotFound):
            recordings.find(tmp_path, text)
    with pytest.raises(NotFound):
        recordings.find(tmp_path / "none", "7f3a")


def test_a_folder_is_listed_with_what_is_wrong_in_it(tmp_path: Path) -> None:
    write(tmp_path / NAME)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".being-made").write_text("x")
    found, refused = recordings.scan(tmp_path)
    assert [each.name for each in found] == [NAME]
    assert len(refused) == 1
    assert "notes.txt" in refused[0]
    assert recordings.scan(tmp_path / "none") == ([], [])


def _link(path: Path) -> None:
    target = write(path.with_name("20261130-101500-anna-real.cast"))
    path.symlink_to(target)


def _folder(path: Path) -> None:
    path.mkdir()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _others_write(path: Path) -> None:
    write(path).chmod(0o620)


def _of_another_program(path: Path) -> None:
    path.write_text('{"version": 2, "width": 80, "height": 24, "timestamp": 1, "env": {"TERM": "xterm"}}\n')


def _version_three(path: Path) -> None:
    write(path, version=3)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _one_long_line(path: Path) -> None:
    path.write_bytes(b"{" * (recordings.MAX_LINE_BYTES + 1))


@pytest.mark.parametrize(
    "make", [_link, _folder, _fifo, _others_write, _of_another_program, _version_three, _empty, _one_long_line]
)
def test_what_is_no_recording_is_refused(make: object, tmp_path: Path) -> None:
    assert callable(make)
    path = tmp_path / NAME
    make(path)
    with pytest.raises(InvalidInput, match=NAME):
        list(recordings.events(path))


@given(st.binary(max_size=200))
def test_any_bytes_are_events_or_refused(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / NAME
    path.write_bytes(cast() + junk)
    found: list[Event] = []
    with contextlib.suppress(InvalidInput):
        found += recordings.events(path)
        assert len(found) == junk.count(b"\n")
    recordings.describe(path)
