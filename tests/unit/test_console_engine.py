"""The engine takes any bytes, gives only characters, and answers nothing that the guest could choose."""

from __future__ import annotations

import re
import statistics
import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vmtui.tui.console.bittty_engine import BitttyEngine
from vmtui.tui.console.engine import Look, Mouse, MouseCoding, Row
from vmtui.tui.console.history import History
from vmtui.tui.console.pacing import next_piece
from vmtui.tui.console.sieve import Sieve

UNPRINTED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
FRAGMENTS = st.one_of(
    st.binary(max_size=12),
    st.text(max_size=8).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [b"\x1b]0;x\x07", b"\x1b]52;c;QQ==\x1b\\", b"\x1bP+q544e\x1b\\", b"\x1b_x\x1b\\", b"\x1b]", b"\x1bP", b"\x1b",
         b"\x1b]P1234567", b"\x9b1m", b"\x1bc", b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b#8", b"\x1b(0lqk", b"\r\n",
         b"\x0e", b"\x1b[?6h", b"\x1b[4h", b"\x1b[5;10r", b"x" * 200, "漢".encode() * 50, b"\x1b[?7l", b"\x18",
         b"\x1b[?5h"]
    ),
    st.builds(
        lambda mark, numbers, between, final: f"\x1b[{mark}{';'.join(numbers)}{between}{final}".encode(),
        st.sampled_from(["", "?", ">", "=", "!"]),
        st.lists(st.sampled_from(["", "0", "1", "7", "38", "48", "5", "2", "80", "9999", "99999999999"]), max_size=6),
        st.sampled_from(["", "", " ", "$", "'", '"', "*"]),
        st.characters(min_codepoint=0x40, max_codepoint=0x7E),
    ),
)  # fmt: skip
BITS = st.one_of(
    st.text(st.sampled_from("ab \t"), max_size=25),
    st.text(st.sampled_from("ab "), max_size=60),
    st.sampled_from(["\x1b[m", "\x1b[1;31m", "\x1b[38;5;9m", "\x1b[0;4m", "\x1b[44mx\x1b[49m", "\x1b[7m", "\x1b[44m"]),
)
SIZES = st.tuples(st.integers(1, 30), st.integers(1, 90))


def lines(engine: BitttyEngine) -> list[str]:
    return ["".join(run.text for run in engine.row(y)).rstrip() for y in range(engine.rows)]


def text(row: Row) -> str:
    return "".join(run.text for run in row)


def fed(data: bytes, rows: int = 5, columns: int = 20) -> BitttyEngine:
    engine = BitttyEngine(rows, columns)
    engine.feed(data)
    return engine


@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(FRAGMENTS, max_size=30), size=SIZES, other=SIZES)
def test_any_bytes_give_characters_and_nothing_else(
    pieces: list[bytes], size: tuple[int, int], other: tuple[int, int]
) -> None:
    engine = BitttyEngine(*size)
    for at, piece in enumerate(pieces):
        engine.feed(piece)
        if at == len(pieces) // 2:
            engine.resize(*other)
            size = other
    assert (engine.rows, engine.columns) == size
    kept = [engine.history[number] for number in range(engine.history.first, engine.history.end)]
    for row in [*kept, *(engine.row(y) for y in range(engine.rows))]:
        assert not any(unicodedata.category(char) in UNPRINTED for char in text(row))
    for y in range(engine.rows):
        assert sum(run.cells for run in engine.row(y)) == engine.columns
        assert sum(run.cells for run in engine.row(y, marked=engine.columns - 1)) == engine.columns
    if engine.cursor is not None:
        assert 0 <= engine.cursor[0] < engine.columns
        assert 0 <= engine.cursor[1] < engine.rows
    assert engine.failures == 0


