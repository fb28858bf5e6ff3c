"""Home: one list of everything on the machine, and the verbs that fit what is selected."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Collection, Mapping
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.worker import Worker

from vmtui.core.errors import Fault
from vmtui.core.lifecycle import Action
from vmtui.core.policy import Verb
from vmtui.core.resource import Kind, Ref, Status
from vmtui.host.paths import data_dir
from vmtui.tui import rights
from vmtui.tui.columns import COLUMNS
from vmtui.tui.model import Changes, Item, Model
from vmtui.tui.rights import Need
from vmtui.tui.screens.base import PanelScreen
from vmtui.tui.view import GROUPS
from vmtui.tui.widgets.lines import LineView
from vmtui.tui.widgets.resources import ResourceHead, ResourceList

if TYPE_CHECKING:
    from vmtui.core.query import Query
    from vmtui.tui.widgets.detail import Detail

TICK_S = 1.0  # ages, and what else changes by itself
LOOKED_AT = 200  # of what is chosen, where each has rights of its own
WIDE = 100  # from this width on the detail pane is beside the list, else below it
VERBS = {
    "start": Action.START,
    "stop": Action.STOP,
    "restart": Action.RESTART,
    "pause": Action.PAUSE,
    "resume": Action.RESUME,
    "kill": Action.KILL,
    "delete": Action.DELETE,
}
DIFF = {"+": "good", "-": "bad", "@": "dim", "#": "dim"}  # how a line of a diff begins → its style
OF_ONE = {"logs": Action.LOGS, "console": Action.CONSOLE, "shell": Action.EXEC}


class ResourcesScreen(PanelScreen):
    NAME = "Resources"
    FILTERS = True
    DEFAULT_CSS = """
    #columns { height: 1fr; }
    #detail { border-left: solid $panel; width: 46%; min-width: 30; padding-left: 1; }
    ResourcesScreen.narrow #columns { layout: vertical; }
    ResourcesScreen.narrow #detail { width: 1fr; height: 50%; border-left: none; border-top: solid $panel; padding: 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,d", "detail", "Detail", id="resources-detail"),
        Binding("enter", "fold", "Fold", id="resources-fold"),
        Binding("enter", "bring_up", "Demo profile", id="resources-bring-up"),
        Binding("l", "logs", "Logs", id="resources-logs"),
        Binding("c", "console", "Console", id="resources-console"),
        Binding("s", "shell", "Shell", id="resources-shell"),
        Binding("r", "act('start')", "Start", id="resources-start"),
        Binding("x", "act('stop')", "Stop", id="resources-stop"),
        Binding("p", "act('pause')", "Pause", id="resources-pause"),
        Binding("p", "act('resume')", "Resume", id="resources-resume"),
        Binding("R", "act('restart')", "Restart", id="resources-restart"),
        Binding("ctrl+k", "act('kill')", "Kill", id="resources-kill", show=False),
        Binding("ctrl+d,delete", "act('delete')", "Delete", id="resources-delete"),
        Binding("e", "edit", "Edit", id="resources-edit"),
        Binding("n", "create", "New", id="resources-new"),
        Binding("y", "spec", "Spec", id="resources-spec", show=False),
        Binding("u", "undo", "Undo", id="resources-undo"),
        Binding("space", "mark", "Mark", id="resources-mark", show=False),
        Binding("ctrl+@,ctrl+space", "mark_range", "Mark range", id="resources-mark-range", show=False),
        Binding("asterisk", "mark_all", "Mark all", id="resources-mark-all", show=False),
        Binding("D", "demo", "Demo", id="resources-demo"),
        Binding("ctrl+c", "withdraw", "Withdraw", id="resources-withdraw"),
        Binding("t", "toml", "TOML of the last act", id="resources-toml", show=False),
        Binding("W", "save_profile", "Save as profile", id="resources-save", show=False),
        Binding("o", "sort(1)", "Sort", id="resources-sort", show=False),
        Binding("O", "reverse", "Reverse", id="resources-reverse", show=False),
        Binding("v", "group", "Group", id="resources-group", show=False),
        Binding("j,down", "move(1)", "Down", id="resources-down", show=False),
        Binding("k,up", "move(-1)", "Up", id="resources-up", show=False),
        Binding("g,home", "to(0)", "First", id="resources-first", show=False),
        Binding("G,end", "to(1000000000)", "Last", id="resources-last", show=False),
        Binding("ctrl+f,pagedown", "page(1)", "Page down", id="resources-page-down", show=False),
        Binding("ctrl+b,pageup", "page(-1)", "Page up", id="resources-page-up", show=False),
        Binding("J,shift+down", "detail_move(1)", "Detail down", id="resources-detail-down", show=False),
        Binding("K,shift+up", "detail_move(-1)", "Detail up", id="resources-detail-up", show=False),
    ]

    NEEDS: ClassVar[Mapping[str, Need]] = {
        "bring_up": rights.BRING_UP,
        "logs": rights.of(Verb.LOGS),
        "console": rights.of(Verb.CONSOLE),
        "shell": rights.of(Verb.EXEC),
        **{f"act('{name}')": rights.of(Verb(verb)) for name, verb in VERBS.items()},
        "edit": rights.EDIT,
        "create": rights.NEW,
        "undo": rights.UNDO,
        "demo": rights.LOCAL,
        "toml": rights.FILES,
        "save_profile": rights.HOST,
    }

    def __init__(self) -> None:
        super().__init__()
        self._query: Query | None = None
        self._filter = ""
        self._anchor: int | None = None
        self._wanted: Ref | None = None
        self._ends: list[Callable[[], None]] = []
        self._sorts_of: set[Ref] | None = None  # the marks that the following were found for
        self._sorts_known: Collection[Status] = ()
        self.detail: Detail | None = None  # the pane, while it is open

    def body(self) -> ComposeResult:
        model = self.panel.feed.model if self.panel.ready else Model()
        listing = ResourceList(model, self.panel.settings.columns)
        yield ResourceHead(listing)
        with Horizontal(id="columns"):
            yield listing

    @property
    def listing(self) -> ResourceList:
        return self.query_one(ResourceList)

    # Kept current while it can be seen

    def on_mount(self) -> None:
        self.listing.focus()
        self.set_interval(TICK_S, self._tick)

    def on_resize(self) -> None:
        self.set_class(self.size.width < WIDE, "narrow")

    def shown(self) -> None:
        if not self.panel.ready:
            self._say("reading what is there")
            return
        self.hidden()
        feed = self.panel.feed
        self.listing.view.model = feed.model
        jobs = self.panel.acts.on_change
        jobs.append(self._show_jobs)
        self._ends = [
            feed.subscribe(self._changed), feed.look_at(self._looked_at), lambda: jobs.remove(self._show_jobs)
        ]  # fmt: skip
        self._show_jobs()
        self.listing.rebuild()
        if self._wanted is not None and self.listing.select(self._wanted):
            self._wanted = None
        self._say()

    def _show_jobs(self) -> None:
        """From the first one on there is a list of them, which then looks after itself."""
        if self.panel.acts.jobs and not self.query("#jobs"):
            from vmtui.tui.widgets.jobs import JobList

            self.mount(JobList(self.panel.acts, self.panel.palette), before="#footer")

    def hidden(self) -> None:
        for end in self._ends:
            end()
        self._ends = []

    def _looked_at(self) -> Collection[Ref]:
        return self.listing.refs_in_sight()

    def _changed(self, changes: Changes) -> None:
        rebuilt = self.listing.apply(changes)
        if not changes.measured:
            self._sorts_of = None
        if self._wanted is not None and self.listing.select(self._wanted):
            self._wanted = None
        current = self.listing.current()
        told = current is not None and current.ref in changes.refs
        if told:
            self._tell_detail(current)
        if not changes.measured and (told or self.listing.marked):
            self.refresh_bindings()
        if rebuilt or not changes.measured:
            self._say()

    def _tick(self) -> None:
        """Ages go on: the lines in sight, as long as they can be seen."""
        if self._ends and self.panel.app_focus:
            self.listing.changed_cells(self.listing.in_sight(), ("age",))

    def _say(self, text: str = "") -> None:
        model = self.listing.view.model
        if text or not model.loaded:
            self.say_title(text or model.error or "reading what is there")
            return
        self.listing.say_empty(f"nothing matches /{self._filter}: esc clears it" if self._filter else "")
        view = self.listing.view
        said = f"{view.total}" if view.total == len(model.items) else f"{view.total} of {len(model.items)}"
        if self._filter:
            said += f"  /{self._filter}"
        if self.listing.marked:
            hidden = self.listing.out_of_sight()
            said += f"  {len(self.listing.marked)} marked{f', {hidden} of them not listed' if hidden else ''}"
        if model.error:
            said += f"  {model.error}"
        self.say_title(said)

    # Filter, order, groups

    def filter_text(self) -> str:
        return self._filter

    def filter_changed(self, text: str) -> None:
        from vmtui.core.query import parse

        query = parse(text)
        self._filter, self._query = text, query if query else None
        view = self.listing.view
        view.match = None if self._query is None else lambda item: query.matches(item.searchable(self._labels))
        view.score = (lambda item: query.score(item.searchable(self._labels))) if query.ranked else None
        self.listing.rebuild(else_first=True)
        self._say()

    def filter_done(self) -> None:
        self.listing.focus()

    def _labels(self, ref: Ref) -> dict[str, str]:
        with contextlib.suppress(Fault, sqlite3.Error):  # then it is not found by its labels
            if (desired := self.workspace.applied(ref)) is not None:
                return dict(desired.spec.labels)
        return {}

    def unfinished(self) -> str:
        going_on = [job.title for job in self.panel.acts.jobs if not job.ended] if self.panel.ready else []
        return f"{', '.join(going_on)} {'is' if len(going_on) == 1 else 'are'} still going on" if going_on else ""

    def back(self) -> bool:
        if self.panel.ready and self.panel.acts.dismiss_ended():
            return True
        if self._close_detail():
            return True
        if self.listing.marked:
            self.listing.mark(list(self.listing.marked), on=False)
            self._say()
        elif self._filter:
            self.filter_changed("")
        else:
            return False
        return True

    def sort_by(self, column: str) -> None:
        """By a column; by the same again: the other way round."""
        view = self.listing.view
        view.descending = not view.descending if view.sort == column else False
        view.sort = column
        self._reorder()

    def action_sort(self, by: int) -> None:
        names = [column.name for column, _ in self.listing.columns()] or list(COLUMNS)
        view = self.listing.view
        at = names.index(view.sort) if view.sort in names else -1
        view.sort, view.descending = names[(at + by) % len(names)], False
        self._reorder()

    def action_reverse(self) -> None:
        self.listing.view.descending = not self.listing.view.descending
        self._reorder()

    def action_group(self) -> None:
        self.group_by(GROUPS[(GROUPS.index(self.listing.view.group) + 1) % len(GROUPS)])

    def group_by(self, group: str) -> None:
        self.listing.view.group = group
        self._reorder()

    def _reorder(self) -> None:
        self.listing.rebuild()
        self.query_one(ResourceHead).refresh()

    # Moving

    def action_move(self, by: int) -> None:
        self.listing.move(by)

    def action_page(self, by: int) -> None:
        self.listing.page(by)

    def action_to(self, line: int) -> None:
        self.listing.move_to(line)

    def action_detail_move(self, by: int) -> None:
        if self.detail is not None:
            self.detail.move(by)

    def select(self, ref: Ref) -> None:
        """Stand on a resource, now or when it comes; a filter that hides it is cleared."""
        if not self.is_mounted:
            self._wanted = ref
            return
        if not self.listing.select(ref):
            self.listing.view.folded.clear()
            if self._filter:
                self.filter_changed("")
            else:
                self.listing.rebuild()
            self._wanted = None if self.listing.select(ref) else ref

    def on_line_view_cursor_moved(self, event: LineView.CursorMoved) -> None:
        if isinstance(event.view, ResourceList) and self.panel.ready:
            self._tell_detail(self.listing.current())
            self.refresh_bindings()

    def on_line_view_chosen(self, event: LineView.CursorMoved) -> None:
        if isinstance(event.view, ResourceList):
            self.action_fold() if self.listing.heading() is not None else self.action_detail()

    def action_bring_up(self) -> None:
        self.panel.open_profile(data_dir("profiles") / "dev.toml")

    def action_fold(self) -> None:
        heading = self.listing.heading()
        if heading is not None:
            self.listing.view.folded ^= {heading.name}
            self.listing.rebuild()

    def action_detail(self) -> None:
        if self.listing.current() is None and self.detail is None:
            self._say_nothing_selected()
        elif self.panel.ready and not self._close_detail():
            self._open_detail()

    def _open_detail(self) -> Detail:
        from vmtui.tui.widgets.detail import Detail

        if self.detail is None:
            self.detail = Detail()
            self.query_one("#columns").mount(self.detail)
        self._tell_detail(self.listing.current())
        return self.detail

    def _close_detail(self) -> bool:
        """Whether it was open."""
        if self.detail is None:
            return False
        self.detail.remove()
        self.detail = None
        return True

    def _tell_detail(self, item: Item | None) -> None:
        if self.detail is not None:
            self.detail.update(item)

    # Marks

    def action_mark(self) -> None:
        heading, current = self.listing.heading(), self.listing.current()
        if current is not None:
            self._anchor = self.listing.cursor
            self.listing.mark([current.ref], on=current.ref not in self.listing.marked)
            self.listing.move(1)
        elif heading is not None:
            group = self.listing.view.group
            refs = [
                item.ref
                for item in self.listing.view.model.items.values()
                if (item.ref.profile if group == "profile" else str(item.ref.kind)) == heading.name
                and item.ref in self.listing.view.place
            ]
            self.listing.mark(refs, on=not set(refs) <= self.listing.marked)
        self._say()
        self.refresh_bindings()

    def action_mark_range(self) -> None:
        start = self.listing.cursor if self._anchor is None else self._anchor
        first, last = sorted((start, self.listing.cursor))
        lines = self.listing.view.lines[first : last + 1]
        self.listing.mark([line.ref for line in lines if isinstance(line, Item)], on=True)
        self._anchor = self.listing.cursor
        self._say()
        self.refresh_bindings()

    def action_mark_all(self) -> None:
        refs = list(self.listing.view.place)
        self.listing.mark(refs, on=not set(refs) <= self.listing.marked)
        self._say()
        self.refresh_bindings()

    # Verbs

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What shares a key. All else is asked of `offers`: a key that is not shown says why not."""
        if action == "act" and parameters[0] in ("pause", "resume"):
            return self._fits(Action.RESUME) is (parameters[0] == "resume")
        if action == "withdraw":
            return self.panel.ready and bool(self.panel.acts.waiting)
        if action in ("fold", "bring_up", "detail") and self.is_mounted:
            welcomes, heading = self.listing.welcomes, self.listing.heading() is not None
            return {"fold": heading, "bring_up": welcomes, "detail": not welcomes and not heading}[action]
        return True

    def _fits(self, verb: Action) -> bool:
        if not self.panel.ready:
            return False
        return any(self.panel.acts.permitted(status, verb) for status in self._sorts())

    def _sorts(self) -> Collection[Status]:
        """One of each sort of what is chosen: what is permitted depends on kind, backend and phase.

        On the resource itself too with some roles: then the first ones tell what is offered.
        """
        marked = self.listing.marked
        if not marked:
            return [item.status for item in self.listing.chosen()]
        if self._sorts_of is not marked:
            found = (item.status for item in self.listing.chosen())
            self._sorts_of = marked
            if self.panel.rights.by_resource:
                self._sorts_known = list(islice(found, LOOKED_AT))
            else:
                sorts = {(status.ref.kind, status.backend, status.phase): status for status in found}
                self._sorts_known = sorts.values()
        return self._sorts_known

    def offers(self, action: str, parameters: tuple[object, ...]) -> bool:
        """Whether the footer shows a binding."""
        if action == "act":
            return self._fits(VERBS[str(parameters[0])])
        if action in OF_ONE:
            return self._fits(OF_ONE[action])
        if action == "undo":
            return self.panel.ready and bool(self.panel.acts.undos)
        if action == "demo":
            return self.listing.welcomes
        if action == "detail":
            return self.listing.current() is not None or self.detail is not None
        if action in ("edit", "create"):
            return self.panel.ready and (action == "create" or self.listing.current() is not None)
        return True

    def _say_nothing_selected(self) -> None:
        """For a verb that has nothing to act on."""
        if not self.panel.ready:
            return
        heading = self.listing.heading()
        where = f": {heading.name} is a group, space marks all of it" if heading is not None else ""
        self.panel.say(f"nothing is selected{where}", "warning")

    async def action_act(self, verb: str) -> None:
        if (begun := self.act(verb)) is not None:
            await self.panel.until_asked(begun)

    def act(self, verb: str, statuses: list[Status] | None = None) -> Worker[None] | None:
        """Begin to act on these, or on what is chosen."""
        chosen = [item.status for item in self.listing.chosen()] if statuses is None else statuses
        if chosen and self.panel.ready:
            return self.act_on(VERBS[verb], chosen)
        self._say_nothing_selected()
        return None

    @work(group="act", exit_on_error=False)
    async def act_on(self, verb: Action, statuses: list[Status]) -> None:
        """Ask if need be, and do it."""
        await self.panel.acts.act(verb, statuses)

    def action_demo(self) -> None:
        if self.listing.welcomes:
            self.panel.action_demo()

    def action_withdraw(self) -> None:
        self.panel.acts.withdraw()

    def action_undo(self) -> None:
        self.act_undo()

    @work(group="act", exit_on_error=False)
    async def act_undo(self) -> None:
        await self.panel.acts.undo()

    def _one(self, action: str) -> Ref | None:
        """The selected resource if `action` is permitted for it; else it is said why not."""
        current = self.listing.current()
        if current is None or not self.panel.ready:
            self._say_nothing_selected()
            return None
        why = self.panel.acts.why_not(current.status, OF_ONE[action])
        if why is not None:
            self.panel.say(f"no {action} of {current.ref.short}: {why}", "warning")
            return None
        return current.ref

    def act_logs(self) -> None:
        refs = [item.ref for item in self.listing.chosen() if self.panel.acts.permitted(item.status, Action.LOGS)]
        if len(refs) > 1:
            self.panel.open_logs(refs)
        elif (ref := self._one("logs")) is not None:
            self.panel.open_logs([ref])

    def act_console(self) -> None:
        """The console; what a sandbox says on its stdio, which takes no input, is its log."""
        current = self.listing.current()
        if current is not None and current.ref.kind is Kind.SANDBOX and self.panel.ready:
            self.act_logs()
            return
        if (ref := self._one("console")) is not None:
            self.panel.open_console(ref)

    def act_edit(self) -> None:
        current = self.listing.current()
        self.panel.open_edit(current.ref if current is not None else None)

    def action_logs(self) -> None:
        self.act_logs()

    def action_console(self) -> None:
        self.act_console()

    def action_shell(self) -> None:
        if (ref := self._one("shell")) is not None:
            self.panel.open_exec(ref, ("sh",))

    def action_edit(self) -> None:
        if self.listing.current() is None:
            self._say_nothing_selected()
        else:
            self.act_edit()

    def action_create(self) -> None:
        self.panel.open_edit(None)

    def action_spec(self) -> None:
        """The raw spec, in the detail pane, and to the clipboard."""
        current = self.listing.current()
        if current is None:
            self._say_nothing_selected()
        else:
            self.call_after_refresh(self._open_detail().show_spec)

    def action_toml(self) -> None:
        """What the last act amounts to in the profile."""
        from vmtui.tui.screens.saving import toml_of_act
        from vmtui.tui.screens.sheet import Sheet

        taken = self.panel.acts.taken[-1] if self.panel.ready and self.panel.acts.taken else None
        if taken is None:
            self.panel.say("nothing was done yet", "warning")
            return
        text = toml_of_act(self.panel, taken.action, taken.before, taken.ref)
        lines = [(line, DIFF.get(line[:1], "text")) for line in text.splitlines()]
        self.app.push_screen(Sheet(f"{taken.action} {taken.ref}", lines, text))

    async def action_save_profile(self) -> None:
        await self.panel.until_asked(self._save_profile())

    @work(group="save", exit_on_error=False)
    async def _save_profile(self) -> None:
        from vmtui.tui.screens.saving import save_as_profile

        await save_as_profile(self.panel, [item.ref for item in self.listing.chosen()])
