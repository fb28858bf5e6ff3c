"""`vmtui serve` as a process of its own, with its people, roles and keys, over a workspace of its own."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from bench.ssh import tree
from tests.support.claims import port
from tests.support.cli import Cli
from tests.support.ssh_clients import Client, Door
from tests.support.ssh_keys import Key
from vmtui.engine.store import DATABASE
from vmtui.host.paths import Paths

UP_S = 90.0
END_S = 60.0
LOOK_S = 0.02
# What the server itself keeps, whoever comes, and what a database that is open has beside it.
KEPT_BY_THE_SERVER = ("audit.log", "audit.head", "recordings", "ssh", f"{DATABASE}-wal", f"{DATABASE}-shm", DATABASE)


class Console:
    """`root` is a directory of its own with a short name (unix sockets). Use it in `with`: no process is left.

    With a `cli` it is that one's workspace that is served.
    """

    def __init__(self, root: Path, *, roles: str = "", settings: str = "", cli: Cli | None = None) -> None:
        self.root = root
        if cli is None:
            paths = Paths(root / "s" / "vmtui", root / "c" / "vmtui", root / "r" / "vmtui")
            paths.make()
            cli = Cli(paths, root)
        self.cli = cli
        self.paths = cli.paths
        self.config = root / "config" / "vmtui"
        self.config.mkdir(parents=True)
        self.cli.environment |= {"XDG_CONFIG_HOME": str(self.config.parent), "HOME": str(root)}
        self.environment = self.cli.environment
        self.port = port()
        self.keys = self.config / "authorized_keys"
        self.keys.touch(mode=0o600)
        self.serve_toml = self.config / "serve.toml"
        self.serve_toml.write_text(f"[serve]\n{settings}\n{roles}")
        self.log = root / "serve.log"
        self._folder = root / "keys"
        self._folder.mkdir(mode=0o700)
        self._process: subprocess.Popen[bytes] | None = None
        self._alone: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()

    # People

    def key(self, name: str, kind: str = "ed25519", *words: str) -> Key:
        """A key that no line knows yet."""
        return Key.make(self._folder, name, kind, *words)

    def allow(self, key: Key, name: str, role: str, *options: str) -> None:
        """A line in authorized_keys."""
        self.add_line(",".join([f'role="{role}"', f'name="{name}"', *options]) + f" {key.public} {name}")

    def add_line(self, line: str) -> None:
        with self.keys.open("a") as file:
            file.write(f"{line}\n")

    def person(self, name: str, role: str, *options: str) -> Key:
        key = self.key(name)
        self.allow(key, name, role, *options)
        return key

    # The workspace

    def up(self, profile: str, name: str = "dev") -> None:
        """Apply a profile, as who owns the workspace."""
        self.cli.ok("--profile", self.cli.profile(profile, name))

    def contents(self) -> dict[str, str]:
        """What there is to change: each file by its digest, the database by its rows. Without what the server keeps."""
        found = {}
        for folder in (self.paths.state, self.paths.cache, self.paths.runtime, self.config):
            for path in sorted(folder.rglob("*")):
                inside = path.relative_to(folder)
                if inside.parts[0] in KEPT_BY_THE_SERVER or path.is_dir():
                    continue
                found[str(path.relative_to(self.root))] = (
                    hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "special"
                )
        with sqlite3.connect(f"file:{self.paths.state / DATABASE}?mode=ro", uri=True) as database:
            found[DATABASE] = "\n".join(database.iterdump())
        return found

    # The server

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def door(self) -> Door:
        return Door(self.port, self.root / "host.pub")

    def client(self, name: str = "openssh") -> Client:
        return Client(name, self.root / "homes" / name, self.door)

    def words(self, *more: str) -> list[str]:
        """The command line, without the program."""
        return ["serve", "--listen", f"127.0.0.1:{self.port}", *more]

    def start(self, *words: str) -> None:
        """Returns when it listens, and has said all that it says of that."""
        with self.log.open("ab") as log:
            begin = log.tell()
            argv = self.cli.argv(*self.words(*words))
            self._process = subprocess.Popen(
                argv, env=self.environment, cwd=self.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        last = re.compile(r"\banother link: .*\n" if "--web" in words else r"\bconnect with: .*\n")
        self.until(lambda: last.search(self.said(begin)), "it to listen")
        private = self.paths.state / "ssh" / "host_ed25519"
        done = subprocess.run(["ssh-keygen", "-y", "-f", str(private)], capture_output=True, check=True, text=True)
        self.door.host_key.write_text(done.stdout)
        self._alone = set(tree.pids(self.pid))

    def guests(self) -> list[int]:
        """The processes that are there for sessions."""
        return [pid for pid in tree.pids(self.pid) if pid not in self._alone]

    def alone(self) -> None:
        """Wait until nothing of any session is left."""
        self.until(lambda: not self.guests(), f"the sessions to go; there are {processes_of(self.root)}")

    def gone(self) -> None:
        """Wait until no process is left, once the server has ended."""
        deadline = time.monotonic() + END_S
        while (left := processes_of(self.root)) and time.monotonic() < deadline:
            time.sleep(LOOK_S)
        assert left == []

    def said(self, since: int = 0) -> str:
        """What it has written on stderr."""
        return self.log.read_bytes()[since:].decode("utf-8", "replace")

    def until(self, true: Any, what: str, timeout: float = UP_S) -> None:
        deadline = time.monotonic() + timeout
        while not true():
            assert self._process is None or self._process.poll() is None, f"the server has ended:\n{self.said()}"
            assert time.monotonic() < deadline, f"waited for {what}; the server said\n{self.said()}"
            time.sleep(LOOK_S)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        try:
            return self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"it does not end:\n{self.said()}") from None

    def reload(self) -> None:
        """Returns when it has said what came of it."""
        begin = len(self.log.read_bytes())
        os.kill(self.pid, signal.SIGHUP)
        # Others log out meanwhile, which is said too.
        told = re.compile(r" reload(ed)?\b.*\n")
        self.until(lambda: told.search(self.said(begin)), "it to say what it has read anew")


def processes_of(root: Path) -> list[str]:
    """The processes whose environment names `root`: a server, its fork server, its sessions, and what they started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if str(root).encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
    return found
