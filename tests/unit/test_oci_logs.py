"""Container logs, as conmon writes them and as nobody should."""

from __future__ import annotations

import os
from contextlib import aclosing
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vmtui.backends.oci.logs import MAX_LINE_BYTES, Parser, last_lines, read
from vmtui.backends.oci.places import Places
from vmtui.core.backend import Context, LogLine
from vmtui.core.resource import Kind, Ref

AT = "2026-01-02T03:04:05.678901234+00:00"


def entry(text: str, tag: str = "F", stream: str = "stdout") -> bytes:
    return f"{AT} {stream} {tag} {text}\n".encode()


def parse(data: bytes) -> list[LogLine]:
    parser = Parser()
    return [*parser.feed(data), *parser.end()]


def test_lines() -> None:
    (line,) = parse(entry("hello"))
    assert (line.text, line.stream) == ("hello", "stdout")
    assert line.at is not None
    assert abs(line.at - 1767323045.678901) < 0.001
    assert [line.text for line in parse(entry("one\r") + entry("") + entry(" two "))] == ["one", "", " two "]
    assert parse(b"") == []


def test_parts_are_joined_by_stream() -> None:
    data = entry("a", "P") + entry("x", "P", "stderr") + entry("b", "P") + entry("c") + entry("y", "F", "stderr")
    assert [(line.text, line.stream) for line in parse(data)] == [("abc", "stdout"), ("xy", "stderr")]
    assert [line.text for line in parse(entry("never ended", "P"))] == ["never ended"]


def test_a_line_without_end_is_told_in_pieces() -> None:
    lines = parse(b"".join(entry("z" * 8000, "P") for _ in range(40)))
    assert "".join(line.text for line in lines) == "z" * 320_000
    assert max(len(line.text) for line in lines) < 2 * MAX_LINE_BYTES
    assert "".join(line.text for line in parse(b"q" * 1_000_000)) == "q" * 1_000_000


@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(1, 50))
def test_any_bytes_in_any_pieces(chunks: list[bytes], size: int) -> None:
    data = b"\n".join(chunks)
    parser = Parser()
    pieces = [line for begin in range(0, len(data), size) for line in parser.feed(data[begin : begin + size])]
    assert [line.text for line in pieces] == [line.text for line in Parser().feed(data)]
    assert all("\n" not in line.text for line in pieces)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(st.integers(0, 3000), st.integers(0, 3000), st.one_of(st.none(), st.integers(0, 4000)))
def test_the_tail_goes_on_in_the_older_file(tmp_path: Path, old: int, new: int, count: int | None) -> None:
    texts = [f"line {number:060d} {'w' * (number % 300)}" for number in range(old + new)]
    files = (tmp_path / "log.1", tmp_path / "log")
    for path, part in zip(files, (texts[:old], texts[old:]), strict=True):
        path.write_bytes(b"".join(entry(text) for text in part))
    expected = texts if count is None else texts[len(texts) - min(count, len(texts)) :]
    assert [line.text for line in last_lines(files[1], files[0], count)] == expected


def test_what_was_rotated_while_it_was_opened_is_told_once(tmp_path: Path) -> None:
    log, older = tmp_path / "log", tmp_path / "log.1"
    log.write_bytes(entry("one") + entry("two"))
    os.link(log, older)
    assert [line.text for line in last_lines(log, older, None)] == ["one", "two"]


def test_a_line_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(entry("one") + entry("two")[:-3])
    assert [line.text for line in last_lines(log, tmp_path / "log.1", None)] == ["one"]


async def test_nothing_is_lost_between_the_last_lines_and_the_next_ones(context: Context) -> None:
    places = Places(context, Ref("t", Kind.CONTAINER, "web"), ())
    places.resource.mkdir(parents=True)
    places.old_log.write_bytes(entry("zero"))
    places.log.write_bytes(entry("one") + entry("two") + entry("three")[:9])
    async with aclosing(read(places, tail=3, follow=True)) as lines:  # type: ignore[type-var]
        found = [(await anext(lines)).text]
        with places.log.open("ab") as file:
            file.write(entry("three")[9:])
        found += [(await anext(lines)).text for _ in range(2)]
        with places.log.open("ab") as file:
            file.write(entry("four"))
        found += [(await anext(lines)).text for _ in range(2)]
    assert found == ["zero", "one", "two", "three", "four"]


def test_no_file(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "log", tmp_path / "log.1", None) == []
