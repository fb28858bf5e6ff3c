"""Profiles: pick one, see what it would change, apply it and watch that, see drift and revert or adopt it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import ClassVar, TypeVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.timer import Timer
from textual.worker import Worker, WorkerError

from vmtui.core.errors import Fault, FileInvalid, NotFound
from vmtui.core.policy import Verb
from vmtui.engine import registry
from vmtui.engine.plan import Plan
from vmtui.engine.plan_text import totals
from vmtui.profile import load
from vmtui.profile.schema import Profile
from vmtui.tui import rights
from vmtui.tui.profiles import acts, known, lines
from vmtui.tui.profiles.dialogs import AskPath, existing
from vmtui.tui.profiles.known import Known, Origin
from vmtui.tui.profiles.run import Run
from vmtui.tui.profiles.views import Body, ProfileList, moves
from vmtui.tui.rights import Need
from vmtui.tui.screens.base import PanelScreen
from vmtui.tui.screens.dialogs import Confirm
from vmtui.tui.widgets.lines import LineView

NARROW = 80
TICK_S = 0.5
CHANGES = frozenset({"apply", "revert", "adopt", "down", "edit"})
OF_PLANS = frozenset({"apply", "revert", "adopt"})
BUSY = "a run is going on: ctrl+c stops it"


T = TypeVar("T")


class ProfileScreen(PanelScreen):
    NAME = "Profile"
    DEFAULT_CSS = """
    ProfileScreen #panes { height: 1fr; }
    ProfileScreen #profiles { width: 34; border-right: solid $panel; }
    ProfileScreen #body { width: 1fr; padding-left: 1; }
    ProfileScreen.narrow #panes { layout: vertical; }
    ProfileScreen.narrow #profiles { width: 1fr; height: 30%; min-height: 2; border-right: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "Open", id="profile-open"),
        Binding("o", "other", "Other file", id="profile-other"),
        Binding("a", "apply", "Apply", id="profile-apply"),
        Binding("c", "check", "Check", id="profile-check"),
        Binding("r", "revert", "Revert drift", id="profile-revert"),
        Binding("A", "adopt", "Adopt drift", id="profile-adopt"),
        Binding("D", "down", "Down", id="profile-down"),
        Binding("e", "edit", "Edit", id="profile-edit"),
        Binding("ctrl+c", "stop", "Stop", id="profile-stop"),
        *moves("profile"),
    ]

    NEEDS: ClassVar[Mapping[str, Need]] = {
        "choose": rights.FILES,
        "other": rights.FILES,
        "apply": rights.APPLY,
        "check": rights.FILES,
        "revert": rights.APPLY,
        "adopt": rights.HOST,
        "down": rights.of(Verb.DELETE),
        "edit": rights.EDITOR,
    }

    def __init__(self) -> None:
        super().__init__()
        self.plan: Plan | None = None
        self.run: Run | None = None
        self._profile: Profile | None = None
        self._at = 0.0
        self._followed = 0
        self._wanted: tuple[Path, Plan | None] | None = None
        self._worker: Worker[None] | None = None
        self._timer: Timer | None = None

    def body(self) -> ComposeResult:
        with Horizontal(id="panes"):
            yield ProfileList()
            yield Body()

    @property
    def listing(self) -> ProfileList:
        return self.query_one(ProfileList)

    @property
    def page(self) -> Body:
        return self.query_one(Body)

    @property
    def chosen(self) -> Known | None:
        """The profile that is open."""
        return self.listing.is_open

    @property
    def running(self) -> bool:
        return self.run is not None and not self.run.ended

    def on_mount(self) -> None:
        self.listing.focus()

    def on_resize(self) -> None:
        self.set_class(self.size.width < NARROW, "narrow")

    def shown(self) -> None:
        if not self.panel.ready:
            self.say_title("reading what is there")
            return
        if self._timer is None:
            self._timer = self.set_interval(TICK_S, self._tick)
        self._timer.resume()
        self._list()

    def _tick(self) -> None:
        """While something runs: its times, how far it is, and what runs in sight unless the user looks elsewhere."""
        if self.run is None or not self.running:
            return
        self.page.tick()
        self._say()
        if self.page.cursor == self._followed:
            self.page.move_to(next(self.run.progress.running(), self._followed))
            self._followed = self.page.cursor

    def hidden(self) -> None:
        if self._timer is not None:
            self._timer.pause()

    def unfinished(self) -> str:
        return f"{self.run.plan.profile} is being changed: it is taken back" if self.run and self.running else ""

    async def break_off(self) -> None:
        if self._worker is not None and self.running:
            self._worker.cancel()
            with contextlib.suppress(WorkerError):
                await self._worker.wait()

    def back(self) -> bool:
        if self.running:
            self.action_stop()
            return True
        if self.run is not None:
            self.run = None
            self._look()
            return True
        return False

    # Which profiles there are

    @work(group="list", exclusive=True, exit_on_error=False)
    async def _list(self) -> None:
        self.panel.rights.require(rights.FILES)  # names and paths of files
        self.listing.read(self.workspace)
        if self._wanted is not None:
            (path, plan), self._wanted = self._wanted, None
            self._open(self.listing.find(path), plan)
        elif self.chosen is None:
            applied = [entry for entry in self.listing.entries if entry.path and entry.origin is Origin.APPLIED]
            if len(applied) == 1:
                self._open(applied[0])
            else:
                self.say_title("nothing is open: enter opens the selected profile, o another file")
                self.page.show([("enter opens the selected profile and shows what it would change", "dim")])

    def open(self, path: Path, plan: Plan | None = None) -> None:
        """Open a file and show its plan. With `plan`, which the user has agreed to, that is carried out."""
        self._wanted = path, plan
        if self.is_mounted and self.panel.ready:
            self._list()

    def _open(self, entry: Known, plan: Plan | None = None) -> None:
        if self.running:
            self.panel.say(BUSY, "warning")
            return
        self.listing.is_open = entry
        self.listing.refresh()
        self.plan = self.run = self._profile = None
        kept = self.panel.rights.has(rights.HOST)
        if entry.path is not None and entry.origin is not Origin.SHIPPED and kept:
            known.Opened(self.workspace.registry.context.paths.state).add(entry.path)
        self._look(plan)

    def action_choose(self) -> None:
        if self.focused is self.listing:
            self.listing.choose()
        else:
            self.page.choose()

    def on_line_view_chosen(self, event: LineView.CursorMoved) -> None:
        if event.view is self.listing and (entry := self.listing.current()) is not None:
            self._open(entry)
            self.page.focus()
        elif event.view is self.page and (ref := self.page.ref()) in self.panel.feed.model.items:
            assert ref is not None
            self.panel.go_to(ref)

    @work(group="ask", exclusive=True, exit_on_error=False)
    async def action_other(self) -> None:
        start = f"{self.chosen.path.parent}/" if self.chosen and self.chosen.path else f"{Path.cwd()}/"
        path = await self.panel.ask(AskPath("open which profile?", start, existing))
        if path:
            self.open(Path(path).expanduser())

    # The plan

    @work(group="plan", exclusive=True, exit_on_error=False)
    async def _look(self, agreed: Plan | None = None) -> None:
        """Read the file and make its plan, or say what is wrong with it; then carry out what was agreed to."""
        if self.chosen is None:
            return
        self.say_title(f"{self.chosen.name}  planning")
        try:
            plan = await self._fresh()
        except Exception as error:
            self._show_fault(error)
            return
        if agreed is not None and not acts.same(plan, agreed):
            await self._changed_meanwhile(plan)
        elif agreed is not None:
            await self._start(plan)
        else:
            await self._show_plan(plan)

    async def _fresh(self) -> Plan:
        entry = self.chosen
        if entry is None or entry.path is None:
            name = entry.name if entry else ""
            raise NotFound(f"where the file of {name} is, is not known", hint="o opens it; D takes the profile down")
        self.panel.rights.require(rights.FILES)
        self._profile = await asyncio.to_thread(load.load, entry.path, registry.option_types)
        return await self.workspace.plan(self._profile)

    async def _show_plan(self, plan: Plan) -> None:
        shown = await asyncio.to_thread(lines.of_plan, plan)
        self.plan, self.run, self._at = plan, None, time.time()
        self.page.show(shown)
        self._say()

    def _show_fault(self, error: Exception) -> None:
        self.plan = self.run = None
        doing = "" if isinstance(error, FileInvalid) else "making a plan"
        self.page.show(lines.of_fault(error, doing))
        self._say("there is no plan: e edits the file, c reads it again")

    def _say(self, text: str = "") -> None:
        entry = self.chosen
        if self.run is not None:
            self.say_title(f"{self.run.plan.profile}  {self.run.standing}")
        elif entry is not None:
            clock = time.strftime("%H:%M:%S", time.localtime(self._at))
            said = text or (f"{totals(self.plan)}, seen at {clock}" if self.plan else "")
            self.say_title(f"{said}  {entry.path or ''}")
        self.refresh_bindings()

    def action_check(self) -> None:
        if not self._refused("check"):
            self._look()

    async def _changed_meanwhile(self, plan: Plan) -> None:
        await self._show_plan(plan)
        self.panel.say("it changed meanwhile: nothing was done, this is the plan now", "warning")

    # Acts

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self.running if action == "stop" else super().check_action(action, parameters)

    def offers(self, action: str, parameters: tuple[object, ...]) -> bool:  # noqa: ARG002
        """Whether the footer shows a binding."""
        if action in CHANGES and (self.running or self.chosen is None):
            return False
        if action in OF_PLANS:
            return self.plan is not None and not self.plan.empty
        return action != "check" or (self.chosen is not None and not self.running)

    def _refused(self, action: str) -> bool:
        """Whether it is not possible now; then it is said why."""
        why = ""
        if self.chosen is None:
            why = "no profile is open: enter opens the selected one"
        elif self.running:
            why = BUSY
        elif action == "edit" and self.chosen.path is None:
            why = f"where the file of {self.chosen.name} is, is not known: o opens it"
        elif action in OF_PLANS and (self.plan is None or self.run is not None):
            why = "there is no plan: c makes one"
        elif action in OF_PLANS and self.plan is not None and self.plan.empty and not self.plan.notes:
            why = "everything is as the profile says"
        if why:
            self.panel.say(f"{action}: {why}", "warning")
        return bool(why)

    def action_apply(self) -> None:
        if not self._refused("apply"):
            self._apply("apply")

    def action_revert(self) -> None:
        if not self._refused("revert"):
            self._apply("revert")

    @work(group="ask", exclusive=True, exit_on_error=False)
    async def _apply(self, verb: str) -> None:
        shown = self.plan
        assert shown is not None
        try:
            plan = await self._fresh()
        except Exception as error:
            self._show_fault(error)
            return
        if not acts.same(plan, shown):
            await self._changed_meanwhile(plan)
        elif plan.empty or await acts.agreed(self.panel, plan, verb):
            await self._start(plan)

    def action_adopt(self) -> None:
        if not self._refused("adopt"):
            self._adopt()

    @work(group="ask", exclusive=True, exit_on_error=False)
    async def _adopt(self) -> None:
        assert self.chosen is not None
        assert self.chosen.path is not None
        assert self.plan is not None
        if await self._tried(acts.adopt(self.panel, self.chosen.path, self.plan), "adopting drift"):
            self._look()

    def action_down(self) -> None:
        if not self._refused("down"):
            self._down()

    @work(group="ask", exclusive=True, exit_on_error=False)
    async def _down(self) -> None:
        assert self.chosen is not None
        plan = await self._tried(acts.agreed_down(self.panel, self.chosen.name), "taking it down")
        if plan is not None:
            await self._start(plan)

    async def _tried(self, act: Awaitable[T], doing: str) -> T | None:
        try:
            return await act
        except Fault as fault:
            self.panel.fail(fault, doing)
            return None

    def action_edit(self) -> None:
        if self._refused("edit") or self.chosen is None or self.chosen.path is None:
            return
        try:
            acts.edit_file(self.panel, self.chosen.path)
        except Fault as fault:
            self.panel.fail(fault, "editing")
        self.app.refresh()
        self._look()

    # A run

    async def _start(self, plan: Plan) -> None:
        specs = {} if plan.down or self._profile is None else {item.ref: item.spec for item in self._profile.resources}
        self.plan = None
        self.run = await asyncio.to_thread(Run, self.workspace, plan, specs, self._progressed)
        self._show_run()
        self._worker = self.run_worker(self.run.carry_out(), group="run", exit_on_error=False)

    def _progressed(self, place: int | None) -> None:
        if place is None:
            self._show_run()
        elif self.page.is_attached:
            self.page.redraw(place)

    def _show_run(self) -> None:
        run = self.run
        if run is None or not self.is_attached:
            return
        rows = run.progress.rows
        first = len(rows) + len(run.result()) - 1 if run.ended else next(iter(run.progress.running()), 0)
        self.page.show([*rows, *run.result()], first)
        self._followed = self.page.cursor
        self._say()
        if run.ended:
            self.panel.feed.touch([change.ref for change in run.plan.changes])
            self._list()
            self.panel.say(f"{run.plan.profile}: {run.standing}", "error" if run.error else "information")

    def action_stop(self) -> None:
        self._stop()

    @work(group="ask", exclusive=True, exit_on_error=False)
    async def _stop(self) -> None:
        kept = self.run is not None and self.run.plan.down
        what = "what is gone stays gone" if kept else "what has been done is taken back, step by step"
        sure = await self.panel.ask(Confirm("stop what is going on?", [what], "Stop"))
        if sure and self.running and self._worker is not None:
            self._worker.cancel()

    def action_move(self, by: int) -> None:
        self._active.move(by)

    def action_to(self, line: int) -> None:
        self._active.move_to(line)

    def action_page(self, by: int) -> None:
        self._active.page(by)

    @property
    def _active(self) -> LineView:
        return self.listing if self.focused is self.listing else self.page
