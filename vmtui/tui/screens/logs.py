"""The logs of some resources, interleaved by time: followed, searched, filtered, saved."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from vmtui.core.errors import Fault
from vmtui.core.lifecycle import UP, Action, Phase, allowed
from vmtui.core.policy import Verb
from vmtui.core.query import parse
from vmtui.core.resource import Ref, Status
from vmtui.core.searchable import Entry
from vmtui.tui.logs.choosing import AT_MOST, which
from vmtui.tui.logs.draw import CLOCK, DATE, NO_TIMES
from vmtui.tui.logs.merge import All, At, Merge
from vmtui.tui.logs.saving import save_as
from vmtui.tui.logs.search import Search
from vmtui.tui.logs.sources import Sources
from vmtui.tui.logs.status import Hits, Standing, StatusBar
from vmtui.tui.logs.stream import KEPT_LINES
from vmtui.tui.logs.tally import Tally, count_all
from vmtui.tui.logs.view import LogView
from vmtui.tui.model import Changes
from vmtui.tui.rights import FILES, Need
from vmtui.tui.screens.base import PanelScreen
from vmtui.tui.screens.dialogs import Ask

TOLD_EVERY_S = 0.1  # how often a count that goes on is shown
RECOUNT_S = 0.3  # between two counts of what grows
NEVER = "it has written nothing yet"
BACK = "{back} goes back"


class LogsScreen(PanelScreen):
    """The logs of `refs`, at most AT_MOST of them."""

    NAME = "Logs"
    FILTERS = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f", "follow", "Follow", id="logs-follow"),
        Binding("n", "find(1)", "Next match", id="logs-next"),
        Binding("N", "find(-1)", "Previous", id="logs-previous"),
        Binding("ampersand", "only", "Matches only", id="logs-only"),
        Binding("w", "wrap", "Wrap", id="logs-wrap"),
        Binding("t", "times", "Times", id="logs-times"),
        Binding("m", "more", "More logs", id="logs-more"),
        Binding("s", "save", "Save", id="logs-save"),
        Binding("number_sign", "line", "To line", id="logs-line", show=False),
        Binding("j,down", "move(1)", "Down", id="logs-down", show=False),
        Binding("k,up", "move(-1)", "Up", id="logs-up", show=False),
        Binding("g,home", "start", "Start", id="logs-start", show=False),
        Binding("G,end", "end", "End", id="logs-end", show=False),
        Binding("ctrl+f,pagedown,space", "page(1)", "Page down", id="logs-page-down", show=False),
        Binding("ctrl+b,pageup", "page(-1)", "Page up", id="logs-page-up", show=False),
        Binding("ctrl+d", "page(0.5)", "Half a page down", id="logs-half-down", show=False),
        Binding("ctrl+u", "page(-0.5)", "Half a page up", id="logs-half-up", show=False),
        Binding("left", "sideways(-1)", "Left", id="logs-left", show=False),
        Binding("right", "sideways(1)", "Right", id="logs-right", show=False),
    ]

    NEEDS: ClassVar[Mapping[str, Need]] = {"save": FILES}

    def __init__(self, refs: Sequence[Ref]) -> None:
        super().__init__()
        self.refs = tuple(dict.fromkeys(refs))[:AT_MOST]
        self.view = LogView()
        self.search: Search | None = None
        self._bar = StatusBar()
        self._sources: Sources | None = None
        self._lines: list[Tally] = []
        self._only = False
        self._origin: tuple[At, bool] | None = None  # where the view was before "/"
        self._at: At | None = None  # the place of the current match
        self._uncounted = asyncio.Event()
        self._told_at = 0.0
        self._unsubscribe: Callable[[], None] | None = None

    def body(self) -> ComposeResult:
        yield self.view
        yield self._bar

    def on_mount(self) -> None:
        self.view.focus()
        self.view.empty = ("opening it …",)

    def shown(self) -> None:
        if not self.panel.ready or self._unsubscribe is not None:
            return
        self._unsubscribe = self.panel.feed.subscribe(self._model_changed)
        if self._sources is None:
            self._begin(self.refs)
        else:
            self._keep_current(self._sources)
        self._keep_counted()

    def hidden(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        for group in ("log-follow", "log-count", "log-find"):
            self.workers.cancel_group(self, group)

    def on_unmount(self) -> None:
        self.hidden()
        if self._sources is not None:
            self._sources.close()

    # Logs

    def _begin(self, refs: Sequence[Ref]) -> None:
        """Show these logs in place of what is shown."""
        if self._sources is not None:
            self._sources.close()
        self.refs = tuple(refs)
        self._forget_search()
        self.view.times = CLOCK if len(self.refs) > 1 else NO_TIMES
        self.view.show_merge(Merge([]), ())
        self._sources = Sources(self.workspace, self.refs, opened=self._opened, grown=self._grown)
        self._say_title()
        self._keep_current(self._sources)

    @work(group="log-follow", exclusive=True)
    async def _keep_current(self, sources: Sources) -> None:
        await sources.run()

    def _opened(self) -> None:
        """The logs were opened, as far as they can be."""
        assert self._sources is not None
        logs = list(self._sources.logs.values())
        if logs != list(self.view.merge.logs):
            self.view.streams = any(self._sources.files(ref) and log.timed for ref, log in self._sources.logs.items())
            self.view.show_merge(Merge(logs), self._names())
            self._lines = [Tally(log, log.lines_in) for log in logs] if len(logs) == 1 else []
            if self.search is not None:
                self.filter_changed(self.search.query.text)
        self._grown()

    def _grown(self) -> None:
        self.view.empty = self._why_empty()
        self.view.grown()
        self._uncounted.set()

    def _names(self) -> tuple[str, ...]:
        """For the column, when there are several: PROFILE only where they differ in it."""
        assert self._sources is not None
        refs = list(self._sources.logs)
        if len(self.refs) < 2:
            return ()
        one_profile = len({ref.profile for ref in refs}) == 1
        return tuple(ref.short if one_profile else str(ref) for ref in refs)

    def _status(self, ref: Ref) -> Status | None:
        item = self.panel.feed.model.items.get(ref)
        return item.status if item is not None else None

    def _model_changed(self, changes: Changes) -> None:
        if changes.measured or changes.refs.isdisjoint(self.refs):
            return
        self._say_title()
        self._grown()
        if self._sources is not None and (self._sources.faults or self._sources.misled()):
            self._keep_current(self._sources)

    # What is said

    def _say_title(self) -> None:
        def told(ref: Ref) -> str:
            status = self._status(ref)
            return f"{ref} {status.phase}" if status else str(ref)

        first = told(self.refs[0])
        self.say_title(first if len(self.refs) == 1 else f"{len(self.refs)} logs: {', '.join(map(str, self.refs))}")

    def _why_empty(self) -> tuple[str, ...]:
        back = self._key("back")
        if self._only and self.search is not None:
            going = "" if self.search.complete else " yet"
            return (f"no line matches /{self.search.query.text}{going}", f"{self._key('logs-only')} shows all lines")
        assert self._sources is not None
        if self._sources.faults:
            faults = self._sources.faults.values()
            hints = [fault.hint for fault in faults if isinstance(fault, Fault) and fault.hint]
            return (*map(str, faults), *hints, BACK.format(back=back))
        statuses = [status for ref in self.refs if (status := self._status(ref)) is not None]
        it = "it" if len(self.refs) == 1 else "each of them"
        if statuses and all(status.phase is Phase.STOPPED for status in statuses):
            return (f"{it} has not been started, or wrote nothing when it was", f"{back} goes back, to start it")
        if statuses and not any(status.phase in UP for status in statuses):
            return (f"{it} has ended and wrote nothing", BACK.format(back=back))
        return (NEVER.replace("it", it, 1), f"what it writes will be seen here; {BACK.format(back=back)}")

    def _key(self, binding_id: str) -> str:
        """How the key of a binding is written now."""
        for active in self.active_bindings.values():
            if active.binding.id == binding_id:
                return self.app.get_key_display(active.binding)
        return "escape"

    def _say_standing(self) -> None:
        view, sources = self.view, self._sources
        if sources is None:
            return
        modes = ["wrapped"] if view.wrap else []
        modes += [f"at most the last {KEPT_LINES:,} lines"] if sources.streamed else []
        modes += [f"{len(sources.faults)} cannot be read"] if sources.faults and sources.logs else []
        statuses = [self._status(ref) for ref in self.refs]
        ended = all(status is None or status.phase not in UP for status in statuses)
        self._bar.say(
            Standing(follow=view.follow, ended=ended, modes=tuple(modes), place=self._place(), hits=self._hits())
        )

    def _place(self) -> str:
        merge = self.view.merge
        if not merge.logs or not self.view.lines():
            return ""
        if len(self._lines) != 1 or not self._lines[0].complete:
            return f"{merge.share(self.view.lines()[-1].row.after):.0%}"
        (lines,) = self._lines
        last = self.view.lines()[-1].row
        return f"line {lines.before(last.start) + 1:,} of {max(lines.total(), lines.before(last.start) + 1):,}"

    def _hits(self) -> Hits | None:
        search = self.search
        if search is None:
            return None
        rank = search.rank(self._at) + 1 if self._at is not None and search.complete else 0
        return Hits(search.query.text, search.total, search.share(), rank, self._only)

    def on_log_view_moved(self, event: LogView.Moved) -> None:
        event.stop()
        self._say_standing()

    # Search

    def filter_text(self) -> str:
        return self.search.query.text if self.search is not None else ""

    def filter_changed(self, text: str) -> None:
        query = parse(text)
        view = self.view
        if self._origin is None and view.merge.logs:
            self._origin = (view.top, view.follow)
        self._forget_search()
        if query and view.merge.logs:
            refs = {id(log): ref for ref, log in self._sources.logs.items()} if self._sources else {}
            self.search = Search(view.merge.logs, query, lambda log: self._searchable(refs[id(log)]))
            view.spans = query.spans
            view.redraw()
            self._uncounted.set()
            if self._origin is not None:
                self._find(forwards=True, at=self._origin[0], typing=True)
        elif self._origin is not None:
            at, follow = self._origin
            view.go(at)
            if follow:
                view.to_end()
        self.refresh_bindings()

    def filter_done(self) -> None:
        self._origin = None
        self.view.focus()

    def back(self) -> bool:
        if self.search is None:
            return False
        self._forget_search()
        self.refresh_bindings()
        return True

    def _forget_search(self) -> None:
        self.workers.cancel_group(self, "log-find")
        self.search, self._at, self._only = None, None, False
        self.view.spans = self.view.current = None
        self.view.merge.choice = All(self.view.merge.logs)
        self.view.redraw()

    def _searchable(self, ref: Ref) -> Entry:
        return Entry(self._status(ref) or Status(ref=ref, backend="", phase=Phase.ABSENT))

    @work(group="log-find", exclusive=True)
    async def _find(self, *, forwards: bool, at: At, typing: bool = False) -> None:
        search, merge = self.search, self.view.merge
        if search is None:
            return
        found = await search.find(merge, at, forwards=forwards)
        if found is None and typing:
            found = await search.find(merge, at, forwards=not forwards)
        if found is None:
            if not typing:
                self.panel.say(f"no more matches of /{search.query.text} {'below' if forwards else 'above'}")
            return
        self._at = merge.at_row(*found)
        self.view.show_row(*found)

    def _from(self, *, forwards: bool) -> At:
        """Where to search on from: the current match if it can be seen, else what can be."""
        lines, current = self.view.lines(), self.view.current
        for shown in lines:
            if shown.row.id == current:
                return shown.row.after if forwards else shown.row.before
        return lines[0].row.before if forwards else lines[-1].row.after

    # Counts

    @work(group="log-count", exclusive=True)
    async def _keep_counted(self) -> None:
        while True:
            self._uncounted.clear()
            await count_all(self._tallies, self._counted)
            self._counted(last=True)
            await asyncio.sleep(RECOUNT_S)
            await self._uncounted.wait()

    def _tallies(self) -> list[Tally]:
        return [*(self.search.tallies if self.search is not None else ()), *self._lines]

    def _counted(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if not last and now - self._told_at < TOLD_EVERY_S:
            return
        self._told_at = now
        if self._only:
            self.view.empty = self._why_empty()
            self.view.grown()
        else:
            self._say_standing()

    # Keys

    def offers(self, action: str, parameters: tuple[object, ...]) -> bool:  # noqa: ARG002
        """Whether the footer shows a binding."""
        return self.search is not None if action in ("find", "only") else True

    def action_follow(self) -> None:
        if self.view.follow:
            self.view.follow = False
            self.view.grown()
        else:
            self.view.to_end()

    def action_move(self, by: int) -> None:
        self.view.move(by)

    def action_page(self, by: float) -> None:
        self.view.page(by)

    def action_start(self) -> None:
        self.view.to_start()

    def action_end(self) -> None:
        self.view.to_end()

    def action_sideways(self, by: int) -> None:
        self.view.sideways(by)

    def action_wrap(self) -> None:
        self.view.set_wrap(not self.view.wrap)

    def action_times(self) -> None:
        self.view.times = {NO_TIMES: CLOCK, CLOCK: DATE}.get(self.view.times, NO_TIMES)
        self.view.redraw()

    def action_find(self, by: int) -> None:
        if self.search is None:
            self.panel.say(f"search first: {self._key('filter')}", "warning")
        elif self.view.lines():
            self._find(forwards=by > 0, at=self._from(forwards=by > 0))

    def action_only(self) -> None:
        """Hide the lines that do not match, or show them again."""
        if self.search is None:
            self.panel.say(f"search first: {self._key('filter')}", "warning")
            return
        at = self._at or self.view.top
        self._only = not self._only
        merge = self.view.merge
        merge.choice = self.search if self._only else All(merge.logs)
        self.view.empty = self._why_empty()
        if self.view.follow:
            self.view.changed()
        else:
            self.view.go(at, above=self.view.size.height // 3)

    @work(group="log-ask")
    async def action_line(self) -> None:
        lines = self._lines[0] if len(self._lines) == 1 and self._lines[0].complete else None
        if lines is None:
            self.panel.say("lines are numbered in one log, once they are counted", "warning")
            return
        total = lines.total()

        def check(value: str) -> str:
            return "" if value.isascii() and value.isdigit() and value.strip("0") else f"a number from 1 to {total:,}"

        answer = await self.panel.ask(Ask("go to line", check=check))
        if answer is not None:
            number = int(answer[:18])
            behind = lines.behind(number - 1) if number > 1 else lines.log.clamp(0)
            self.view.go((behind if behind is not None else lines.log.end,))

    @work(group="log-ask")
    async def action_more(self) -> None:
        items = self.panel.feed.model.items
        readable = [
            item.status
            for ref, item in items.items()
            if ref.kind.runs
            and self.panel.may(Verb.LOGS, ref)
            and Action.LOGS in allowed(item.status.phase, self.workspace.roles(ref.kind, item.status.backend))
        ]
        refs = await which(self.panel, readable, self.refs)
        if refs is not None and refs != self.refs:
            self._begin(refs)

    @work(group="log-save")
    async def action_save(self) -> None:
        if self._sources is None or not self.view.merge.logs:
            self.panel.say("there is nothing to save", "warning")
            return
        files = self._sources.files(self.refs[0]) if len(self.refs) == 1 and not self._only else None
        matching = self.search.query.text if self._only and self.search is not None else ""
        await save_as(self.panel, self.view.merge, self._names(), self.refs, files=files, matching=matching)
