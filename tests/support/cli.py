"""Drives `vmtui` as a program: on pipes, or on a terminal of its own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vmtui.host.paths import Paths

TIMEOUT_S = 120.0


class Cli:
    """Runs in a workspace of its own, without colours and with a fixed width of help."""

    def __init__(self, paths: Paths, folder: Path) -> None:
        self.paths = paths
        self.folder = folder
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "VMTUI_", "NO_COLOR"))},
            **paths.environment(),
            "COLUMNS": "100",
            "LINES": "30",
            "TERM": "xterm",
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        }

    def argv(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "vmtui", *args]

    def profile(self, text: str, name: str = "dev") -> str:
        """Write a profile; the path to give."""
        path = self.folder / f"{name}.toml"
        path.write_text(text)
        return str(path)

    def run(
        self, *args: str, stdin: bytes = b"", env: dict[str, str] | None = None, timeout: float = TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.argv(*args),
            input=stdin,
            capture_output=True,
            env={**self.environment, **(env or {})},
            timeout=timeout,
            cwd=self.folder,
            check=False,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
        )

    def ok(self, *args: str, code: int = 0, **more: Any) -> str:
        """Run it, check its exit code, return its stdout."""
        done = self.run(*args, **more)
        assert done.returncode == code, f"{args} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def records(self, *args: str, code: int = 0, **more: Any) -> list[dict[str, Any]]:
        """With --json: every line of stdout, and nothing else there."""
        return [json.loads(line) for line in self.ok(*args, "--json", code=code, **more).splitlines()]

    def refused(self, code: int, *args: str, **more: Any) -> str:
        """Run it, check that it failed with `code` and one error, return stderr."""
        done = self.run(*args, **more)
        assert done.returncode == code, f"{args} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.stderr.count("error: ") == 1, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    @contextmanager
    def started(self, *args: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process on pipes, killed at the end if it still runs."""
        with subprocess.Popen(
            self.argv(*args),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            cwd=self.folder,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    @contextmanager
    def on_terminal(self, *args: str, rows: int = 30, columns: int = 100) -> Iterator[Terminal]:
        with Terminal(self.argv(*args), self.environment, self.folder, rows, columns) as terminal:
            yield terminal


class Terminal:
    """A process whose stdin, stdout and stderr are one pseudo terminal."""

    def __init__(self, argv: Sequence[str], environment: dict[str, str], folder: Path, rows: int, columns: int) -> None:
        self.seen = ""
        self._master, slave = pty.openpty()
        self.slave = slave
        self.resize(rows, columns)
        environment = {key: value for key, value in environment.items() if key not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, env=environment, cwd=folder, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.hang_up()

    def hang_up(self) -> None:
        """Close it, as when a link is lost: its process gets SIGHUP, and fails to read and to write."""
        for fd in {self.slave, self._master} - {-1}:
            os.close(fd)
        self.slave = self._master = -1

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def settings(self) -> list[Any]:
        """The modes of the terminal as they are now."""
        return termios.tcgetattr(self.slave)

    def send(self, data: bytes) -> None:
        os.write(self._master, data)

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def expect(self, pattern: str, timeout: float = TIMEOUT_S) -> re.Match[str]:
        """Read until `pattern` is seen; what comes after it is left for the next."""
        deadline = time.monotonic() + timeout
        while (match := re.search(pattern, self.seen)) is None:
            assert time.monotonic() < deadline, f"{pattern!r} did not come; it showed {self.seen!r}"
            ended = self.process.poll() is not None
            assert self._read(0.1) or not ended, f"it ended; it showed {self.seen!r}"
        self.seen = self.seen[match.end() :]
        return match

    def drain(self) -> None:
        """Read what is there."""
        while self._read(0.05):
            pass

    def end(self, timeout: float = TIMEOUT_S) -> int:
        """Read to its end; the exit code."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it goes on; it showed {self.seen!r}"
            self._read(0.1)
        self.drain()
        return self.process.returncode

    def _read(self, timeout: float) -> bool:
        if not select.select([self._master], [], [], timeout)[0]:
            return False
        self.seen += os.read(self._master, 65536).decode("utf-8", "replace")
        return True


def interrupt(
    process: subprocess.Popen[bytes], number: int = signal.SIGINT, *, after: bytes, timeout: float = 120.0
) -> None:
    """Send a signal once a line with `after` has come on stderr."""
    assert process.stderr is not None
    deadline = time.monotonic() + timeout
    for line in process.stderr:
        assert time.monotonic() < deadline
        if after in line:
            process.send_signal(number)
            return
    raise AssertionError(f"{after!r} did not come")
