"""Textual's driver for a terminal that may send anything, stop taking anything, and go away."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import signal
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, cast

from textual.app import App
from textual.drivers import linux_driver
from textual.events import Resize
from textual.geometry import Size

if TYPE_CHECKING:
    from vmtui.tui.driver import OnTerminal


class Input(codecs.BufferedIncrementalDecoder):
    """UTF-8 with all else replaced. Raises EOFError for no bytes at all: so reads a terminal that has gone."""

    def __init__(self) -> None:
        super().__init__("replace")

    def _buffer_decode(self, data: Any, errors: str, final: bool) -> tuple[str, int]:
        return codecs.utf_8_decode(data, errors, final)

    def decode(self, data: Any, final: bool = False) -> str:
        if not data and not final:
            raise EOFError
        return super().decode(data, final)


class Output:
    """What the terminal is written to by. Once it cannot be, all is dropped; `gone` is called at the first time."""

    def __init__(self, file: IO[str], gone: Callable[[], None]) -> None:
        self._file, self._gone = file, gone
        self._over = False

    def fileno(self) -> int:
        return self._file.fileno()

    def isatty(self) -> bool:
        return self._file.isatty()

    def write(self, text: str) -> None:
        self._try(lambda: self._file.write(text))

    def flush(self) -> None:
        self._try(self._file.flush)

    def _try(self, act: Callable[[], object]) -> None:
        if self._over:
            return
        try:
            act()
        except (OSError, ValueError):
            self._over = True
            self._gone()


# The thread that reads decodes strictly, and what it cannot decode would end the application (textual#6668).
linux_driver.getincrementaldecoder = lambda _: Input  # type: ignore[attr-defined, assignment]


class TerminalDriver(linux_driver.LinuxDriver):
    """Ends the application when its terminal has gone, where Textual would ask it again for ever."""

    def __init__(self, app: App[Any], **options: Any) -> None:
        super().__init__(app, **options)
        self._file = Output(cast("IO[str]", self._file), self.gone)  # type: ignore[assignment]
        self._looking: asyncio.Handle | None = None
        if not self.can_suspend:  # who would tell it to go on?
            signal.signal(signal.SIGTSTP, lambda *_: None)

    def start_application_mode(self) -> None:
        """As Textual's, but a change of size is looked at by the loop, once for all that have come by then.

        Textual looks in the handler itself, which the next signal interrupts: of a burst each goes one deeper.
        """
        super().start_application_mode()  # type: ignore[no-untyped-call]
        self._loop.add_signal_handler(signal.SIGWINCH, self._size_changed)

    def _size_changed(self) -> None:
        self._looking = self._looking or self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._looking = None
        if not self._in_band_window_resize:
            size = Size(*self._get_terminal_size())
            self._app.post_message(Resize(size, size))

    @property
    def panel(self) -> OnTerminal:
        return cast("OnTerminal", self._app)

    @property
    def can_suspend(self) -> bool:
        return self.panel.suspends

    def gone(self) -> None:
        """The terminal is no more. From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
            self._loop.call_soon_threadsafe(self.panel.hung_up)

    def run_input_thread(self) -> None:
        try:
            super().run_input_thread()
        except (EOFError, OSError):
            self.gone()
