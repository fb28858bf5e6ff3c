"""Every backend tried on this host: what works, what does not and why, and the command that mends it."""

from __future__ import annotations

import platform
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import set_cell_size
from rich.segment import Segment
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from vmtui.core.backend import Probe
from vmtui.core.errors import Fault
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Kind, Problem
from vmtui.engine import repair
from vmtui.host.person import user
from vmtui.tui.rights import HOST, Need
from vmtui.tui.screens.base import PanelScreen
from vmtui.tui.screens.dialogs import Confirm
from vmtui.tui.screens.mend import MendSheet
from vmtui.tui.screens.sheet import Line, Sheet
from vmtui.tui.text import plain
from vmtui.tui.widgets.lines import LineView

Name = tuple[Kind, str]
SLOW_S = 1.0  # from here on it is worth a word


@dataclass(slots=True)
class Trial:
    """A backend and what trying it showed; `probe` is None until then. `running` since when."""

    name: Name
    probe: Probe | None = None
    began: float | None = None
    elapsed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the list: a trial, one of its problems or the hint of that, or its facts."""

    trial: Trial
    part: str  # "trial", "problem", "hint" or "facts"
    problem: Problem | None = None


class TrialList(LineView):
    def __init__(self) -> None:
        super().__init__(id="trials")
        self.rows: list[Row] = []

    def show(self, trials: Sequence[Trial]) -> None:
        """Rebuild the lines; the cursor stays at what it was on."""
        before = self.current()
        self.rows = [row for trial in trials for row in _rows(trial)]
        place = None
        if before is not None:
            same = [y for y, row in enumerate(self.rows) if row.trial.name == before.trial.name and self.selectable(y)]
            exact = [y for y in same if self.rows[y].problem == before.problem]
            place = next(iter(exact or same), None)
        self.reset(place)

    def current(self) -> Row | None:
        return self.rows[self.cursor] if self.cursor < len(self.rows) else None

    def line_count(self) -> int:
        return len(self.rows)

    def selectable(self, y: int) -> bool:
        return self.rows[y].part in ("trial", "problem")

    def draw(self, y: int, width: int, selected: bool) -> Sequence[Segment]:  # noqa: ARG002
        row, palette = self.rows[y], self.palette
        if row.part == "facts":
            assert row.trial.probe is not None
            facts = "  ".join(f"{plain(name, 60)} {plain(value, 200)}" for name, value in row.trial.probe.facts)
            return [Segment(f"      {facts}", palette.dim)]
        if row.problem is not None:
            sign = palette.glyphs.failed if not row.trial.probe or not row.trial.probe.usable else "!"
            if row.part == "problem":
                style = palette.bad if sign == palette.glyphs.failed else palette.warn
                return [Segment(f"    {sign} {plain(row.problem.message, 1000)}", style)]
            return [Segment("      next: ", palette.dim), Segment(plain(row.problem.hint, 1000), palette.accent)]
        return self._trial(row.trial)

    def _trial(self, trial: Trial) -> list[Segment]:
        palette, probe = self.palette, trial.probe
        name = set_cell_size(f"{trial.name[0]:<10}{plain(trial.name[1], 40)}", 20)
        if trial.began is not None or probe is None:
            return [
                Segment(f" {palette.glyphs.right} {'trying':<11}", palette.warn),
                Segment(f"{name} ", palette.text),
                Segment(palette.glyphs.more, palette.dim),
            ]
        sign, word, style = (palette.glyphs.phases[Phase.RUNNING], "usable", palette.good)
        if not probe.usable:
            sign, word, style = (palette.glyphs.failed, "not usable", palette.bad)
        return [
            Segment(f" {sign} {word:<11}", style),
            Segment(f"{name} ", palette.text),
            Segment(plain(probe.summary, 1000), palette.text),
            Segment(f"  {trial.elapsed_s:.1f} s" if trial.elapsed_s >= SLOW_S else "", palette.dim),
        ]


class DoctorScreen(PanelScreen):
    NAME = "Doctor"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "details", "Details", id="doctor-details"),
        Binding("x,r", "mend", "Run the command", id="doctor-mend"),
        Binding("y", "copy", "Copy it", id="doctor-copy"),
        Binding("t", "again", "Try again", id="doctor-again"),
        Binding("T", "all_again", "Try all", id="doctor-all-again"),
        Binding("j,down", "move(1)", "Down", show=False, id="doctor-down"),
        Binding("k,up", "move(-1)", "Up", show=False, id="doctor-up"),
        Binding("g,home", "to(0)", "First", show=False, id="doctor-first"),
        Binding("G,end", "to(1000000000)", "Last", show=False, id="doctor-last"),
        Binding("ctrl+f,pagedown", "page(1)", "Page down", show=False, id="doctor-page-down"),
        Binding("ctrl+b,pageup", "page(-1)", "Page up", show=False, id="doctor-page-up"),
    ]

    NEEDS: ClassVar[Mapping[str, Need]] = {"mend": HOST}

    def __init__(self) -> None:
        super().__init__()
        self._trials: dict[Name, Trial] = {}
        self._tried_at = 0.0
        self.listing = TrialList()

    def body(self) -> ComposeResult:
        yield self.listing

    def on_mount(self) -> None:
        self.listing.focus()

    def shown(self) -> None:
        if self.panel.ready and not self._trials:
            self._try()
        self._say()

    # Trying

    @work(group="probe", exit_on_error=False)
    async def _try(self, only: Collection[Name] | None = None) -> None:
        """Try all, or those; each shows as soon as it is known."""
        began = time.monotonic()
        for name in self.workspace.probed() if only is None else only:
            self._trials.setdefault(name, Trial(name)).began = began
        self._show()
        try:
            async for probe in self.workspace.probe_each(only):
                name = (probe.kind, probe.backend)
                self._trials[name] = Trial(name, probe, None, time.monotonic() - began)
                self._show()
        except Fault as fault:
            self.panel.fail(fault, "trying the backends")
        finally:
            for trial in self._trials.values():
                trial.began = None if trial.began == began else trial.began
        self._tried_at = time.time()
        self._show()

    def _show(self) -> None:
        order = list(Kind)
        trials = sorted(self._trials.values(), key=lambda trial: (order.index(trial.name[0]), trial.name[1]))
        self.listing.show(trials)
        self._say()

    def _say(self) -> None:
        trials = self._trials.values()
        waiting = sum(trial.began is not None for trial in trials)
        if not trials or waiting:
            self.say_title(f"trying what this host can: {len(trials) - waiting} of {len(trials)}" if trials else "")
            return
        broken = sum(trial.probe is not None and not trial.probe.usable for trial in trials)
        lacking = self._lacking()
        said = [f"{len(trials) - broken} of {len(trials)} usable"]
        said += ["this session may only look: what it cannot try may work"] if self.panel.rights.walled else []
        said += [f"no backend for {', '.join(lacking)}"] if lacking and not self.panel.rights.walled else []
        said += [f"tried at {time.strftime('%H:%M:%S', time.localtime(self._tried_at))}"] if self._tried_at else []
        self.say_title("  ".join(said))

    def _lacking(self) -> list[Kind]:
        """The kinds that `auto` finds no usable backend for; of none if all of them are there by name only."""
        registry = self.workspace.registry
        automatic = {(kind, each.name) for kind in Kind for each in registry.every(kind) if each.priority >= 0}
        probes = [trial.probe for trial in self._trials.values() if trial.probe is not None]
        fit = {probe.kind for probe in probes if probe.usable and (probe.kind, probe.backend) in automatic}
        return [kind for kind in Kind if kind not in fit] if automatic else []

    # Keys

    def offers(self, action: str, parameters: tuple[object, ...]) -> bool:  # noqa: ARG002
        """Whether the footer shows a binding."""
        hint = self._hint()
        if action == "copy":
            return bool(hint)
        if action == "mend":
            return repair.command_of(hint) is not None
        return action not in ("details", "again") or self.listing.current() is not None

    def _problem(self) -> Problem | None:
        """The selected problem; on a trial its first one."""
        row = self.listing.current()
        if row is None or row.trial.probe is None:
            return None
        return row.problem or next(iter(row.trial.probe.problems), None)

    def _hint(self) -> str:
        problem = self._problem()
        return "" if problem is None else problem.hint

    def on_line_view_cursor_moved(self, event: LineView.CursorMoved) -> None:
        event.stop()
        self.refresh_bindings()

    def on_line_view_chosen(self, event: LineView.Chosen) -> None:
        event.stop()
        self.action_details()

    def action_move(self, by: int) -> None:
        self.listing.move(by)

    def action_page(self, by: int) -> None:
        self.listing.page(by)

    def action_to(self, line: int) -> None:
        self.listing.move_to(line)

    def action_details(self) -> None:
        row = self.listing.current()
        if row is not None and row.trial.probe is not None:
            kind, name = row.trial.name
            self.app.push_screen(Sheet(f"{kind} {name}", details(row.trial.probe), self._hint()))

    def action_copy(self) -> None:
        if hint := self._hint():
            self.panel.copy(hint)

    def action_again(self) -> None:
        row = self.listing.current()
        if row is not None and row.trial.began is None and row.trial.name in self.workspace.probed():
            self._try([row.trial.name])

    def action_all_again(self) -> None:
        if self.panel.ready and not any(trial.began is not None for trial in self._trials.values()):
            self._try()

    async def action_mend(self) -> None:
        row, problem = self.listing.current(), self._problem()
        if row is None or problem is None:
            self.panel.say("there is nothing to mend here", "warning")
        elif (line := repair.command_of(problem.hint)) is None:
            self.panel.say("this next step is for you to take: y copies it", "warning")
        else:
            await self.panel.until_asked(self._mend(row.trial, problem, line))

    @work(group="mend", exclusive=True, exit_on_error=False)
    async def _mend(self, trial: Trial, problem: Problem, line: str) -> None:
        """Ask with exactly what is run, run that, and try the backend again. Raises Denied."""
        self.panel.rights.require(HOST)
        said = [problem.message, "", "this is run, exactly so:", line, "", f"by {repair.SHELL} as {user()}, at once"]
        if not await self.panel.ask(Confirm(f"run a command on {platform.node()}?", said, "Run")):
            return
        again = [trial.name] if trial.name in self.workspace.probed() else None
        await self.panel.ask(MendSheet(line, lambda: self._try(again)))


def _rows(trial: Trial) -> list[Row]:
    rows = [Row(trial, "trial")]
    if trial.probe is None or trial.began is not None:
        return rows
    for problem in trial.probe.problems:
        rows.append(Row(trial, "problem", problem))
        if problem.hint:
            rows.append(Row(trial, "hint", problem))
    if trial.probe.facts:
        rows.append(Row(trial, "facts"))
    return rows


def details(probe: Probe) -> list[Line]:
    """All that a probe found, for people."""
    lines: list[Line] = [("usable" if probe.usable else "not usable", "good" if probe.usable else "bad")]
    lines.append((probe.summary, "text"))
    for problem in probe.problems:
        lines += [("", "text"), (f"{problem.code}: {problem.message}", "warn" if probe.usable else "bad")]
        lines += [(f"next: {problem.hint}", "accent")] if problem.hint else []
    if probe.facts:
        width = max(len(name) for name, _ in probe.facts)
        lines += [("", "text"), ("facts", "accent")]
        lines += [(f"{name:<{width}}  {value}", "text") for name, value in probe.facts]
    return lines
