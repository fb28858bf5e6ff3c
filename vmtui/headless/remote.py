"""Hints for somebody who is not at the host: what they can do about it from where they are."""

from __future__ import annotations

import re

from vmtui.core.policy import Verb
from vmtui.engine.authority import Authority
from vmtui.headless.commands import FAMILIES, VERBS

OF_A_FILE = re.compile(r"vmtui --profile \S+((?: --recreate| --on-failure keep)?)")
OF_A_VERB = re.compile(r"vmtui (?!--)(\S+)(?: (\S+))?")
ROOT = ("sudo ", "run as root")
TELL = "tell who runs the host"


def hint_for(authority: Authority, hint: str) -> str:
    """What `hint` says to whom `authority` is for: the local owner's stay as they are.

    A profile comes through stdin rather than from a file, a verb that they lack is not named, and a command of the
    host is for those who may do such things.
    """
    if authority.is_owner or not hint:
        return hint
    return "; ".join(dict.fromkeys(filter(None, (_piece(authority, piece) for piece in hint.split("; ")))))


def _piece(authority: Authority, piece: str) -> str:
    piece = OF_A_FILE.sub(r"ssh HOST apply\1 < FILE", piece)
    if (said := OF_A_VERB.search(piece)) is not None:
        verb = VERBS.get(f"{said[1]} {said[2]}" if said[1] in FAMILIES else said[1])
        offered = verb is None or not verb.needs or any(authority.anywhere(Verb(needed)) for needed in verb.needs)
        return piece if offered else ""
    if authority.may(Verb.HOST):
        return piece
    from vmtui.engine.repair import command_of

    return TELL if piece.startswith(ROOT) or command_of(piece) is not None else piece
