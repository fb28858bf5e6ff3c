"""The errors of the domain. Each class is one thing a caller can decide on; front ends map it to an exit code."""

from __future__ import annotations

from vmtui.host.faults import CommandFailed, Fault, MissingCapability

__all__ = [
    "CommandFailed",
    "Conflict",
    "Denied",
    "Fault",
    "FileInvalid",
    "InvalidInput",
    "LockHeld",
    "MissingCapability",
    "NotFound",
    "NotPermitted",
    "OperationFailed",
    "ProfileInvalid",
    "QueryError",
    "ReadinessTimeout",
    "ResourceBusy",
    "ServeInvalid",
    "SettingsInvalid",
]


class NotFound(Fault):
    """No such resource, backend or file."""


class Conflict(Fault):
    """Something that is not ours, or another resource, already has what this one needs (a port, a subnet, a name)."""


class ResourceBusy(Fault):
    """The resource is in use, and the request would damage its user."""


class NotPermitted(Fault):
    """The action is not possible in this phase, or the backend lacks the role."""


class Denied(Fault):
    """The role of the person who asks does not permit it, or a second person did not agree."""


class InvalidInput(Fault):
    """A file or value from outside is not what it must be: not an image, not a kernel, a wrong digest."""


class QueryError(InvalidInput):
    """A query that means nothing. `position` is where in its text, counted from 0."""

    def __init__(self, message: str, *, position: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.position = position


class FileInvalid(InvalidInput):
    """A TOML file that a person writes cannot be used. `where` is FILE:LINE, `key` the dotted key."""

    def __init__(self, message: str, *, where: str = "", key: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.where = where
        self.key = key

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, self.message) if part)


class ProfileInvalid(FileInvalid):
    """The profile cannot be used."""


class SettingsInvalid(FileInvalid):
    """The settings file, or a part of it, cannot be used."""


class ServeInvalid(FileInvalid):
    """The file of the console's server and its roles cannot be used."""


class OperationFailed(Fault):
    """A step of an apply failed; the cause is chained."""


class LockHeld(Fault):
    """Another vmtui changes this workspace right now."""


class ReadinessTimeout(Fault):
    """A resource runs but did not become ready in time; `details` has the tail of its log."""
