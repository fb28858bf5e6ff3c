"""The roles of the console: the tables [role.NAME] of serve.toml, whose table [serve] is the server's."""

from __future__ import annotations

import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vmtui.core.errors import ServeInvalid
from vmtui.core.policy import APPROVABLE, BUILTIN, EVERY, RESOURCE, WHOLE, Allow, Role, Verb, anywhere
from vmtui.core.resource import NAME, NAME_RULE
from vmtui.profile.tables import Key, TomlFile, among

FORM = "it has a table [serve], and tables of the form [role.NAME]"
TABLES = ("serve", "role")
EXAMPLE = "dev/*"


def read(path: Path) -> TomlFile:
    """The file, for `of` and for `decode(…, "serve")`. Raises ServeInvalid."""
    return TomlFile.read(path, ServeInvalid, known=TABLES, form=FORM)


def load(path: Path) -> dict[str, Role]:
    """The roles of a file. Raises ServeInvalid."""
    return of(read(path))


def of(file: TomlFile) -> dict[str, Role]:
    """The built-in roles and those of the file; one of the same name takes the built-in one's place.

    Raises ServeInvalid.
    """
    tables: Any = file.table.get("role", {})
    if not isinstance(tables, dict):
        file.refuse(("role",), "expected tables, as in [role.NAME]")
    found = dict(BUILTIN)
    for name in tables:
        key = ("role", name)
        if not NAME.fullmatch(name):
            file.refuse(key, NAME_RULE)
        role = file.decode(Role, *key, also={"name": name})
        for place, message, hint in _faults(role):
            file.refuse((*key, *place), message, hint)
        found[name] = role
    return found


def _faults(role: Role) -> Iterator[tuple[Key, str, str]]:
    for index, allow in enumerate(role.allow):
        for key, message, hint in _faults_of(allow):
            yield ("allow", index, *key), message, hint
    blind = not anywhere(role, Verb.VIEW)
    for index, allow in enumerate(role.allow):
        if blind and any(allow.grants(verb) for verb in RESOURCE):
            yield ("allow", index, "verbs"), "what the role may not view is not there for it", 'add "view"'
    for index, verb in enumerate(role.approval):
        if verb not in APPROVABLE:
            yield (
                ("approval", index),
                f"{verb} cannot wait for a second person",
                f"those that can: {_words(APPROVABLE)}",
            )
    if role.idle is not None and not role.idle:
        yield ("idle",), "a session that may never be idle ends at once", 'write it as in "30m", or leave it out'
    if role.user is not None:
        try:
            pwd.getpwnam(role.user)
        except KeyError:
            yield ("user",), f"there is no user {role.user!r} here", "getent passwd"


def _faults_of(allow: Allow) -> Iterator[tuple[Key, str, str]]:
    if not allow.verbs:
        yield ("verbs",), "without a verb it allows nothing", f'write "{EVERY}" for all, or of: {_words(Verb)}'
    for index, verb in enumerate(allow.verbs):
        if verb not in (*Verb, EVERY):
            yield ("verbs", index), f"there is no verb {verb[:80]!r}", among(verb, [*Verb, EVERY])
        elif verb in WHOLE and not allow.whole:
            why = f"{verb} is about no resource: neither kinds, names, labels nor own can restrict it"
            yield ("verbs", index), why, f'add another: [[role.NAME.allow]] with verbs = ["{verb}"]'
    for index, pattern in enumerate(allow.names):
        if EVERY not in pattern and pattern.count("/") != 2:
            yield ("names", index), f"{pattern[:80]!r} fits no PROFILE/KIND/NAME", f'write it as in "{EXAMPLE}"'


def _words(verbs: Any) -> str:
    return ", ".join(sorted(verbs))
