"""The application: its theme, its views and how one gets from one to another. Work is done by what the views call."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from textual import work
from textual.actions import ActionParseResult
from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.screen import ModalScreen, Screen
from textual.worker import Worker, WorkerState

from vmtui.core.policy import Verb
from vmtui.core.resource import Kind, Ref
from vmtui.engine.authority import current
from vmtui.host.faults import Fault
from vmtui.tui import rights, terminal, themes
from vmtui.tui.driver import DEBUG, OnTerminal
from vmtui.tui.look import Look
from vmtui.tui.rights import Need, Rights
from vmtui.tui.screens.base import PanelScreen
from vmtui.tui.served import Served
from vmtui.tui.text import plain
from vmtui.tui.trail import Trail
from vmtui.tui.type_ahead import TypeAhead

if TYPE_CHECKING:
    from vmtui.engine.workspace import Workspace
    from vmtui.profile.settings import Settings
    from vmtui.tui.acts import Acts
    from vmtui.tui.console.session import Sessions
    from vmtui.tui.feed import Feed

R = TypeVar("R")
VIEWS = {  # name → the class, imported when it is first shown
    "resources": "resources:ResourcesScreen",
    "profile": "profile:ProfileScreen",
    "map": "map:MapScreen",
    "doctor": "doctor:DoctorScreen",
    "events": "events:EventsScreen",
    "actions": "actions:ActionsScreen",
    "notices": "notices:NoticesScreen",
    "approvals": "approvals:ApprovalsScreen",
}
REPORT = f"run it again with {DEBUG}=1 and report what it prints"
DEMO_SIZE = 40


HEALTH = ("doctor", "events", "actions")  # in the order in which one key leads through them


class Panel(TypeAhead, Look, Served, OnTerminal):
    """The panel over one workspace. `opener` opens it after the first frame; the panel closes what it opened.

    `rights` are of who sits before it, by default those of the workspace's authority. `served_fd` leads to the server.
    """

    TITLE = "vmtui"
    ENABLE_COMMAND_PALETTE = False
    CSS: ClassVar[str] = """
    ToastRack { margin-bottom: 2; }
    Toast { max-width: 90%; margin: 1 0 0 0; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "Help", id="help", priority=False),
        # With priority, so that the next key waits until the prompt is there to take it.
        Binding("colon", "command", "Command", id="command", priority=True),
        Binding("slash", "filter", "Filter", id="filter", priority=True),
        Binding("escape", "leave_view", "Back", id="back", show=False),
        Binding("minus", "last_view", "Last view", id="view-last", show=False),
        Binding("left_square_bracket", "history(-1)", "Earlier view", id="view-earlier", show=False),
        Binding("right_square_bracket", "history(1)", "Later view", id="view-later", show=False),
        *(
            Binding(str(number), f"view('{name}')", label, id=f"view-{name}", show=False)
            for number, (name, label) in enumerate(
                (
                    ("resources", "Resources"),
                    ("logs", "Logs"),
                    ("console", "Console"),
                    ("profile", "Profile"),
                    ("edit", "Edit"),
                    ("map", "Map"),
                    ("health", "Doctor, events, actions"),
                    ("approvals", "Approvals"),
                ),
                1,
            )
        ),
        Binding("ctrl+t", "theme", "Theme", id="theme", show=False),
        Binding("f9", "mouse", "Mouse on/off", id="mouse", show=False),
        Binding("q", "quit", "Quit", id="quit"),
        Binding("ctrl+q", "quit", "Quit", id="quit-anywhere", show=False),
    ]

    NEEDS: ClassVar[Mapping[str, Need]] = {
        "view('logs')": rights.of(Verb.LOGS),
        "view('console')": rights.CONSOLES,
        "view('profile')": rights.FILES,
        "view('edit')": rights.EDIT,
        "view('approvals')": rights.of(Verb.APPROVE),
        "demo": rights.LOCAL,
    }

    def __init__(
        self,
        workspace: Workspace | None = None,
        *,
        opener: Callable[[], Awaitable[Workspace]] | None = None,
        rights: Rights | None = None,
        read_only: bool = False,
        settings: Settings | None = None,
        demo: bool = False,
        home: str = "resources",
        served_fd: int | None = None,
    ) -> None:
        choice = terminal.choose(os.environ)
        super().__init__(ansi_color=None if choice.colours else True)  # else NO_COLOR becomes shades of grey
        self.wear(choice, settings)
        self.begin_saying()
        self.begin_served(served_fd)
        self._workspace = workspace
        self._opener = opener
        authority = current() if workspace is None else workspace.authority
        self.rights = rights or Rights(authority, read_only=read_only)
        self.suspends = self.rights.local
        self.demo = demo
        self.failed: Fault | None = None
        self.next_demo: int | None = None  # set on leaving: open the demo instead
        self._home = home
        self._trail = Trail()
        self._views: dict[str, PanelScreen] = {}
        self._logs: PanelScreen | None = None
        self._feed: Feed | None = None
        self._acts: Acts | None = None
        self._sessions: Sessions | None = None

    # What views use

    @property
    def workspace(self) -> Workspace:
        assert self._workspace is not None
        return self._workspace

    @property
    def ready(self) -> bool:
        """Whether the workspace is open: the first frame is drawn before."""
        return self._workspace is not None

    @property
    def feed(self) -> Feed:
        if self._feed is None:
            from vmtui.tui.feed import Feed

            self._feed = Feed(self.workspace, float(self.settings.refresh))
        return self._feed

    @property
    def acts(self) -> Acts:
        if self._acts is None:
            from vmtui.tui.acts import Acts

            self._acts = Acts(self)
        return self._acts

    @property
    def sessions(self) -> Sessions:
        """The consoles and shells that are open, shown or not."""
        if self._sessions is None:
            from vmtui.tui.console.session import Sessions

            self._sessions = Sessions()
        return self._sessions

    @property
    def database(self) -> Path | None:
        return None if self._workspace is None else self._workspace.store.path

    def may(self, verb: Verb, ref: Ref) -> bool:
        """Whether who sits here may do this to one resource: what is not permitted is not offered."""
        return self.rights.authority.anywhere(verb) and self.workspace.may(verb, ref)

    def why_not(self, verb: Verb, ref: Ref) -> str | None:
        """Why not, in words, or None."""
        return None if self.may(verb, ref) else self.rights.refusal(verb, ref)

    async def ask(self, dialog: Screen[R]) -> R:
        """Show a dialog and wait for its answer. Only in a worker."""
        return await self.push_screen_wait(dialog)

    def copy(self, text: str) -> None:
        """To the terminal's clipboard, by OSC 52."""
        self.copy_to_clipboard(plain(text, 100_000) if "\n" not in text else text.encode(errors="replace").decode())
        self.say(f"copied {text.splitlines()[0] if text else ''}")

    def standing(self) -> str:
        """What holds for the whole panel, for the title line; first what must not be overlooked."""
        words = [*self.alerts(), *(["demo: nothing is real"] if self.demo else [])]
        return ", ".join([*words, *self.rights.told()])

    def stand(self) -> None:
        for screen in self.screen_stack:
            if isinstance(screen, PanelScreen) and screen.is_mounted:
                screen.say_standing()

    # From view to view

    def view_named(self, name: str) -> PanelScreen:
        if name not in self._views:
            module, _, cls = VIEWS[name].partition(":")
            made: PanelScreen = getattr(import_module(f"vmtui.tui.screens.{module}"), cls)()
            self._views[name] = made
        return self._views[name]

    def show(self, screen: PanelScreen) -> None:
        """Go to a view; what was ahead in the history is forgotten, but for what is unfinished."""
        if self._trail.here is not screen:
            self._trail.go(screen)
            self._switch(screen)

    def done_with(self, screen: PanelScreen) -> None:
        """Home from a view that the history is not to lead to any more."""
        self.show(self.home)
        self._trail.forget(screen)

    def _switch(self, screen: PanelScreen) -> None:
        name = f"view-{id(screen)}"
        if not self.is_screen_installed(name):
            self.install_screen(screen, name)
        if any(isinstance(each, ModalScreen) and not each.is_mounted for each in self.screen_stack):
            self.call_later(self._switch, screen)  # it cannot be closed before it is there
            return
        while isinstance(self.screen, ModalScreen):
            self.screen.dismiss(None)  # who asked is told
        home = self.screen_stack[0]
        while len(self.screen_stack) > (1 if screen is home else 2):
            self.pop_screen()
        if screen is not home and len(self.screen_stack) == 1:
            self.push_screen(screen)
        elif self.screen is not screen:
            self.switch_screen(screen)
        self.call_after_refresh(self._forget_views)

    def _forget_views(self) -> None:
        """Views that no key leads to any more are taken apart."""
        kept = {id(screen) for screen in (*self._trail.views, *self._views.values(), self._logs) if screen is not None}
        for name, screen in list(self._installed_screens.items()):
            if isinstance(screen, PanelScreen) and id(screen) not in kept and screen not in self.screen_stack:
                self.uninstall_screen(name)
                if screen.is_running:
                    screen.remove()

    def action_view(self, name: str) -> None:
        if name == "logs":
            if self._logs is not None:
                self.show(self._logs)
            else:
                self.home.act_logs()
        elif name == "console":
            last = self.sessions.last()
            if last is not None:
                self._show_console(last)
            else:
                self.home.act_console()
        elif name == "edit":
            self.home.act_edit()
        elif name == "health":
            order = [view for view in HEALTH if self.rights.has(rights.VIEWS.get(view, rights.NOTHING))]
            shown = next((at for at, view in enumerate(order) if self._views.get(view) is self.screen), -1)
            self.show(self.view_named(order[(shown + 1) % len(order)]))
        else:
            self.show(self.view_named(name))

    @property
    def home(self) -> ResourcesScreen:
        from vmtui.tui.screens.resources import ResourcesScreen

        home = self.view_named("resources")
        assert isinstance(home, ResourcesScreen)
        return home

    def action_history(self, by: int) -> None:
        if (view := self._trail.by(by)) is not None:
            self._switch(view)

    def action_last_view(self) -> None:
        """To and fro between two views."""
        if (view := self._trail.last()) is not None:
            self.show(view)

    def action_leave_view(self) -> None:
        screen = self.screen
        if isinstance(screen, PanelScreen) and not screen.back() and screen is not self.home:
            self.show(self.home)

    def go_to(self, ref: Ref) -> None:
        self.show(self.home)
        self.home.select(ref)

    def open_logs(self, refs: Sequence[Ref]) -> None:
        from vmtui.tui.screens.logs import LogsScreen

        self._logs = LogsScreen(refs)
        self.show(self._logs)

    def open_console(self, ref: Ref) -> None:
        if not self._refused(Verb.CONSOLE, ref, "no console of"):
            self._open_session(ref, ())

    def open_exec(self, ref: Ref, argv: Sequence[str]) -> None:
        if not self._refused(Verb.EXEC, ref, "no shell in"):
            self._open_session(ref, tuple(argv))

    def _refused(self, verb: Verb, ref: Ref, what: str) -> bool:
        """Whether it is not permitted, which is said then."""
        why = self.why_not(verb, ref)
        if why is not None:
            self.say(f"{what} {ref.short}: {why}", "warning")
        return why is not None

    @work(group="open", exit_on_error=False)
    async def _open_session(self, ref: Ref, argv: tuple[str, ...]) -> None:
        from vmtui.tui.acts import Job, Part
        from vmtui.tui.console import session

        size, job = self.size, Job(f"{'shell in' if argv else 'console of'} {ref.short}", [Part(ref)])
        emit = self.acts.hears(job)
        if argv:
            opening = session.open_exec(
                self.sessions, self.workspace, ref, argv, rows=size.height - 3, columns=size.width, emit=emit
            )
        else:
            opening = session.open_console(self.sessions, self.workspace, ref, emit=emit)
        try:
            with self.acts.going_on(job):
                opened = await self.acts.asking(job, opening)
        except (Fault, OSError) as error:
            self.fail(error, f"{'shell in' if argv else 'console of'} {ref}")
            return
        if isinstance(self.screen, ModalScreen):
            self.say(f"the {'shell in' if argv else 'console of'} {ref} is open: 3 shows it")
        else:
            self._show_console(opened)

    def _show_console(self, opened: ConsoleSession) -> None:
        from vmtui.tui.screens.console import ConsoleScreen

        for screen in self._trail.views:
            if isinstance(screen, ConsoleScreen) and screen.session is opened:
                self.show(screen)
                return
        self.show(ConsoleScreen(opened))

    def open_profile(self, path: Path | None = None) -> None:
        from vmtui.tui.screens.profile import ProfileScreen

        view = self.view_named("profile")
        assert isinstance(view, ProfileScreen)
        self.show(view)
        if path is not None:
            view.open(path)

    def open_edit(self, what: Ref | Kind | None) -> None:
        if why := self.rights.lacks(rights.EDIT if isinstance(what, Ref) else rights.NEW):
            self.say(f"nothing is made or edited: {why}", "warning")
            return
        from vmtui.tui.screens.edit import EditScreen

        self.show(EditScreen(what))

    # What is not offered, and what goes wrong

    async def _dispatch_action(self, namespace: DOMNode, action_name: str, params: Any) -> bool:
        """A key of what is not offered only says why."""
        if why := self.rights.lacks(rights.need_of(namespace, action_name, params)):
            self.say(why, "warning")
            return True
        return await super()._dispatch_action(namespace, action_name, params)

    async def run_action(
        self,
        action: str | ActionParseResult,
        default_namespace: DOMNode | None = None,
        namespaces: Mapping[str, DOMNode] | None = None,
    ) -> bool:
        """A key whose action fails shows why; it ends nothing."""
        try:
            return await super().run_action(action, default_namespace, namespaces)
        except Exception as error:
            self.fail(error)
            return True

    def action_help_quit(self) -> None:
        """Ctrl+C, which ends other programs."""
        active = self.screen.active_bindings.values()
        keys = [self.get_key_display(each.binding) for each in active if each.binding.action == "quit"]
        self.say(f"{keys[0]} leaves vmtui; what runs goes on" if keys else "esc, then q leaves vmtui")

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        self.worker_changed(event)

    def worker_changed(self, event: Worker.StateChanged) -> None:
        """Work in the background that failed is told like everything else that fails."""
        error = event.worker.error
        if event.state is WorkerState.ERROR and error is not None:
            self.fail(error, event.worker.name.replace("_", " ").strip())

    # Prompts

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """A text field or a console with the focus has these keys for itself."""
        if action not in ("filter", "command"):
            return True
        screen, focused = self.screen, self.focused
        if not isinstance(screen, PanelScreen) or (focused is not None and focused.check_consume_key("slash", "/")):
            return False
        return action == "command" or screen.FILTERS

    async def action_filter(self) -> None:
        from vmtui.tui.widgets.prompt import FilterPrompt

        if isinstance(self.screen, PanelScreen):
            await FilterPrompt(self.screen).open()

    async def action_command(self) -> None:
        from vmtui.tui.commands import CommandPrompt

        if isinstance(self.screen, PanelScreen):
            await CommandPrompt(self.screen).open()

    def action_help(self) -> None:
        from vmtui.tui.screens.help import HelpScreen

        self.push_screen(HelpScreen())

    async def action_quit(self) -> None:
        await self.until_asked(self.leave())

    @work(group="leave", exclusive=True, exit_on_error=False)
    async def leave(self, demo: int | None = None) -> None:
        """End the panel, for a `demo` of that size if given; what is unfinished only if the user says so."""
        from vmtui.tui.screens.dialogs import Confirm

        unfinished = self._unfinished()
        if not unfinished or await self.ask(Confirm("leave vmtui?", list(unfinished.values()), "Leave")):
            await self.break_off()
            self.next_demo = demo
            self.exit()

    def _unfinished(self) -> dict[PanelScreen, str]:
        screens = dict.fromkeys((*self._trail.views, *self._views.values()))
        return {screen: said for screen in screens if (said := screen.unfinished())}

    async def break_off(self) -> None:
        for screen in self._unfinished():
            await screen.break_off()

    def server_lost(self) -> None:
        self.hung_up()

    def repaint(self) -> None:
        self.draw_all()

    def action_demo(self) -> None:
        """Leave this workspace as it is, and show made-up resources."""
        self.rights.require(rights.LOCAL)
        self.leave(DEMO_SIZE)

    def action_mouse(self) -> None:
        """Without the mouse the terminal's own selection works."""
        self.set_mouse(not self.mouse)
        self.say(f"mouse {'on' if self.mouse else 'off: select text with the terminal'}")

    # Life

    def get_default_screen(self) -> Screen[None]:
        """The first view is the bottom of the stack: one screen less to make before the first frame."""
        self.dress()
        home = self.view_named(self._home)
        self._trail.go(home)
        self._installed_screens[f"view-{id(home)}"] = home
        return home

    def on_mount(self) -> None:
        if not self.settings.mouse:
            self.set_mouse(False)
        self.call_after_refresh(self._open)

    @work(group="life", exit_on_error=False)
    async def _open(self) -> None:
        """Everything that the first frame can do without."""
        try:
            if self._workspace is None:
                assert self._opener is not None
                self._workspace = await self._opener()
        except Fault as fault:
            self.failed = fault
            self.exit()
            return
        gc.freeze()
        gc.enable()
        self.run_worker(self.feed.run(), group="feed", exit_on_error=False)
        if self.rights.has(rights.of(Verb.APPROVE)):
            from vmtui.tui.asked import hear

            self.run_worker(hear(self), group="asked", exit_on_error=False)
        if isinstance(self.screen, PanelScreen):
            self.screen.shown()
        await asyncio.sleep(0)
        found, wrong = await asyncio.to_thread(themes.available)
        for theme in found:
            self.register_theme(theme)
        from vmtui.tui import keys

        lost = themes.unknown(self.settings.theme, self.available_themes)
        problems = [*self.look_problems, *wrong, *lost, *keys.apply(self, self.settings)]
        if self.rights.has(rights.FILES):  # else they are in files of somebody else's
            self.say_wrong(problems)

    async def on_unmount(self) -> None:
        if self._sessions is not None:
            await self._sessions.close_all()
        if self._opener is not None and self._workspace is not None:
            await self._workspace.aclose()
            self._workspace = None


