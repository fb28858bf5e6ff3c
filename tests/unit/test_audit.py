"""The audit log: what changes it is found, and what a kill leaves of it goes on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vmtui.core.errors import InvalidInput, LockHeld, NotFound, OperationFailed
from vmtui.engine import audit
from vmtui.engine.audit import Broken, Entry, Head, Log, Verified, read, verify
from vmtui.headless.audit import shown

NOW = 1_796_000_000.25


def entry(number: int = 0, **fields: object) -> Entry:
    made = Entry(who="anna", verb="stop", result="done", refs=("dev/vm/web",), message=f"{number}")
    return msgspec.structs.replace(made, **fields)


def filled(path: Path, count: int = 5) -> list[bytes]:
    log = Log(path, clock=lambda: NOW)
    for number in range(count):
        log.append(entry(number))
    log.close()
    return path.read_bytes().splitlines(keepends=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


def test_what_was_written_is_read(path: Path) -> None:
    log = Log(path, clock=lambda: NOW)
    first, second = log.append(entry(1, key="SHA256:x", origin="192.0.2.7 port 1", session="7"), entry(2))
    log.close()
    assert list(read(path)) == [first, second]
    assert (first.number, first.prev, first.time) == (1, audit.GENESIS, "2026-11-30T00:53:20.250Z")
    assert (second.number, second.prev) == (2, first.hash)
    assert verify(path) == Verified(head=Head(2, path.stat().st_size, second.hash))
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}


def test_a_log_is_gone_on_with(path: Path) -> None:
    filled(path, 2)
    filled(path, 2)
    assert [record.number for record in read(path)] == [1, 2, 3, 4]
    assert isinstance(verify(path), Verified)


def test_one_writes_it_at_a_time(path: Path) -> None:
    log = Log(path)
    if (pid := os.fork()) == 0:
        try:
            Log(path)
        except LockHeld:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    log.close()
    Log(path).close()


def test_no_log_is_said(path: Path) -> None:
    with pytest.raises(NotFound, match=r"there is no .*audit\.log"):
        verify(path)


CHANGES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int]] = {
    "a word": (lambda lines: [*lines[:2], lines[2].replace(b"anna", b"bert"), *lines[3:]], 3),
    "a result": (lambda lines: [lines[0].replace(b"done", b"denied"), *lines[1:]], 1),
    "a space": (lambda lines: [*lines[:4], lines[4].replace(b":", b": ", 1)], 5),
    "a line dropped": (lambda lines: [*lines[:1], *lines[2:]], 2),
    "the first line dropped": (lambda lines: lines[1:], 1),
    "two lines swapped": (lambda lines: [*lines[:3], lines[4], lines[3]], 4),
    "a line twice": (lambda lines: [*lines[:3], *lines[2:]], 4),
    "the last line dropped": (lambda lines: lines[:-1], 5),
    "all but the first dropped": (lambda lines: lines[:1], 2),
    "everything dropped": (lambda lines: [], 1),
    "the last line cut short": (lambda lines: [*lines[:4], lines[4][:-7]], 5),
    "a line added": (lambda lines: [*lines, b"{}\n"], 6),
    "junk": (lambda lines: [*lines[:2], b"\xff\x00\n", *lines[2:]], 3),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_found(path: Path, name: str) -> None:
    change, line = CHANGES[name]
    path.write_bytes(b"".join(change(filled(path))))
    found = verify(path)
    assert isinstance(found, Broken)
    assert found.line == line


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_is_found(path: Path, data: st.DataObject) -> None:
    for file in path.parent.iterdir():
        file.unlink()
    lines = filled(path, 3)
    content = bytearray(b"".join(lines))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    found = verify(path)
    assert isinstance(found, Broken)
    assert found.line == b"".join(lines)[:at].count(b"\n") + 1


@pytest.mark.parametrize(
    "name", ["a line dropped", "everything dropped", "the last line dropped", "the last line cut short"]
)
def test_what_is_shorter_than_it_was_is_not_gone_on_with(path: Path, name: str) -> None:
    path.write_bytes(b"".join(CHANGES[name][0](filled(path))))
    before = path.read_bytes()
    with pytest.raises(InvalidInput, match="was changed"):
        Log(path)
    assert path.read_bytes() == before


def test_the_other_file_belongs_to_it(path: Path) -> None:
    filled(path)
    head = path.with_suffix(".head")
    noted = head.read_bytes()
    for wrong in (b"", b"junk", noted.replace(b"5", b"4", 1)):
        head.write_bytes(wrong)
        assert isinstance(verify(path), Broken)
        with pytest.raises(InvalidInput):
            Log(path)
    head.unlink()
    assert isinstance(verify(path), Broken)
    head.write_bytes(noted)
    assert isinstance(verify(path), Verified)


def test_a_chain_written_anew_does_not_go_through_what_was_noted(path: Path) -> None:
    filled(path)
    found = verify(path)
    assert isinstance(found, Verified)
    noted = str(found.head)
    filled(path, 3)
    assert isinstance(verify(path, noted=noted), Verified)
    for file in path.parent.iterdir():
        file.unlink()
    log = Log(path)
    log.append(*(entry(number, who="mallory") for number in range(9)))
    log.close()
    assert isinstance(verify(path), Verified)
    assert verify(path, noted=noted) == Broken(line=5, why="it is another record than was noted")
    assert verify(path, noted="99:00") == Broken(line=10, why="it ends here, and had 99 records")
    assert verify(path, noted="abc") == Broken(line=0, why="'abc' is no NUMBER:HASH")


def test_a_kill_at_any_byte_loses_what_was_not_acknowledged_alone(tmp_path: Path) -> None:
    whole = filled(tmp_path / "audit.log", 3)
    head = (tmp_path / "audit.head").read_bytes()
    filled(tmp_path / "audit.log", 1)
    last = (tmp_path / "audit.log").read_bytes().splitlines(keepends=True)[-1]
    for written in range(len(last) + 1):
        place = tmp_path / str(written)
        place.mkdir()
        path = place / "audit.log"
        path.write_bytes(b"".join(whole) + last[:written])
        path.with_suffix(".head").write_bytes(head)  # the record is written before the head
        complete = written in (0, len(last))
        found = verify(path)
        assert isinstance(found, Verified)
        assert found.torn_bytes == (0 if complete else written)
        log = Log(path)
        log.append(entry(9))
        log.close()
        verbs = [record.verb for record in read(path)]
        assert verbs == ["stop"] * (3 + (written == len(last))) + ([] if complete else ["repair"]) + ["stop"]
        assert isinstance(verify(path), Verified)


def test_a_full_disk_leaves_it_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(path)
    log.append(entry(1))
    before = path.read_bytes()
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr("os.write", lambda fd, data: real(fd, data[:10]))
        with pytest.raises(OperationFailed, match="no space left"):
            log.append(entry(2))
    assert path.read_bytes() == before
    log.append(entry(3))
    log.close()
    assert [record.message for record in read(path)] == ["1", "3"]
    assert isinstance(verify(path), Verified)


def test_what_goes_on_when_the_disk_gets_full_is_noted_and_nothing_more_begins(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, real = Log(path), os.write
    log.append(entry(1))
    log.keep_room()
    reserve = path.with_suffix(".reserve")
    assert reserve.stat().st_blocks * 512 >= audit.RESERVE_BYTES

    def write(fd: int, data: bytes) -> int:
        return real(fd, data[:10] if reserve.exists() else data)

    def no_space(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.write", write)
        patch.setattr("os.posix_fallocate", no_space)
        log.append(entry(2))
        with pytest.raises(OperationFailed, match="no space left"):
            log.keep_room()
        assert not log.has_room
        log.append(entry(3))
    log.keep_room()
    log.close()
    assert [record.message for record in read(path)] == ["1", "2", "3"]
    assert isinstance(verify(path), Verified)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(), max_size=50), min_size=4, max_size=4))
def test_any_text_can_be_noted(path: Path, texts: list[str]) -> None:
    log = Log(path)
    log.append(Entry(who=texts[0], verb=texts[1], result=texts[2], message=texts[3], refs=(texts[0],)))
    log.close()
    assert isinstance(verify(path), Verified)


def test_what_is_too_long_is_cut(path: Path) -> None:
    log = Log(path)
    (record,) = log.append(entry(message="\0" * 10_000, refs=tuple(f"dev/vm/{n}" for n in range(150)), who="\ud800"))
    log.close()
    assert len(record.message) < 2100
    assert record.message.endswith("… (and 50 more refs)")
    assert record.who == "?"
    assert len(record.line()) < audit.LONGEST_LINE


def test_a_stranger_is_not_told_as_the_console(path: Path) -> None:
    log = Log(path)
    stranger, console = log.append(entry(who="", origin="192.0.2.7 port 1"), entry(who=""))
    log.close()
    assert "  somebody unknown  " in shown(stranger)
    assert "  the console itself  " in shown(console)
