"""Streams of real programs against what tmux shows of them: characters, looks, cursor, alternate screen."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from vmtui.tui.console.bittty_engine import BitttyEngine
from vmtui.tui.console.engine import PLAIN, Look

CORPUS = Path(__file__).parents[1] / "corpus" / "terminal"
NAMES = sorted(file.name.removesuffix(".stream.gz") for file in CORPUS.glob("*.stream.gz"))
ROWS, COLUMNS = 24, 80
FLAGS = {1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "reverse", 9: "strike"}

# What we leave out of a cell: the next picture after a joiner, and variation selectors.
UNDRAWN_JOINED = re.compile("\u200d.|[\ufe00-\ufe0f]")
Cells = list[tuple[str, Look]]


@pytest.mark.parametrize("piece_bytes", [1, 7, 1 << 20])
@pytest.mark.parametrize("name", NAMES)
def test_the_screen_is_the_one_that_tmux_shows(name: str, piece_bytes: int) -> None:
    stream = gzip.decompress((CORPUS / f"{name}.stream.gz").read_bytes())
    head, *golden = (CORPUS / f"{name}.screen").read_text().split("\n")
    engine = BitttyEngine(ROWS, COLUMNS)
    for at in range(0, len(stream), piece_bytes):
        engine.feed(stream[at : at + piece_bytes])

    expected = tmux_rows([UNDRAWN_JOINED.sub("", line) for line in golden[:ROWS]])
    drawn = [engine_row(engine, y) for y in range(ROWS)]
    assert [text(row) for row in drawn] == [text(row) for row in expected]
    assert [visible(row) for row in drawn] == [visible(row) for row in expected]
    assert f"alternate {int(engine.modes.alternate)}" in head
    if engine.cursor is not None:
        assert head.startswith("cursor {} {} ".format(*engine.cursor))
    assert engine.failures == 0


def engine_row(engine: BitttyEngine, y: int) -> Cells:
    row = engine.row(y)
    assert sum(run.cells for run in row) == COLUMNS
    return [(char, run.look) for run in row for char in run.text]


def text(row: Cells) -> str:
    return "".join(char for char, _ in row).rstrip()


def visible(row: Cells) -> Cells:
    """tmux cuts blanks at the end; those that can be seen are compared as far as it has them."""
    while row and row[-1][0] == " ":
        row = row[:-1]
    return [(char, look if char != " " else look._replace(fg=None, bold=False, dim=False)) for char, look in row]


def tmux_rows(lines: list[str]) -> list[Cells]:
    """`capture-pane -e`: SGR goes on from line to line; SO and SI are around line drawing."""
    look, drawing = PLAIN, False
    rows: list[Cells] = []
    for line in lines:
        row: Cells = []
        for part in re.split(r"(\x1b\[[0-9;:]*m|[\x0e\x0f])", line):
            if part.startswith("\x1b"):
                look = changed(look, [int(number or 0) for number in re.split("[;:]", part[2:-1])])
            elif part in ("\x0e", "\x0f"):
                drawing = part == "\x0e"
            else:
                row += [(DRAWN.get(char, char) if drawing else char, look) for char in part]
        rows.append(row)
    return rows


DRAWN = dict(zip("lqkxmjtuwvna`", "┌─┐│└┘├┤┬┴┼▒◆", strict=True))


def changed(look: Look, numbers: list[int]) -> Look:
    while numbers:
        match numbers:
            case [0, *rest]:
                look = PLAIN
            case [38, 5, index, *rest]:
                look = look._replace(fg=index)
            case [48, 5, index, *rest]:
                look = look._replace(bg=index)
            case [38, 2, red, green, blue, *rest]:
                look = look._replace(fg=(red, green, blue))
            case [48, 2, red, green, blue, *rest]:
                look = look._replace(bg=(red, green, blue))
            case [39, *rest]:
                look = look._replace(fg=None)
            case [49, *rest]:
                look = look._replace(bg=None)
            case [code, *rest] if code in FLAGS:
                look = look._replace(**{FLAGS[code]: True})
            case [code, *rest] if 30 <= code <= 37 or 90 <= code <= 97:
                look = look._replace(fg=code - 30 if code < 90 else code - 82)
            case [code, *rest] if 40 <= code <= 47 or 100 <= code <= 107:
                look = look._replace(bg=code - 40 if code < 100 else code - 92)
            case [_, *rest]:
                pass
        numbers = rest
    return look