@settings(max_examples=100, deadline=None)
@given(pieces=st.lists(FRAGMENTS, max_size=20), cuts=st.lists(st.integers(1, 9), min_size=1, max_size=9))
def test_a_stream_draws_the_same_however_it_is_cut(pieces: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(pieces)
    whole, cut = fed(stream), BitttyEngine(5, 20)
    at = number = 0
    while at < len(stream):
        step = cuts[number % len(cuts)]
        cut.feed(stream[at : at + step])
        at, number = at + step, number + 1
    assert lines(cut) == lines(whole)
    assert cut.cursor == whole.cursor
    assert cut.history.end == whole.history.end


@settings(max_examples=60, deadline=None)
@given(
    body=st.lists(st.lists(BITS, max_size=8).map("".join), min_size=15, max_size=60),
    before=st.sampled_from(
        [b"", b"prompt$ ", b"\x1b[3;3Hx", b"\x1b[31m", b"\x1b[2;4r", b"\x1b[4h", b"\x1b[41m", b"\x1b(0"]
    ),
)  # fmt: skip
@example(body=["a\tb", *["x" * 20] * 30], before=b"\x1b[3;3Hx")
def test_plain_lines_in_bulk_are_those_lines(body: list[str], before: bytes) -> None:
    flood = "".join(f"{line}\r\n" for line in body).encode() + b"last"
    bulk, slow = fed(before), fed(before)
    bulk.feed(flood)
    for at in range(0, len(flood), 16):
        slow.feed(flood[at : at + 16])
    assert [bulk.row(y) for y in range(5)] == [slow.row(y) for y in range(5)]
    assert bulk.cursor == slow.cursor
    assert bulk.history.end == slow.history.end
    for number in range(slow.history.first, slow.history.end):
        assert cells(bulk.history[number]) == cells(slow.history[number])


def cells(row: Row) -> list[tuple[str, Look]]:
    """Without the blanks at the end that cannot be seen."""
    found = [(char, run.look) for run in row for char in run.text]
    while found and found[-1][0] == " " and found[-1][1]._replace(fg=None, bold=False) == Look():
        found.pop()
    return found


def test_queries_are_answered_here() -> None:
    engine = fed(b"ab\x1b[c\x1b[>c\x1b[5n\x1b[6n\x1b[?2004h\x1b[?2004$p\x1b[?9999$p")
    assert engine.take_replies() == (b"\x1b[?62;22c\x1b[>1;10;0c\x1b[0n\x1b[1;3R\x1b[?2004;1$y\x1b[?9999;0$y")
    assert engine.take_replies() == b""


REPLY = re.compile(rb"\x1b\[[?>]?[0-9;]*[cnR]|\x1b\[\??[0-9;]+\$y")


@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(FRAGMENTS, max_size=30))
def test_no_answer_carries_what_the_guest_chose(pieces: list[bytes]) -> None:
    """Else a log that is shown in a guest could type into its shell."""
    replies = fed(b"".join(pieces)).take_replies()
    assert REPLY.sub(b"", replies) == b""


@pytest.mark.parametrize(
    "query",
    [b"\x1b]0;evil\x07\x1b[21t", b"\x05", b"\x1bP$qevil\x1b\\", b"\x1bP+q6576696c\x1b\\", b"\x1b[?15n",
     b"\x1b[1;1;1;1;1*y", b"\x1b]52;c;?\x07", b"\x1b]11;?\x07", b"\x1b[18t", b"\x1b[0x",
     b"\x1bP1;1;1!z6576696c\x1b\\\x1b[1*z"],
)  # fmt: skip
def test_these_are_not_answered(query: bytes) -> None:
    engine = fed(query)
    assert engine.take_replies() == b""
    assert lines(engine) == [""] * 5


def test_a_guest_that_only_asks_gets_no_more_than_so_much() -> None:
    assert len(fed(b"\x1b[c" * 100_000).take_replies()) <= 4096


def test_strings_are_dropped_without_being_kept() -> None:
    sieve = Sieve()
    assert sieve.pass_on(b"a\x1b]52;c;") == "a"
    for _ in range(100):
        assert sieve.pass_on(b"QUJD" * 1000) == ""
    assert sieve.pass_on(b"\x07b\x1bPq#0;2;0;0;0\r\n~~\x1b") == "b"
    assert sieve.pass_on(b"\\c") == "c"
    assert sieve.pass_on(b"\x1b]0;no end\r\nline") == "\r\nline"
    assert sieve.pass_on(b"\x1b]P0000000x\x1b]Ry") == "xy"
    assert sieve.pass_on(b"\x1b[" + b"1;" * 5000) == ""
    assert sieve.pass_on(b"mz") == "z"


def test_sequences_come_out_whole_and_small() -> None:
    sieve = Sieve()
    assert sieve.pass_on(b"\x1b[31") == ""
    assert sieve.pass_on(b"mx") == "\x1b[31mx"
    assert sieve.pass_on(b"\x1b[99999999999Cx") == "\x1b[9999Cx"
    assert sieve.pass_on(b"\x1b[3\n1mx") == "\n\x1b[31mx"
    assert sieve.pass_on(b"\x1b[3\x18x\x1b[4\x1b[1my") == "x\x1b[1my"
    assert sieve.pass_on("\u009b31m\u202ex\u200b\ufeff".encode()) == "31mx"
    assert sieve.pass_on(b"\xff\xc3") == "\ufffd"
    assert sieve.pass_on(b"\xa9") == "é"


