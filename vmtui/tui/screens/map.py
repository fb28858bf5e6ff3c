"""The map: networks with their members, addresses, published ports and disks, drawn and live."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Mapping
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.timer import Timer

from vmtui.core.errors import Fault
from vmtui.core.lifecycle import Action
from vmtui.core.policy import Verb
from vmtui.core.query import Query, parse
from vmtui.core.resource import Kind, Ref, Status
from vmtui.core.specs import Spec
from vmtui.tui.map.layout import MapLine, What, counted, joined, parts
from vmtui.tui.map.view import MapView
from vmtui.tui.model import Changes, Item
from vmtui.tui.rights import FILES, Need, of
from vmtui.tui.screens.base import PanelScreen
from vmtui.tui.widgets.lines import LineView

LAYOUT_S = 1.0  # no two layouts within
CHUNK = 50  # specs read before others get their turn
HEADS = frozenset({What.NETWORK, What.GROUP, What.PROFILE})
OF_ONE = {"logs": Action.LOGS, "console": Action.CONSOLE}


class MapScreen(PanelScreen):
    NAME = "Map"
    FILTERS = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "go", "Go to it", id="map-go"),
        Binding("l", "logs", "Logs", id="map-logs"),
        Binding("c", "console", "Console", id="map-console"),
        Binding("z", "fold", "Fold", id="map-fold"),
        Binding("j,down", "move(1)", "Down", show=False, id="map-down"),
        Binding("k,up", "move(-1)", "Up", show=False, id="map-up"),
        Binding("J,shift+down", "head(1)", "Next network", show=False, id="map-next"),
        Binding("K,shift+up", "head(-1)", "Previous network", show=False, id="map-previous"),
        Binding("g,home", "to(0)", "First", show=False, id="map-first"),
        Binding("G,end", "to(1000000000)", "Last", show=False, id="map-last"),
        Binding("ctrl+f,pagedown", "page(1)", "Page down", show=False, id="map-page-down"),
        Binding("ctrl+b,pageup", "page(-1)", "Page up", show=False, id="map-page-up"),
    ]

    NEEDS: ClassVar[Mapping[str, Need]] = {"logs": of(Verb.LOGS), "console": of(Verb.CONSOLE)}

    def __init__(self) -> None:
        super().__init__()
        self.view = MapView({})
        self._specs: dict[Ref, Spec] = {}
        self._read: dict[Ref, str] = {}  # of which spec hash the spec was read
        self._shapes: dict[Ref, object] = {}
        self._parts: dict[str, list[MapLine]] = {}
        self._stale: set[str] | None = None  # the profiles to lay out again; None: all
        self._unfolded: set[str] = set()
        self._folded: set[str] = set()
        self._filter = ""
        self._query: Query | None = None
        self._timer: Timer | None = None
        self._laid_out_at = 0.0
        self._unsubscribe: Callable[[], None] | None = None

    def body(self) -> ComposeResult:
        yield self.view

    def on_mount(self) -> None:
        self.view.focus()

    # Kept current while it can be seen

    def shown(self) -> None:
        self.hidden()
        if not self.panel.ready:
            self.say_title("reading what is there")
            return
        self.view.items = self.panel.feed.model.items
        self._unsubscribe = self.panel.feed.subscribe(self._changed)
        self._stale = None  # much may have happened meanwhile
        self._lay_out()
        self._read_specs()

    def hidden(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        self.workers.cancel_group(self, "specs")

    def _changed(self, changes: Changes) -> None:
        if changes.measured:
            return
        items = self.panel.feed.model.items
        shaped = {ref for ref in changes.refs if _shape(items.get(ref)) != self._shapes.get(ref)}
        if shaped or changes.structural:
            self._read_specs()
            self._due({ref.profile for ref in shaped})
        self.view.touched(changes.refs)
        self.refresh_bindings()

    def _due(self, profiles: set[str]) -> None:
        """Lay these out again, at once or when the last time is long enough ago."""
        if self._stale is not None:
            self._stale |= profiles
        if self._timer is None and self._unsubscribe is not None:
            wait_s = max(0.02, self._laid_out_at + LAYOUT_S - time.monotonic())
            self._timer = self.set_timer(wait_s, self._lay_out)

    @work(group="specs", exclusive=True, exit_on_error=False)
    async def _read_specs(self) -> None:
        """The specs of what is new or was made anew, a few at a time."""
        items, first = self.panel.feed.model.items, not self._read
        for ref in [ref for ref in self._read if ref not in items]:
            del self._read[ref]
            self._specs.pop(ref, None)
        stale = [ref for ref, item in items.items() if self._read.get(ref) != item.status.spec_hash]
        for number, ref in enumerate(stale):
            if number % CHUNK == CHUNK - 1:
                await asyncio.sleep(0)
            item = items.get(ref)
            if item is None:
                continue
            self._read[ref] = item.status.spec_hash
            self._specs.pop(ref, None)
            with contextlib.suppress(Fault, sqlite3.Error):  # then it is drawn from what is observed
                if (desired := self.workspace.applied(ref)) is not None:
                    self._specs[ref] = desired.spec
        if stale:
            self._laid_out_at = 0.0 if first else self._laid_out_at
            self._due({ref.profile for ref in stale})

    def _lay_out(self) -> None:
        self._timer = None
        self._laid_out_at = time.monotonic()
        stale, self._stale = self._stale, set()
        items = self.panel.feed.model.items
        chosen: dict[Ref, Status] = {
            ref: item.status for ref, item in items.items() if stale is None or ref.profile in stale
        }
        for name in list(self._parts) if stale is None else stale:
            self._parts.pop(name, None)
        self._shapes.update((ref, _shape(items[ref])) for ref in chosen)
        for ref in [ref for ref in self._shapes if ref not in items]:
            del self._shapes[ref]
        unfolded, keep = self._unfolded, self._kept()
        self._parts |= parts(chosen, self._specs, unfolded=unfolded, folded=self._folded, keep=keep)
        self.view.show(joined(self._parts))
        self._say()

    def _kept(self) -> set[Ref] | None:
        query = self._query
        if query is None:
            return None
        items = self.panel.feed.model.items
        return {ref for ref, item in items.items() if query.matches(item.searchable(self._labels))}

    def _labels(self, ref: Ref) -> dict[str, str]:
        spec = self._specs.get(ref)
        return {} if spec is None else dict(spec.labels)

    def _say(self) -> None:
        model = self.panel.feed.model
        if not model.loaded or model.error:
            self.say_title(model.error or "reading what is there")
            return
        kinds = [ref.kind for ref in model.items]
        said = counted(kinds.count(Kind.NETWORK), sum(kind.runs for kind in kinds), kinds.count(Kind.DISK))
        self.say_title(f"{said}{f'  /{self._filter}' if self._filter else ''}")
        matched = "nothing matches the filter: escape clears it"
        helps = ": 4 opens a profile to bring up" if self.panel.rights.has(FILES) else ""
        self.view.say_empty(matched if model.items else f"nothing is here yet{helps}")

    # Filter

    def filter_text(self) -> str:
        return self._filter

    def filter_changed(self, text: str) -> None:
        query = parse(text)
        self._filter, self._query = text, query if query else None
        self._stale = None
        self._lay_out()

    def filter_done(self) -> None:
        self.view.focus()

    def back(self) -> bool:
        if not self._filter:
            return False
        self.filter_changed("")
        return True

    # Keys

    def offers(self, action: str, parameters: tuple[object, ...]) -> bool:  # noqa: ARG002
        """Whether the footer shows a binding."""
        line = self.view.current()
        if action in OF_ONE:
            item = self._item()
            return item is not None and self.panel.acts.permitted(item.status, OF_ONE[action])
        if action == "fold":
            return line is not None and (bool(line.fold) or line.group in self._unfolded)
        return action != "go" or line is not None

    def _item(self) -> Item | None:
        line = self.view.current()
        return None if line is None or line.ref is None else self.panel.feed.model.items.get(line.ref)

    def on_line_view_cursor_moved(self, event: LineView.CursorMoved) -> None:
        event.stop()
        self.refresh_bindings()

    def on_line_view_chosen(self, event: LineView.Chosen) -> None:
        event.stop()
        self.action_go()

    def action_move(self, by: int) -> None:
        self.view.move(by)

    def action_page(self, by: int) -> None:
        self.view.page(by)

    def action_to(self, line: int) -> None:
        self.view.move_to(line)

    def action_head(self, direction: int) -> None:
        """To the next network, group or profile."""
        place = self.view.next_of(HEADS, direction)
        if place is not None:
            self.view.move_to(place, direction)

    def action_go(self) -> None:
        line = self.view.current()
        if line is None:
            return
        if line.ref is None:
            self.action_fold()
        elif line.ref in self.panel.feed.model.items:
            self.panel.go_to(line.ref)
        else:
            self.panel.say(f"{line.ref} is named by a spec, and is not there", "warning")

    def action_fold(self) -> None:
        """Show or fold away the rest of a group, or a profile."""
        line = self.view.current()
        if line is None:
            return
        if line.what is What.PROFILE:
            self._folded ^= {line.fold.removeprefix("profile ")}
        elif line.group:
            self._unfolded ^= {line.group}
        self._stale = None
        self._lay_out()

    def action_logs(self) -> None:
        if (ref := self._one("logs")) is not None:
            self.panel.open_logs([ref])

    def action_console(self) -> None:
        if (ref := self._one("console")) is not None:
            self.panel.open_console(ref)

    def _one(self, action: str) -> Ref | None:
        """The selected resource if `action` is permitted for it; else it is said why not."""
        item = self._item()
        if item is None:
            return None
        why = self.panel.acts.why_not(item.status, OF_ONE[action])
        if why is None:
            return item.ref
        self.panel.say(f"no {action} of {item.ref.short}: {why}", "warning")
        return None


def _shape(item: Item | None) -> object:
    """What of a resource the layout depends on."""
    if item is None:
        return None
    status = item.status
    if status.ref.kind is Kind.NETWORK:
        return frozenset((port.consumer, port.index) for port in status.ports)
    return status.spec_hash
