"""A VM on the bundled VMM, started as backend `kvm` starts it, and spoken to over its control socket."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vmtui.guests.kernel import Kernel

ROOT = Path(__file__).parents[3]
CMDLINE = "console=ttyS0 console=hvc0 quiet panic=-1"
END_S = 180.0  # of a guest on a machine that has much else to do; it takes 8 on a quiet one
POLL_S = 0.05


class Caller:
    """One connection to the control socket, blocking."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(path))
        self._file = self.socket.makefile("rb")
        self.greeting = json.loads(self._file.readline())
        self.events: list[dict[str, Any]] = []
        self._number = 0

    def call(self, name: str, **args: Any) -> Any:
        self._number += 1
        self.socket.sendall(json.dumps({"id": self._number, "call": name, "args": args}).encode() + b"\n")
        while True:
            message = self.receive()
            assert "gone" not in message, f"it hung up on {name}"
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message.get("result")

    def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._file.readline() or b'{"gone": true}')
        if "event" in message:
            self.events.append(message)
        return message

    def await_event(self, name: str) -> dict[str, Any]:
        while True:
            for event in self.events:
                if event["event"] == name:
                    return event
            assert "gone" not in self.receive(), f"it ended before {name}: {self.events}"

    def close(self) -> None:
        self._file.close()
        self.socket.close()


class Vmm:
    """Killed with all that it made when the test leaves it."""

    def __init__(self, folder: Path, kernel: Kernel, initrd: bytes | Path | None, **config: Any) -> None:
        self.folder, self.run, self.sockets = folder, folder / "run", folder / "sockets"
        self.log = folder / "serial.log"
        for made in (self.run, self.sockets):
            made.mkdir(parents=True)
        if isinstance(initrd, bytes):
            path = folder / "initrd"
            path.write_bytes(initrd)
            initrd = path
        told = {
            "run": str(self.run), "log": str(self.log), "sockets": str(self.sockets),
            "kernel": str(kernel.image), "initrd": None if initrd is None else str(initrd),
            "memory_bytes": 256 << 20, "cmdline": CMDLINE, "uid": 0x7FFF_1000, **config,
        }  # fmt: skip
        path = folder / "config.json"
        path.write_text(json.dumps(told))
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-P", "-m", "vmtui.vmm", path],
            stdin=subprocess.PIPE, env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}, start_new_session=True,
        )  # fmt: skip
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.process.stdin.close()

    def connect(self) -> Caller:
        self.await_text(self.run / "started", "")
        return Caller(self.sockets / "control.sock")

    def await_text(self, path: Path, text: str, timeout: float = END_S) -> str:
        """The file's content, once it is there and has `text` in it."""
        deadline = time.monotonic() + timeout
        while True:
            said = path.read_text(errors="replace") if path.exists() else None
            if said is not None and text in said:
                return said
            assert time.monotonic() < deadline, f"no {text!r} in {path}: {said!r}\n{self.trouble()}"
            assert self.process.poll() is None or (said is not None and text in self._last(path)), self.trouble()
            time.sleep(POLL_S)

    def _last(self, path: Path) -> str:
        return path.read_text(errors="replace") if path.exists() else ""

    def await_log(self, text: str, timeout: float = END_S) -> str:
        return self.await_text(self.log, text, timeout)

    def ending(self, timeout: float = END_S) -> dict[str, Any]:
        """How it ended, once it has."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end\n{self.trouble()}") from None
        exit_file = self.run / "exit"
        assert exit_file.exists(), self.trouble()
        noted: dict[str, Any] = json.loads(exit_file.read_text())
        return noted

    def trouble(self) -> str:
        parts = (self.run / "exit", self.run / "errors", self.log)
        return "\n".join(f"{path.name}: {self._last(path)[-3000:]}" for path in parts)

    @property
    def machine_pid(self) -> int:
        return int(self.await_text(self.run / "process", " ").split()[0])

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)


@contextlib.contextmanager
def vmm(folder: Path, kernel: Kernel, initrd: bytes | Path | None, **config: Any) -> Iterator[Vmm]:
    made = Vmm(folder, kernel, initrd, **config)
    try:
        yield made
    finally:
        made.close()