@pytest.mark.parametrize(
    "sequence",
    [b"\x1bc", b"\x1b[2J", b"\x1b#8", "漢".encode() + b"\x1b[999b", b"\x1b[99S", b"\n", b"\x1b[99Z", b"\x1b[999@"],
)  # fmt: skip
def test_no_piece_of_a_stream_holds_the_loop_for_long(sequence: bytes) -> None:
    engine = BitttyEngine(50, 200)
    flood = sequence * 5000
    taken = []
    for _ in range(20):
        length = next_piece(flood)
        began = time.thread_time()
        engine.feed(flood[:length])
        taken.append(time.thread_time() - began)
        flood = flood[length:]
    assert statistics.median(taken) < 0.15  # 8 to 30 ms on a quiet machine; one of them may meet a garbage collection


def test_pieces_make_up_the_stream() -> None:
    stream = b"plain\r\n" * 20_000 + b"\x1b[2J" * 500 + "漢".encode() * 5000
    whole = bytearray(stream)
    taken = b""
    while whole:
        length = next_piece(whole)
        assert 0 < length <= 48 << 10
        taken += bytes(whole[:length])
        del whole[:length]
    assert taken == stream


def test_modes_that_change_the_input() -> None:
    engine = fed(b"\x1b[?1;1002;1006;2004;1004;2026h\x1b=\x1b[20h\x1b[?1049h")
    modes = engine.modes
    assert (modes.application_cursor, modes.bracketed_paste, modes.focus, modes.synchronized) == (True,) * 4
    assert (modes.application_keypad, modes.newline, modes.alternate) == (True,) * 3
    assert (modes.mouse, modes.mouse_coding) == (Mouse.DRAGS, MouseCoding.SGR)
    engine.feed(b"\x1bc")
    assert engine.modes == BitttyEngine(5, 20).modes


def test_looks() -> None:
    (run, *_) = fed(b"\x1b[1;2;3;4;7;9;38;5;208;48;2;1;2;3mx").row(0)
    assert run.look == Look(208, (1, 2, 3), True, True, True, True, True, True)
    (run, *_) = fed(b"\x1b[8msecret").row(0)
    assert run.text.strip() == ""


def test_the_cursor_is_drawn_on_the_whole_of_a_wide_character() -> None:
    engine = fed("a漢b".encode())
    assert [(run.text, run.cells) for run in engine.row(0, marked=2) if run.look.reverse] == [("漢", 2)]


def test_the_history_has_what_leaves_the_top_and_what_a_smaller_screen_pushes_out() -> None:
    engine = fed(b"".join(b"line %d\r\n" % number for number in range(8)))
    assert [text(engine.history[number]) for number in range(4)] == [f"line {number}" for number in range(4)]
    engine.resize(2, 20)
    assert lines(engine) == ["line 7", ""]
    assert text(engine.history[6]) == "line 6"
    engine.feed(b"\x1b[?1049h" + b"\n" * 50)
    assert engine.history.end == 7
    engine.feed(b"\x1b[?1049l\x1b[3J")
    assert engine.history.first == 7


def test_a_wider_screen_has_tab_stops_to_its_end() -> None:
    engine = BitttyEngine(2, 10)
    engine.resize(2, 80)
    engine.feed(b"\t" * 5 + b"x")
    assert lines(engine)[0] == " " * 40 + "x"


def test_a_history_forgets_its_oldest_and_keeps_its_numbers() -> None:
    history = History(3)
    history.extend([(), (), (), ()])
    assert (history.first, history.end) == (1, 4)
    with pytest.raises(IndexError):
        history[0]
    history.clear()
    assert (history.first, history.end) == (4, 4)


def test_only_rows_that_changed_are_dirty() -> None:
    engine = fed(b"")
    assert list(engine.take_dirty()) == [0, 1, 2, 3, 4]
    engine.feed(b"\x1b[3;1Hx")
    assert list(engine.take_dirty()) == [2]
    engine.feed(b"\x1b[?1049h")
    assert len(engine.take_dirty()) == 5
