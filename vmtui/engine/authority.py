"""In whose name this process acts, and what that permits. Nothing asks a role but through this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vmtui.core import policy
from vmtui.core.errors import Denied
from vmtui.core.policy import Person, Role, Target, Verb
from vmtui.core.resource import Ref

# verb, refs, result (done, failed, denied, asked or approved), message
Note = Callable[[str, tuple[Ref, ...], str, str], None]
WHOAMI = "ssh HOST whoami"


def unnoted(verb: str, refs: tuple[Ref, ...], result: str, message: str) -> None:
    """The Note of the local owner, whose acts are in the history alone."""


@dataclass(frozen=True, slots=True)
class Authority:
    """Whose acts these are. Without a role it is the local owner's: everything, and none of it noted."""

    person: Person | None = None
    role: Role | None = None
    note: Note = unnoted

    def __post_init__(self) -> None:
        if (self.person is None) != (self.role is None):
            raise ValueError("a role needs a person, and a person a role")

    @property
    def is_owner(self) -> bool:
        """Whether it is the local owner's, who may do everything."""
        return self.role is None

    def may(self, verb: Verb, target: Target | None = None) -> bool:
        """Whether `verb` is permitted on `target`; without one, on any resource at all."""
        if self.role is None or self.person is None:
            return True
        return policy.permits(self.role, verb, target, self.person)

    def anywhere(self, verb: Verb) -> bool:
        """Whether there can be anything on which `verb` is permitted: what is not need not be shown."""
        return self.role is None or policy.anywhere(self.role, verb)

    def asks(self, verb: Verb) -> bool:
        """Whether a second person must agree to `verb`."""
        return self.role is not None and verb in self.role.approval

    def require(self, verb: Verb, target: Target | None = None, *, to: str = "") -> None:
        """Raises Denied, and notes it, if `verb` is not permitted. `to` says more of what was to be done."""
        if not self.may(verb, target):
            raise self.denied(verb, () if target is None else (target.ref,), to=to)

    def denied(self, verb: Verb | str, refs: tuple[Ref, ...] = (), *, to: str = "") -> Denied:
        """The error for what is not permitted, noted."""
        name = "" if self.role is None else self.role.name
        what = to or " ".join([verb, *map(str, refs)])
        fault = Denied(f"the role {name} may not {what}", hint=WHOAMI)
        self.note(str(verb), refs, "denied", fault.message)
        return fault


OWNER = Authority()
_current = OWNER


def assume(authority: Authority) -> None:
    """Act in this name from here on. Once for a process: there is no way back to more. Raises RuntimeError."""
    global _current
    if _current is not OWNER:
        raise RuntimeError("this process acts in a name already")
    _current = authority


def current() -> Authority:
    """Whose acts those of this process are: the local owner's, unless another was assumed."""
    return _current
