"""Workspaces of simulated resources in the name of others, and what was noted of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from vmtui.core.policy import Allow, Person, Role
from vmtui.core.resource import Ref
from vmtui.engine.authority import Authority
from vmtui.engine.workspace import Workspace


@dataclass
class Notes:
    """What an audit log would have: verb, refs, result, message."""

    taken: list[tuple[str, tuple[Ref, ...], str, str]] = field(default_factory=list)

    def note(self, verb: str, refs: tuple[Ref, ...], result: str, message: str) -> None:
        self.taken.append((verb, refs, result, message))

    @property
    def results(self) -> list[tuple[str, str]]:
        return [(verb, result) for verb, _, result, _ in self.taken]


def role(*allow: Allow, name: str = "custom", **fields: object) -> Role:
    return Role(name=name, allow=allow, **fields)  # type: ignore[arg-type]


def person(name: str) -> Person:
    return Person(name=name, key=f"SHA256:{name}", origin="192.0.2.7 port 40022")


def acting(workspace: Workspace, role: Role, name: str = "anna", notes: Notes | None = None) -> Workspace:
    """The workspace as `name` sees it in that role; the caller closes the one that was given."""
    return workspace.seen_by(Authority(person(name), role, (notes or Notes()).note))
