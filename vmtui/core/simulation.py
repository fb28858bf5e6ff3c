"""What backends of simulated things offer beyond the interface: a demo puts a world up at once and makes it move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from vmtui.core.backend import Attachments, Desired, DiskAttachment, PortRequest
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Exit, Fact, Port, Problem, Ref


class Planted(msgspec.Struct, frozen=True, kw_only=True):
    """A resource that is found, not made step by step. A network names its subnet, which nobody else has."""

    desired: Desired[Any]
    spec_json: bytes = b""  # its spec, if somebody has written it already
    phase: Phase
    since: float | None = None  # when it was last started
    exit: Exit | None = None
    attachments: Attachments = Attachments()
    problems: tuple[Problem, ...] = ()
    facts: tuple[Fact, ...] = ()


@runtime_checkable
class Simulates(Protocol):
    """Each of these is one write, whatever the number of resources."""

    def share(self, other: Any) -> None:
        """See the world through the eyes of `other`, of the same workspace: what is kept in memory is kept once."""
        ...

    def plant(self, resources: Sequence[Planted]) -> None:
        """Let them be there. Those that are there already are replaced."""
        ...

    def trouble(self, ref: Ref, problems: Sequence[Problem]) -> None:
        """These are its problems now; none: it has no more. Raises NotFound."""
        ...

    def stir(self, refs: Sequence[Ref]) -> None:
        """Something about each of them changes that shows: it pauses or goes on, a problem comes or goes."""
        ...


@runtime_checkable
class SimulatesEnds(Protocol):
    def end(self, ref: Ref, exit: Exit) -> None:  # noqa: A002 - the field's name
        """It ends by itself. What does not run stays as it is. Raises NotFound."""
        ...


@runtime_checkable
class SimulatesDisks(Protocol):
    def opened(self, ref: Ref) -> DiskAttachment:
        """What `attach` would give, if nobody else had it."""
        ...


@runtime_checkable
class SimulatesLinks(Protocol):
    def plug(self, network: Ref, requests: Sequence[PortRequest]) -> Sequence[Port]:
        """What `add_port` would do for each, without asking for conflicts of host ports. Raises NotFound, Conflict."""
        ...

    def link(self, network: Ref, consumer: Ref, *, up: bool) -> None:
        """Take the link of a member away, or give it back. Absent is success."""
        ...
