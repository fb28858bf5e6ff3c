"""What a VM left its guest for, as people see it."""

from __future__ import annotations

from textual.theme import BUILTIN_THEMES

from vmtui.headless import tables
from vmtui.tui.exits import SHOWN, Exits
from vmtui.tui.palette import palette_of

HOSTILE = "port 0x80\x1b[2J\u202e"
PALETTE = palette_of(BUILTIN_THEMES["textual-dark"])


def drawn(exits: Exits, width: int = 80) -> list[str]:
    return ["".join(segment.text for segment in line) for line in exits.lines(PALETTE, width)]


def test_in_the_panel_with_rates_from_the_second_look_on() -> None:
    exits = Exits()
    assert drawn(exits) == []
    exits.look([("serial", 100), ("rng", 10)], at=10.0)
    assert [line.split()[:2] for line in drawn(exits)] == [["serial", "100"], ["rng", "10"]]
    assert "/s" not in "".join(drawn(exits))
    exits.look([("serial", 150), ("rng", 10), ("power", 1)], at=12.0)
    assert [line.split()[:3] for line in drawn(exits)] == [
        ["serial", "150", "25/s"],
        ["rng", "10", "0/s"],
        ["power", "1", "0/s"],
    ]


def test_in_the_panel_after_the_vm_began_anew() -> None:
    exits = Exits()
    exits.look([("serial", 100)], at=1.0)
    exits.look([("serial", 5)], at=2.0)
    assert "/s" not in drawn(exits)[0]


def test_in_the_panel_the_rare_ones_are_one_line_and_no_line_is_too_wide() -> None:
    exits = Exits()
    exits.look([(f"cause {number}" * 9, 10**number) for number in range(12, 0, -1)], at=1.0)
    for width in (60, 80, 200):
        lines = drawn(exits, width)
        assert len(lines) == SHOWN + 1
        assert all(len(line) <= width for line in lines)
    assert drawn(exits)[-1].split()[:2] == ["4", "others"]


def test_nothing_of_a_cause_reaches_the_terminal_raw() -> None:
    exits = Exits()
    exits.look([(HOSTILE, 1)], at=1.0)
    shown = "".join(drawn(exits)) + "".join(tables.exits([(HOSTILE, 1)]))
    assert shown.isprintable()


def test_as_text() -> None:
    assert list(tables.exits([])) == []
    assert list(tables.exits([("serial", 75), ("rng", 25)])) == [
        "exits from the guest  100",
        "  serial  75   75%  ###############",
        "  rng     25   25%  #####",
    ]
