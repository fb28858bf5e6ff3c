"""What is being done, above the footer: one line a job, and one for each part that runs or failed."""

from __future__ import annotations

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets._toast import ToastRack

from vmtui.tui.acts import Acts, Job
from vmtui.tui.palette import Palette
from vmtui.tui.text import plain

LINES = 6
BAR = 12
BELOW = 2  # the footer, and a prompt: toasts stay above them


class JobList(Widget):
    """As high as it has lines, at most LINES; nothing is shown while nothing is done."""

    DEFAULT_CSS = "JobList { height: 0; }"

    def __init__(self, acts: Acts, palette: Palette) -> None:
        super().__init__(id="jobs")
        self._acts = acts
        self._palette = palette
        self._lines: list[list[Segment]] = []

    def on_mount(self) -> None:
        self._acts.on_change.append(self.update)
        self.update()

    def on_unmount(self) -> None:
        if self.update in self._acts.on_change:
            self._acts.on_change.remove(self.update)

    def update(self) -> None:
        self._palette = self.app.palette  # type: ignore[attr-defined]
        self._lines = []
        for job in reversed(self._acts.jobs):  # the newest below, the older ones as long as there is room
            of = self._of(job)[: LINES - len(self._lines)]
            self._lines = of + self._lines
        self.styles.height = len(self._lines)
        for toasts in self.screen.query(ToastRack):
            toasts.styles.margin = (0, 0, BELOW + len(self._lines), 0)
        self.refresh()

    def _of(self, job: Job) -> list[list[Segment]]:
        palette = self._palette
        full, empty = palette.glyphs.bar
        filled = BAR * job.done // max(1, len(job.parts))
        style = palette.bad if job.failures else palette.accent
        counts = f" {job.done}/{len(job.parts)}" + (f", {len(job.failures)} failed" if job.failures else "")
        if job.waits:
            counts += f"  {plain(job.waits, 200)}; ctrl+c withdraws"
        elif all(part.state == "waiting" for part in job.parts):
            counts += "  waits until nothing else changes this workspace"
        elif job.ended and job.failures:
            counts += "  esc puts this away"
        lines = [[Segment(f" {full * filled}{empty * (BAR - filled)} ", style), Segment(job.title), Segment(counts)]]
        if len(job.parts) > 1 or job.failures:
            for part in job.parts:
                if part.state in ("running", "failed"):
                    shade = palette.bad if part.state == "failed" else palette.dim
                    said = f"   {part.state:<8} {part.ref}  {plain(part.message, 200)}"
                    lines.append([Segment(said, shade)])
        return lines

    def render_line(self, y: int) -> Strip:
        line = self._lines[y] if y < len(self._lines) else []
        return Strip(line).adjust_cell_length(self.size.width).apply_style(self._palette.head)
