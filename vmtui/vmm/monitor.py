"""The monitor: opens what the machine needs, forks it, keeps its log and its back-ends, and notes how it ended.

It is small, waits nearly always, and believes nothing that the machine says. Everything that it makes dies with it.

RUN/parent process started errors exit    identities, marks, and how it ended (JSON)
RUN/status                                what the guest's init reports
RUN/stopped reap                          written by front ends: it was stopped; what to run when it ends (a script)
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from vmtui.vmm import opened as opening
from vmtui.vmm.boot.source import BootError
from vmtui.vmm.channel import Channel, channels
from vmtui.vmm.config import Config
from vmtui.vmm.confine.fork import fork_apart
from vmtui.vmm.inside import Ends, serve
from vmtui.vmm.log import Log
from vmtui.vmm.loop import Loop
from vmtui.vmm.machine import Cause
from vmtui.vmm.opened import RAW, OpenDisk, Opened, OpenShare
from vmtui.vmm.ports import VSOCK, Ports

if TYPE_CHECKING:
    from vmtui.vmm.backends.program import BackEnd
    from vmtui.vmm.backends.storage import Storage

ERRORS_BYTES = 256 << 10  # of what back-ends say
CONTROL = "control.sock"


class Monitor:
    """One VM, from its start to its end, over all its resets."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._loop = Loop("monitor", self._failed)
        self._errors = os.open(
            os.path.join(config.run, "errors"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        self._log: Log | None = None
        self._back_ends: dict[str, BackEnd] = {}
        self._storages: dict[str, Storage] = {}
        self._channel: Channel | None = None
        self._pid = 0
        self._pidfd = -1
        self._log_read = -1
        self._ending: dict[str, Any] | None = None
        self._control: socket.socket | None = None
        self._vsock: socket.socket | None = None
        self._ports = Ports(self._loop, config.run, config.sockets)

    def run(self) -> NoReturn:
        """Never returns: exits 0, 1 if the machine could not be started."""
        try:
            self._log = Log(self._config.log)
            self._control = opening.listen(os.path.join(self._config.sockets, CONTROL))
            if self._config.vsock_cid is not None:
                self._vsock = opening.listen(os.path.join(self._config.sockets, VSOCK))
            self._start()
        except (OSError, ValueError, BootError) as error:
            self._finish({"cause": "FAILED", "code": 1, "reason": _said(error)})
        self._loop.run()
        raise AssertionError("the loop does not end")

    # Starting

    def _start(self) -> None:
        """Raises OSError, BootError, ValueError."""
        assert self._control is not None
        opened = self._open()
        ours, theirs = channels()
        log_read, log_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._ending = None
        pid = fork_apart()
        if pid == 0:
            ours.close()
            os.close(log_read)
            serve(self._config, opened, Ends(theirs, self._control, log_write, self._vsock))
        theirs.close()
        os.close(log_write)
        opened.close()
        self._pid, self._pidfd, self._channel, self._log_read = pid, os.pidfd_open(pid), ours, log_read
        try:
            note(self._config.run, "process", identity(pid))
        except OSError:  # a machine that nobody could find
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._loop.watch(log_read, self._log_ready)
        self._loop.watch(ours.fd, lambda _: self._told())
        self._loop.watch(self._pidfd, lambda _: self._has_ended())

    def _open(self) -> Opened:
        config = self._config
        return Opened(
            kernel=opening.boot_file(config.kernel),
            initrd=None if config.initrd is None else opening.boot_file(config.initrd),
            disks=tuple(self._open_disk(number) for number in range(len(config.disks))),
            cards=opening.open_cards(config),
            shares=tuple(self._open_share(number) for number in range(len(config.shares))),
        )

    def _open_disk(self, number: int) -> OpenDisk:
        disk, name = self._config.disks[number], f"blk{number}"
        if disk.format == RAW:
            return opening.open_image(name, disk)
        storage = self._back_ends.get(name)
        if storage is not None:
            storage.close()  # of the machine before the reset
        from vmtui.vmm.backends.storage import Storage

        self._back_ends[name] = self._storages[name] = made = Storage(
            name,
            self._config.sockets,
            self._errors,
            self._loop,
            path=disk.path,
            image_format=disk.format,
            backing=tuple(disk.backing),
            writable=not disk.read_only,
            uid=self._config.uid,
            connected=lambda connection, clean: self._give_back_end(name, connection, clean),
            ended=self._say,
        )
        return OpenDisk(name, disk, None, made.start())

    def _open_share(self, number: int) -> OpenShare:
        share, name = self._config.shares[number], f"fs{number}"
        directory = self._back_ends.get(name)
        if directory is not None:
            directory.close()
        from vmtui.vmm.backends.directory import Directory

        self._back_ends[name] = made = Directory(
            name,
            self._config.sockets,
            self._errors,
            self._loop,
            path=share.path,
            writable=not share.read_only,
            connected=lambda connection, clean: self._give_back_end(name, connection, clean),
            ended=self._say,
        )
        return OpenShare(name, share.tag, made.start())

    # While it runs

    def _log_ready(self, events: int) -> None:
        self._copy_log()

    def _copy_log(self) -> bool:
        """Whether there may be more."""
        try:
            data = os.read(self._log_read, 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            self._loop.unwatch(self._log_read)
            return False
        assert self._log is not None
        self._log.write(data)
        return True

    def _told(self) -> None:
        """By the machine, which may have been taken over: it gets what its VM has anyway, and nothing else."""
        assert self._channel is not None
        try:
            received = self._channel.receive()
        except (ValueError, BlockingIOError):
            return
        if received is None:
            self._loop.unwatch(self._channel.fd)
            return
        message, fd = received
        if fd is not None:
            os.close(fd)  # nothing is taken from there
        name = message.get("name")
        back_end = self._back_ends.get(name) if isinstance(name, str) else None
        match message.get("say"):
            case "started":
                missing = message.get("missing")
                self._started([str(line)[:200] for line in missing[:16]] if isinstance(missing, list) else [])
            case "lost" if back_end is not None:
                back_end.replace()
            case "resize" if name in self._storages and type(size := message.get("size_bytes")) is int:
                self._resize(self._storages[name], size)
            case "tap":
                self._give_tap(message.get("index"))
            case "vsock":
                self._give_stream(message.get("port"), message.get("id"))
            case "ended" | "failed":
                self._ending = message

    def _started(self, missing: list[str]) -> None:
        try:
            note(self._config.run, "started", json.dumps({"walls_missing": missing}))
        except OSError as error:  # it runs; whoever waits for the file gives up, and says so
            self._say(_said(error))

    def _resize(self, storage: Storage, size_bytes: int) -> None:
        try:
            storage.resize(size_bytes)
        except OSError as error:
            self._say(str(error))
            return
        self._give({"give": "size", "name": storage.name, "size_bytes": size_bytes})

    def _give_tap(self, index: object) -> None:
        """Anew, by the name that the VM was given: it was deleted and made again."""
        if type(index) is not int or not 0 <= index < len(self._config.nets):
            return
        try:
            from vmtui.vmm.devices.net.tap import open_tap

            fd = open_tap(self._config.nets[index].interface)
        except OSError as error:
            self._say(str(error))
            return
        self._give({"give": "tap", "index": index}, fd)
        os.close(fd)

    def _give_back_end(self, name: str, connection: socket.socket, clean: bool) -> None:
        with connection:
            self._give({"give": "back-end", "name": name, "clean": clean}, connection.fileno())

    def _give_stream(self, port: object, number: object) -> None:
        if type(number) is not int:
            return
        message = {"give": "vsock", "id": number, "port": port}
        connected = self._ports.connect(port)
        if connected is None:
            self._give({**message, "refused": True}, None)
            return
        with connected:
            self._give(message, connected.fileno())

    def _give(self, message: dict[str, Any], fd: int | None = None) -> None:
        if self._channel is not None:
            with suppress(OSError):  # it ends, and we shall hear of it
                self._channel.send(message, fd)

    # Its end

    def _has_ended(self) -> None:
        _, status = os.waitpid(self._pid, 0)
        self._loop.unwatch(self._pidfd)
        os.close(self._pidfd)
        while self._copy_log():
            pass
        self._ports.drain()
        assert self._channel is not None
        while self._ending is None and self._received_more():
            pass
        self._loop.unwatch(self._channel.fd)
        self._channel.close()
        self._loop.unwatch(self._log_read)
        os.close(self._log_read)
        ending = self._ending or _unsaid(status)
        if self._may_restart(ending):
            try:
                self._start()
                return
            except (OSError, ValueError, BootError) as error:
                ending = {"cause": "FAILED", "code": 1, "reason": f"cannot start again: {_said(error)}"}
        self._finish(ending)

    def _received_more(self) -> bool:
        assert self._channel is not None
        try:
            received = self._channel.receive()
        except BlockingIOError:
            return False
        except ValueError:
            return True
        if received is None:
            return False
        if received[1] is not None:
            os.close(received[1])
        if received[0].get("say") in ("ended", "failed"):
            self._ending = received[0]
        return True

    def _may_restart(self, ending: dict[str, Any]) -> bool:
        stopped = os.path.exists(os.path.join(self._config.run, "stopped"))
        cause = ending.get("cause")
        wanted = cause == Cause.RESTART.name or (cause == Cause.RESET.name and self._config.reboot)
        return wanted and not stopped

    def _finish(self, ending: dict[str, Any]) -> NoReturn:
        reason = str(ending.get("reason", ""))[:4000]
        code = ending.get("code")
        failed = ending.get("say") == "failed" or ending.get("cause") == "FAILED"
        for back_end in self._back_ends.values():
            back_end.close()
        if self._log is not None:
            self._log.close()
        self._ports.close()
        if failed:
            self._say(reason)
        run = self._config.run
        exits = ending.get("exits_total")
        noted = {
            "code": code & 0xFF if type(code) is int else 1,
            "cause": str(ending.get("cause", "FAILED"))[:40],
            "reason": reason,
            "at": time.time(),
            "exits_total": exits if type(exits) is int else 0,
        }
        for name in (CONTROL, VSOCK):
            with suppress(OSError):
                os.unlink(os.path.join(self._config.sockets, name))
        with suppress(OSError):  # a full disk: it has ended all the same
            note(run, "exit", json.dumps(noted))
        script = os.path.join(run, "reap")
        if os.path.exists(script) and (not failed or os.path.exists(os.path.join(run, "started"))):
            os.execv("/bin/sh", ["/bin/sh", script])
        os._exit(int(failed))

    def _say(self, text: str) -> None:
        """Whoever reads RUN/errors. What finds no room is lost, as is what comes after too much."""
        with suppress(OSError):
            if os.fstat(self._errors).st_size < ERRORS_BYTES:
                os.write(self._errors, f"{text}\n".encode(errors="backslashreplace"))

    def _failed(self, name: str, error: BaseException) -> None:
        self._say(f"{name}: {type(error).__name__}: {error}")


def _said(error: Exception) -> str:
    if isinstance(error, BootError):
        return f"{error.message}\n{error.hint}".strip()
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {(error.strerror or '').lower()}"
    return str(error)


def _unsaid(status: int) -> dict[str, Any]:
    """The machine was killed, or ended itself, without a word."""
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGSYS:
        return {"cause": "BROKEN_OUT", "code": 159, "reason": "the VMM called what it may not (SIGSYS): it was killed"}
    if code < 0:
        return {"cause": "KILLED", "code": 128 - code, "reason": f"the VMM was killed by {signal.Signals(-code).name}"}
    return {"cause": "FAULT", "code": code or 1, "reason": f"the VMM ended with code {code}"}


def identity(pid: int) -> str:
    """ "PID START_TICKS BOOT_ID": tells a process from a later one with its number (proc(5), stat field 22)."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        ticks = file.read().rpartition(b")")[2].split()[19].decode()
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return f"{pid} {ticks} {file.read().strip()}"


def note(run: str, name: str, text: str) -> None:
    """A file that appears whole. Raises OSError."""
    hidden = os.path.join(run, f".{name}")
    with open(hidden, "w", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(f"{text}\n")
    os.rename(hidden, os.path.join(run, name))


def main(config: Config) -> NoReturn:
    """Note who we are; begin once whoever started us has seen that: what dies in between leaves nothing behind."""
    os.umask(0o077)
    note(config.run, "parent", identity(os.getpid()))
    if sys.stdin.buffer.readline() != b"go\n":
        os._exit(0)
    Monitor(config).run()
