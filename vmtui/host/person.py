"""Who acts, for the history."""

from __future__ import annotations

import os
import pwd

LONGEST = 32  # useradd(8): user names


def user() -> str:
    """The user, and the person behind sudo: "ann (sudo)"."""
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"uid {uid}"
    behind = os.environ.get("SUDO_USER", "")
    if uid == 0 and behind not in ("", "root") and behind.isprintable():
        name = f"{behind[:LONGEST]} (sudo)"
    return name


def acting(through: str) -> str:
    """The user and the front end: "ann via vmtui rm", "ann (sudo) via vmtui panel"."""
    return f"{user()} via {through}"
