"""`exec` and `console`: this terminal, or these pipes, joined to something inside."""

from __future__ import annotations

import argparse
import asyncio
import codecs
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import Awaitable, Callable, Iterator

import msgspec

from vmtui.core.backend import ExecRequest, ExecSession, Terminal
from vmtui.core.errors import Fault
from vmtui.core.events import Event
from vmtui.engine.workspace import Workspace
from vmtui.headless import session, stdin, text
from vmtui.headless.exit_codes import ExitCode, Usage
from vmtui.headless.output import document
from vmtui.headless.screen import Screen
from vmtui.headless.session import Session
from vmtui.headless.verbs import find

DETACH = b"\x1d"  # ctrl+], as telnet and virsh console have it


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A record of `exec --json` and `console --json`; bytes that are no UTF-8 are replaced."""

    stream: str
    text: str


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """The last record of `exec --json`."""

    exit_code: int


class Sink:
    """Where the output of the other side goes: records, a terminal, or a pipe that gets it byte for byte."""

    def __init__(self, here: Session, *, raw: bool) -> None:
        self._json = here.json
        self._screen: Screen = here.screen
        self._raw = raw
        self._decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")}

    def write(self, stream: str, data: bytes) -> None:
        if self._json:
            if shown := self._decoders[stream].decode(data):
                document(self._screen, Chunk(stream=stream, text=shown))
            return
        is_tty = self._screen.data_is_tty if stream == "stdout" else self._screen.talk_is_tty
        if is_tty and not self._raw:
            shown = self._decoders[stream].decode(data)
            data = "\n".join(map(text.clean, shown.replace("\r\n", "\n").split("\n"))).encode()
        if stream == "stdout":
            self._screen.raw(data)
        else:
            with contextlib.suppress(OSError):
                sys.stderr.buffer.write(data)
                sys.stderr.buffer.flush()


def execute(args: argparse.Namespace) -> int:
    """The exit code is that of the command inside."""

    async def command(here: Session, workspace: Workspace) -> int:
        if args.tty and (here.json or not sys.stdin.isatty()):
            raise Usage("-t needs a terminal on stdin, and no --json", hint="leave -t out")
        rows, columns = terminal_size()
        request = ExecRequest(
            argv=tuple(args.command),
            environment=tuple(map(_variable, args.environment)),
            user=args.user,
            working_dir=args.working_dir,
            tty=args.tty,
            rows=rows,
            columns=columns,
        )
        ref = await find(workspace, args.ref)
        running = await workspace.exec(ref, request, emit=_waiting(here))
        try:
            code = await _joined(here, running, interactive=args.interactive, terminal=args.tty)
        finally:
            await running.aclose()
        if here.json:
            document(here.screen, Ended(exit_code=code))
        return code

    return session.run(command, json=args.json)


def _waiting(here: Session) -> Callable[[Event], None]:
    """Tells that a second person is waited for; among records there is no place for it."""
    return (lambda _: None) if here.json else here.emit


def _variable(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not name or not equals:
        raise Usage(f"{given!r} is not NAME=VALUE", hint="vmtui exec -e NAME=VALUE REF -- COMMAND")
    return name, value


async def _joined(here: Session, running: ExecSession, *, interactive: bool, terminal: bool) -> int:
    sink = Sink(here, raw=terminal)

    async def pass_on() -> None:
        async for data in stdin.chunks():
            await running.write(data)
        await running.close_stdin()

    with contextlib.ExitStack() as stack:
        if terminal:
            stack.enter_context(raw_mode())
            stack.enter_context(_resizing(running.resize))
        feeder = asyncio.create_task(pass_on()) if interactive else None
        if feeder is None and not terminal:
            await running.close_stdin()
        try:
            while (piece := await running.read()) is not None:
                sink.write(*piece)
            return await running.wait()
        finally:
            await _ended(feeder)


def console(args: argparse.Namespace) -> int:
    """Until the console ends, or the detach key; without a terminal until stdin ends and nothing more comes."""

    async def command(here: Session, workspace: Workspace) -> int:
        ref = await find(workspace, args.ref)
        terminal = await workspace.console(ref, emit=_waiting(here))
        interactive = sys.stdin.isatty() and not here.json
        try:
            if interactive:
                here.screen.say(f"attached to {ref}; ctrl+] leaves it\r")
            with contextlib.ExitStack() as stack:
                if interactive:
                    stack.enter_context(raw_mode())
                    stack.enter_context(_resizing(terminal.resize))
                    await terminal.resize(*terminal_size())
                await _relay(terminal, Sink(here, raw=interactive), detachable=interactive)
        finally:
            await terminal.aclose()
        if interactive:
            here.screen.say(f"\ndetached from {ref}, which goes on")
        return ExitCode.OK

    return session.run(command, json=args.json)


async def _relay(terminal: Terminal, sink: Sink, *, detachable: bool) -> None:
    async def show() -> None:
        while data := await terminal.read():
            sink.write("stdout", data)

    async def send() -> None:
        async for data in stdin.chunks():
            head, detach, _ = data.partition(DETACH) if detachable else (data, b"", b"")
            if head:
                await terminal.write(head)
            if detach:
                return
        if not detachable:
            await asyncio.Event().wait()  # the end of a pipe is not the end of what the console says

    tasks = [asyncio.create_task(show()), asyncio.create_task(send())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            with contextlib.suppress(ConnectionError):
                task.result()
    finally:
        for task in tasks:
            await _ended(task)


async def _ended(task: asyncio.Task[None] | None) -> None:
    """Cancel a task and wait for it; that the other side has gone is no error."""
    if task is not None:
        task.cancel()
        await asyncio.wait({task})
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ConnectionError | Fault):
            raise error


@contextlib.contextmanager
def raw_mode() -> Iterator[None]:
    """Every key goes to the other side; the terminal is as before afterwards, whatever happens."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _resizing(resize: Callable[[int, int], Awaitable[None]]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    pending: set[asyncio.Future[None]] = set()

    def changed() -> None:
        task = asyncio.ensure_future(resize(*terminal_size()))
        pending.add(task)
        task.add_done_callback(pending.discard)

    loop.add_signal_handler(signal.SIGWINCH, changed)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


def terminal_size() -> tuple[int, int]:
    """Rows and columns of this terminal; 24 by 80 without one."""
    try:
        size = os.get_terminal_size(sys.stdin.fileno())
    except OSError:
        return 24, 80
    return size.lines or 24, size.columns or 80
