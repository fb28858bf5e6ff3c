"""Who refers to whom in the simulated world: kept up to date from the text of each row that changes.

Rows are decoded only if their text says that there is something to keep: quotes inside JSON strings are escaped, so
that a marker such as `"phase":"` cannot be missed, and found in vain at worst.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from vmtui.core.lifecycle import UP, Phase
from vmtui.core.resource import Kind

PHASE = b'"phase":"'
PUBLISHED = b'"publish":["'


class _Network(msgspec.Struct):
    subnet: str = ""


class _Named(msgspec.Struct):
    profile: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.profile}/{self.kind}/{self.name}"


class _Disk(msgspec.Struct):
    ref: _Named
    read_only: bool = False


class _Port(msgspec.Struct):
    network: _Named
    index: int


class _Attached(msgspec.Struct):
    disks: tuple[_Disk, ...] = ()
    ports: tuple[_Port, ...] = ()


class _Options(msgspec.Struct):
    exit_after: Any = None


class _Workload(msgspec.Struct):
    phase: Phase = Phase.STOPPED
    options: _Options | None = None
    attachments: _Attached | None = None


class _Leased(msgspec.Struct):
    address: str = ""


class _Lease(msgspec.Struct):
    port: _Leased


_lease = msgspec.json.Decoder(_Lease)
_network = msgspec.json.Decoder(_Network)
_workload = msgspec.json.Decoder(_Workload)


class Index:
    """All keys are those of rows: PROFILE/KIND/NAME, and "NETWORK CONSUMER INDEX" of a port."""

    def __init__(self) -> None:
        self.subnets: dict[str, str] = {}  # of networks
        self.up: set[str] = set()  # workloads, by what was last done to them
        self.ending: dict[Kind, set[str]] = {kind: set() for kind in Kind}  # run, and end by themselves one day
        self.publishing: set[str] = set()  # ports
        self._disks: dict[str, tuple[str, ...]] = {}
        self._held: dict[str, tuple[str, ...]] = {}
        self._holders: dict[str, tuple[str, ...]] = {}
        self._of_network: dict[str, dict[str, None]] = {}
        self._of_consumer: dict[str, tuple[str, ...]] = {}
        self._leases: dict[str, dict[str, str]] = {}
        self._leased: dict[str, set[str]] = {}
        self._listeners: list[set[str]] = []

    def listen(self) -> set[str]:
        """A set that gets each workload that goes up or down from now on, until `ignore`."""
        listener: set[str] = set()
        self._listeners.append(listener)
        return listener

    def ignore(self, listener: set[str]) -> None:
        self._listeners = [other for other in self._listeners if other is not listener]

    def holders(self, disk: str) -> Sequence[str]:
        """The workloads that opened it for writing."""
        return self._holders.get(disk, ())

    def plugs_of(self, network: str) -> Collection[str]:
        return self._of_network.get(network, ())

    def leased(self, network: str) -> Collection[str] | None:
        """The addresses that its ports have, kept from `keep_leases` on; None before."""
        return self._leased.get(network)

    def keep_leases(self, network: str, leases: dict[str, str]) -> Collection[str]:
        """From now on know the addresses of a network; `leases` are those of now, by the key of the port."""
        self._leases[network] = leases
        self._leased[network] = set(leases.values())
        return self._leased[network]

    def plugs_by(self, consumer: str) -> Sequence[str]:
        return self._of_consumer.get(consumer, ())

    def held(self, consumer: str) -> Sequence[str]:
        """The ports that it was started with."""
        return self._held.get(consumer, ())

    def entry_changed(self, kind: Kind, key: str, text: bytes | None) -> None:
        if kind is Kind.NETWORK:
            self.subnets.pop(key, None)
            if text is not None and (subnet := _network.decode(text).subnet):
                self.subnets[key] = subnet
        elif kind.runs:
            for disk in self._disks.pop(key, ()):
                self._holders[disk] = tuple(other for other in self._holders[disk] if other != key)
            self._held.pop(key, None)
            was_up = key in self.up
            self.up.discard(key)
            self.ending[kind].discard(key)
            if text is not None and PHASE in text:  # without it is the default, stopped
                self._workload_changed(kind, key, _workload.decode(text))
            if (key in self.up) is not was_up:
                for listener in self._listeners:
                    listener.add(key)

    def _workload_changed(self, kind: Kind, key: str, row: _Workload) -> None:
        if row.phase in UP:
            self.up.add(key)
        if row.phase is Phase.RUNNING and row.options is not None and row.options.exit_after is not None:
            self.ending[kind].add(key)
        if row.attachments is None:
            return
        if row.attachments.ports:
            held = tuple(f"{port.network} {key} {port.index}" for port in row.attachments.ports)
            plugs = self.plugs_by(key)
            self._held[key] = plugs if plugs == held else held  # kept once, as nearly always they are the same
        disks = tuple(str(disk.ref) for disk in row.attachments.disks if not disk.read_only)
        if disks:
            self._disks[key] = disks
            for disk in disks:
                self._holders[disk] = (*self._holders.get(disk, ()), key)

    def plug_changed(self, key: str, text: bytes | None) -> None:
        network, consumer, _ = key.split(" ")
        others = tuple(other for other in self._of_consumer.pop(consumer, ()) if other != key)
        if text is not None:
            self._of_network.setdefault(network, {})[key] = None
            others = (*others, key)
        else:
            self._of_network.get(network, {}).pop(key, None)
        if others:
            self._of_consumer[consumer] = others
        if network in self._leases:
            self._leased[network].discard(self._leases[network].pop(key, ""))
            if text is not None:
                address = self._leases[network][key] = _lease.decode(text).port.address
                self._leased[network].add(address)
        if text is not None and PUBLISHED in text:
            self.publishing.add(key)
        else:
            self.publishing.discard(key)
