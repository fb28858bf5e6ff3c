"""One command from its start to its exit code: the workspace, the output, signals and errors."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import vmtui
from vmtui.core.errors import Fault, OperationFailed, ProfileInvalid
from vmtui.core.events import Diagnostic, Event, Planned, ResourceSummary, Summary, Version
from vmtui.core.resource import Ref
from vmtui.engine.authority import Authority, current
from vmtui.engine.store import DATABASE, damaged
from vmtui.engine.workspace import Workspace
from vmtui.headless import exit_codes, stdin
from vmtui.headless.exit_codes import ExitCode, Usage
from vmtui.headless.output import Output, Records, Talk
from vmtui.headless.remote import TELL, hint_for
from vmtui.headless.screen import Screen
from vmtui.host.files import in_words, remedy
from vmtui.host.paths import Paths
from vmtui.host.person import acting

T = TypeVar("T")
DEBUG = "VMTUI_DEBUG"
WEB = "web"  # how the origin of a person begins who came by a browser
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Failed(Exception):
    """A command that has told its error already, or whose code does not follow from it."""

    def __init__(self, code: ExitCode, fault: Fault | None = None, *, ref: Ref | None = None) -> None:
        super().__init__(str(fault or code))
        self.code = code
        self.fault = fault
        self.ref = ref


class Session:
    """What a command works with. A `stream` begins with a version record and ends with a summary."""

    def __init__(self, *, json: bool, stream: bool = False) -> None:
        self.json = json
        self.authority = current()
        self.screen = Screen()
        self.output: Output = Records(self.screen) if json else Talk(self.screen)
        self._stream = stream and json
        self._began = time.monotonic()
        self.profile = ""
        self.result = "done"
        self.changes = 0
        self.resources: tuple[ResourceSummary, ...] = ()
        if self._stream:
            self.emit(Version(at=time.time(), vmtui=vmtui.__version__))

    @property
    def served(self) -> bool:
        """Whether it is somebody else's, whose terminal may be behind what is a pipe here."""
        return not self.authority.is_owner

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def emit(self, event: Event) -> None:
        self.output.emit(event)
        if isinstance(event, Planned):
            self.profile = event.profile

    def note(self, message: str, *, ref: Ref | None = None, level: str = "info", hint: str = "") -> None:
        hint = hint_for(self.authority, hint)
        self.emit(Diagnostic(at=time.time(), level=level, message=message, ref=ref, hint=hint))

    def error(self, fault: BaseException, *, ref: Ref | None = None) -> None:
        """Tell an error, and of what: `ref`, unless it says so itself. In machine-readable output it is a record."""
        where = fault.where if isinstance(fault, ProfileInvalid) else ""
        key = fault.key if isinstance(fault, ProfileInvalid) else ""
        message = fault.message if isinstance(fault, Fault) else f"internal error: {type(fault).__name__}: {fault}"
        if ref is not None and str(ref) not in message:
            message = f"{ref}: {message}"
        details = fault.details if isinstance(fault, Fault) else ""
        unknown = TELL if self.served else f"run it again with {DEBUG}=1 and report what it prints"
        hint = fault.hint if isinstance(fault, Fault) else unknown
        code = exit_codes.code_word(fault) if isinstance(fault, Fault) else "internal"
        self.emit(
            Diagnostic(
                at=time.time(), level="error", message=f"{key}: {message}" if key else message, ref=ref, code=code,
                hint=hint_for(self.authority, hint), details=details, where=where,
            )
        )  # fmt: skip

    def finish(self, code: int, result: str = "") -> int:
        """The last record of a stream."""
        self.screen.live("")
        if self._stream:
            self._stream = False
            self.emit(
                Summary(
                    at=time.time(), profile=self.profile, result=result or self.result, exit_code=code,
                    changes=self.changes, elapsed_s=self.elapsed_s, resources=self.resources,
                )
            )  # fmt: skip
        return code

    async def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before data is lost. Raises Usage without a terminal and without --yes, and for any answer but yes."""
        if yes:
            return
        if self.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise Usage(f"{question}: this needs a confirmation, and there is no terminal to ask on", hint="add --yes")
        self.screen.live("")
        sys.stderr.write(f"{question}\nGo on? [y/N] ")
        sys.stderr.flush()
        if (await stdin.line()).strip().lower() not in ("y", "yes"):
            raise Usage("not confirmed: nothing was changed", hint="answer y, or add --yes")


Command = Callable[[Session, Workspace], Coroutine[Any, Any, int]]


def run(command: Command, *, json: bool, stream: bool = False, by: str = "", demo: int | None = None) -> int:
    """Open the workspace, run the command to its end, and say how it ended.

    `by` is who acts, if not who calls; `demo` the number of made-up resources of a workspace for this command alone.
    """
    session = Session(json=json, stream=stream)
    who = by or _actor(session.authority)
    try:
        return asyncio.run(_run(session, command, lambda: _opened(who, demo)))
    except KeyboardInterrupt:  # before the handler was installed, or after it was removed
        return session.finish(ExitCode.INTERRUPTED, "interrupted")


def _actor(authority: Authority) -> str:
    """Who the history says acts."""
    if authority.person is None:
        return acting(_front_end())
    return f"{authority.person.name} over {'the web' if authority.person.origin.startswith(WEB) else 'ssh'}"


def _front_end() -> str:
    """How the history names this command."""
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    return f"vmtui {verb}" if verb.isalpha() else "vmtui --profile"


async def _opened(by: str, demo: int | None) -> Workspace:
    paths = Paths.from_environment()
    if demo is None:
        return await Workspace.open(paths, by=by)
    from vmtui.engine.demo import open_demo

    return await open_demo(paths, demo, by=by)


async def _run(session: Session, command: Command, opened: Callable[[], Awaitable[Workspace]]) -> int:
    caught: list[int] = []
    task = asyncio.create_task(_command(session, command, opened))

    def on_signal(number: int) -> None:
        if caught:
            session.screen.say("still cleaning up")
        elif not task.done():
            caught.append(number)
            task.cancel()

    loop = asyncio.get_running_loop()
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heard:
        loop.add_signal_handler(number, on_signal, number)
    try:
        return session.finish(await task)
    except asyncio.CancelledError:
        if not caught:
            raise
        return session.finish(exit_codes.of_signal(caught[0]), "interrupted")
    except Failed as failed:
        if failed.fault is not None:
            session.error(failed.fault, ref=failed.ref)
        return session.finish(failed.code)
    except Fault as fault:
        session.error(fault)
        return session.finish(exit_codes.of(fault), "failed")
    except (OSError, sqlite3.Error) as error:
        session.error(_of_host(error))
        return session.finish(ExitCode.ROLLED_BACK, "failed")
    except Exception as error:
        session.error(error)
        if os.environ.get(DEBUG):
            traceback.print_exception(error)
        return session.finish(ExitCode.INTERNAL, "failed")
    finally:
        for number in heard:
            loop.remove_signal_handler(number)


def _of_host(error: OSError | sqlite3.Error) -> Fault:
    """A fault of the host that nobody below has put into words: no space, no permission, a damaged disk."""
    if isinstance(error, sqlite3.Error):
        return damaged(Paths.from_environment().state / DATABASE, error)
    path = f"{error.filename}: " if error.filename else ""
    return OperationFailed(f"{path}{in_words(error)}", hint=remedy(error))


async def _command(session: Session, command: Command, opened: Callable[[], Awaitable[Workspace]]) -> int:
    async with await opened() as workspace:
        return await command(session, workspace)


async def ticking(tick: Callable[[], None], work: Awaitable[T], interval_s: float = 0.5) -> T:
    """Await `work`, calling `tick` now and then meanwhile."""

    async def ticker() -> None:
        while True:
            tick()
            await asyncio.sleep(interval_s)

    task = asyncio.create_task(ticker())
    try:
        return await work
    finally:
        task.cancel()
