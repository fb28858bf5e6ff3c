"""What the panel is measured beside: a minimal Textual app, and a DataTable of the same rows."""

from __future__ import annotations

import random
import sys

from textual.app import App, ComposeResult


class Minimal(App[None]):
    """One Static."""

    def compose(self) -> ComposeResult:
        from textual.widgets import Static

        yield Static("minimal and there", markup=False)


class Table(App[None]):
    """The demo's resources in a DataTable, one in a hundred of them changing each second."""

    BINDINGS = [("q", "quit", "Quit")]  # noqa: RUF012

    def __init__(self, size: int, change: float) -> None:
        super().__init__()
        self._count = size
        self._change = change
        self._random = random.Random(1)

    def compose(self) -> ComposeResult:
        from textual.widgets import DataTable

        yield DataTable(cursor_type="row")

    def on_mount(self) -> None:
        from textual.widgets import DataTable

        from vmtui.engine.estate import Estate

        table = self.query_one(DataTable)
        self._columns = table.add_columns("state", "kind", "name", "profile", "backend", "address", "cpu", "memory")
        estate = Estate(self._count)
        self._keys = []
        for profile in estate.profiles:
            for at, slot in enumerate(estate.slots(profile)):
                state = str(estate.state(profile, at).phase)
                cells = (state, str(slot.part.kind), slot.name, estate.name(profile), "fake", "10.0.0.1", "3%", "120M")
                self._keys.append(table.add_row(*cells))
        table.focus()
        if self._change:
            self.set_interval(0.25, self._stir)

    def _stir(self) -> None:
        from textual.widgets import DataTable

        table = self.query_one(DataTable)
        for _ in range(int(self._count * self._change / 4)):
            state = self._random.choice(("running", "paused"))
            table.update_cell(self._random.choice(self._keys), self._columns[0], state)


if __name__ == "__main__":
    Minimal().run() if sys.argv[1] == "minimal" else Table(int(sys.argv[2]), float(sys.argv[3])).run()
