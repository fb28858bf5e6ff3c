"""The widget: draws a session, and gives it every key but the few that are named in its bindings."""

from __future__ import annotations

import asyncio
import contextvars
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from vmtui.tui.console import keys, mouse
from vmtui.tui.console.engine import Modes, Mouse, Row
from vmtui.tui.console.paint import Paints
from vmtui.tui.console.session import ConsoleSession, State

DETACH_KEY = "ctrl+right_square_bracket"
MENU_KEY = "shift+f12"
FRAME_S = 1 / 60
FLOOD_FRAME_S = 1 / 30  # while more waits: what is painted then is gone at once
SYNCHRONIZED_S = 0.15  # how long a guest may hold the picture back (mode 2026)
BELL_S = 0.2  # the shortest time from bell to bell
WHEEL_ROWS = 3
BUTTONS = {1: 0, 2: 1, 3: 2}


class ConsoleView(Widget, can_focus=True):
    """All keys go to the guest, but those for leaving, for the menu, and for scrolling back.

    `detach_key` and `menu_key` are Textual's names of keys; the menu has what keeps no key for itself.
    """

    DEFAULT_CSS = "ConsoleView { height: 1fr; width: 1fr; }"
    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(DETACH_KEY, "detach", "Detach", id="console-detach", priority=True),
        Binding(MENU_KEY, "menu", "Menu", id="console-menu", priority=True),
        Binding("shift+pageup", "scroll_pages(-1)", "Scroll back", id="console-scroll-back", priority=True),
        Binding("shift+pagedown", "scroll_pages(1)", "Scroll on", id="console-scroll-on", priority=True),
    ]

    class Detached(Message):
        """The way out was asked for; the session goes on."""

    class HungUp(Message):
        """The session is to be closed, with what runs in it."""

    class Changed(Message):
        """What the banner says of the view or its session is no longer so."""

    def __init__(
        self,
        session: ConsoleSession,
        *,
        detach_key: str = DETACH_KEY,
        menu_key: str | None = MENU_KEY,
        read_only: bool = False,
    ) -> None:
        super().__init__()
        self.session = session
        self.read_only = read_only
        self.menu = False
        self.top: int | None = None  # the history's row at the top, None for the screen as it is
        self._rebind("console-detach", DETACH_KEY, detach_key)
        self._rebind("console-menu", MENU_KEY, menu_key)
        self.detach_key, self.menu_key = detach_key, menu_key
        self._paints: Paints | None = None
        self._cursor: tuple[int, int] | None = None
        self._pending: asyncio.TimerHandle | None = None
        self._painted = self._rang = 0.0
        self._held_since: float | None = None
        self._context_here: contextvars.Context | None = None
        self._button = mouse.NO_BUTTON
        self._watching = False

    def _rebind(self, binding_id: str, key: str, wanted: str | None) -> None:
        if wanted != key:
            (binding,) = self._bindings.key_to_bindings.pop(key)
            if wanted is not None:
                self._bindings.key_to_bindings.setdefault(wanted, []).append(binding.with_key(wanted))
        assert all(one.id != binding_id or one.key == wanted for _, one in self._bindings)

    # Being shown

    def watch_session(self) -> None:
        """Show what comes from now on."""
        self._watching = True
        self.session.attach(self)
        self._fit()
        self.refresh()

    def leave_session(self) -> None:
        """Not to be seen: costs nothing until it is again."""
        self._watching = False
        self.session.detach(self)
        self._cancel_paint()

    def on_mount(self) -> None:
        self._context_here = contextvars.copy_context()

    def on_unmount(self) -> None:
        self.leave_session()

    def on_resize(self) -> None:
        self._fit()

    def _fit(self) -> None:
        if self._watching and self.size.width > 0 and self.size.height > 0:
            self.session.resize(self.size.height, self.size.width)
            self.refresh()

    def notify_style_update(self) -> None:
        self._paints = None
        super().notify_style_update()

    # Painting

    def output_came(self, behind: bool) -> None:
        """Paint at once when nothing was painted for a frame; a key's echo is not to wait for a clock."""
        loop = asyncio.get_running_loop()
        if self._pending is None:
            at = self._painted + (FLOOD_FRAME_S if behind else FRAME_S)
            self._pending = loop.call_at(max(loop.time(), at), self._paint, context=self._context_here)
        if self.session.engine.take_bell() and loop.time() - self._rang > BELL_S:
            self._rang = loop.time()
            self.app.bell()

    def state_changed(self) -> None:
        self.post_message(self.Changed())
        self.output_came(False)

    def _cancel_paint(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    def _paint(self) -> None:
        self._pending = None
        if not self._watching or not self.is_mounted:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        engine = self.session.engine
        if engine.modes.synchronized:
            self._held_since = now if self._held_since is None else self._held_since
            if now - self._held_since < SYNCHRONIZED_S:
                self._pending = loop.call_at(now + FRAME_S, self._paint, context=self._context_here)
                return
        self._held_since = None
        self._painted = now
        changed = set(engine.take_dirty())
        if self.top is not None:
            self.refresh()
            return
        cursor = engine.cursor
        if cursor != self._cursor:
            changed.update(place[1] for place in (cursor, self._cursor) if place is not None)
            self._cursor = cursor
        width, height = self.size
        shown = sorted(y for y in changed if y < height)
        if len(shown) > height // 2:
            self.refresh()
        elif shown:
            self.refresh(*(Region(0, y, width, 1) for y in shown))

    def render_line(self, y: int) -> Strip:
        if self._paints is None:
            self._paints = Paints(self.rich_style, native=self.app.native_ansi_color)
        return self._paints.strip(self._row(y), self.size.width)

    def _row(self, y: int) -> Row:
        engine = self.session.engine
        history = engine.history
        if self.top is not None:
            number = max(self.top, history.first) + y
            if number < history.end:
                return history[number]
            y = number - history.end
            return engine.row(y) if y < engine.rows else ()
        if y >= engine.rows:
            return ()
        cursor = engine.cursor
        if cursor is None or cursor[1] != y or self.session.state is not State.CONNECTED:
            return engine.row(y)
        return engine.row(y, marked=cursor[0])

    # Scrolling back

    def scroll_rows(self, by: int) -> None:
        """The history above the screen, on the primary screen; beyond its end is the screen as it is."""
        history = self.session.engine.history
        if self.session.engine.modes.alternate:
            return
        at = history.end if self.top is None else max(self.top, history.first)
        at = max(history.first, at + by)
        top = at if at < history.end else None
        if top != self.top:
            self.top = top
            self.refresh()
            self.post_message(self.Changed())

    def action_scroll_pages(self, by: int) -> None:
        self.scroll_rows(by * max(1, self.size.height - 1))

    def _to_screen(self) -> None:
        if self.top is not None:
            self.top = None
            self.refresh()
            self.post_message(self.Changed())

    # Keys

    def check_consume_key(self, key: str, character: str | None) -> bool:  # noqa: ARG002
        """No binding of the screen or the application has a key while this has the focus."""
        return True

    def action_detach(self) -> None:
        self.post_message(self.Detached())

    def action_menu(self) -> None:
        self.menu = not self.menu
        self.post_message(self.Changed())

    async def on_key(self, event: events.Key) -> None:
        event.stop()
        event.prevent_default()
        if self.menu:
            self._choose(event.key)
        elif self.session.state is not State.CONNECTED:
            self._when_ended(event.key)
        else:
            self._send(keys.encode(event.key, event.character, self._modes))

    def on_paste(self, event: events.Paste) -> None:
        event.stop()
        if not self._send(keys.paste(event.text, self._modes)):
            self.app.bell()

    @property
    def _modes(self) -> Modes:
        return self.session.engine.modes

    def _send(self, data: bytes) -> bool:
        if not data or self.read_only:
            return False
        self._to_screen()
        return self.session.send(data)

    def _choose(self, key: str) -> None:
        """A key of the menu; any other closes it."""
        self.menu = False
        self.post_message(self.Changed())
        match key:
            case "d":
                self.action_detach()
            case "s" if self.session.serial and not self.read_only:
                self.session.send_size()
            case "r" if self.session.state is not State.CONNECTED:
                self.reconnect()
            case "x" if not self.read_only:
                self.post_message(self.HungUp())
            case "k":
                self._send(keys.encode(self.detach_key, None, self._modes))
            case "m" if self.menu_key is not None:
                self._send(keys.encode(self.menu_key, None, self._modes))

    def _when_ended(self, key: str) -> None:
        if key in ("r", "enter"):
            self.reconnect()
        elif key in ("escape", "q"):
            self.action_detach()

    def reconnect(self) -> None:
        """Open the stream again."""
        self._to_screen()
        self.run_worker(self._reconnect(), group="console", exclusive=True, exit_on_error=False)

    async def _reconnect(self) -> None:
        from vmtui.core.errors import Fault

        try:
            await self.session.connect()
        except (Fault, OSError) as error:
            self.session.ending = str(error)
            self.post_message(self.Changed())

    # Focus

    def on_focus(self) -> None:
        self._report_focus(True)

    def on_blur(self) -> None:
        self.menu = False
        self._report_focus(False)

    def _report_focus(self, gained: bool) -> None:
        if self._modes.focus and not self.read_only:
            self.session.send(keys.focus(gained))

    # Mouse

    def on_mouse_down(self, event: events.MouseDown) -> None:
        self._button = BUTTONS.get(event.button, mouse.NO_BUTTON)
        self._report(mouse.Act.PRESS, self._button, event)

    def on_mouse_up(self, event: events.MouseUp) -> None:
        self._report(mouse.Act.RELEASE, BUTTONS.get(event.button, self._button), event)
        self._button = mouse.NO_BUTTON

    def on_mouse_move(self, event: events.MouseMove) -> None:
        self._report(mouse.Act.MOVE, self._button, event)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._wheel(mouse.WHEEL_UP, event)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._wheel(mouse.WHEEL_DOWN, event)

    def _wheel(self, button: int, event: events.MouseEvent) -> None:
        modes = self._modes
        up = button == mouse.WHEEL_UP
        if modes.mouse is not Mouse.OFF:
            self._report(mouse.Act.PRESS, button, event)
        elif modes.alternate:  # there is nothing to scroll back to; what pages there understands the arrows
            event.stop()
            self._send(keys.encode("up" if up else "down", None, modes) * WHEEL_ROWS)
        else:
            event.stop()
            self.scroll_rows(-WHEEL_ROWS if up else WHEEL_ROWS)

    def _report(self, act: mouse.Act, button: int, event: events.MouseEvent) -> None:
        event.stop()
        held = mouse.SHIFT * event.shift + mouse.ALT * event.meta + mouse.CTRL * event.ctrl
        x = min(max(int(event.x), 0), self.size.width - 1)
        y = min(max(int(event.y), 0), self.size.height - 1)
        if (data := mouse.report(act, button, x, y, held, self._modes)) and not self.read_only:
            self.session.send(data)
