"""The terminal beneath the panel: its driver, its mouse, the signals that come by it, and its going away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from types import FrameType, MappingProxyType
from typing import Any

from textual.app import App
from textual.driver import Driver

DEBUG = "VMTUI_DEBUG"  # set: defects are shown with their traceback
ENDS = (signal.SIGTERM, signal.SIGHUP)
STUCK_S = 8  # for what is closed at the end; a terminal that takes nothing would be waited for without end


class OnTerminal(App[None]):
    """An application that no bytes end, and that gives the terminal back when it is terminated or hung up."""

    ended_by: signal.Signals | None = None  # which is to take effect after `run`
    suspends = True  # whether it can be stopped, and its terminal given to another program
    mouse = True
    _hears: asyncio.AbstractEventLoop | None = None
    _before: Mapping[signal.Signals, Any] = MappingProxyType({})
    _alarmed = False

    def get_driver_class(self) -> type[Driver]:
        found = super().get_driver_class()
        from vmtui.tui import linux_terminal

        return linux_terminal.TerminalDriver if found is linux_terminal.TerminalDriver.__base__ else found

    def on_mount(self) -> None:
        self._hears = asyncio.get_running_loop()
        with contextlib.suppress(ValueError):  # not the main thread: signals are not ours
            self._before = {number: signal.signal(number, self._signalled) for number in ENDS}
        self.app_resume_signal.subscribe(self, lambda _: self.draw_all())

    async def on_unmount(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _signalled(self, number: int, _: FrameType | None) -> None:
        """Not by way of the loop alone, which may stand still before a terminal that takes nothing."""

        def give_up(*_: object) -> None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

        signal.signal(signal.SIGALRM, give_up)
        signal.alarm(STUCK_S)
        self._alarmed = True
        assert self._hears is not None
        with contextlib.suppress(RuntimeError):  # it is closed
            self._hears.call_soon_threadsafe(self._end_by, signal.Signals(number))

    def hung_up(self) -> None:
        """The terminal has gone."""
        self._end_by(signal.SIGHUP)

    def _end_by(self, number: signal.Signals) -> None:
        if self.ended_by is None:
            self.ended_by = number
            self.run_worker(self._end(), group="end", exit_on_error=False)

    async def _end(self) -> None:
        try:
            if self._alarmed:
                signal.alarm(0)
            await self.break_off()
        finally:
            if self._alarmed:
                signal.alarm(STUCK_S)
            self.exit()

    async def break_off(self) -> None:
        """Bring to an end what is unfinished, without asking."""

    def _print_error_renderables(self) -> None:
        if self.ended_by is signal.SIGHUP:  # nobody is there to read it
            self._exit_renderables.clear()
        super()._print_error_renderables()

    def _fatal_error(self) -> None:
        """A defect of ours: whoever called `run` says it in a line; the terminal is no place for a traceback."""
        if os.environ.get(DEBUG):
            super()._fatal_error()
        else:
            self._close_messages_no_wait()

    def draw_all(self) -> None:
        """Somebody sees nothing yet, after a stop or as one more who watches; Textual would draw what changes."""
        everything = self.screen._compositor.render_update(full=True, screen_stack=self._background_screens)
        self._display(self.screen, everything)
        self.set_mouse(self.mouse)

    def set_mouse(self, on: bool) -> None:
        """Without it the terminal's own selection works."""
        self.mouse = on
        driver = self._driver
        if driver is not None and hasattr(driver, "_enable_mouse_support"):
            if on:
                driver._enable_mouse_support()
            else:
                driver._disable_mouse_support()  # type: ignore[attr-defined]
