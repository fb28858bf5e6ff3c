"""`doctor` and `backends`: what this host can do, and what each backend could."""

from __future__ import annotations

import argparse

import msgspec

from vmtui.core.backend import Probe, roles
from vmtui.core.policy import changes_nothing
from vmtui.core.resource import Kind
from vmtui.engine import registry
from vmtui.engine.workspace import Workspace
from vmtui.headless import session, tables, text
from vmtui.headless.exit_codes import ExitCode
from vmtui.headless.output import document
from vmtui.headless.remote import told
from vmtui.headless.session import Session


class BackendRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One element of `backends --json`. A negative priority: `auto` never takes it."""

    kind: Kind
    backend: str
    priority: int
    roles: tuple[str, ...]


def doctor(args: argparse.Namespace) -> int:
    """69 if a kind has no usable backend that `auto` would take."""

    async def command(here: Session, workspace: Workspace) -> int:
        here.screen.live("trying every backend")
        probes = sorted(await workspace.probe(), key=lambda probe: (list(Kind).index(probe.kind), probe.backend))
        here.screen.live("")
        probes = told(here.authority, probes)
        if here.authority.role is not None and changes_nothing(here.authority.role):
            here.screen.say("this session may only look: what it cannot try may work on the host all the same")
        lacking = lacking_kinds(probes)
        if here.json:
            document(here.screen, probes)
        else:
            for line in tables.probes(probes, width=here.screen.width, paint=here.screen.paint):
                here.screen.data(line)
            for kind in lacking:
                here.screen.say(f"no backend for {kind} is usable on this host")
        return ExitCode.MISSING_CAPABILITY if lacking else ExitCode.OK

    return session.run(command, json=args.json)


def lacking_kinds(probes: list[Probe]) -> list[Kind]:
    """The kinds that `auto` finds no usable backend for."""
    usable = {probe.kind for probe in probes if probe.usable and _automatic(probe)}
    return [kind for kind in Kind if kind not in usable]


def _automatic(probe: Probe) -> bool:
    return registry.load(probe.kind, probe.backend).priority >= 0


def backends(args: argparse.Namespace) -> int:
    async def command(here: Session, workspace: Workspace) -> int:
        found = [
            BackendRecord(
                kind=kind, backend=backend.name, priority=backend.priority, roles=tuple(sorted(roles(backend)))
            )
            for kind in Kind
            for backend in workspace.registry.every(kind)
        ]
        for (kind, name), why in workspace.registry.broken.items():
            here.screen.say(f"{kind} {name}: {text.clean(why)}")
        if here.json:
            document(here.screen, found)
            return ExitCode.OK
        rows = [
            (item.kind, item.backend, "by name" if item.priority < 0 else "auto", ", ".join(item.roles))
            for item in found
        ]
        for line in text.table(("KIND", "BACKEND", "CHOSEN", "ROLES"), rows, width=here.screen.width):
            here.screen.data(line)
        return ExitCode.OK

    return session.run(command, json=args.json)
