"""The guest's vsock program where a process of the guest's own is at the other end (vsock_loopback), not the host."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from vmtui.guests import binaries

PORT = 1023
LOCAL = 1  # linux/vm_sockets.h: VMADDR_CID_LOCAL
CONNECTIONS = 40


@pytest.fixture
def program(tmp_path: Path) -> Path:
    made = tmp_path / "vsock"
    made.write_bytes(binaries.VSOCK)
    made.chmod(0o755)
    subprocess.run(["modprobe", "vsock_loopback"], check=True, timeout=30)
    return made


@pytest.fixture
def listening(program: Path, tmp_path: Path) -> Iterator[Path]:
    """A file that appears when a session runs."""
    ran = tmp_path / "ran"
    with subprocess.Popen([program, "listen", str(PORT), "/usr/bin/touch", ran]) as process:
        try:
            yield ran
            assert process.poll() is None, "it has ended"
        finally:
            process.kill()


def connect() -> socket.socket:
    deadline = time.monotonic() + 10
    while True:
        made = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        made.settimeout(10)
        try:
            made.connect((LOCAL, PORT))
        except OSError:
            made.close()
            assert time.monotonic() < deadline, "nobody listens"
            time.sleep(0.05)
        else:
            return made


def test_a_process_of_the_guest_gets_no_session(listening: Path) -> None:
    for _ in range(CONNECTIONS):
        with connect() as made, suppress(ConnectionResetError):
            assert made.recv(64) == b""
    assert not listening.exists()


def test_its_port_is_roots_alone(listening: Path) -> None:
    connect().close()
    code = "import socket; socket.socket(socket.AF_VSOCK).bind((2**32 - 1, 1022))"
    done = subprocess.run(["python3", "-c", code], user=65534, capture_output=True, text=True, timeout=30, check=False)
    assert "PermissionError" in done.stderr


@pytest.mark.parametrize("argv", [[], ["listen"], ["listen", "1023"], ["connect", "1"], ["connect", "1", "9"]])
def test_it_refuses_what_is_incomplete(program: Path, argv: list[str]) -> None:
    assert subprocess.run([str(program), *argv], timeout=30, check=False).returncode == 126


def test_where_nobody_listens_the_program_runs_without(program: Path) -> None:
    command = [str(program), "connect", "1024", "9", "/bin/sh", "-c", "[ -e /proc/self/fd/9 ] && exit 3; exit 4"]
    assert subprocess.run(command, timeout=30, check=False).returncode == 4


def test_what_it_runs_must_be_there(program: Path) -> None:
    assert subprocess.run([program, "connect", "1024", "9", "/none"], timeout=30, check=False).returncode == 126
    assert os.access(program, os.X_OK)
