"""`vmtui serve`: the console over SSH, until a signal ends it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import socket
import sys
import time
from typing import Any

from vmtui.core.errors import Fault
from vmtui.core.policy import BUILTIN, Person
from vmtui.engine import audit, demo, recordings
from vmtui.engine.store import DATABASE, Store, open_context
from vmtui.headless import exit_codes
from vmtui.host import person
from vmtui.host.paths import Paths
from vmtui.ssh import configured, host_key
from vmtui.ssh.configured import Configured, Files
from vmtui.ssh.forks import ForkServer
from vmtui.ssh.journal import RELOAD, SERVE, Journal, plain
from vmtui.ssh.server import Server, bind
from vmtui.ssh.session import Limits
from vmtui.ssh.sessions import Sessions
from vmtui.ssh.settings import Listen
from vmtui.ssh.web.server import Web
from vmtui.ssh.web.settings import Address

GRACE_S = 2.0  # for sessions to end by themselves
LOOK_AT_KEYS_S = 3600.0  # whether the coming host key's time has come


def main(args: argparse.Namespace) -> int:
    """The exit code; what went wrong is on stderr."""
    try:
        return _main(args)
    except Fault as fault:
        hint = f"\nhint: {plain(fault.hint)}" if fault.hint else ""
        sys.stderr.write(f"error: {plain(str(fault))}{hint}\n")
        return exit_codes.of(fault)


def _main(args: argparse.Namespace) -> int:
    paths = Paths.from_environment()
    files = Files.of(args)
    found = configured.read(
        files, paths, needs_keys=args.web is None and not (args.fingerprint or args.rotate_host_key)
    )
    grace_s = float(found.serve.host_key_grace)
    if args.check:
        return _check(found)
    if args.rotate_host_key:
        coming = host_key.rotate(found.host_key_path, grace_s)
        sys.stdout.write(f"{host_key.fingerprint(coming)}\n")
        sys.stderr.write(f"it takes the place of the old one at {_when(time.time() + grace_s)}\n")
        sys.stderr.write("hint: kill -HUP PID, and a server that runs announces it to clients\n")
        return 0
    if args.fingerprint:
        for key in host_key.open_or_make(found.host_key_path, grace_s).served:
            sys.stdout.write(f"{host_key.fingerprint(key)}\n")
        return 0
    return asyncio.run(_Serving(args, files, found, paths).run())


def _check(found: Configured) -> int:
    for warning in found.without_role:
        sys.stderr.write(f"warning: {plain(warning)}\n")
    if os.path.lexists(found.host_key_path):
        host_key.read(found.host_key_path)
    sys.stdout.write(f"good: {_counted(found)}\n")
    return 0


def _counted(found: Configured) -> str:
    keys = [line for line in found.keys.lines if not line.options.authority]
    authorities = len(found.keys.lines) - len(keys)
    own = len(set(found.roles) - set(BUILTIN))
    parts = [_number(len(keys), "key"), *([_number(authorities, "authority")] if authorities else [])]
    return f"{', '.join(parts)} in {found.keys_path}; {_number(len(found.roles), 'role')}, {own} of them your own"


def _number(count: int, noun: str) -> str:
    many = f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeiou" else f"{noun}s"
    return f"{count} {noun if count == 1 else many}"


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


class _Serving:
    """One run, from the first file to the last session."""

    def __init__(self, args: argparse.Namespace, files: Files, found: Configured, paths: Paths) -> None:
        self._args, self._files, self._found, self._paths = args, files, found, paths
        self._signalled: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._web: Web | None = None

    async def run(self) -> int:
        """The exit code. Raises Fault if it cannot begin."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._told)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._signalled.put_nowait, number)
        _more_descriptors()
        async with contextlib.AsyncExitStack() as stack:
            if self._args.demo is not None:
                await self._open_demo(stack)
            paths = self._paths
            paths.make()
            serve = self._found.serve
            bound = [stack.enter_context(bind(*where)) for where in configured.listening(self._args, serve)]
            web = self._bind_web(stack) if self._args.web is not None else None
            keys = host_key.open_or_make(self._found.host_key_path, float(self._found.serve.host_key_grace))
            open_context(paths)
            store = Store(paths.state / DATABASE)  # who only looks can open no database that nobody writes
            stack.callback(store.close)
            self.journal = Journal(audit.Log(paths.state / audit.FILE))
            stack.callback(self.journal.close)
            self.journal.keep_room()
            forks = await ForkServer.start(self.journal.say)
            stack.push_async_callback(forks.aclose)
            self.sessions = Sessions(
                forks,
                limits=Limits(
                    sessions=serve.sessions,
                    sessions_per_person=serve.sessions_per_person,
                    recording_bytes=int(serve.recording_size),
                ),
                audit=self.journal.try_note,
                keep_room=self.journal.keep_room,
                recordings=recordings.folder(paths) if serve.recordings else None,
            )
            stack.push_async_callback(self.sessions.aclose)
            self.journal.alarm = self._end_what_cannot_be_noted
            self.server = Server(serve, self._found.gate, self.journal, self.sessions, recorded=serve.recordings)
            await self.server.use(keys)
            await self.server.listen(bound)
            stack.push_async_callback(self.server.aclose, "the server ends", grace_s=GRACE_S)
            if web is not None:
                await self._open_web(*web, stack)
            places: list[Listen] = [sock.getsockname()[:2] for sock in bound]
            self._greet(keys, places)
            self.journal.try_note(Person(name=person.user()), "", SERVE, (), "done", ", ".join(map(_where, places)))
            number = await self._wait()
            self.journal.say(f"ending: {number.name}, {_number(len(self.sessions.sessions), 'session')} open")
            self.journal.try_note(Person(name=person.user()), "", SERVE, (), "closed", number.name)
            for late in (signal.SIGINT, signal.SIGTERM):  # the second one does not wait
                loop.remove_signal_handler(late)
        return int(exit_codes.of_signal(number))

    def _bind_web(self, stack: contextlib.AsyncExitStack) -> tuple[socket.socket, Address]:
        address = Address.parse(_where(self._args.web) if self._args.web else self._found.serve.web.listen)
        return stack.enter_context(bind(address.host, address.port)), address

    def _end_what_cannot_be_noted(self, why: str) -> None:
        reason = f"what is done here cannot be noted any more: {why}"
        asyncio.get_running_loop().call_soon(self.sessions.hang_up, reason)

    async def _open_demo(self, stack: contextlib.AsyncExitStack) -> None:
        opened = await demo.open_demo(self._paths, self._args.demo, by=person.acting("vmtui serve --demo"))
        stack.push_async_callback(opened.aclose)
        self._paths = opened.registry.context.paths
        os.environ.update(self._paths.environment())

    async def _open_web(self, listening: socket.socket, address: Address, stack: contextlib.AsyncExitStack) -> None:
        self._web = await Web.open(
            self.sessions,
            self._found.serve.web,
            address,
            listening,
            journal=self.journal,
            state=self._paths.state,
            folder=self._files.config.parent,
            recorded=self._found.serve.recordings,
        )
        stack.push_async_callback(self._web.aclose)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._signalled.put_nowait, signal.SIGUSR1)
        self.server.url = self._web.url

    def _greet(self, keys: host_key.HostKeys, bound: list[Listen]) -> None:
        say = sys.stderr.write
        for where in bound:
            say(f"listening at {_where(where)}\n")
        say(f"host key {host_key.fingerprint(keys.current)} ({keys.current.get_algorithm()})\n")
        if keys.coming is not None:
            say(f"the next host key, announced: {host_key.fingerprint(keys.coming)}\n")
        say(f"{_counted(self._found)}\n")
        for warning in self._found.without_role:
            say(f"warning: {plain(warning)}\n")
        host, port = bound[0]
        name = host if host not in ("0.0.0.0", "::") else os.uname().nodename
        say(f"connect with: ssh -p {port} {name}\n")
        if self._web is not None:
            if self._web.fingerprint:
                say(f"the certificate in a browser: SHA-256 {self._web.fingerprint}\n")
            self._say_link()
        sys.stderr.flush()

    def _say_link(self) -> None:
        """A link for who runs the server. They may do everything here anyway."""
        assert self._web is not None
        owner = Person(name=person.user(), key="local", origin="the server's terminal")
        within = self._found.serve.web.token_lifetime
        sys.stderr.write(
            f"in a browser, once and within {within}: {self._web.url(owner, BUILTIN['admin'])}\n"
            f"another link: kill -USR1 {os.getpid()}, or ssh HOST web\n"
        )
        sys.stderr.flush()

    async def _wait(self) -> signal.Signals:
        """The signal that ends it."""
        while True:
            try:
                async with asyncio.timeout(LOOK_AT_KEYS_S):
                    number = await self._signalled.get()
            except TimeoutError:
                await self._use_keys()
                continue
            if number is signal.SIGUSR1:
                self._say_link()
            elif number is signal.SIGHUP:
                await self._reload()
            else:
                return number

    async def _reload(self) -> None:
        """Read the files anew. What is wrong leaves all as it was, and is said."""
        me = Person(name=person.user())
        try:
            found = configured.read(self._files, self._paths, needs_keys=self._web is None)
        except Fault as fault:
            self.journal.told(me, RELOAD, "failed", f"{fault}; all stays as it was")
            return
        self._found = found
        self.server.use_settings(found.serve)
        gone = self.server.use_gate(found.gate)
        if self._web is not None:
            self._web.review()
        await self._use_keys()
        for warning in found.without_role:
            self.journal.say(f"warning: {warning}")
        ended = f"; {_number(gone, 'connection')} ended" if gone else ""
        self.journal.told(me, RELOAD, "done", f"{_counted(found)}{ended}")

    async def _use_keys(self) -> None:
        grace_s = float(self._found.serve.host_key_grace)
        try:
            await self.server.use(host_key.open_or_make(self._found.host_key_path, grace_s))
        except Fault as fault:
            self.journal.say(f"the host key stays as it was: {fault}")

    def _told(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # noqa: ARG002
        error = context.get("exception")
        what = f"{type(error).__name__}: {error}" if error is not None else str(context.get("message"))
        self.journal.say(f"internal error: {what}") if hasattr(self, "journal") else None


def _where(where: Listen) -> str:
    host, port = where
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _more_descriptors() -> None:
    """Each session takes some; the soft limit is for programs that use select(2)."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
