"""What others want to do and may not without a second person: each request in full, to be agreed to or refused."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar

from rich.cells import set_cell_size
from rich.segment import Segment
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.timer import Timer

from vmtui.core.errors import Fault
from vmtui.core.policy import Verb
from vmtui.engine.approvals import Request
from vmtui.tui.asked import wanted
from vmtui.tui.columns import span
from vmtui.tui.profiles.dialogs import Review
from vmtui.tui.profiles.lines import Said
from vmtui.tui.rights import Need, of
from vmtui.tui.screens.base import PanelScreen
from vmtui.tui.text import plain
from vmtui.tui.widgets.lines import LineView

LOOK_S = 1.0
WHO = 16  # cells
LEFT = 5
NOTHING = "nobody asks for anything: what a role has to ask for is listed here while it waits"


class RequestList(LineView):
    """One line each, the oldest first."""

    def __init__(self) -> None:
        super().__init__(id="approvals")
        self.requests: Sequence[Request] = ()

    def show(self, requests: Sequence[Request]) -> None:
        """Others; the cursor stays on the same request."""
        before = self.current()
        self.requests = requests
        self.reset(next((y for y, each in enumerate(requests) if before is not None and each.id == before.id), 0))

    def current(self) -> Request | None:
        return self.requests[self.cursor] if self.cursor < len(self.requests) else None

    def line_count(self) -> int:
        return len(self.requests) or 1

    def selectable(self, y: int) -> bool:
        return y < len(self.requests)

    def shows_cursor(self) -> bool:
        return bool(self.requests)

    def draw(self, y: int, width: int, selected: bool) -> Sequence[Segment]:  # noqa: ARG002
        palette = self.palette
        if not self.requests:
            return [Segment(f" {NOTHING}", palette.dim)]
        request = self.requests[y]
        return [
            Segment(f" {request.id:>4}  ", palette.dim),
            Segment(f"{set_cell_size(plain(request.who), WHO)}  ", palette.accent),
            Segment(f"{span(max(0.0, request.expires_at - time.time())):>{LEFT}} left  ", palette.warn),
            Segment(plain(wanted(request), 1000), palette.text),
        ]


class ApprovalsScreen(PanelScreen):
    NAME = "Approvals"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "answer", "Look and answer", id="approvals-answer"),
        Binding("j,down", "move(1)", "Down", show=False, id="approvals-down"),
        Binding("k,up", "move(-1)", "Up", show=False, id="approvals-up"),
        Binding("g,home", "to(0)", "First", show=False, id="approvals-first"),
        Binding("G,end", "to(1000000000)", "Last", show=False, id="approvals-last"),
        Binding("ctrl+f,pagedown", "page(1)", "Page down", show=False, id="approvals-page-down"),
        Binding("ctrl+b,pageup", "page(-1)", "Page up", show=False, id="approvals-page-up"),
    ]
    NEEDS: ClassVar[Mapping[str, Need]] = {"answer": of(Verb.APPROVE)}

    def __init__(self) -> None:
        super().__init__()
        self.listing = RequestList()
        self._timer: Timer | None = None

    def body(self) -> ComposeResult:
        yield self.listing

    def on_mount(self) -> None:
        self.listing.focus()

    def shown(self) -> None:
        self.hidden()
        if self.panel.ready:
            self._timer = self.set_interval(LOOK_S, self._look)
            self._look()

    def hidden(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    def _look(self) -> None:
        try:
            self.listing.show(self.workspace.approvals())
        except (Fault, sqlite3.Error) as error:
            self.say_title(str(error))
            return
        count = len(self.listing.requests)
        self.say_title(f"{count} wait{'s' if count == 1 else ''}" if count else "")
        self.refresh_bindings()

    # Keys

    def offers(self, action: str, parameters: tuple[object, ...]) -> bool:  # noqa: ARG002
        """Whether the footer shows a binding."""
        return action != "answer" or self.listing.current() is not None

    async def on_line_view_chosen(self, event: LineView.Chosen) -> None:
        event.stop()
        await self.action_answer()

    def action_move(self, by: int) -> None:
        self.listing.move(by)

    def action_page(self, by: int) -> None:
        self.listing.page(by)

    def action_to(self, line: int) -> None:
        self.listing.move_to(line)

    async def action_answer(self) -> None:
        request = self.listing.current()
        if request is None:
            self.panel.say("nothing waits for an answer", "warning")
        else:
            await self.panel.until_asked(self._answer(request))

    @work(group="ask", exclusive=True, exit_on_error=False)
    async def _answer(self, request: Request) -> None:
        person = self.panel.rights.authority.person
        own = person is not None and person.name == request.who
        verbs = [("deny", "Withdraw")] if own else [("grant", "Agree"), ("deny", "Refuse")]
        answer = await self.panel.ask(Review(f"request {request.id} of {request.who}", details(request), verbs))
        if answer is None:
            return
        try:
            self.workspace.answer(request.id, granted=answer == "grant")
        except Fault as fault:
            self.panel.fail(fault, f"answering request {request.id}")
        else:
            done = "withdrawn" if own else "agreed to" if answer == "grant" else "refused"
            self.panel.say(f"request {request.id}: {done}")
        self._look()


def details(request: Request) -> list[Said]:
    """All of a request, for who has to answer."""
    asked = time.strftime("%H:%M:%S", time.localtime(request.at))
    until = time.strftime("%H:%M:%S", time.localtime(request.expires_at))
    return [
        (f"{request.who}, with the key {request.key or '(none)'}", "accent"),
        (f"from {request.origin or 'this host'}, at {asked}; it lapses at {until}", "dim"),
        ("", "text"),
        *((line, "text") for line in request.about),
    ]
