"""The Engine on bittty, with everything taken out of it that a guest has no business with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bittty import Board, Operation
from bittty.devices.modes import MouseEncoding, MouseProtocol
from bittty.present import Bell, PresentEvent, RowsScrolledOff, ScrollbackCleared
from bittty.style import Style
from bittty.video import WideHead

from vmtui.tui.console.bittty_model import MODEL, OPERATIONS
from vmtui.tui.console.engine import Modes, Mouse, MouseCoding, Row
from vmtui.tui.console.flood import TAB_CELLS, Flood
from vmtui.tui.console.glyphs import ALONE, JOINER, MOST_MARKS, GuestWidths, joins
from vmtui.tui.console.history import HISTORY_ROWS, History
from vmtui.tui.console.looks import kept, runs
from vmtui.tui.console.sieve import Sieve

MICE = {
    MouseProtocol.X10: Mouse.PRESSES,
    MouseProtocol.NORMAL: Mouse.CLICKS,
    MouseProtocol.BUTTON: Mouse.DRAGS,
    MouseProtocol.ANY: Mouse.MOTION,
}
MOUSE_CODINGS = {
    MouseEncoding.UTF8: MouseCoding.UTF8,
    MouseEncoding.SGR: MouseCoding.SGR,
    MouseEncoding.URXVT: MouseCoding.URXVT,
}
MOST_REPLIES_BYTES = 4096  # a guest that asks without reading the answers gets no more than these
FEWEST_SCREENS = 3  # of lines, for which it pays not to draw them all


class Replies:
    """The cable to the guest, as bittty has it: keeps what is to be sent."""

    closed = False

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: str) -> int:
        return self.write_bytes(data.encode())

    def write_bytes(self, data: bytes) -> int:
        if len(self.data) + len(data) <= MOST_REPLIES_BYTES:
            self.data += data
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""

    def resize(self, rows: int, cols: int) -> None:
        """The session tells the guest."""


class BitttyEngine:
    """An Engine. Reads bittty's pages directly: a copy of a row costs more than drawing it."""

    def __init__(self, rows: int, columns: int, history_rows: int = HISTORY_ROWS) -> None:
        self.history = History(history_rows)
        self.keeps_scrollback = True  # bittty asks its display
        self.failures = 0  # of bittty, survived
        self._bell = False
        self._sieve = Sieve()
        self._replies = Replies()
        self._board = board = Board(width=columns, height=rows, model=MODEL, width_policy=GuestWidths())
        for name in board.registry.keys() - OPERATIONS:
            del board.registry[name]
        # REP beyond a line is of no use, and takes 11 ms a time with a wide character.
        repeat = board.registry["REP"]
        board.registry["REP"] = lambda operation: repeat(Operation("REP", (min(operation.args[0], self.columns),)))
        board.host.attach(self._replies)
        board.attach_display(self)
        board.parser._print_text = self._print
        self._screen = board.display
        self._page: Any = None  # whose generation was looked at last
        self._generation = -1
        self.reset()

    @property
    def rows(self) -> int:
        return int(self._board.height)

    @property
    def columns(self) -> int:
        return int(self._board.width)

    @property
    def cursor(self) -> tuple[int, int] | None:
        cursor: tuple[int, int] | None = self._screen.cursor
        return cursor

    @property
    def modes(self) -> Modes:
        modes, mouse = self._board.modes, self._board.mouse
        return Modes(
            application_cursor=modes.cursor_application_mode,
            application_keypad=modes.application_keypad,
            bracketed_paste=modes.bracketed_paste,
            focus=modes.focus_reporting,
            alternate=self._board.blitter.in_alt_screen,
            newline=modes.linefeed_newline_mode,
            backspace_is_bs=modes.backarrow_key_sends_bs,
            synchronized=modes.synchronized_output,
            mouse=MICE.get(mouse.protocol, Mouse.OFF),
            mouse_coding=MOUSE_CODINGS.get(mouse.encoding, MouseCoding.LEGACY),
        )

    def feed(self, data: bytes) -> None:
        text = self._sieve.pass_on(data)
        if (tail := self._bulk(text)) is not None:
            text = tail
        if text:
            self._interpret(text)

    def _interpret(self, text: str) -> None:
        try:
            self._board.parser.feed(text)
        except Exception:  # any bytes may come, and bittty is not ours: a fault of its must not end the panel
            self.failures += 1
            self._board.parser.reset()

    def _print(self, text: str) -> None:
        """Write text, marks into the cell on their left. Any split of a text draws the same."""
        if text.isascii():
            self._write(text)
            return
        begin = at = 0
        while (at := self._next_joining(text, begin, at)) < len(text):
            self._write(text[begin:at])
            self._join(text[at])
            begin = at = at + 1
        self._write(text[begin:])

    def _write(self, text: str) -> None:
        if text:
            self._board.blitter.write_text(text, self._board.style.current)

    def _next_joining(self, text: str, begin: int, at: int) -> int:
        """Where a character is, from `at` on, that joins the one before, of which [begin, at) is not yet written."""
        before = text[at - 1] if at > begin else self._before()
        while at < len(text):
            if joins(before, text[at]):
                return at
            alone = ALONE.match(text, at)
            at = max(at + 1, alone.end() if alone else 0)
            before = text[at - 1]
        return at

    def _before(self) -> str:
        """The cell on the left of the cursor."""
        page, cursor = self._board.blitter.current_page, self._board.cursor
        return str(page.get_cell(page.owner_x(cursor.x - 1, cursor.y), cursor.y)[1]) if cursor.x > 0 else ""

    def _join(self, mark: str) -> None:
        page, cursor = self._board.blitter.current_page, self._board.cursor
        if cursor.x == 0:
            return
        x = page.owner_x(cursor.x - 1, cursor.y)
        style, cell = page.get_cell(x, cursor.y)
        if len(cell) <= MOST_MARKS and not (mark == JOINER and cell.isascii()):
            page.grid[cursor.y][x] = (style, type(cell)(cell + mark))  # its type says how wide it is
            page.row_gen[cursor.y] = page.generation

    def row(self, y: int, marked: int | None = None) -> Row:
        cells, columns = self._screen.page.grid[y], self.columns
        if len(cells) != columns or isinstance(cells[-1][1], WideHead):  # as it can be after a resize
            cells = [*cells[:columns], *[(Style(), " ")] * (columns - len(cells))]
            if isinstance(cells[-1][1], WideHead):
                cells[-1] = (cells[-1][0], " ")
        reverse = self._board.modes.reverse_screen
        if marked is None:
            return runs(cells, reverse=reverse)
        begin = self._screen.page.owner_x(marked, y)
        end = begin + 1 + isinstance(cells[begin][1], WideHead)
        here = runs(cells[begin:end], reverse=not reverse)
        return (*runs(cells[:begin], reverse=reverse), *here, *runs(cells[end:], reverse=reverse))

    def take_dirty(self) -> Sequence[int]:
        page = self._screen.page
        rows: Sequence[int] = page.dirty_rows(self._generation) if page is self._page else range(page.height)
        self._page, self._generation = page, page.observe()
        return rows

    def take_replies(self) -> bytes:
        data = bytes(self._replies.data)
        self._replies.data.clear()
        return data

    def take_bell(self) -> bool:
        rang, self._bell = self._bell, False
        return rang

    def resize(self, rows: int, columns: int) -> None:
        if (rows, columns) == (self.rows, self.columns):
            return
        board = self._board
        if (below := board.cursor.y - rows + 1) > 0 and not board.blitter.in_alt_screen:
            # What is above the cursor goes into the history, as in xterm; bittty would cut off what is at the bottom.
            board.blitter.set_scroll_region(0, board.height - 1)
            board.blitter.scroll(below)
            board.cursor.set_position(board.cursor.x, board.cursor.y - below)
        begin = self.columns + -self.columns % TAB_CELLS
        board.resize(columns, rows)
        board.cursor.tab_stops |= set(range(begin, columns, TAB_CELLS))  # as in xterm; bittty sets none

    def reset(self) -> None:
        self._sieve = Sieve()
        self._board.parser.reset()
        self._board.reset(hard=True)

    # bittty's display

    def present(self, event: PresentEvent) -> None:
        """What bittty tells its display: rows that scroll off, the bell, and much that nobody is told."""
        match event:
            case RowsScrolledOff():
                self.history.extend([kept(line.cells) for line in event.lines])
            case Bell():
                self._bell = True
            case ScrollbackCleared():
                self.history.clear()

    # Plain text in bulk

    def _bulk(self, text: str) -> str | None:
        """Take many lines at once; what is left of the text, or None if it has to be interpreted as usual.

        Most of such a flood is never seen: it goes to the history as it is, and only the lines at both ends are drawn.
        """
        board, rows = self._board, self.rows
        if len(text) < FEWEST_SCREENS * rows or not self._is_plain():
            return None
        flood = Flood.of(text, FEWEST_SCREENS * rows)
        if flood is None or (flood.tabs and (flood.longest > self.columns or not self._common_tabs())):
            return None
        end = len(flood.lines) - rows
        made = flood.rows(rows, end, self.columns, board.style.current)
        if made is None:
            return None
        between, style = made
        self._interpret("\r\n".join(flood.lines[:rows]) + "\r\n")  # the cursor is on an empty last row now
        grid = self._screen.page.grid
        self.history.extend([kept(grid[y]) for y in range(rows - 1)])
        self.history.extend(between)
        self._interpret("\x1b[m\x1b[H\x1b[2J")
        board.style.current = style
        self._interpret("\r\n".join(flood.lines[end:]) + "\r\n")
        return flood.rest

    def _common_tabs(self) -> bool:
        """Whether a line's tabs go where they go in any terminal, the first line's too."""
        cursor = self._board.cursor
        stops: set[int] = cursor.tab_stops
        return bool(cursor.x == 0) and stops == set(range(TAB_CELLS, self.columns, TAB_CELLS))

    def _is_plain(self) -> bool:
        """Whether a line of text is that line on the screen, and leaves it at the top."""
        board = self._board
        blitter, modes, charset = board.blitter, board.modes, board.charset
        return (
            not (blitter.in_alt_screen or modes.insert_mode or modes.origin_mode or board.parser.buffer)
            and modes.auto_wrap
            and blitter.scroll_top == 0
            and blitter.scroll_bottom == self.rows - 1
            and charset.charset_array[charset.current_charset] == "B"
            and board.style.current.bg is None
        )
