"""What a query looks at: the interface, and the form of it that is made from a status."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Status

LONGEST = 4096  # characters of a text that a pattern looks at; what backtracks costs more than the length
NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Searchable(Protocol):
    """A resource as a query sees it. `state` is the word of its phase; `text` has a field a line, `folded` is
    `text.lower()`; both are asked for once a keystroke and resource, so keep them."""

    @property
    def kind(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def profile(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def backend(self) -> str: ...
    @property
    def addresses(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def troubled(self) -> bool:
        """Whether it is broken, has problems, or ended with a code other than 0."""
        ...

    @property
    def title(self) -> str:
        """What a fuzzy search looks at: PROFILE/KIND/NAME."""
        ...

    @property
    def text(self) -> str: ...
    @property
    def folded(self) -> str: ...


class Entry:
    """A status made searchable. Its text has the name, the full name, and all that the panel shows of it."""

    __slots__ = (
        "addresses", "backend", "folded", "kind", "labels", "name", "profile", "state", "text", "title", "troubled",
    )  # fmt: skip

    def __init__(self, status: Status, labels: Mapping[str, str] = NO_LABELS) -> None:
        ref, code = status.ref, status.exit.code if status.exit else 0
        self.kind: str = ref.kind.value
        self.state: str = status.phase.value
        self.profile = ref.profile
        self.name = ref.name
        self.backend = status.backend
        self.addresses = tuple(address.address for address in status.addresses)
        self.labels = labels
        self.troubled = bool(status.problems) or status.phase is Phase.BROKEN or code != 0
        self.title = f"{self.profile}/{self.kind}/{self.name}"
        ended = status.exit is not None and status.phase is Phase.EXITED
        state = f"{self.state} {code}" if ended else self.state
        fields = [self.name, self.title, self.backend, state, *self.addresses]
        fields += [endpoint.url for endpoint in status.endpoints]
        fields += [problem.message for problem in status.problems]
        fields += [f"{key}={value}" for key, value in labels.items()]
        fields += [fact.value for fact in status.facts]
        self.text = "\n".join(fields)[:LONGEST]
        self.folded = self.text.lower()


def _check(entry: Entry) -> Searchable:
    return entry
