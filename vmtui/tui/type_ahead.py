"""Keys that come faster than what they open: each goes to what it was typed for."""

from __future__ import annotations

import asyncio
import contextlib
from weakref import WeakKeyDictionary

from textual import events
from textual.app import App
from textual.widget import Widget
from textual.worker import Worker

MOUNT_S = 1.0  # a screen is there in a few hundredths
ASKING_TURNS = 10  # of the loop: what starts work has asked its question by then


class TypeAhead(App[None]):
    """An application whose prompts and questions get what was typed before they were there."""

    def __init__(self, *, ansi_color: bool | None = None) -> None:
        super().__init__(ansi_color=ansi_color)
        self._meant_for: WeakKeyDictionary[events.Key, Widget] = WeakKeyDictionary()

    async def until_asked(self, work: Worker[None]) -> None:
        """Let work begin, so that what is typed ahead finds the question that it asks."""
        before = self.screen
        for _ in range(ASKING_TURNS):
            if work.is_finished or self.screen is not before:
                return
            await asyncio.sleep(0)

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.Key) and self.screen_stack and not event.is_forwarded:
            await self._screen_made()
            self._meant_for[event] = self.focused or self.screen
        await super().on_event(event)

    async def _on_key(self, event: events.Key) -> None:
        """A key that was typed ahead belongs to the field that has opened since, not to the list's bindings."""
        if not self.screen_stack:
            event.prevent_default()  # the panel is just left
            return
        await self._screen_made()
        now = self.focused or self.screen
        if self._meant_for.get(event, now) is not now and now.check_consume_key("a", "a"):
            event.prevent_default()  # else Textual calls the base's handler by itself
            now._forward_event(events.Key(event.key, event.character))

    async def _screen_made(self) -> None:
        """A question that has just been asked has its fields and its focus then."""
        if not self.screen.is_mounted:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MOUNT_S):
                    await self.screen._mounted_event.wait()
