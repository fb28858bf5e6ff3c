"""A log in files, over growth, rotation and loss, and the counting and finding of rows in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vmtui.core import query
from vmtui.core.backend import LogLine, LogSource
from vmtui.host import linefile
from vmtui.tui.logs import files
from vmtui.tui.logs.files import FileLog
from vmtui.tui.logs.log import Log, Sought, bare
from vmtui.tui.logs.merge import Merge, length
from vmtui.tui.logs.search import Search
from vmtui.tui.logs.stream import KEPT_LINES, SLICE_LINES, StreamLog
from vmtui.tui.logs.tally import Tally, count_all

QUICK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (linefile, files):
        monkeypatch.setattr(module, "BLOCK_BYTES", 64)
    monkeypatch.setattr(files, "SLACK_BYTES", 129)
    monkeypatch.setattr(files, "SLICE_BYTES", 256)


def untimed(raw: bytes) -> LogLine:
    return LogLine(text=raw.rstrip(b"\r").decode("utf-8", "replace"))


def timed(raw: bytes) -> LogLine:
    """SECONDS TEXT."""
    head, _, text = raw.partition(b" ")
    return LogLine(text=text.decode("utf-8", "replace"), at=float(head)) if head.isdigit() else untimed(raw)


@contextmanager
def log_of(folder: Path, parse: object = untimed, name: str = "log", *, is_timed: bool = False) -> Iterator[FileLog]:
    source = LogSource(paths=(folder / f"{name}.1", folder / name), parse=parse, timed=is_timed)  # type: ignore[arg-type]
    log = FileLog(name, source)
    try:
        yield log
    finally:
        log.close()


def texts(log: Log) -> list[str]:
    merge = Merge([log])
    forwards = [log.line(row.start).text for row in merge.forwards(merge.start())]
    backwards = [log.line(row.start).text for row in merge.backwards(merge.end())]
    assert backwards[::-1] == forwards
    return forwards


def count(tallies: list[Tally]) -> None:
    asyncio.run(count_all(lambda: tallies, lambda: None))


# Files


def test_no_file_yet(tmp_path: Path) -> None:
    with log_of(tmp_path) as log:
        assert texts(log) == []
        assert not log.refresh()
        (tmp_path / "log").write_text("one\n")
        assert log.refresh()
        assert texts(log) == ["one"]


def test_it_is_rotated_while_it_is_read(tmp_path: Path) -> None:
    current, old = tmp_path / "log", tmp_path / "log.1"
    with log_of(tmp_path) as log:
        current.write_text("one\ntwo\n")
        log.refresh()
        with current.open("a") as late:
            current.rename(old)
            current.write_text("four\n")
            assert log.refresh()
            late.write("three\n")  # by a writer who has not seen it
        assert log.refresh()
        assert texts(log) == ["one", "two", "three", "four"]
        at = log.before(log.end)
        current.rename(old)
        current.write_text("five\n")
        log.refresh()
        assert texts(log) == ["four", "five"]
        assert at is not None
        assert log.line(at).text == "four"
        old.unlink()
        current.unlink()
        log.refresh()
        assert texts(log) == ["four", "five"]  # nothing took their place
        current.write_text("six\n")
        log.refresh()
        assert texts(log) == ["six"]


def test_twice_rotated_between_two_looks(tmp_path: Path) -> None:
    with log_of(tmp_path) as log:
        (tmp_path / "log").write_text("one\n")
        log.refresh()
        (tmp_path / "log").unlink()
        (tmp_path / "log.1").write_text("two\n")
        (tmp_path / "log").write_text("three\n")
        assert log.refresh()
        assert texts(log) == ["two", "three"]


def test_an_older_file_appears_later(tmp_path: Path) -> None:
    with log_of(tmp_path) as log:
        (tmp_path / "log").write_text("two\n")
        log.refresh()
        (tmp_path / "log.1").write_text("one\n")
        assert log.refresh()
        assert texts(log) == ["one", "two"]


def test_it_is_cut_and_written_again(tmp_path: Path) -> None:
    with log_of(tmp_path) as log:
        (tmp_path / "log").write_text("one\ntwo\n")
        log.refresh()
        at = log.end
        (tmp_path / "log").write_text("x\n")
        assert log.refresh()
        assert texts(log) == ["x"]
        assert log.clamp(at) == log.clamp(0) == log.parts()[0].begin


def test_the_last_line_grows(tmp_path: Path) -> None:
    with log_of(tmp_path) as log:
        for text in ("o", "on", "one", "one\n", "one\nt"):
            (tmp_path / "log").write_text(text)
            log.refresh()
            assert texts(log) == text.removesuffix("\n").split("\n")


def test_bytes_of_a_row(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"one\r\n\xff\0\nend")
    with log_of(tmp_path) as log:
        merge = Merge([log])
        assert [log.raw(row.start) for row in merge.forwards(merge.start())] == [b"one\r\n", b"\xff\0\n", b"end"]


# Counting and searching


words = st.sampled_from(["error", "Error", "x", "\x1b[31mer\x1b[0mror", "ok \u212a", "ERR", "", "k", "y" * 150])
queries = st.sampled_from(["error", "Error", "err.r", "!error", "k", "-f eo", "x error", "-x", "y+$", "no such"])
written = st.lists(st.lists(words, max_size=4).map(" ".join), max_size=40)


@QUICK
@given(written, written, queries)
def test_what_is_counted_and_found(tmp_path: Path, old: list[str], new: list[str], text: str) -> None:
    (tmp_path / "log.1").write_text("".join(f"{line}\n" for line in old))
    (tmp_path / "log").write_text("\n".join(new))
    wanted = query.parse(text)
    with log_of(tmp_path) as log:
        merge = Merge([log])
        rows = list(merge.forwards(merge.start()))
        test = wanted.lines(None)
        expected = [row.start for row in rows if test(bare(log.line(row.start).text))]
        search = Search([log], wanted, lambda _: None)
        assert (search.total, search.complete) == (0, not rows)
        count(search.tallies)
        assert (search.total, search.complete, search.share()) == (len(expected), True, 1.0)
        for row in rows:
            assert search.rank(row.before) == len([start for start in expected if start < row.start])
        merge.choice = search
        assert [row.start for row in merge.forwards(merge.start())] == expected
        assert [row.start for row in merge.backwards(merge.end())] == expected[::-1]


@QUICK
@given(written, queries, st.booleans())
def test_finding_counts_on_its_way(tmp_path: Path, lines: list[str], text: str, forwards: bool) -> None:
    (tmp_path / "log").write_text("\n".join(lines))
    (tmp_path / "log.1").unlink(missing_ok=True)
    wanted = query.parse(text)
    with log_of(tmp_path) as log:
        merge = Merge([log])
        search = Search([log], wanted, lambda _: None)

        async def steps() -> list[int]:
            at, found = (merge.start() if forwards else merge.end()), []
            while (match := await search.find(merge, at, forwards=forwards)) is not None:
                found.append(match[1])
                at = merge.at_row(*match) if not forwards else (log.after(match[1]),)
            return found

        found = asyncio.run(steps())
        assert found == sorted(found, reverse=not forwards)
        count(search.tallies)
        assert len(found) == search.total


@QUICK
@given(written, st.lists(st.integers(0, 60), max_size=6))
def test_counts_follow_a_file_that_grows(tmp_path: Path, lines: list[str], cuts: list[int]) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"")
    data = "".join(f"{line}\n" for line in lines).encode()
    with log_of(tmp_path) as log:
        tally = Tally(log, log.lines_in)
        search = Search([log], query.parse("error"), lambda _: None)
        at = 0
        for cut in [*cuts, len(data)]:
            with path.open("ab") as file:
                file.write(data[at : at + cut])
            at = min(len(data), at + cut)
            log.refresh()
            count([tally, *search.tallies])
            assert tally.total() == data[:at].count(b"\n")
            assert tally.before(log.end) == tally.total()
            expected = [text for text in texts(log) if "error" in bare(text).lower()]
            assert search.total == len(expected)


def test_needles_hide_no_match(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a\u212ab\n\x1b[1mK\x1b[0mB\nkb\nk b\n")
    with log_of(tmp_path) as log:
        sought = Sought(query.parse("kb"), None)
        found = log.scan(log.parts()[0].begin, log.end, sought)
        assert [bare(log.line(start).text) for start in found] == ["a\u212ab", "KB", "kb"]


def test_escapes() -> None:
    assert bare("\x1b[1;31mred\x1b[0m") == "red"
    assert bare("\x1b]8;;http://x\x1b\\link\x1b]8;;\x07") == "link"
    assert bare("\x1b]0;the rest must not vanish") == "0;the rest must not vanish"
    assert bare("a\x1b") == "a"
    began = time.thread_time()
    assert len(bare("\x1b]" * 20_000)) == 0
    assert time.thread_time() - began < 2


# Several


stamps = st.lists(st.integers(0, 30), max_size=15).map(sorted)


@QUICK
@given(st.lists(stamps, min_size=1, max_size=4))
def test_several_are_interleaved_by_time(tmp_path: Path, all_stamps: list[list[int]]) -> None:
    logs = []
    for number, of in enumerate(all_stamps):
        (tmp_path / f"{number}").write_text("".join(f"{at} {number}:{line}\n" for line, at in enumerate(of)))
        logs.append(FileLog(f"{number}", LogSource(paths=(tmp_path / f"{number}",), parse=timed, timed=True)))
    merge = Merge(logs)
    expected = sorted((at, number, line) for number, of in enumerate(all_stamps) for line, at in enumerate(of))
    rows = list(merge.forwards(merge.start()))
    assert [logs[row.log].line(row.start).text for row in rows] == [f"{number}:{line}" for _, number, line in expected]
    back = list(merge.backwards(merge.end()))
    assert [row.id for row in back[::-1]] == [row.id for row in rows]
    assert [row.before for row in back[::-1]] == [row.before for row in rows]
    for row in rows:
        assert merge.at_row(row.log, row.start) == row.before
    if rows:
        assert merge.share(merge.end()) == 1.0
        assert merge.at_share(0.0) <= rows[-1].before
    for log in logs:
        log.close()


def test_lines_without_times_stand_where_they_came(tmp_path: Path) -> None:
    now = int(time.time())
    (tmp_path / "a").write_text(f"{now - 50} first\n{now + 50} last\n")
    (tmp_path / "b").write_text("old\n")
    with log_of(tmp_path, timed, "a", is_timed=True) as a, log_of(tmp_path, untimed, "b") as b:
        with (tmp_path / "b").open("a") as file:
            file.write("new\n")
        b.refresh()
        merge = Merge([a, b])
        found = [merge.logs[row.log].line(row.start).text for row in merge.forwards(merge.start())]
        assert found == ["first", "old", "new", "last"]


def test_a_line_without_time_stays_behind_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("5 five\n  more of it\n9 nine\n")
    (tmp_path / "b").write_text("4 four\n5 after\n8 eight\n")
    with log_of(tmp_path, timed, "a", is_timed=True) as a, log_of(tmp_path, timed, "b", is_timed=True) as b:
        merge = Merge([a, b])
        found = [merge.logs[row.log].line(row.start).text.strip() for row in merge.forwards(merge.start())]
        assert found == ["four", "five", "more of it", "after", "eight", "nine"]


# Streams


def test_a_stream_keeps_its_last_lines() -> None:
    log = StreamLog("s")
    assert not log.refresh()
    for number in range(KEPT_LINES + 3 * SLICE_LINES):
        log.feed([LogLine(text=f"line {number}", at=float(number))])
    assert log.refresh()
    assert not log.refresh()
    assert KEPT_LINES <= length(log) < KEPT_LINES + SLICE_LINES
    assert texts(log)[-1] == f"line {KEPT_LINES + 3 * SLICE_LINES - 1}"
    assert log.clamp(0) == log.parts()[0].begin > 0
    search = Search([log], query.parse("7$"), lambda _: None)
    count(search.tallies)
    assert search.total == len([text for text in texts(log) if text.endswith("7")])


def test_a_stream_that_is_read_again() -> None:
    lines = [LogLine(text=f"line {number}", at=float(number // 2)) for number in range(10)]
    log = StreamLog("s")
    log.feed(lines[:7])
    known = log.resume()
    log.feed(line for line in lines if not known(line))
    assert texts(log) == [line.text for line in lines]
    same = [LogLine(text="same") for _ in range(5)]
    log = StreamLog("s")
    log.feed(same[:3])
    known = log.resume()
    log.feed(line for line in same if not known(line))
    assert len(texts(log)) == 5
