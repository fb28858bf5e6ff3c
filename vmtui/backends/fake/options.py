"""The sub-table [KIND.NAME.fake]: how a simulated resource behaves, faults included."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from vmtui.core.lifecycle import Action
from vmtui.core.units import Duration

AT_ONCE = Duration(0)
AN_HOUR = Duration(3600)


class FakeOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Without any of it a resource works, at once, and runs until it is stopped."""

    seed: int = 0  # another seed: other addresses, curves and log lines

    create_time: Duration = AT_ONCE  # how long the action takes
    start_time: Duration = AT_ONCE
    stop_time: Duration = AT_ONCE  # after the grace period it is ended anyway
    boot_time: Duration = AT_ONCE  # after its start: over this time the first lines of its log come

    fail_on: tuple[Action, ...] = ()  # these actions fail, after half their work, with `fail_with`
    fail_with: str = "a scripted fault"
    hang_on: tuple[Action, ...] = ()  # these take `hang_for` longer
    hang_for: Duration = AN_HOUR
    break_on: tuple[Action, ...] = ()  # these succeed and leave it broken
    vanish_on: tuple[Action, ...] = ()  # these succeed, and then it is gone

    exit_after: Duration | None = None  # after its start it ends by itself
    exit_code: Annotated[int, Meta(ge=0, le=255)] = 0
    exit_reason: str = ""

    log: tuple[str, ...] = ()  # its log, in place of the made-up one
    ready_line: str = ""  # one more log line,
    ready_after: Duration = AT_ONCE  # this long after its start

    greeting: str = ""  # what its console and its shells print first
