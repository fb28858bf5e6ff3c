"""`approvals`, `approve` and `deny`: what waits until a second person agrees."""

from __future__ import annotations

import argparse
import time

import msgspec

from vmtui.core.resource import Ref
from vmtui.engine.approvals import Request
from vmtui.engine.workspace import Workspace
from vmtui.headless import session, text
from vmtui.headless.exit_codes import ExitCode
from vmtui.headless.output import document
from vmtui.headless.session import Session


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """An element of `approvals --json`. `at` and `expires_at` are Unix time."""

    id: int
    person: str
    key: str
    origin: str
    verb: str
    refs: tuple[Ref, ...]
    about: tuple[str, ...]
    at: float
    expires_at: float

    @classmethod
    def of(cls, request: Request) -> Waiting:
        return cls(
            id=request.id,
            person=request.who,
            key=request.key,
            origin=request.origin,
            verb=request.verb,
            refs=request.refs,
            about=request.about,
            at=request.at,
            expires_at=request.expires_at,
        )


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What `approve --json` and `deny --json` print."""

    id: int
    granted: bool


def ls(args: argparse.Namespace) -> int:
    async def command(here: Session, workspace: Workspace) -> int:
        waiting = workspace.approvals()
        if here.json:
            document(here.screen, [Waiting.of(request) for request in waiting])
            return ExitCode.OK
        for request in waiting:
            for line in shown(request, time.time()):
                here.screen.data(line)
        if not waiting:
            here.screen.say("nothing waits for a second person")
        return ExitCode.OK

    return session.run(command, json=args.json)


def shown(request: Request, now: float) -> list[str]:
    """Who wants what, and below it what exactly."""
    what = " ".join([request.verb, *map(str, request.refs)])
    whence = ", ".join(part for part in (request.origin, request.key) if part)
    left = f"{text.span(max(0.0, request.expires_at - now))} left"
    head = f"{request.id}  {request.who}  {what}  {left}{f'  ({whence})' if whence else ''}"
    return [text.clean(head), *(f"    {text.clean(line)}" for line in request.about)]


def answer(args: argparse.Namespace) -> int:
    granted = args.verb == "approve"

    async def command(here: Session, workspace: Workspace) -> int:
        workspace.answer(args.id, granted=granted)
        if here.json:
            document(here.screen, Answered(id=args.id, granted=granted))
        else:
            here.screen.say(f"request {args.id}: {'approved' if granted else 'denied'}")
        return ExitCode.OK

    return session.run(command, json=args.json)
