"""Who may do what: verbs, roles, and the one decision over them. Pure, and deny by default.

A role is a list of permissions and nothing that forbids: one permission fewer never allows more.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from fnmatch import fnmatchcase

import msgspec

from vmtui.core.resource import Kind, Ref
from vmtui.core.units import Duration

EVERY = "*"


class Verb(StrEnum):
    """What a person can be allowed. Those that are a `lifecycle.Action` too have its value."""

    VIEW = "view"
    LOGS = "logs"
    STATS = "stats"
    CONSOLE = "console"
    EXEC = "exec"
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    KILL = "kill"
    PAUSE = "pause"
    RESUME = "resume"
    RECONNECT = "reconnect"
    CREATE = "create"
    CHANGE = "change"  # its spec, in place or by making it anew; what is adopted into the database
    DELETE = "delete"
    PURGE = "purge"  # delete with its data
    RESIZE = "resize"
    EXPORT = "export"
    IMPORT = "import"
    CHECK = "check"
    CONNECT = "connect"  # to a port of it
    FILES = "files"  # in it, over SFTP
    APPROVE = "approve"  # what another person asks for
    HOST = "host"  # paths, files and privileges of the host
    SESSIONS = "sessions"
    OBSERVE = "observe"
    DRIVE = "drive"
    AUDIT = "audit"
    RECORDINGS = "recordings"


# About no resource: what restricts a permission to some of them leaves these out, "*" or not. A bind mount in one
# profile is as good as one anywhere.
WHOLE = frozenset({Verb.HOST, Verb.SESSIONS, Verb.OBSERVE, Verb.DRIVE, Verb.AUDIT, Verb.RECORDINGS})
RESOURCE = frozenset(Verb) - WHOLE
LOOKING = frozenset({Verb.VIEW, Verb.LOGS, Verb.STATS, Verb.AUDIT, Verb.SESSIONS, Verb.RECORDINGS, Verb.OBSERVE})
# What waits until a second person agrees, where the role says so.
APPROVABLE = frozenset(
    {
        Verb.CONSOLE, Verb.EXEC, Verb.START, Verb.STOP, Verb.RESTART, Verb.KILL, Verb.PAUSE, Verb.RESUME,
        Verb.RECONNECT, Verb.CREATE, Verb.CHANGE, Verb.DELETE, Verb.PURGE, Verb.RESIZE, Verb.HOST,
    }
)  # fmt: skip
OPERATOR = RESOURCE - {Verb.PURGE, Verb.FILES, Verb.EXPORT, Verb.IMPORT, Verb.APPROVE}


class Allow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Verbs on resources: of these kinds, names and labels, all of which must fit. An empty one fits all.

    `verbs` are of Verb, or "*" for all; `names` are globs over PROFILE/KIND/NAME, in which * matches slashes too.
    """

    verbs: tuple[str, ...]
    kinds: tuple[Kind, ...] = ()
    names: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    own: bool = False  # only what the person made

    @property
    def whole(self) -> bool:
        """Whether nothing restricts it to some resources."""
        return not (self.kinds or self.names or self.labels or self.own)

    def grants(self, verb: Verb) -> bool:
        """Whether there is anything on which it permits `verb`."""
        return (verb in self.verbs or EVERY in self.verbs) and (self.whole or verb in RESOURCE)


class Role(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What those of this role may do, and how their sessions are kept."""

    name: str
    about: str = ""
    allow: tuple[Allow, ...] = ()
    approval: tuple[Verb, ...] = ()  # permitted, once a second person with another key has agreed
    idle: Duration | None = None  # sessions end after this time without a key
    user: str | None = None  # the user of the host as whom sessions run, and whose workspace it is
    record: bool = True


class Target(msgspec.Struct, frozen=True):
    """A resource as permissions see it. `owner` is who made it, "" if that is not known."""

    ref: Ref
    labels: Mapping[str, str] = {}
    owner: str = ""


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Who acts: the name by the key's line, its fingerprint ("SHA256:…"), and where from ("192.0.2.7 port 40022")."""

    name: str
    key: str = ""
    origin: str = ""


def permits(role: Role, verb: Verb, target: Target | None, person: Person) -> bool:
    """Whether `person` in `role` may do this. Without a target: to any resource there is or could be."""
    return any(
        allow.grants(verb) and (allow.whole or (target is not None and _fits(allow, target, person)))
        for allow in role.allow
    )


def _fits(allow: Allow, target: Target, person: Person) -> bool:
    name = str(target.ref)
    return (
        (not allow.kinds or target.ref.kind in allow.kinds)
        and (not allow.names or any(fnmatchcase(name, pattern) for pattern in allow.names))
        and all(target.labels.get(key) == value for key, value in allow.labels.items())
        and (not allow.own or (target.owner != "" and target.owner == person.name))
    )


def anywhere(role: Role, verb: Verb) -> bool:
    """Whether there can be anything on which the role permits `verb`: else it is not offered at all."""
    return any(allow.grants(verb) for allow in role.allow)


def by_name_alone(role: Role) -> bool:
    """Whether kind and name of a resource decide, so that neither its labels nor its owner need be looked up."""
    return not any(allow.labels or allow.own for allow in role.allow)


def changes_nothing(role: Role) -> bool:
    """Whether the role can only look: neither a guest, nor the host, nor another session feels it."""
    return all(verb in LOOKING for verb in Verb if anywhere(role, verb))


def _builtin(name: str, about: str, *verbs: str) -> Role:
    return Role(name=name, about=about, allow=(Allow(verbs=verbs),))


BUILTIN: dict[str, Role] = {
    role.name: role
    for role in (
        _builtin("viewer", "looks at everything, and changes nothing", Verb.VIEW, Verb.LOGS, Verb.STATS),
        _builtin("operator", "runs everything, without the host's own files and without purging", *sorted(OPERATOR)),
        _builtin("admin", "everything", EVERY),
    )
}