if TYPE_CHECKING:
    from vmtui.tui.console.session import ConsoleSession
    from vmtui.tui.screens.resources import ResourcesScreen


def run(*, read_only: bool = False, demo: int | None = None, served_fd: int | None = None) -> None:
    """Open the panel on this terminal until it is left, in the name of `authority.current()`. Raises Exception.

    `demo` is the number of made-up resources; `served_fd` where the server says who watches and how long it waits.
    """
    while True:
        panel = _panel(Rights(current(), read_only=read_only), demo=demo, served_fd=served_fd)
        panel.run()
        if panel.ended_by is not None:
            signal.signal(panel.ended_by, signal.SIG_DFL)
            signal.raise_signal(panel.ended_by)
        if panel._exception is not None:
            raise panel._exception
        if panel.failed is not None:
            raise panel.failed
        if panel.next_demo is None:
            return
        demo = panel.next_demo


def _panel(rights: Rights, *, demo: int | None, served_fd: int | None) -> Panel:
    async def opener() -> Workspace:
        from vmtui.host.paths import Paths

        paths, by = Paths.from_environment(), rights.by()
        if demo is not None:
            from vmtui.engine.demo import open_demo

            return await open_demo(paths, demo, by=by)
        from vmtui.engine.workspace import Workspace

        return await Workspace.open(paths, by=by, authority=rights.engines)

    return Panel(opener=opener, rights=rights, demo=demo is not None, served_fd=served_fd)
