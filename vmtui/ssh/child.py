"""What a fork of the fork server becomes: a session process, with a terminal or pipes, and a name to act in."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import io
import os
import resource
import signal
import socket
import sys
import termios
import threading
from pathlib import Path
from typing import NoReturn

from vmtui.core.policy import Role, Verb, anywhere, changes_nothing
from vmtui.core.resource import Ref
from vmtui.engine import audit, authority, recordings
from vmtui.engine.authority import Authority
from vmtui.engine.store import DATABASE, Store, open_context
from vmtui.host.paths import Paths
from vmtui.ssh import walls
from vmtui.ssh.spawn import NO_USER, Spawn
from vmtui.walls import calls
from vmtui.wire import served

CONTROL_FD = 3
FAILED = 1  # the exit code of what is no fault of the request
# A handler rather than SIG_IGN, which programs that are executed would inherit: containers among them.
HEARD = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


def become(message: Spawn, fds: list[int], zygote: int) -> NoReturn:
    """Never returns to the fork server's loop, whatever happens."""
    code = FAILED
    try:
        _take(message, fds)
        _reset_signals()
        _be_who(message)
        calls.die_with_parent()
        if os.getppid() != zygote:
            os._exit(FAILED)  # it went before the kernel knew
        code = _run(message)
    except SystemExit as ended:
        code = _code(ended)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException as error:
        _say(f"error: the session cannot begin: {type(error).__name__}: {error}\n")
    finally:
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code & 0xFF)


def _take(message: Spawn, fds: list[int]) -> None:
    """A session of its own, with these descriptors as 0 to 3 and no others."""
    os.setsid()
    streams = [fds[0]] * 3 if message.terminal else fds[:3]
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 16) for fd in (*streams, fds[-1])]
    for number, fd in enumerate(high):
        os.dup2(fd, number, inheritable=number != CONTROL_FD)
    os.closerange(CONTROL_FD + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    if message.terminal:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    sys.stdin = sys.__stdin__ = _text(0, "r", "surrogateescape")  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _text(1, "w", "replace")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _text(2, "w", "backslashreplace")  # type: ignore[misc]


def _text(fd: int, mode: str, errors: str) -> io.TextIOWrapper:
    """UTF-8 whatever the locale, as Python has it under C too."""
    raw = io.FileIO(fd, mode, closefd=False)
    buffer = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, "utf-8", errors, line_buffering=fd == 2 or os.isatty(fd))


def _reset_signals() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as Python has it: a write raises BrokenPipeError
    for number in HEARD:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _be_who(message: Spawn) -> None:
    """The environment and the user of the session. Raises OSError."""
    os.environ.clear()
    os.environ.update(message.environment)
    os.umask(0o077)
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if message.terminal:
        with contextlib.suppress(OSError):  # a terminal of another devpts
            os.fchmod(0, 0o600)  # nobody else writes on it
            if message.uid != NO_USER:
                os.fchown(0, message.uid, -1)
    if message.uid != NO_USER and message.uid != os.geteuid():
        os.setgroups(message.groups)
        os.setresgid(message.gid, message.gid, message.gid)
        os.setresuid(message.uid, message.uid, message.uid)
    home = message.environment.get("HOME", "/")
    os.chdir(home if os.access(home, os.X_OK) and os.path.isdir(home) else "/")


def _run(message: Spawn) -> int:
    sys.argv = ["vmtui", *message.argv]
    gc.enable()
    authority.assume(Authority(person=message.person, role=message.role, note=Notes().write))
    if changes_nothing(message.role):
        if message.uid != NO_USER:
            kept = _open_to_look()  # noqa: F841
        walls.enter(Paths.from_environment(), _not_for(message.role))
    if message.files:
        from vmtui.ssh import sftp

        return sftp.main()
    if message.panel:
        return _panel(read_only=bool(message.argv))
    from vmtui.headless import arguments

    return arguments.main_in_session(message.argv)


def _not_for(role: Role) -> list[Path]:
    """What of the server's is none of the business of who only looks."""
    state = Paths.from_environment().state
    hidden = [state / "ssh"]
    if not anywhere(role, Verb.RECORDINGS):
        hidden.append(state / recordings.FOLDER)
    if not anywhere(role, Verb.AUDIT):
        hidden.append(state / audit.FILE)
    return hidden


def _open_to_look() -> Store:
    """A reader of the database of another user's workspace. Only beside one can others be opened from within the walls.

    For the server's own workspace the server is that one.
    """
    paths = Paths.from_environment()
    open_context(paths)
    with contextlib.closing(Store(paths.state / DATABASE)):
        return Store(paths.state / DATABASE, read_only=True)


def _panel(*, read_only: bool) -> int:
    from vmtui.headless import exit_codes
    from vmtui.host.faults import Fault
    from vmtui.tui import app
    from vmtui.tui.text import plain

    gc.disable()  # until the panel is there: what is made now stays
    try:
        app.run(read_only=read_only, served_fd=CONTROL_FD)
    except Fault as fault:
        _say(f"error: {plain(str(fault))}\n" + (f"hint: {plain(fault.hint)}\n" if fault.hint else ""))
        return exit_codes.of(fault)
    except Exception as error:
        _say(f"error: {plain(f'{type(error).__name__}: {error}')}\n")
        return exit_codes.of(error)
    return 0


def _code(ended: SystemExit) -> int:
    if isinstance(ended.code, str):
        _say(f"{ended.code}\n")
        return FAILED
    return ended.code or 0


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


class Notes:
    """The way to the audit log, which the server alone writes. What cannot be told any more ends the session."""

    def __init__(self) -> None:
        self._socket = socket.socket(fileno=os.dup(CONTROL_FD))
        self._turn = threading.Lock()

    def write(self, verb: str, refs: tuple[Ref, ...], result: str, message: str) -> None:
        line = served.encode(served.Audited(verb, tuple(map(str, refs)), result, message))
        try:
            with self._turn:
                self._socket.sendall(line)
        except OSError:
            signal.raise_signal(signal.SIGHUP)
