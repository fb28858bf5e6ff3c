"""The pane beside the list: everything about the selected resource."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.segment import Segment
from textual.timer import Timer
from textual.worker import Worker

from vmtui.core.errors import Fault
from vmtui.core.lifecycle import UP
from vmtui.core.policy import Verb
from vmtui.core.resource import Ref
from vmtui.tui import detail_text
from vmtui.tui.detail_text import Known, Line
from vmtui.tui.exits import Exits
from vmtui.tui.faults import told
from vmtui.tui.model import Item
from vmtui.tui.widgets.lines import LineView

if TYPE_CHECKING:
    from vmtui.engine.workspace import Workspace

SETTLE_S = 0.12  # the cursor that runs on does not ask the database for each line
EVENTS = 8
COUNT_S = 1.0  # between two looks at the exits of what is shown


class Detail(LineView, can_focus=False):
    """There only while it is open."""

    def __init__(self) -> None:
        super().__init__(id="detail")
        self._item: Item | None = None
        self._known = Known()
        self._known_of: tuple[Ref, str] | None = None
        self._lines: list[Line] = []
        self._timer: Timer | None = None
        self._spec_only = False
        self._exits: Exits | None = None
        self._counting: Worker[None] | None = None

    def on_mount(self) -> None:
        self.set_interval(COUNT_S, self._look_at_exits)

    # LineView

    def line_count(self) -> int:
        return len(self._lines)

    def draw(self, y: int, width: int, selected: bool) -> Sequence[Segment]:  # noqa: ARG002
        return self._lines[y]

    def shows_cursor(self) -> bool:
        return False

    def move(self, by: int) -> None:
        self.scroll_to(y=self.scroll_offset.y + by * max(1, self.size.height // 2), animate=False, immediate=True)

    # What it shows

    def update(self, item: Item | None) -> None:
        """Another resource, or another state of the same."""
        if item is not self._item:
            self._known_of = None
            self._spec_only = False
            self._exits = None
            self.scroll_to(y=0, animate=False, immediate=True)
        self._item = item
        if item is not None and self._known_of != _key(item):
            if self._known_of is None or self._known_of[0] != item.ref:
                self._known = Known()
            if self._timer is not None:
                self._timer.stop()
            self._timer = self.set_timer(SETTLE_S, self._look_up)
        self._build()

    def show_spec(self) -> None:
        """Only the spec."""
        self._spec_only = not self._spec_only
        self._look_up()

    def on_resize(self) -> None:
        self._build()

    def _look_up(self) -> None:
        self._timer = None
        if self._item is None:
            return
        workspace: Workspace = self.app.workspace  # type: ignore[attr-defined]
        try:
            self._known = known(workspace, self._item.ref)
        except (Fault, sqlite3.Error) as error:
            self._known = Known(wrong=str(told(error, workspace.store.path)))
        self._known_of = _key(self._item)
        self._build()

    def _look_at_exits(self) -> None:
        """Beside what else is done here: a VM may take its time to answer, and is asked again when it has."""
        if self._counting is None or self._counting.is_finished:
            self._counting = self.run_worker(self._count(), group="exits")

    async def _count(self) -> None:
        """What the VM that is shown left its guest for since it began, where that can be known."""
        item = self._item
        if item is None or item.status.phase not in UP:
            self._exits = None
            return
        workspace: Workspace = self.app.workspace  # type: ignore[attr-defined]
        try:
            if not workspace.may(Verb.STATS, item.ref) or not workspace.counts_exits(item.ref, item.status.backend):
                return
            counted = await workspace.exits(item.ref)
        except (Fault, sqlite3.Error):
            return  # it ends, or does not answer: then its status says so
        if item is self._item and self.is_attached:
            self._exits = self._exits or Exits()
            self._exits.look(counted, time.monotonic())
            self._build()

    def _build(self) -> None:
        if self._item is None:
            self._lines = [[Segment("nothing is selected", self.palette.dim)]]
        elif self._spec_only:
            self._lines = detail_text.spec_lines(self._known, self.palette)
        else:
            self._lines = detail_text.lines(self._item, self._known, self.palette, self.text_width, self._exits)
        self._lines = [part for line in self._lines for part in detail_text.wrapped(line, self.text_width)]
        self.reset(self.scroll_offset.y)

    def keep_in_sight(self) -> None:
        """The cursor means nothing here."""


def _key(item: Item) -> tuple[Ref, str]:
    return item.ref, f"{item.status.phase}{item.status.spec_hash}{item.status.started_at}"


def known(workspace: Workspace, ref: Ref) -> Known:
    """What the database says of it."""
    from vmtui.profile.edit import toml_of

    desired = workspace.applied(ref)
    uses, used_by = workspace.references(ref)
    happened = [event for event in workspace.events(limit=500) if event.ref == str(ref)][-EVENTS:]
    return Known(
        uses=uses,
        used_by=used_by,
        spec="" if desired is None else toml_of(desired),
        events=[
            (event.at, " ".join(filter(None, (event.verb, event.result, event.message))), event.result == "failed")
            for event in reversed(happened)
        ],
        labels=() if desired is None else tuple(desired.spec.labels.items()),
    )
