"""Where a guest's connections by vsock lead on the host, and the file of what its init reports."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmtui.vmm.loop import Loop
from vmtui.vmm.ports import MOST_REPORTERS, STATUS_BYTES, STATUS_PORT, VSOCK, Ports


class Host:
    """A monitor's part: the loop is turned by hand."""

    def __init__(self, folder: Path) -> None:
        self.failures: list[BaseException] = []
        self.run, self.sockets = folder / "run", folder / "sockets"
        for made in (self.run, self.sockets):
            made.mkdir()
        self.loop = Loop("monitor", lambda _, error: self.failures.append(error))
        self.ports = Ports(self.loop, str(self.run), str(self.sockets))

    @property
    def status(self) -> bytes:
        return (self.run / "status").read_bytes()

    def reporter(self) -> socket.socket:
        made = self.ports.connect(STATUS_PORT)
        assert made is not None
        made.settimeout(10)
        return made

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.loop.turn(0.01)
        assert self.failures == []


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.ports.close()
    made.loop.close()


def test_a_port_leads_to_the_socket_with_its_number(host: Host) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(host.sockets / f"{VSOCK}_5000"))
        listener.listen()
        connected = host.ports.connect(5000)
        assert connected is not None
        there, _ = listener.accept()
        with connected, there:
            connected.send(b"hello")
            assert there.recv(10) == b"hello"


def test_a_socket_that_accepts_nobody_holds_nobody_up(host: Host) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(host.sockets / f"{VSOCK}_1"))
        listener.listen(0)
        made = [host.ports.connect(1) for _ in range(4)]
        assert made[-1] is None
        for connected in made:
            if connected is not None:
                connected.close()


@pytest.mark.parametrize("port", [5000, -1, 2**32 - 1, 2**64, True, None, "5000", "../control.sock", [1], {}, 1.0])
def test_everything_else_leads_nowhere(host: Host, port: object) -> None:
    (host.sockets / f"{VSOCK}_1").write_text("no socket")
    assert host.ports.connect(port) is None
    assert host.ports.connect(1) is None


def test_what_is_reported_is_noted(host: Host) -> None:
    with host.reporter() as first, host.reporter() as second:
        first.send(b"booted 1.23\n")
        host.turn()
        second.send(b"exit 7\n")
        host.turn()
    assert host.status == b"booted 1.23\nexit 7\n"
    assert (host.run / "status").stat().st_mode & 0o777 == 0o600


def test_what_came_last_is_noted_when_the_machine_has_ended(host: Host) -> None:
    lines = b"".join(b"address eth0 %d\n" % number for number in range(1000))
    with host.reporter() as reporter:
        reporter.sendall(lines)
    host.ports.drain()
    assert host.status == lines


def test_too_much_is_taken_and_not_kept(host: Host) -> None:
    with host.reporter() as reporter:
        for _ in range(2 * STATUS_BYTES // 1000):
            reporter.sendall(b"x" * 1000)  # would time out
            host.turn()
    assert len(host.status) == STATUS_BYTES


def test_reporters_are_few_and_go(host: Host) -> None:
    made = [host.reporter() for _ in range(MOST_REPORTERS)]
    assert host.ports.connect(STATUS_PORT) is None
    for reporter in made:
        reporter.close()
    host.turn(2)
    host.reporter().close()


def test_the_next_machine_reports_to_the_same_file(host: Host) -> None:
    with host.reporter() as reporter:
        reporter.send(b"booted 1\n")
    host.ports.drain()
    with host.reporter() as reporter:
        reporter.send(b"booted 2\n")
    host.ports.close()
    assert host.status == b"booted 1\nbooted 2\n"
