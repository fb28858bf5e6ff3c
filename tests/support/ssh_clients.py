"""The clients that people have: OpenSSH, dropbear's, PuTTY's and asyncssh, each as the program that it is.

Each has its keys, its known hosts and its home for itself, asks nothing, and trusts the one host key that it is given.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.pty import terminal_environment
from tests.support.ssh_keys import Key, fingerprint
from tests.support.terminal import Watched

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
LOGIN = "someone"  # who one is says the key, not this
TIMEOUT_S = 90.0
PROGRAMS = {"openssh": "ssh", "dropbear": "dbclient", "putty": "plink", "asyncssh": sys.executable}


Enter = Callable[..., list[str]]  # the words of a command line → another command line


@dataclass(frozen=True)
class Door:
    """A server that one can come to. `host_key` is a file with its public key."""

    port: int
    host_key: Path


class Client:
    """`name` is one of PROGRAMS; `home` a directory of its own; `enter` makes a command line run elsewhere."""

    def __init__(self, name: str, home: Path, door: Door, enter: Enter = lambda *argv: [*argv]) -> None:
        self.name = name
        self._enter = enter
        self.door = door
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self.environment = {
            **{name: value for name, value in terminal_environment().items() if name != "SSH_AUTH_SOCK"},
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
        }
        public = " ".join(door.host_key.read_text().split()[:2])
        self.known_hosts = home / ".ssh" / "known_hosts"
        self.known_hosts.parent.mkdir(exist_ok=True)
        written = HOST if name == "dropbear" else f"[{HOST}]:{door.port}"
        self.known_hosts.write_text(f"{written} {public}\n")

    @property
    def missing(self) -> str:
        """Why it cannot be used here, "" if it can."""
        program = PROGRAMS[self.name]
        return "" if shutil.which(program) else f"{program} is not in PATH"

    def argv(self, key: Key, *command: str, tty: bool, more: Sequence[str] = ()) -> list[str]:
        """The command line; `more` are options of this client. With `tty` the other side is to give a terminal."""
        return self._enter(*self._argv(key, *command, tty=tty, more=more))

    def _argv(self, key: Key, *command: str, tty: bool, more: Sequence[str]) -> list[str]:
        mode = "-t" if tty else "-T"
        port = str(self.door.port)
        to = [f"{LOGIN}@{HOST}", *command]
        match self.name:
            case "openssh":
                return [*self.openssh(key, "ssh"), "-tt" if tty else mode, *more, "-p", port, *to]
            case "dropbear":
                return ["dbclient", "-i", str(key.dropbear), mode, *more, "-p", port, *to]
            case "putty":
                trusts = ["-batch", "-ssh", "-noagent", "-hostkey", fingerprint(self.door.host_key)]
                return ["plink", *trusts, "-i", str(key.putty), mode, *more, "-P", port, *to]
            case _:
                where = [HOST, port, str(key.path), str(self.known_hosts), "tty" if tty else "pipes"]
                return [sys.executable, "-m", "tests.support.ssh_asyncssh_client", *where, *command]

    def openssh(self, key: Key, program: str) -> list[str]:
        """`ssh`, `sftp` or `scp` with nothing of the person's own settings."""
        options = {
            "IdentityFile": key.path,
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.known_hosts,
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "PreferredAuthentications": "publickey",
            "BatchMode": "yes",
            "LogLevel": "ERROR",
            "EscapeChar": "none",
            "UpdateHostKeys": "no",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return [program, "-F", "/dev/null", *words]

    def run(
        self,
        key: Key,
        *command: str,
        stdin: bytes = b"",
        more: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT_S,
    ) -> subprocess.CompletedProcess[bytes]:
        """On pipes, to its end."""
        return subprocess.run(
            self.argv(key, *command, tty=False, more=more),
            input=stdin,
            capture_output=True,
            env={**self.environment, **(environment or {})},
            timeout=timeout,
            cwd=self.home,
            check=False,
        )

    def on_terminal(
        self,
        key: Key,
        *command: str,
        rows: int = 30,
        columns: int = 100,
        more: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Watched:
        """On a terminal of its own. Use it in `with`."""
        return Watched(
            self.argv(key, *command, tty=True, more=more),
            rows=rows,
            columns=columns,
            environment={**self.environment, **(environment or {})},
            folder=self.home,
        )
