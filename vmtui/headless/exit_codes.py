"""What the process tells its caller, and the one mapping from errors to it."""

from __future__ import annotations

import signal
from enum import IntEnum

from vmtui.core.errors import (
    Denied,
    Fault,
    LockHeld,
    MissingCapability,
    NotFound,
    ProfileInvalid,
    ReadinessTimeout,
)


class ExitCode(IntEnum):
    """64 to 77 are those of sysexits.h, 124 that of timeout(1), 130 and 143 those of a shell."""

    OK = 0
    INTERNAL = 1
    CHANGES = 2
    USAGE = 64
    INVALID_PROFILE = 65
    MISSING_CAPABILITY = 69
    KEPT = 70
    ROLLED_BACK = 71
    LOCK_HELD = 75
    DENIED = 77
    NOT_READY = 124
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "done: everything is as asked",
    ExitCode.INTERNAL: "internal error: a fault of vmtui itself",
    ExitCode.CHANGES: "--plan: there are changes; --check: the host has drifted",
    ExitCode.USAGE: "wrong use: an unknown option or resource, or a confirmation is missing",
    ExitCode.INVALID_PROFILE: "the profile is invalid",
    ExitCode.MISSING_CAPABILITY: "the host lacks something; vmtui doctor says what",
    ExitCode.KEPT: "failed; what was done is kept (--on-failure keep)",
    ExitCode.ROLLED_BACK: "failed; the state is as it was before",
    ExitCode.LOCK_HELD: "another vmtui changes this workspace right now",
    ExitCode.DENIED: "the role of the person who asks does not permit it",
    ExitCode.NOT_READY: "a resource did not become ready in time",
    ExitCode.INTERRUPTED: "interrupted (SIGINT), after cleaning up",
    ExitCode.TERMINATED: "terminated (SIGTERM), after cleaning up",
}


class Usage(Fault):
    """The command line asks for something that cannot be."""


def of(error: BaseException) -> ExitCode:
    """The exit code for an error that ended a command."""
    for kind, code in (
        (Usage, ExitCode.USAGE),
        (NotFound, ExitCode.USAGE),
        (Denied, ExitCode.DENIED),
        (ProfileInvalid, ExitCode.INVALID_PROFILE),
        (MissingCapability, ExitCode.MISSING_CAPABILITY),
        (LockHeld, ExitCode.LOCK_HELD),
        (ReadinessTimeout, ExitCode.NOT_READY),
        (Fault, ExitCode.ROLLED_BACK),
    ):
        if isinstance(error, kind):
            return code
    return ExitCode.INTERNAL


def of_signal(number: int) -> ExitCode:
    return ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.TERMINATED


def code_word(error: BaseException) -> str:
    """A stable word for an error in machine-readable output: its class in kebab case."""
    name = type(error).__name__
    return "".join(f"-{char.lower()}" if char.isupper() else char for char in name).lstrip("-")
