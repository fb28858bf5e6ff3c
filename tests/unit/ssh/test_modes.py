"""The modes of a terminal, followed in what a session writes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vmtui.ssh.modes import Modes

PANEL = b"\x1b[?1049h\x1b[?1000h\x1b[?1006h\x1b[?25l\x1b[>1u\x1b[?2004hhello"
BACK = b"\x1b[<u\x1b[?2004l\x1b[?25h\x1b[?1006l\x1b[?1000l\x1b[?1049l\x1b[0m"


def after(*pieces: bytes) -> Modes:
    modes = Modes()
    for piece in pieces:
        modes.feed(piece)
    return modes


def test_what_a_panel_sets_is_taken_back_last_first() -> None:
    assert after(PANEL).leave() == BACK


def test_nothing_is_written_to_a_terminal_that_is_as_it_was() -> None:
    assert after(b"plain \x1b[1mbold\x1b[0m text").leave() == b""
    assert after(PANEL, BACK).leave() == b""


@given(st.data())
def test_a_stream_may_be_cut_anywhere(data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(PANEL)), max_size=8)))
    pieces = [PANEL[a:b] for a, b in zip([0, *cuts], [*cuts, len(PANEL)], strict=True)]
    assert after(*pieces).leave() == BACK


@given(st.lists(st.binary(max_size=200) | st.sampled_from([b"\x1b[?", b"1049", b";", b"h", b"l", b"\x1b[>", b"u"])))
def test_any_bytes_leave_a_terminal_that_can_be_given_back(pieces: list[bytes]) -> None:
    modes = after(*pieces)
    back = modes.leave()
    assert len(back) < 4096
    modes.feed(b"\x1b\\" + back)
    assert modes.leave() == b""


def test_several_modes_in_one_sequence() -> None:
    assert after(b"\x1b[?1000;1006h").leave() == b"\x1b[?1006l\x1b[?1000l\x1b[0m"


def test_who_looks_gets_the_screen_and_who_drives_the_mouse_too() -> None:
    modes = after(PANEL)
    assert modes.enter(drives=False) == b"\x1b[?1049h\x1b[?25l"
    assert modes.enter(drives=True) == b"\x1b[?1049h\x1b[?1000h\x1b[?1006h\x1b[?25l\x1b[?2004h"


def test_nobody_is_put_into_a_mode_that_reports_another_terminals_size() -> None:
    assert after(b"\x1b[?2048h\x1b[?1004h").enter(drives=True) == b""


def test_a_stream_that_sets_ever_new_modes_is_not_followed_for_ever() -> None:
    modes = after(*(b"\x1b[?%dh" % mode for mode in range(3000, 9000)))
    assert modes.leave().count(b"l") <= 64
