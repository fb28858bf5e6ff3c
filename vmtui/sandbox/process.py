"""Children of the launcher and of the monitor, and the first word from them."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, NoReturn

from vmtui.walls import calls
from vmtui.wire.lines import Channel, Message, WireError

MAX_TEXT = 8000  # of a message in a line


class Failed(Exception):
    """Nothing runs; the message tells why: {"event": "failed", "code": WORD, "message": TEXT}."""

    def __init__(self, message: Message) -> None:
        super().__init__(message.get("message", ""))
        self.message = message


def failure(code: str, text: str) -> Message:
    return {"event": "failed", "code": code, "message": text[:MAX_TEXT]}


def receive(channel: Channel, timeout_s: float, what: str) -> Message:
    """The next message. Raises Failed when it is late, or the other end is gone; WireError."""
    poll = select.poll()
    poll.register(channel.read_fd, select.POLLIN)
    if not poll.poll(int(timeout_s * 1000)):
        raise Failed(failure("timeout", f"{what} took longer than {timeout_s:g} s"))
    message = channel.receive()
    if message is None:
        raise Failed(failure("died", f"the process died while {what}"))
    return message


def quiet(fds: Iterable[int] = (0, 1, 2)) -> None:
    """Point standard streams at nothing."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in fds:
        os.dup2(null, fd)
    os.close(null)


def be_guest(channel: Channel, keep: Iterable[int], job: Callable[[ModuleType], dict[str, Any] | None]) -> NoReturn:
    """In a new child: hold on to nothing but `keep`, load wasmtime, do the job, report, and end without a trace."""
    try:
        calls.die_with_parent()
        os.setsid()
        _close_all_but({0, 1, 2, *channel.fds(), *keep})
        os.environ.clear()
        from vmtui.sandbox import guest

        try:
            report = job(guest)
            channel.send({**(report or {}), "event": "ended"})
        except guest.Refused as refusal:
            channel.send(failure(refusal.code, str(refusal)))
    except OSError as error:
        channel.send(failure("isolation", str(error)))
    except WireError:
        pass  # nobody listens
    except BaseException as error:
        channel.send(failure("internal", f"{type(error).__name__}: {error}"))
    finally:
        os._exit(0)


def _close_all_but(keep: set[int]) -> None:
    start = 0
    for fd in sorted(keep):
        if fd > start:  # os.closerange(0, 0) closes everything
            os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))


def end(pid: int) -> None:
    """Kill a child and reap it."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
