"""The simulated world of one workspace: what exists, what runs, who is plugged into what.

Rows say what was done and when; what follows from time alone (a scripted end) is derived when one looks.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from sys import intern
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from vmtui.backends.fake import simulation
from vmtui.backends.fake.index import Index
from vmtui.backends.fake.ledger import Ledger
from vmtui.backends.fake.options import FakeOptions
from vmtui.core.backend import Attachments, Context
from vmtui.core.errors import Conflict, NotFound
from vmtui.core.lifecycle import UP, Phase
from vmtui.core.resource import Exit, Fact, Kind, Port, Problem, Ref

S = TypeVar("S", Ref, tuple[str, ...])
RUNS_KEPT = 4  # of one resource: how far back its log goes
PLAIN = FakeOptions()
POOL = ipaddress.ip_network("10.64.0.0/10")  # subnets for networks that name none


class KnownPort(msgspec.Struct, frozen=True, gc=False):
    version: int
    port: Port
    down: bool


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as the simulation sees it."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Run(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """From a start to its end. `ended_at` is None while nobody ended it."""

    started_at: float
    ended_at: float | None = None
    code: int = 0
    reason: str = ""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A resource. Not `complete`: its `create` was cut off. `phase` is what the last action made of it.

    `problems` and `facts` are those that the simulation gives it beside what follows from the rest.
    """

    ref: Ref
    mark: str
    spec_hash: str
    spec: msgspec.Raw
    options: FakeOptions | None = None
    complete: bool = False
    phase: Phase = Phase.STOPPED
    runs: tuple[Run, ...] = ()
    attachments: Attachments = Attachments()
    size_bytes: int | None = None
    subnet: str = ""
    problems: tuple[Problem, ...] = ()
    facts: tuple[Fact, ...] = ()

    @property
    def behaviour(self) -> FakeOptions:
        return self.options or PLAIN

    def ends_at(self) -> float | None:
        """When it ends by itself, if it is up and its options say so."""
        if self.phase is not Phase.RUNNING or self.options is None or self.options.exit_after is None:
            return None
        return self.runs[-1].started_at + self.options.exit_after

    def at(self, now: float) -> Entry:
        """The same, with what time has done to it."""
        ends_at = self.ends_at()
        if ends_at is None or now < ends_at:
            return self
        options = self.behaviour
        return self.ended(Phase.EXITED, ends_at, options.exit_code, options.exit_reason)

    def started(self, now: float, attachments: Attachments) -> Entry:
        runs = (*self.runs, Run(now))[-RUNS_KEPT:]
        return replace(self, phase=Phase.RUNNING, runs=runs, attachments=attachments)

    def ended(self, phase: Phase, now: float, code: int, reason: str = "") -> Entry:
        """`phase` says whose wish it was: STOPPED ours, EXITED its own or a kill."""
        last = self.runs[-1]
        if last.ended_at is None:
            last = Run(last.started_at, now, code, reason)
        return replace(self, phase=phase, runs=(*self.runs[:-1], last))

    @property
    def exit(self) -> Exit | None:
        if self.phase is not Phase.EXITED or not self.runs:
            return None
        last = self.runs[-1]
        return Exit(code=last.code, reason=last.reason, at=last.ended_at or 0.0)


