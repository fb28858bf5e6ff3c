"""Puts what the demo shows into its workspace, ten thousand resources in a fraction of a second."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec

from vmtui.core.backend import Attachments, Desired, PortRequest
from vmtui.core.errors import OperationFailed
from vmtui.core.lifecycle import UP, Phase
from vmtui.core.resource import Exit, Kind, Port, Ref
from vmtui.core.simulation import Planted, Simulates, SimulatesDisks, SimulatesLinks
from vmtui.core.specs import SPECS, Spec, decode, spec_hash, to_json
from vmtui.engine.estate import Estate, State
from vmtui.engine.registry import FAKE
from vmtui.engine.store import Intent
from vmtui.engine.wiring import MEDIA
from vmtui.engine.workspace import Workspace
from vmtui.host.files import in_words, remedy
from vmtui.host.tasks import Turn

AT_ONCE = 50  # resources written together: about a millisecond's work
NOTHING = Attachments()


@dataclass(frozen=True, slots=True)
class _Made:
    """What resources of the same fields share."""

    spec: Spec
    spec_json: bytes
    spec_hash: str


@dataclass(frozen=True, slots=True)
class _Found:
    desired: Desired[Any]
    spec_json: bytes
    state: State

    def row(self) -> bytes:
        return to_json(msgspec.structs.replace(self.desired, spec=msgspec.Raw(self.spec_json)))

    @property
    def intent(self) -> Intent:
        return Intent.STOPPED if self.state.phase is Phase.STOPPED else Intent.UP


async def plant(workspace: Workspace, estate: Estate, folder: Path) -> None:
    """Put an estate into a new workspace of simulated backends, and its profiles into `folder`.

    Rows and files are written in bulk, as if each resource had been applied long ago. Lets others have a turn. Raises
    OperationFailed.
    """
    try:
        folder.mkdir()
        await _Planter(workspace, estate, folder).plant()
    except OSError as error:
        raise OperationFailed(
            f"the demo cannot be made: {in_words(error)}", hint=remedy(error, folder.parent)
        ) from None


class _Planter:
    def __init__(self, workspace: Workspace, estate: Estate, folder: Path) -> None:
        self._registry = workspace.registry
        self._store = workspace.store
        self._estate = estate
        self._folder = folder
        self._made: dict[int, _Made] = {}  # of what slots have in common, by their fields
        self._options = {
            kind: options() if (options := self._registry.get(kind, FAKE).options_type) else None for kind in Kind
        }
        self._turn = Turn()
        self._now = time.time()

    async def plant(self) -> None:
        for profile in self._estate.profiles:
            await self._profile(profile)

    async def _profile(self, number: int) -> None:
        name = self._estate.name(number)
        path = self._folder / f"{name}.toml"
        path.write_text(self._estate.toml(number))
        self._store.put_profile(name, str(path))
        found = [await self._found(number, at) for at in range(len(self._estate.slots(number)))]
        self._store.put_many((item.desired.ref, FAKE, item.row(), item.intent) for item in found)
        await self._plant([item for item in found if not item.desired.ref.kind.runs], {})
        workloads = [item for item in found if item.desired.ref.kind.runs]
        await self._plant(workloads, await self._plugged(name, [item for item in workloads if item.state.phase in UP]))

    async def _found(self, profile: int, at: int) -> _Found:
        slot, own = self._estate.slots(profile)[at], self._estate.own(profile, at)
        made = None if own else self._made.get(id(slot.fields))
        if made is None:
            spec = decode({"backend": FAKE, **slot.fields, **own}, SPECS[slot.part.kind])
            made = _Made(spec, to_json(spec), spec_hash(spec, self._options[slot.part.kind]))
            if not own:
                self._made[id(slot.fields)] = made
        ref = Ref(self._estate.name(profile), slot.part.kind, slot.name)
        options = self._options[ref.kind]
        desired = Desired(ref=ref, backend=FAKE, spec=made.spec, options=options, spec_hash=made.spec_hash)
        if self._turn.long:
            await self._turn.give()
        return _Found(desired, made.spec_json, self._estate.state(profile, at))

    async def _plant(self, found: Sequence[_Found], attachments: Mapping[Ref, Attachments]) -> None:
        for kind in Kind:
            planted = [
                Planted(
                    desired=item.desired,
                    spec_json=item.spec_json,
                    phase=item.state.phase,
                    since=None if item.state.age_s is None else self._now - item.state.age_s,
                    exit=Exit(code=item.state.code, reason=item.state.reason, at=self._now - item.state.ended_s),
                    attachments=attachments.get(item.desired.ref, NOTHING),
                    problems=item.state.problems,
                )
                for item in found
                if item.desired.ref.kind is kind
            ]
            for start in range(0, len(planted), AT_ONCE):
                cast("Simulates", self._registry.get(kind, FAKE)).plant(planted[start : start + AT_ONCE])
                if self._turn.long:
                    await self._turn.give()

    async def _plugged(self, profile: str, up: Sequence[_Found]) -> dict[Ref, Attachments]:
        """The ports and disks of the workloads that are up."""
        turn = self._turn
        requests: dict[str, list[PortRequest]] = {}
        wants = [item.desired for item in up]
        for want in wants:
            for index, network in enumerate(getattr(want.spec, "networks", ())):
                requests.setdefault(network, []).append(
                    PortRequest(
                        consumer=want.ref,
                        index=index,
                        medium=MEDIA[want.ref.kind],
                        hostname=want.ref.name,
                        publish=want.spec.ports if index == 0 else (),
                    )
                )
        links = cast("SimulatesLinks", self._registry.get(Kind.NETWORK, FAKE))
        ports: dict[Ref, list[Port]] = {}
        for network, wanted in requests.items():
            for port in links.plug(Ref(profile, Kind.NETWORK, network), wanted):
                ports.setdefault(port.consumer, []).append(port)
            if turn.long:
                await turn.give()
        images = cast("SimulatesDisks", self._registry.get(Kind.DISK, FAKE))
        found = {}
        for want in wants:
            disks = [images.opened(Ref(profile, Kind.DISK, name)) for name in getattr(want.spec, "disks", ())]
            mine = sorted(ports.get(want.ref, ()), key=lambda port: port.index)
            if disks or mine:
                found[want.ref] = Attachments(disks=tuple(disks), ports=tuple(mine))
            if turn.long:
                await turn.give()
        return found
