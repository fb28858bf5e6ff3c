"""A form: a row for each field, in sections; those of a backend are there when that backend is meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from vmtui.engine.registry import FAKE
from vmtui.tui.forms.draft import Draft
from vmtui.tui.forms.editors import Editor, Offers, editor_of
from vmtui.tui.forms.fields import Field, Path, Section
from vmtui.tui.text import safe

LABEL = 22


class Row(Horizontal):
    """The label and the editor of one field."""

    def __init__(self, field: Field, editor: Editor) -> None:
        super().__init__(classes="row")
        self.field = field
        self.editor = editor

    def compose(self) -> ComposeResult:
        mark = "*" if self.field.required else " "
        yield Static(safe(f"{mark}{self.field.label}", longest=LABEL), classes="label", markup=False)
        yield self.editor


class Form(VerticalScroll, can_focus=False, inherit_bindings=False):
    """`offers` gives what a field can refer to. Up and down go from field to field."""

    DEFAULT_CSS = """
    Form { scrollbar-size: 1 1; }
    Form .row { height: auto; }
    Form .label { width: 22; height: 1; color: $secondary; }
    Form .heading { height: 1; color: $accent; text-style: bold; margin-top: 1; }
    Form .wrong { height: auto; color: $error; margin-left: 22; }
    Form LineEditor { width: 1fr; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "app.focus_next", "Next", id="form-next", show=False),
        Binding("up", "app.focus_previous", "Previous", id="form-previous", show=False),
        Binding("pagedown", "page_down", "Page down", id="form-page-down", show=False),
        Binding("pageup", "page_up", "Page up", id="form-page-up", show=False),
    ]

    def __init__(self, draft: Draft, offers: Offers) -> None:
        super().__init__(id="form")
        self._draft = draft
        self._offers = offers
        self._rows: dict[Path, Row] = {}
        self._wrong: dict[Path, Static] = {}
        self._sections: set[str] = set()

    def compose(self) -> ComposeResult:
        yield from self._missing()

    def _missing(self) -> Iterator[Widget]:
        """The sections that should be there and are not."""
        wanted = self._wanted()
        for section in dict.fromkeys(field.section for field in self._draft.fields):
            if section in wanted and section not in self._sections:
                self._sections.add(section)
                title = section if section in list(Section) else f"only for backend {section}"
                if section:
                    yield Static(safe(title, longest=60), classes="heading", markup=False)
                yield from (self._row(field) for field in self._draft.fields if field.section == section)

    def _wanted(self) -> set[str]:
        """All backends' for auto, but not those of the simulated ones; and where something is filled in."""
        backend = self._draft.text(("backend",)) or "auto"
        found: set[str] = set(Section)
        for field in self._draft.fields:
            meant = field.section == backend or (backend == "auto" and field.section != FAKE)
            if meant or self._draft.text(field.path):
                found.add(field.section)
        return found

    def _row(self, field: Field) -> Row:
        row = Row(field, editor_of(field, self._draft.text(field.path), self._offers(field)))
        self._rows[field.path] = row
        return row

    def use(self, draft: Draft) -> None:
        """It has been saved: what is typed from now on is typed into this one."""
        self._draft = draft

    def backend_changed(self) -> None:
        """Another one is meant: its section is wanted. Those that are there stay."""
        self.mount_all(self._missing())

    # Errors

    def say_wrong(self, found: Mapping[Path, str]) -> None:
        """What is wrong, below each field; what was said of others is gone."""
        for path in [path for path in self._wrong if path not in found]:
            self._wrong.pop(path).remove()
        for path, said in found.items():
            if path in self._wrong:
                self._wrong[path].update(safe(said, longest=300))
            elif path in self._rows:
                self._wrong[path] = Static(safe(said, longest=300), classes="wrong", markup=False)
                self.mount(self._wrong[path], after=self._rows[path])

    def focus_first(self, found: Mapping[Path, str] | None = None) -> None:
        """The first field, or the first that is wrong."""
        for path, row in self._rows.items():
            if found is None or path in found:
                row.editor.focus()
                return

    def field_of(self, widget: Widget | None) -> Field | None:
        """The field whose editor has the focus."""
        return next((row.field for row in self._rows.values() if row.editor is widget), None)

    def editor(self, path: Path) -> Editor:
        return self._rows[path].editor