class Plug(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A port of a network. Unplugged, the row is the lease: the address is kept for its consumer."""

    mark: str
    port: Port
    publish: tuple[str, ...] = ()  # as they are written
    plugged: bool = True
    down: bool = False  # the simulation has taken its link away


class World:
    """All kinds of one workspace, each in its own file. Constructing it does no I/O."""

    def __init__(self, context: Context, clock: Clock) -> None:
        self.context = context
        self.clock = clock
        self.closed = False  # watchers end then
        self._forget()

    def _forget(self) -> None:
        self.index = Index()
        self._kinds: dict[Kind, Ledger[Entry]] = {}
        self._known_ports: dict[str, KnownPort] = {}
        self._plugs = Ledger(self.context.paths.state / "fake-port.jsonl", Plug, self.index.plug_changed)

    def ledger(self, kind: Kind) -> Ledger[Entry]:
        if kind not in self._kinds:
            path = self.context.paths.state / f"fake-{kind}.jsonl"
            self._kinds[kind] = Ledger(path, Entry, partial(self.index.entry_changed, kind))
        return self._kinds[kind]

    def entries(self, kind: Kind) -> Iterator[Entry]:
        """What is of this workspace, as of now; what changes while it is read may be there as it was or as it is."""
        now = self.clock.now()
        ledger = self.ledger(kind)
        ledger.refresh()
        for key in list(ledger.keys()):
            entry = ledger.get(key)
            if entry is not None and entry.mark == f"vmtui:{self.context.workspace}:{key}":
                yield entry.at(now)

    def find(self, ref: Ref) -> Entry | None:
        entry = self._row(ref)
        if entry is None or entry.mark != self.context.mark(ref):
            return None
        return entry.at(self.clock.now())

    def foreign(self, ref: Ref) -> bool:
        """Whether the name is taken by what does not carry our mark."""
        entry = self._row(ref)
        return entry is not None and entry.mark != self.context.mark(ref)

    def _row(self, ref: Ref) -> Entry | None:
        ledger = self.ledger(ref.kind)
        ledger.refresh()
        return ledger.get(str(ref))

    def get(self, ref: Ref) -> Entry:
        """Raises NotFound."""
        entry = self.find(ref)
        if entry is None:
            raise NotFound(f"{ref}: no such simulated {ref.kind}", hint="vmtui ls")
        return entry

    def put(self, entry: Entry) -> None:
        self.ledger(entry.ref.kind).put(str(entry.ref), entry)

    def remove(self, ref: Ref) -> None:
        self.restore(ref, None)

    def restore(self, ref: Ref, entry: Entry | None) -> None:
        self.ledger(ref.kind).put(str(ref), entry)

    def up(self, ref: Ref) -> bool:
        self.ledger(ref.kind).refresh()
        return self.known_up(str(ref), ref.kind)

    def known_up(self, key: str, kind: Kind) -> bool:
        """Whether it is up, as of the last time that its file was looked at."""
        if key not in self.index.up:
            return False
        if key not in self.index.ending[kind]:
            return True
        entry = self.ledger(kind).get(key)
        return entry is not None and entry.at(self.clock.now()).phase in UP

    def users(self, disk: Ref) -> list[Ref]:
        """The running workloads that have `disk` attached."""
        for kind in (Kind.VM, Kind.CONTAINER):
            self.ledger(kind).refresh()
        return sorted(ref for key in self.index.holders(str(disk)) if self.up(ref := Ref.parse(key)))

    def claim_subnet(self, ref: Ref, wanted: str | None, options: FakeOptions) -> str:
        """A subnet that no other network has. Raises Conflict."""
        self.ledger(Kind.NETWORK).refresh()
        subnets = {subnet: key for key, subnet in self.index.subnets.items()}
        if wanted is not None:
            network = ipaddress.ip_network(wanted, strict=False)
            for taken, owner in subnets.items():
                if owner != str(ref) and network.overlaps(ipaddress.ip_network(taken)):
                    raise Conflict(f"{ref}: subnet {wanted} overlaps {taken} of {owner}", hint="choose another subnet")
            return str(network)
        count = 1 << (24 - POOL.prefixlen)
        first = simulation.number(ref, options, "subnet") % count
        for step in range(count):
            subnet = f"{POOL.network_address + ((first + step) % count << 8)}/24"
            if subnets.get(subnet, str(ref)) == str(ref):
                return subnet
        raise Conflict(f"{ref}: all of {POOL} is taken", hint="give it a subnet")

    def plugs(self, network: Ref) -> Iterator[tuple[str, Plug]]:
        """All ports and leases of a network, with the keys of their rows."""
        self._plugs.refresh()
        for key in list(self.index.plugs_of(str(network))):
            plug = self._plugs.get(key)
            if plug is not None and plug.mark == self.context.mark(network):
                yield key, plug

    def leased(self, network: Ref) -> Collection[str]:
        """The addresses of a network that are given out. Found once, then kept up to date with each row."""
        self._plugs.refresh()
        known = self.index.leased(str(network))
        if known is None:
            leases = {key: plug.port.address for key, plug in self.plugs(network)}
            known = self.index.keep_leases(str(network), leases)
        return known

    def known_port(self, key: str) -> KnownPort | None:
        """What is plugged in, as of the last time that the file was looked at; a row is read once while it stands."""
        version = self._plugs.version(key)
        known = self._known_ports.get(key)
        if known is None or known.version != version:
            plug = self._plugs.get(key)
            if plug is None or not plug.plugged or self.context.owned(plug.mark) != plug.port.network:
                self._known_ports.pop(key, None)
                return None
            known = self._known_ports[key] = KnownPort(version, _slim(plug.port), plug.down)
        return known

    def plug_rows(self) -> Ledger[Plug]:
        return self._plugs

    def close(self) -> None:
        for ledger in self._kinds.values():
            ledger.close()
        self._plugs.close()
        self.closed = True
        self._forget()


def _slim(port: Port) -> Port:
    """The same; what ports of a network have in common is one object in them all."""
    network, consumer = _same(port.network), port.consumer
    return replace(
        port,
        network=network,
        consumer=Ref(intern(consumer.profile), consumer.kind, consumer.name),
        medium=intern(port.medium),
        gateway=intern(port.gateway),
        dns=_same(port.dns),
        search=intern(port.search),
    )


@lru_cache(maxsize=1024)
def _same(value: S) -> S:
    """The first that was given of equal ones."""
    return value
