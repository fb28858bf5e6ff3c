"""The commands and system calls that this panel really made, to be read and copied."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.cells import set_cell_size
from rich.segment import Segment
from textual.binding import Binding, BindingType

from vmtui.core.resource import Ref
from vmtui.host import trace
from vmtui.host.process import tail
from vmtui.host.trace import Act
from vmtui.tui.screens.events import moment
from vmtui.tui.screens.records import RecordScreen
from vmtui.tui.screens.sheet import Line, Sheet
from vmtui.tui.text import plain
from vmtui.tui.widgets.lines import LineView
from vmtui.tui.widgets.records import RecordList

DRAW_S = 0.25  # what happens within is drawn together
WIDE = 100
LINE_SHOWN = 2000
WHY_EMPTY = "vmtui has changed nothing since it was opened: R shows what it only read"


def outcome(act: Act) -> str:
    """How it ended, in a word or two."""
    if act.elapsed_s is None:
        return "running"
    if act.code not in (None, 0):
        return f"code {act.code}"
    return "failed" if act.error else "ok"


def took(act: Act) -> str:
    if act.elapsed_s is None:
        return ""
    return f"{act.elapsed_s * 1000:.0f} ms" if act.elapsed_s < 1 else f"{act.elapsed_s:.1f} s"


def details(act: Act) -> list[Line]:
    """All that is known of one, for people."""
    what = f"equivalent of a {act.way} call" if act.equivalent else str(act.way)
    lines: list[Line] = [
        (f"{what}, {outcome(act)}{f' after {took(act)}' if act.elapsed_s is not None else ''}", "accent"),
        (f"at {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(act.at))}", "dim"),
    ]
    lines += [(f"for {act.doing}", "dim")] if act.doing else []
    lines += [("it only read", "dim")] if act.reads else []
    lines += [(f"in {act.cwd}", "dim")] if act.cwd else []
    lines += [("", "text"), *((word, "text") for word in act.argv)]
    if act.environment:
        lines += [("", "text"), ("environment, where it differs:", "accent")]
        lines += [(pair, "text") for pair in act.environment]
    if act.stdin_bytes is not None:
        shown = act.stdin is not None
        lines += [("", "text"), (f"stdin, {act.stdin_bytes} bytes{':' if shown else ', not kept'}", "accent")]
        lines += [(line, "text") for line in _readable(act.stdin or b"")]
    if act.error:
        lines += [("", "text"), (act.error, "bad")]
    if act.stderr.strip():
        lines += [("", "text"), ("stderr, its end:", "accent")]
        lines += [(line, "text") for line in tail(act.stderr).splitlines()]
    return lines


def _readable(text: bytes) -> list[str]:
    """JSON with its parts on lines of their own, anything else as it is."""
    said = text.decode("utf-8", "replace")
    try:
        return json.dumps(json.loads(said), indent=1, ensure_ascii=False).splitlines()
    except ValueError:
        return said.splitlines()


class ActList(RecordList[Act]):
    def draw_record(self, record: Act, width: int) -> Sequence[Segment]:
        palette = self.palette
        running = record.elapsed_s is None
        odd = running or record.code not in (None, 0)
        style = palette.bad if record.failed else palette.warn if odd else palette.good
        sign = palette.glyphs.failed if record.failed else palette.glyphs.right if running else palette.glyphs.dot
        name = set_cell_size(plain(record.doing), 26)
        return [
            Segment(f" {moment(record.at, time.time()):<12}", palette.dim),
            Segment(f"{sign} {outcome(record):<8}", style),
            Segment(f"{took(record):>8}  ", palette.dim),
            *([Segment(f"{name} ", palette.accent)] if width >= WIDE else []),
            Segment(f"{record.way:<9} ", palette.secondary),
            Segment(plain(record.line, LINE_SHOWN), palette.dim if record.reads else palette.text),
        ]


class ActionsScreen(RecordScreen[Act]):
    NAME = "Actions"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "details", "Details", id="actions-details"),
        Binding("y", "copy", "Copy", id="actions-copy"),
        Binding("R", "reads", "Reads", id="actions-reads"),
        Binding("o", "go", "Go to it", id="actions-go"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._last = 0
        self._reads = False
        self._waiting = False
        self._unsubscribe: Callable[[], None] | None = None

    def make_list(self) -> ActList:
        return ActList("actions")

    def ref_of(self, record: Act) -> Ref | None:
        try:
            return Ref.parse(record.doing.rpartition(" ")[2])
        except ValueError:
            return None

    def text_of(self, record: Act) -> str:
        return f"{record.doing} {record.way} {outcome(record)} {record.line} {record.error}"

    def wants(self, record: Act) -> bool:
        return self._reads or not record.reads

    # Kept current while it can be seen

    def shown(self) -> None:
        self.hidden()
        loop = asyncio.get_running_loop()

        def heard(_: Act) -> None:  # in the thread that acts
            if not self._waiting:
                self._waiting = True
                loop.call_soon_threadsafe(self._wait)

        self._unsubscribe = trace.subscribe(heard)
        self._take()

    def hidden(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        self._waiting = False

    def _wait(self) -> None:
        if self.is_running:
            self.set_timer(DRAW_S, self._take)

    def _take(self) -> None:
        if self._unsubscribe is None:
            return
        self._waiting = False
        found = trace.acts(after=self._last)
        if found:
            self._last = found[-1].number
        listing = self.listing
        if listing.rows:
            listing.changed(listing.in_sight())  # some have ended
            listing.add(found)
        else:
            listing.rows = found
            self.refilter()
        self.say()

    def say(self) -> None:
        listing = self.listing
        count = len(listing.shown)
        listing.say_empty("nothing matches the filter: escape clears it" if self._filter else WHY_EMPTY)
        said = [f"{count}"]
        said += [f"/{self._filter}"] if self._filter else []
        said += ["with reads"] if self._reads else []
        said += ["following"] if listing.follow and count else []
        said += [f"{trace.forgotten()} older ones are forgotten"] if trace.forgotten() else []
        self.say_title("  ".join(said))

    # Keys

    def offers(self, action: str, parameters: tuple[object, ...]) -> bool:
        """Whether the footer shows a binding."""
        record = self.listing.current()
        if action == "go":
            return record is not None and self.ref_of(record) is not None
        return (record is not None or action not in ("details", "copy")) and super().offers(action, parameters)

    def on_line_view_chosen(self, event: LineView.Chosen) -> None:
        event.stop()
        self.action_details()

    def on_line_view_cursor_moved(self, event: LineView.CursorMoved) -> None:
        super().on_line_view_cursor_moved(event)
        self.say()

    def action_details(self) -> None:
        record = self.listing.current()
        if record is not None:
            self.app.push_screen(Sheet(record.line[:400], details(record), record.line))

    def action_copy(self) -> None:
        record = self.listing.current()
        if record is not None:
            self.panel.copy(record.line)

    def action_reads(self) -> None:
        self._reads = not self._reads
        self.refilter()

    def action_go(self) -> None:
        record = self.listing.current()
        if record is not None and (ref := self.ref_of(record)) is not None:
            self.go_to(ref)
