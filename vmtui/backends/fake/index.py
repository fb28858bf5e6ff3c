"""Who refers to whom in the simulated world: kept up to date from the text of each row that changes.

Rows are decoded only if their text says that there is something to keep: quotes inside JSON strings are escaped, so
that a marker such as `"disks":[{` cannot be missed, and found in vain at worst.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Kind

DISKS = b'"disks":[{'
EXIT_AFTER = b'"exit_after":'
PUBLISHED = b'"publish":["'


class _Network(msgspec.Struct):
    subnet: str = ""


class _Named(msgspec.Struct):
    profile: str
    kind: str
    name: str


class _Disk(msgspec.Struct):
    ref: _Named
    read_only: bool = False


class _Attached(msgspec.Struct):
    disks: tuple[_Disk, ...] = ()


class _Options(msgspec.Struct):
    exit_after: Any = None


class _Workload(msgspec.Struct):
    phase: Phase = Phase.STOPPED
    options: _Options | None = None
    attachments: _Attached | None = None


_network = msgspec.json.Decoder(_Network)
_workload = msgspec.json.Decoder(_Workload)


class Index:
    """All keys are those of rows: PROFILE/KIND/NAME, and "NETWORK CONSUMER INDEX" of a port."""

    def __init__(self) -> None:
        self.subnets: dict[str, str] = {}  # of networks
        self.ending: dict[Kind, set[str]] = {kind: set() for kind in Kind}  # run, and end by themselves one day
        self.publishing: set[str] = set()  # ports
        self._disks: dict[str, tuple[str, ...]] = {}
        self._holders: dict[str, set[str]] = {}
        self._of_network: dict[str, dict[str, None]] = {}
        self._of_consumer: dict[str, dict[str, None]] = {}

    def holders(self, disk: str) -> Collection[str]:
        """The workloads that opened it for writing."""
        return self._holders.get(disk, ())

    def plugs_of(self, network: str) -> Collection[str]:
        return self._of_network.get(network, ())

    def plugs_by(self, consumer: str) -> Collection[str]:
        return self._of_consumer.get(consumer, ())

    def entry_changed(self, kind: Kind, key: str, text: bytes | None) -> None:
        if kind is Kind.NETWORK:
            self.subnets.pop(key, None)
            if text is not None and (subnet := _network.decode(text).subnet):
                self.subnets[key] = subnet
            return
        for disk in self._disks.pop(key, ()):
            self._holders[disk].discard(key)
        self.ending[kind].discard(key)
        if text is None or not (DISKS in text or EXIT_AFTER in text):
            return
        row = _workload.decode(text)
        if row.phase is Phase.RUNNING and row.options is not None and row.options.exit_after is not None:
            self.ending[kind].add(key)
        if row.attachments is not None and row.attachments.disks:
            refs = [disk.ref for disk in row.attachments.disks if not disk.read_only]
            self._disks[key] = disks = tuple(f"{ref.profile}/{ref.kind}/{ref.name}" for ref in refs)
            for disk in disks:
                self._holders.setdefault(disk, set()).add(key)

    def plug_changed(self, key: str, text: bytes | None) -> None:
        network, consumer, _ = key.split(" ")
        for table, owner in ((self._of_network, network), (self._of_consumer, consumer)):
            if text is not None:
                table.setdefault(owner, {})[key] = None
            else:
                table.get(owner, {}).pop(key, None)
        if text is not None and PUBLISHED in text:
            self.publishing.add(key)
        else:
            self.publishing.discard(key)
