"""The root of every error that a person is meant to read."""

from __future__ import annotations


class Fault(Exception):
    """Something went wrong that its message explains completely.

    `message` is lower case, without a full stop, and names the path or ref. `hint` is a command to run or a line
    to change. `details` is what an outside tool said (the tail of its stderr), already bounded in length.
    """

    def __init__(self, message: str, *, hint: str = "", details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details


class MissingCapability(Fault):
    """The host lacks something that the request needs: a tool, a kernel feature, a privilege."""


class CommandFailed(Fault):
    """An outside tool ended with a non-zero code or was killed; `details` has the tail of its stderr."""

    def __init__(self, message: str, *, code: int, hint: str = "", details: str = "") -> None:
        super().__init__(message, hint=hint, details=details)
        self.code = code
