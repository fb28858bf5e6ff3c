"""What happens before a module runs: it is compiled, or found in the cache, and handed to a monitor."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from typing import Any, NoReturn

from vmtui.sandbox.cache import Cache
from vmtui.sandbox.config import Config
from vmtui.sandbox.log import Log
from vmtui.sandbox.monitor import Monitor, reap
from vmtui.sandbox.process import Failed, be_guest, end, failure, quiet, receive
from vmtui.walls import calls
from vmtui.wire.lines import Channel, Message, WireError, channels

ENGINE = "1"  # changes with `guest.engine`, and with what `guest.compile_module` checks
COMPILE_S = 60.0
START_S = 40.0
LOCK_S = 2.0

__all__ = ["Failed", "compiled", "launch"]


def launch(config: Config) -> dict[str, Any]:
    """Start the module. Raises Failed, OSError, WireError; nothing runs then."""
    code, facts = compiled(config)
    try:
        return facts | start(config, code, facts)
    except Failed as failed:
        if failed.message.get("code") != "stale-code":
            raise
    # code of another processor in a shared cache, or a wasmtime that changed under its version
    os.close(code)
    Cache(config.cache).drop(key(config))
    code, facts = compiled(config)
    return facts | start(config, code, facts)


def key(config: Config) -> str:
    """All that the code depends on, and what it was checked against. wasmtime itself checks the processor."""
    parts = (config.sha256, config.wasmtime, ENGINE, os.uname().machine, config.entrypoint, str(config.memory_bytes))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def compiled(config: Config) -> tuple[int, dict[str, Any]]:
    """The module's code as a file descriptor, from the cache or new. Raises Failed, OSError, WireError."""
    cache = Cache(config.cache)
    begun = time.monotonic()
    code = cache.load(key(config))
    if code is None:
        code = compile_in_child(config)
        cache.store(key(config), code)
    return code, {"cache": cache.note, "compile_ms": round((time.monotonic() - begun) * 1000)}


def compile_in_child(config: Config) -> int:
    path = os.path.join(config.directory, config.module)
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with os.fdopen(os.dup(source), "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != config.sha256:
            raise Failed(failure("changed", f"{path} is not what it was made from"))
    os.lseek(source, 0, os.SEEK_SET)
    code = os.memfd_create("code")
    ours, theirs = channels()
    pid = os.fork()
    if pid == 0:
        quiet()
        be_guest(theirs, (source, code), lambda guest: guest.compile_module(config, source, code))
    theirs.close()
    os.close(source)
    try:
        message = receive(ours, COMPILE_S, "compiling the module")
        if message.get("event") != "ended":
            raise Failed(message)
        return code
    except BaseException:
        os.close(code)
        raise
    finally:
        ours.close()
        end(pid)


def start(config: Config, code: int, facts: dict[str, Any]) -> dict[str, Any]:
    """Fork the monitor and see the module started. Raises Failed, OSError, WireError.

    The module begins when both sides have agreed, and the monitor gives up when we are gone before: a launcher that
    was killed leaves nothing behind.
    """
    ours, theirs = channels()
    if os.fork() == 0:
        ours.close()
        _be_monitor(config, code, facts, theirs)
    theirs.close()
    try:
        ready = receive(ours, START_S, "starting the module")
        if ready.get("event") != "ready":
            raise Failed(ready)
        ours.send({"event": "agreed"})
        running = receive(ours, START_S, "starting the module")
        if running.get("event") != "running":
            raise Failed(running)
        return {"user": ready.get("user", "")}
    finally:
        ours.close()


def _be_monitor(config: Config, code: int, facts: dict[str, Any], launcher: Channel) -> NoReturn:
    try:
        calls.die_with_parent()
        os.setsid()
        os.chdir("/")
        quiet()
        _supervise(config, code, facts, launcher)
    except Failed as failed:
        _tell(launcher, failed.message)
    except OSError as error:
        _tell(launcher, failure("host", str(error)))
    except WireError:
        pass  # the launcher is gone, and nothing runs
    finally:
        os._exit(0)  # takes the guest along, if it still lives


def _tell(launcher: Channel, message: Message) -> None:
    with contextlib.suppress(WireError):
        launcher.send(message)


def _lock(config: Config) -> int:
    """Never two monitors for one folder. Waits for one that is just ending. Raises Failed, OSError."""
    lock = os.open(os.path.join(config.directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Failed(failure("busy", "it runs already")) from None
            time.sleep(0.01)


def _supervise(config: Config, code: int, facts: dict[str, Any], launcher: Channel) -> None:
    lock = _lock(config)
    log = Log(os.path.join(config.directory, "log"), config.log_max_bytes)
    ours, theirs = channels()
    (out, out_end), (err, err_end) = os.pipe(), os.pipe()
    pid = calls.fork_in_pid_namespace() if os.geteuid() == 0 else os.fork()
    if pid == 0:
        os.dup2(out_end, 1)
        os.dup2(err_end, 2)
        be_guest(theirs, (code,), lambda guest: guest.Run(config, code).serve(theirs))
    theirs.close()
    for fd in (out_end, err_end, code):
        os.close(fd)
    monitor = Monitor(config, pid, ours, {out: "stdout", err: "stderr"}, log, lock)
    ready = monitor.begun()
    launcher.send(ready)
    if ready.get("event") != "ready" or launcher.receive() is None:
        end(pid)
        return
    calls.die_with_parent(wanted=False)
    facts = {"user": ready.get("user"), "cache": facts["cache"]}
    try:
        monitor.run(facts, lambda: _tell(launcher, {"event": "running"}))
    finally:
        if monitor.started and not monitor.stopped:
            reap(config.reap)
