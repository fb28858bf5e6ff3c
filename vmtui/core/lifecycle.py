"""Phases, actions, and the one table of transitions. No other module names a transition."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """What the host shows of a resource right now."""

    ABSENT = "absent"
    AVAILABLE = "available"  # disks and networks: it is there and can be used
    STOPPED = "stopped"  # made, not running: never started, or stopped by us
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"  # it ended by itself; Status.exit says how
    BROKEN = "broken"  # half made, half gone, or vanished; Status.problems says what


class Action(StrEnum):
    """What can be asked of a resource."""

    CREATE = "create"
    DELETE = "delete"
    START = "start"
    STOP = "stop"
    KILL = "kill"
    RESTART = "restart"
    PAUSE = "pause"
    RESUME = "resume"
    RESIZE = "resize"
    RECONNECT = "reconnect"
    EXEC = "exec"
    CONSOLE = "console"
    LOGS = "logs"
    STATS = "stats"
    EXPORT = "export"
    IMPORT = "import"
    CHECK = "check"


class Role(StrEnum):
    """The optional parts of the backend interface; each is one Protocol in core/backend.py."""

    RUNNABLE = "Runnable"
    PAUSABLE = "Pausable"
    KILLABLE = "Killable"
    HAS_CONSOLE = "HasConsole"
    HAS_LOGS = "HasLogs"
    EXECUTES = "Executes"
    MEASURABLE = "Measurable"
    RESIZABLE = "Resizable"
    RECONNECTABLE = "Reconnectable"
    IMAGE = "DiskImage"


NEEDS: dict[Action, Role | None] = {
    Action.CREATE: None,
    Action.DELETE: None,
    Action.START: Role.RUNNABLE,
    Action.STOP: Role.RUNNABLE,
    Action.RESTART: Role.RUNNABLE,
    Action.KILL: Role.KILLABLE,
    Action.PAUSE: Role.PAUSABLE,
    Action.RESUME: Role.PAUSABLE,
    Action.RESIZE: Role.RESIZABLE,
    Action.RECONNECT: Role.RECONNECTABLE,
    Action.EXEC: Role.EXECUTES,
    Action.CONSOLE: Role.HAS_CONSOLE,
    Action.LOGS: Role.HAS_LOGS,
    Action.STATS: Role.MEASURABLE,
    Action.EXPORT: Role.IMAGE,
    Action.IMPORT: Role.IMAGE,
    Action.CHECK: Role.IMAGE,
}

_A, _P = Action, Phase

# phase → action → the phase that success leads to (None: the action does not change the phase)
TRANSITIONS: dict[Phase, dict[Action, Phase | None]] = {
    _P.ABSENT: {_A.CREATE: None},
    _P.AVAILABLE: {
        _A.DELETE: _P.ABSENT,
        _A.RESIZE: None,
        _A.EXPORT: None,
        _A.IMPORT: None,
        _A.CHECK: None,
    },
    _P.STOPPED: {_A.DELETE: _P.ABSENT, _A.START: _P.RUNNING, _A.RESTART: _P.RUNNING, _A.LOGS: None},
    _P.EXITED: {
        _A.DELETE: _P.ABSENT,
        _A.START: _P.RUNNING,
        _A.RESTART: _P.RUNNING,
        _A.STOP: _P.STOPPED,
        _A.LOGS: None,
    },
    _P.RUNNING: {
        _A.DELETE: _P.ABSENT,
        _A.STOP: _P.STOPPED,
        _A.KILL: _P.EXITED,
        _A.RESTART: _P.RUNNING,
        _A.PAUSE: _P.PAUSED,
        _A.RECONNECT: None,
        _A.EXEC: None,
        _A.CONSOLE: None,
        _A.LOGS: None,
        _A.STATS: None,
    },
    _P.PAUSED: {
        _A.DELETE: _P.ABSENT,
        _A.RESUME: _P.RUNNING,
        _A.STOP: _P.STOPPED,
        _A.KILL: _P.EXITED,
        _A.RESTART: _P.RUNNING,
        _A.CONSOLE: None,
        _A.LOGS: None,
        _A.STATS: None,
    },
    _P.BROKEN: {_A.DELETE: _P.ABSENT, _A.LOGS: None},
}

UP = frozenset({Phase.RUNNING, Phase.PAUSED})


def allowed(phase: Phase, roles: frozenset[Role]) -> frozenset[Action]:
    """The actions that are possible in `phase` for a backend with `roles`."""
    return frozenset(action for action in TRANSITIONS[phase] if NEEDS[action] is None or NEEDS[action] in roles)


def refusal(action: Action, phase: Phase, roles: frozenset[Role]) -> str | None:
    """Why `action` is not possible now, or None if it is."""
    role = NEEDS[action]
    if role is not None and role not in roles:
        return f"its backend has no {action}"
    if action not in TRANSITIONS[phase]:
        fitting = sorted(other for other, table in TRANSITIONS.items() if action in table)
        return f"it is {phase}; {action} needs it to be {' or '.join(fitting)}"
    return None
