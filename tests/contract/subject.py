"""What the contract suite has to know of a backend before it can try it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from vmtui.core.backend import Attachments, Backend, Context, Desired, Probe
from vmtui.core.resource import Ref
from vmtui.core.specs import Spec, spec_hash

GREETING = "contract: hello"
LATER = "contract: still here"


class Subject(ABC):
    """One backend, and specs that it can make. Construct it once per test session."""

    backend: type[Backend[Any]]
    boot_s: ClassVar[float] = 5.0  # how long until a started workload has said its greeting
    grace_s: ClassVar[float] = 2.0  # the grace period of stops in tests
    kill_points: ClassVar[int] = 40  # how many points of `create` are tried with a kill and a cancellation

    @abstractmethod
    async def spec(self, lab: Lab) -> Spec:
        """A good one. A workload made from it prints GREETING, LATER a second or more after, and runs on."""

    async def impossible(self, lab: Lab) -> Desired[Any] | None:
        """One that `create` must refuse or fail at, named like `lab.ref("impossible")`; None if there is none."""
        return None

    async def ending(self, lab: Lab) -> Desired[Any]:
        """A workload that ends by itself with code 3, named like `lab.ref("ending")`."""
        raise AssertionError(f"the suite of {self.backend.__name__} needs a workload that ends with code 3")

    def options(self) -> msgspec.Struct | None:
        """What goes with `spec`; all defaults unless overridden."""
        return self.backend.options_type() if self.backend.options_type is not None else None

    async def attachments(self, lab: Lab) -> Attachments:
        return Attachments()


@dataclass(slots=True)
class Lab:
    """A workspace of one test."""

    subject: Subject
    context: Context
    folder: Path  # for what specs refer to; outside of the workspace
    opened: list[Backend[Any]] = field(default_factory=list)
    refs: set[Ref] = field(default_factory=set)

    def front_end(self) -> Backend[Any]:
        """The backend as one more front end would construct it."""
        self.opened.append(self.subject.backend(self.context))
        return self.opened[-1]

    def ref(self, name: str = "one", profile: str = "contract") -> Ref:
        ref = Ref(profile, self.subject.backend.kind, name)
        self.refs.add(ref)
        return ref

    def want(self, ref: Ref, spec: Spec, options: msgspec.Struct | None = None) -> Desired[Any]:
        chosen = self.subject.options() if options is None else options
        return Desired(
            ref=ref,
            backend=self.subject.backend.name,
            spec=spec,
            options=chosen,
            spec_hash=spec_hash(spec, chosen),
        )

    async def desired(self, name: str = "one", profile: str = "contract") -> Desired[Any]:
        return self.want(self.ref(name, profile), await self.subject.spec(self))

    async def aclose(self) -> None:
        for backend in self.opened:
            await backend.aclose()
        self.opened.clear()


def why_not(probe: Probe) -> str:
    """The reason of a skip."""
    reasons = "; ".join(f"{problem.message} ({problem.hint})" for problem in probe.problems)
    return f"{probe.kind}.{probe.backend} is not usable here: {reasons or probe.summary}"
