"""A command that mends the host, with what it says as it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import work
from textual.binding import Binding, BindingType

from vmtui.engine import repair
from vmtui.host import trace
from vmtui.tui.screens.sheet import Line, Sheet

DRAW_S = 0.05


class MendSheet(Sheet):
    """Runs `line` at once and calls `ended` when it is over. It closes only then; ctrl+c ends it before."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c", "end", "End it", id="mend-end", priority=True)]

    def __init__(self, line: str, ended: Callable[[], object]) -> None:
        super().__init__(line, [], line)
        self._line = line
        self._ended = ended
        self._over = False
        self._heard: list[Line] = []

    def on_mount(self) -> None:
        self.say_foot("it runs: ctrl+c ends it")
        self.set_interval(DRAW_S, self._draw)
        self._run()

    @work(exit_on_error=False)
    async def _run(self) -> None:
        said = ("it was ended", "warn")
        try:
            with trace.doing("mend the host"):
                code = await repair.run(self._line, lambda text: self._heard.append((text, "text")))
            said = ("it ended well", "good") if code == 0 else (f"it ended with code {code}", "bad")
        except OSError as error:
            said = (f"it did not start: {error.strerror}", "bad")
        finally:
            self._over = True
            self._heard += [("", "text"), said]
            if self.is_running:
                self._draw()
                self.say_foot(self.FOOT)
            self._ended()

    def _draw(self) -> None:
        if self._heard:
            heard, self._heard = self._heard, []
            self.pages.add(heard)

    def action_close(self) -> None:
        if self._over:
            super().action_close()
        else:
            self.say_foot("it still runs: ctrl+c ends it")

    def action_end(self) -> None:
        if not self._over:
            self.workers.cancel_node(self)
