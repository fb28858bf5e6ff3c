"""Errors to exit codes."""

from __future__ import annotations

import signal

import pytest

from vmtui.core import errors
from vmtui.headless import exit_codes
from vmtui.headless.exit_codes import MEANINGS, ExitCode, Usage


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (Usage("x"), 64, "usage"),
        (errors.NotFound("x"), 64, "not-found"),
        (errors.ProfileInvalid("x"), 65, "profile-invalid"),
        (errors.InvalidInput("x"), 71, "invalid-input"),
        (errors.MissingCapability("x"), 69, "missing-capability"),
        (errors.LockHeld("x"), 75, "lock-held"),
        (errors.ReadinessTimeout("x"), 124, "readiness-timeout"),
        (errors.OperationFailed("x"), 71, "operation-failed"),
        (errors.NotPermitted("x"), 71, "not-permitted"),
        (errors.Denied("x"), 77, "denied"),
        (errors.CommandFailed("x", code=3), 71, "command-failed"),
        (RuntimeError("x"), 1, "runtime-error"),
    ],
)
def test_errors(error: Exception, code: int, word: str) -> None:
    assert exit_codes.of(error) == code
    assert exit_codes.code_word(error) == word


def test_signals() -> None:
    assert exit_codes.of_signal(signal.SIGINT) == 130
    assert exit_codes.of_signal(signal.SIGTERM) == 143
    assert exit_codes.of_signal(signal.SIGHUP) == 143


def test_every_code_has_a_meaning() -> None:
    assert set(MEANINGS) == set(ExitCode)
