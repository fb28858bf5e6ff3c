"""Create and edit: a form for a resource, the TOML that it makes, and the plan that follows from it."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual import events, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal
from textual.timer import Timer
from textual.widgets import Static

from vmtui.core.errors import Fault, ProfileInvalid
from vmtui.core.resource import Kind, Ref
from vmtui.engine import registry
from vmtui.profile.schema import Profile
from vmtui.tui.forms import begin, save
from vmtui.tui.forms.begin import Subject
from vmtui.tui.forms.draft import GENERAL, offers
from vmtui.tui.forms.editors import LineEditor, Typed, hint_of
from vmtui.tui.forms.fields import Field, Path, Shape
from vmtui.tui.forms.form import Form
from vmtui.tui.forms.values import NEEDED
from vmtui.tui.profiles.lines import Said
from vmtui.tui.profiles.views import Preview
from vmtui.tui.rights import EDIT, Need
from vmtui.tui.screens.base import PanelScreen
from vmtui.tui.screens.dialogs import Choose, Confirm
from vmtui.tui.text import safe_lines

NARROW = 90
SETTLE_S = 0.25  # after the last key, before the whole profile is checked


class EditScreen(PanelScreen):
    """`what` is the resource to edit, or the kind of a new one; None asks for it."""

    NAME = "Edit"
    DEFAULT_CSS = """
    EditScreen #columns { height: 1fr; }
    EditScreen #left { width: 1fr; height: 1fr; padding: 0 1; }
    EditScreen Preview { width: 44%; height: 1fr; border-left: solid $panel; padding-left: 1; }
    EditScreen #about { height: 2; color: $secondary; padding: 0 1; }
    EditScreen.narrow Preview { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "save", "Save", id="edit-save", priority=True),
        Binding("ctrl+n", "refer", "Refer to", id="edit-refer"),
    ]

    NEEDS: ClassVar[Mapping[str, Need]] = {"save": EDIT}

    def __init__(self, what: Ref | Kind | None) -> None:
        super().__init__()
        self._what = what
        self.subject: Subject | None = None
        self.wrong: dict[Path, str] = {}
        self._touched: set[Path] = set()
        self._tried = False
        self._began = False
        self._timer: Timer | None = None

    def body(self) -> ComposeResult:
        with Horizontal(id="columns"):
            yield Container(id="left")
            yield Preview()
        yield Static("", id="about", markup=False)

    def on_resize(self) -> None:
        self.set_class(self.size.width < NARROW, "narrow")

    def shown(self) -> None:
        if not self._began and self.panel.ready:
            self._began = True  # its own questions hide it for a while
            self._begin()

    @property
    def form(self) -> Form:
        return self.query_one(Form)

    @property
    def unsaved(self) -> bool:
        """Whether something was typed that is in no file."""
        return self.subject is not None and self.subject.draft.unsaved

    @work(group="begin", exclusive=True, exit_on_error=False)
    async def _begin(self) -> None:
        try:
            if isinstance(self._what, Ref):
                subject = await begin.existing(self.panel, self._what)
            else:
                subject = await begin.new(self.panel, self._what)
        except Fault as error:
            self._leave()
            self.panel.fail(error, "editing")
            if isinstance(error, ProfileInvalid):
                self.panel.say("the profile has to be mended first: 4 shows where", "warning")
            return
        if subject is None:
            self._leave()
            return
        self.subject = subject
        refs = [item.ref for item in subject.profile.resources]
        form = Form(subject.draft, lambda field: offers(field, subject.draft.ref, refs))
        await self.query_one("#left").mount(form)
        form.focus_first()
        self._check()

    def _leave(self) -> None:
        self.subject = None
        self.panel.done_with(self)

    def unfinished(self) -> str:
        return f"what was typed for {self.subject.draft.ref} is not saved" if self.subject and self.unsaved else ""

    def back(self) -> bool:
        if not self.unsaved:
            return False
        self._ask_to_leave()
        return True

    @work(group="ask", exclusive=True, exit_on_error=False)
    async def _ask_to_leave(self) -> None:
        assert self.subject is not None
        changed = self.subject.draft.changed()
        if await self.panel.ask(Confirm("leave without saving?", changed, "Leave")):
            self._leave()

    # As it is typed

    def on_typed(self, event: Typed) -> None:
        event.stop()
        if self.subject is None:
            return
        said = self.subject.draft.type(event.path, event.text)
        self._touched.add(event.path)
        self.wrong = {path: other for path, other in self.wrong.items() if path != event.path}
        if said:
            self.wrong[event.path] = said
        self._say_wrong()
        if event.path == ("backend",):
            self.form.backend_changed()
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(SETTLE_S, self._check)

    @work(group="check", exclusive=True, exit_on_error=False)
    async def _check(self) -> None:
        if self.subject is not None:
            await self._checked()

    async def _checked(self) -> tuple[Profile | None, str]:
        """The profile with what is filled in and its text; all that is wrong is shown."""
        assert self.subject is not None
        subject = self.subject
        profile, wrong = await asyncio.to_thread(
            subject.draft.checked, subject.text, subject.path, registry.option_types
        )
        try:
            text = await asyncio.to_thread(subject.draft.written, subject.text)
        except Fault as error:
            text, wrong = subject.text, {GENERAL: str(error), **wrong}
        if self.subject is subject:  # else the form was left meanwhile
            self.wrong = wrong
            self._say_wrong()
            self._show_preview(text)
        return profile, text

    def _say_wrong(self) -> None:
        """What nobody has typed yet is not complained about until it is to be saved."""
        told = {
            path: said for path, said in self.wrong.items() if self._tried or path in self._touched or said != NEEDED
        }
        self.form.say_wrong(told)
        if self.subject is not None:
            state = "new, " if self.subject.draft.is_new else ""
            state += "not saved" if self.unsaved else "saved" if not self.subject.draft.is_new else "nothing typed yet"
            count = f", {len(told)} wrong" if told else ""
            self.say_title(f"{self.subject.draft.ref}  {state}{count}  {self.subject.path}")
        self._say_about()

    def _show_preview(self, text: str) -> None:
        assert self.subject is not None
        draft = self.subject.draft
        before, after = draft.excerpt(self.subject.text), draft.excerpt(text)
        found: list[Said] = [(self.wrong[GENERAL], "bad"), ("", "text")] if GENERAL in self.wrong else []
        found += marked("" if draft.is_new else before, after)
        self.query_one(Preview).show(found)

    # Help for the field that has the focus

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        event.stop()
        self._say_about()

    def field_path(self) -> Path | None:
        """The field that has the focus."""
        field = self._field()
        return None if field is None else field.path

    def _field(self) -> Field | None:
        return self.form.field_of(self.focused) if self.query(Form) else None

    def _say_about(self) -> None:
        field = self._field()
        said = ""
        if field is not None:
            offered = self._offers(field)
            says = " | ".join(field.choices) if field.shape is Shape.CHOICE else field.says
            parts = [f"{'.'.join(field.path)}: {(field.about or says).rstrip('.')}", says if field.about else ""]
            parts.append(f"default {hint_of(field)}" if hint_of(field) and not field.required else "")
            parts.append(f"known: {', '.join(offered[:8])} (ctrl+n picks)" if offered else "")
            said = "; ".join(filter(None, parts))
        if GENERAL in self.wrong:
            said = f"{self.wrong[GENERAL]}\n{said}"
        self.query_one("#about", Static).update(safe_lines(said, longest=300))

    def _offers(self, field: Field) -> Sequence[str]:
        if self.subject is None or field.shape is Shape.CHOICE:
            return ()
        return offers(field, self.subject.draft.ref, [item.ref for item in self.subject.profile.resources])

    def action_refer(self) -> None:
        """Pick what the field can refer to."""
        field = self._field()
        if field is not None and self._offers(field):
            self._pick(field)
        else:
            self.panel.say("there is nothing to refer to here", "warning")

    @work(group="ask", exclusive=True, exit_on_error=False)
    async def _pick(self, field: Field) -> None:
        every = self._offers(field)
        at = await self.panel.ask(Choose(f"{field.label}: which?", every))
        editor = self.form.editor(field.path)
        if at is not None and isinstance(editor, LineEditor):
            before = [word.strip() for word in editor.value.split(",") if word.strip()]
            editor.value = ", ".join(dict.fromkeys([*before, every[at]]))
            editor.cursor_position = len(editor.value)

    # Saving

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("save", "refer") and self.app.screen is not self:  # it is a priority binding: not above dialogs
            return False
        return super().check_action(action, parameters)

    def action_save(self) -> None:
        if self.subject is not None:
            self._save()

    @work(group="ask", exclusive=True, exit_on_error=False)
    async def _save(self) -> None:
        subject = self.subject
        assert subject is not None
        self._tried = True
        profile, text = await self._checked()
        if profile is None:
            self.form.focus_first(self.wrong)
            self.panel.say(
                f"not saved: {len(self.wrong)} wrong, the first: {next(iter(self.wrong.values()))}", "warning"
            )
            return
        try:
            saved = await save.save(self.panel, subject, profile, text)
        except Fault as error:
            self.panel.fail(error, f"saving {subject.path.name}")
            return
        if saved is not None:
            self.subject = begin.subject_of(self.panel, subject.path, subject.draft.ref)
            self.form.use(self.subject.draft)
            self._touched, self._tried = set(), False
            self._check()
            if saved.plan is not None:
                save.apply(self.panel, subject.path, saved.plan)


def marked(before: str, after: str) -> list[Said]:
    """The new text, line by line, with what is new and what is gone marked."""
    if before == after:
        return [(f"  {line}", "text") for line in after.splitlines()]
    roles = {"+": "good", "-": "bad", " ": "text"}
    found = difflib.ndiff(before.splitlines(), after.splitlines())
    return [(line, roles[line[0]]) for line in found if line[0] in roles]
