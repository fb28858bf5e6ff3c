"""The file that simulated resources live in: shared, appended to, never half read."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtui.backends.fake.ledger import COMPACT_ABOVE_LINES, Ledger
from vmtui.core.errors import OperationFailed


class Row(msgspec.Struct, frozen=True):
    value: int


def ledger(path: Path) -> Ledger[Row]:
    return Ledger(path, Row)


def test_two_see_the_same_and_an_empty_one_has_no_file(tmp_path: Path) -> None:
    one, two = ledger(tmp_path / "rows"), ledger(tmp_path / "rows")
    assert two.rows() == {}
    one.put("a", Row(1))
    assert two.refresh() == {"a"}
    two.put("b", Row(2))
    assert one.rows() == {"a": Row(1), "b": Row(2)}
    one.put("a", None)
    one.put("a", None)
    two.put("b", None)
    assert list(tmp_path.iterdir()) == []
    assert one.rows() == two.rows() == {}
    two.put("c", Row(3))
    assert one.refresh() == {"c"}


def test_a_line_cut_off_by_a_kill_does_not_count_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    ledger(path).put("a", Row(1))
    whole = path.read_bytes()
    path.write_bytes(whole + b'"b"\t{"val')
    reader = ledger(path)
    assert reader.rows() == {"a": Row(1)}
    ledger(path).put("c", Row(3))
    assert reader.rows() == {"a": Row(1), "c": Row(3)}
    assert b"val\n" not in path.read_bytes()


def test_many_changes_of_few_rows_do_not_pile_up(tmp_path: Path) -> None:
    writer, reader = ledger(tmp_path / "rows"), ledger(tmp_path / "rows")
    writer.put("kept", Row(0))
    assert reader.rows()
    for number in range(3 * COMPACT_ABOVE_LINES):
        writer.put("a", Row(number))
    assert (tmp_path / "rows").read_bytes().count(b"\n") <= COMPACT_ABOVE_LINES + 1
    assert reader.rows() == {"kept": Row(0), "a": Row(3 * COMPACT_ABOVE_LINES - 1)}
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b'"a"\t{"value":"text"}\n')
    with pytest.raises(OperationFailed, match="is damaged") as caught:
        dict(ledger(path).rows())
    assert caught.value.hint == f"rm {path}"


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    rows = ledger(tmp_path / "rows")
    rows.put("a", Row(1))

    def change() -> None:
        with rows.changing() as put:
            put("a", None)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        change()
    assert rows.rows() == ledger(tmp_path / "rows").rows() == {"a": Row(1)}


def _count(path: Path, worker: int) -> None:
    rows = ledger(path)
    for number in range(200):
        with rows.changing() as put:
            total = rows.rows().get("total", Row(0))
            put("total", Row(total.value + 1))
            put(f"{worker}", Row(number) if number % 2 else None)


def test_writers_do_not_lose_each_others_changes(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("forkserver")
    workers = [processes.Process(target=_count, args=(tmp_path / "rows", worker)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert ledger(tmp_path / "rows").rows()["total"] == Row(600)


@given(st.lists(st.tuples(st.text(max_size=3), st.none() | st.integers(-(2**53), 2**53), st.booleans())))
def test_it_is_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, int | None, bool]]
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "rows"
    one, two = ledger(path), ledger(path)
    model: dict[str, Row] = {}
    for key, value, which in changes:
        (one if which else two).put(key, None if value is None else Row(value))
        if value is None:
            model.pop(key, None)
        else:
            model[key] = Row(value)
    assert one.rows() == two.rows() == ledger(path).rows() == model
    assert path.exists() == bool(model)
