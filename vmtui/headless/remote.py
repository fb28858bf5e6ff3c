"""Hints for somebody who is not at the host: what they can do about it from where they are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from vmtui.core.backend import Probe
from vmtui.core.policy import Verb
from vmtui.core.resource import Problem, Status
from vmtui.engine.authority import Authority
from vmtui.headless.commands import FAMILIES, VERBS

OF_A_FILE = re.compile(r"vmtui --profile \S+((?: --recreate| --on-failure keep)?)")
OF_A_VERB = re.compile(r"vmtui (?!--)(\S+)(?: (\S+))?")
ROOT = ("sudo ", "run as root")
TELL = "tell who runs the host"
T = TypeVar("T", Status, Probe)


def hint_for(authority: Authority, hint: str) -> str:
    """What `hint` says to whom `authority` is for: the local owner's stay as they are.

    A profile comes through stdin rather than from a file, a verb that they lack is not named, and a command of the
    host is for those who may do such things.
    """
    if authority.is_owner or not hint:
        return hint
    return "; ".join(dict.fromkeys(filter(None, (_piece(authority, piece) for piece in hint.split("; ")))))


def told(authority: Authority, found: Iterable[T]) -> list[T]:
    """Statuses or probes with the hints of their problems as `hint_for` has them."""
    if authority.is_owner:
        return list(found)
    return [
        msgspec.structs.replace(each, problems=tuple(_problem(authority, problem) for problem in each.problems))
        for each in found
    ]


def _problem(authority: Authority, problem: Problem) -> Problem:
    return msgspec.structs.replace(problem, hint=hint_for(authority, problem.hint))


def _piece(authority: Authority, piece: str) -> str:
    from vmtui.engine.repair import command_of

    host = authority.may(Verb.HOST)
    if piece.startswith(ROOT) and not host:
        return TELL
    piece = OF_A_FILE.sub(r"ssh HOST apply\1 < FILE", piece)
    if (said := OF_A_VERB.search(piece)) is not None:
        verb = VERBS.get(f"{said[1]} {said[2]}" if said[1] in FAMILIES else said[1])
        offered = verb is None or not verb.needs or any(authority.anywhere(Verb(needed)) for needed in verb.needs)
        return piece if offered else ""
    return piece if host or command_of(piece) is None else TELL
