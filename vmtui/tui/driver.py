"""The terminal beneath the panel: its driver, its mouse, and the signals that come by it."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import signal
from functools import partial

from textual.app import App
from textual.driver import Driver

DEBUG = "VMTUI_DEBUG"  # set: defects are shown with their traceback


def _decoder(encoding: str) -> partial[codecs.IncrementalDecoder]:
    return partial(codecs.getincrementaldecoder(encoding), "replace")


class OnTerminal(App[None]):
    """An application that no bytes end, and that gives the terminal back when it is terminated."""

    terminated = False  # by SIGTERM, which is to take effect after `run`
    mouse = True

    def get_driver_class(self) -> type[Driver]:
        driver = super().get_driver_class()
        from textual.drivers import linux_driver

        # Its thread decodes strictly, and what it cannot decode would end the application (textual#6668).
        linux_driver.getincrementaldecoder = _decoder  # type: ignore[attr-defined, assignment]
        return driver

    def on_mount(self) -> None:
        with contextlib.suppress(ValueError, RuntimeError):  # not the main thread: signals are not ours
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._terminate)
        self.app_resume_signal.subscribe(self, lambda _: self._draw_all())

    async def on_unmount(self) -> None:
        with contextlib.suppress(ValueError, RuntimeError):
            asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)

    def _terminate(self) -> None:
        self.terminated = True
        self.exit()

    def _fatal_error(self) -> None:
        """A defect of ours: whoever called `run` says it in a line; the terminal is no place for a traceback."""
        if os.environ.get(DEBUG):
            super()._fatal_error()
        else:
            self._close_messages_no_wait()

    def _draw_all(self) -> None:
        """Back from the shell: the terminal is empty, and Textual would draw what changes."""
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
