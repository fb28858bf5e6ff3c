"""One person's view of a workspace: what they may see of it and do in it, decided here for every method of it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

from vmtui.core import policy
from vmtui.core.errors import Denied, Fault, NotFound
from vmtui.core.events import Event
from vmtui.core.policy import Target, Verb
from vmtui.core.resource import NAME, Kind, Ref, Status
from vmtui.engine.authority import Authority
from vmtui.engine.store import Store

NAMED = re.compile(rf"(?<![a-z0-9-]){NAME.pattern}/(?:{'|'.join(Kind)})/{NAME.pattern}(?![a-z0-9-])")
OTHER = "another resource"  # stands in texts for one that is not to be seen
T = TypeVar("T", bound=msgspec.Struct)


def absent(ref: Ref) -> NotFound:
    """What is said of one that is not there, and of one that is not to be seen."""
    return NotFound(f"there is no {ref}", hint="vmtui ls")


class Guard:
    """An authority over what the store knows. What may not be viewed is not there, whatever else is permitted on it."""

    def __init__(self, authority: Authority, store: Store) -> None:
        self.authority = authority
        self._store = store
        self._by_name = authority.role is None or policy.by_name_alone(authority.role)
        self._targets: dict[Ref, Target] = {}
        self._version: object = None
        self._seen: set[Ref] = set()  # those that were shown: that they are gone may be told, too
        self.sees_all = authority.may(Verb.VIEW)

    # Decisions

    def target(self, ref: Ref) -> Target:
        """The resource as it is known now."""
        if self._by_name:
            return Target(ref)
        self._refresh()
        if ref not in self._targets:
            self._targets[ref] = self._store.target(ref)
        return self._targets[ref]

    def _refresh(self) -> None:
        version = self._store.version
        if version != self._version:
            self._version = version
            self._targets.clear()

    def sees(self, ref: Ref) -> bool:
        """Whether it may be viewed."""
        return self.sees_all or self.authority.may(Verb.VIEW, self.target(ref))

    def may(self, verb: Verb, ref: Ref) -> bool:
        """Whether `verb` is permitted on it, and it may be viewed at all."""
        return self.authority.is_owner or (self.sees(ref) and self.authority.may(verb, self.target(ref)))

    def require(self, verb: Verb, *refs: Ref, to: str = "") -> None:
        """Raises NotFound for what is not to be seen, Denied for what is not permitted; both are noted."""
        if self.authority.is_owner:
            return
        for ref in refs:
            if not self.sees(ref):
                self.authority.note(verb, (ref,), "denied", "it is not to be seen")
                raise absent(ref)
            self.authority.require(verb, self.target(ref), to=to)

    def require_whole(self, verb: Verb, *, to: str = "") -> None:
        """The same for what is about no resource."""
        self.authority.require(verb, to=to)

    # What is shown

    def seen(self, statuses: Iterable[Status]) -> tuple[Status, ...]:
        """Those that may be viewed, without what they tell of others."""
        if self.sees_all:
            return tuple(statuses)
        self._read_targets()
        found = tuple(self.shown(status) for status in statuses if self.sees(status.ref))
        self._seen.update(status.ref for status in found)
        return found

    def _read_targets(self) -> None:
        if not self._by_name:
            self._refresh()
            self._targets = self._store.targets()

    def shown(self, status: Status) -> Status:
        """One status without what it tells of others."""
        if self.sees_all:
            return status
        self._seen.add(status.ref)
        return msgspec.structs.replace(
            status,
            ports=tuple(port for port in status.ports if self.sees(port.consumer) and self.sees(port.network)),
            facts=tuple(self._struct(fact) for fact in status.facts),
            problems=tuple(self._struct(problem) for problem in status.problems),
        )

    def watched(self, ref: Ref) -> bool:
        """Whether a change of it is told: of one that was shown also that it went, or out of sight."""
        return self.sees_all or ref in self._seen or self.sees(ref)

    def text(self, text: str) -> str:
        """A text without the names of what is not to be seen."""
        return text if self.sees_all else NAMED.sub(lambda match: self._name(match[0]), text)

    def _name(self, name: str) -> str:
        return name if self.sees(Ref.parse(name)) else OTHER

    def _struct(self, struct: T) -> T:
        """The same of all its texts."""
        texts = {name: value for name in struct.__struct_fields__ if isinstance(value := getattr(struct, name), str)}
        changed = {name: told for name, value in texts.items() if (told := self.text(value)) != value}
        return msgspec.structs.replace(struct, **changed) if changed else struct

    def event(self, event: Event) -> Event:
        """What an act tells while it goes on, without the names of what is not to be seen."""
        return event if self.sees_all else self._struct(event)

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Errors that come through here name nothing that is not to be seen."""
        try:
            yield
        except Fault as fault:
            self.told(fault)
            raise

    def told(self, fault: Fault) -> None:
        """Take out of an error what names others."""
        if not self.sees_all:
            fault.message, fault.hint, fault.details = map(self.text, (fault.message, fault.hint, fault.details))
            fault.args = (fault.message,)

    # What was done

    @contextlib.contextmanager
    def noting(self, verb: str, refs: tuple[Ref, ...], message: str = "") -> Iterator[None]:
        """Note how it ended. What was denied has been noted already."""
        try:
            yield
        except Denied:
            raise
        except Fault as fault:
            self.authority.note(verb, refs, "failed", str(fault))
            raise
        except BaseException as error:
            self.authority.note(verb, refs, "failed", type(error).__name__)
            raise
        self.authority.note(verb, refs, "done", message)
