"""The one file that drives dnsmasq(8): names of all members for all members, and leases for those that ask.

Its files are under /run, in a directory that its user can read. What runs is recognised by its whole command line,
which no other process has: the paths in it are made from the network's token.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import ipaddress
import os
import pwd
import shutil
import signal
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmtui.backends.tap import lock
from vmtui.backends.tap.ipam import Book, Lease
from vmtui.backends.tap.lock import ROOT
from vmtui.core.errors import CommandFailed, OperationFailed
from vmtui.core.specs import NetworkSpec
from vmtui.host.files import write_atomic
from vmtui.host.process import ProcessId, run, which

LEASE_TIME = "1h"
ASK_S, ANSWER_S = 0.25, 10.0
RECURSION_DESIRED = 0x0100
MOST_LEASES_BYTES = 1 << 20
MARK, PID, HOSTS, RESERVATIONS, LEASES = "mark", "pid", "hosts", "reservations", "leases"


@dataclass(frozen=True, slots=True)
class Handed:
    """A lease that a member asked for and got. `expires` is Unix time, 0 for never."""

    expires: int
    mac: str
    address: str


def parse_leases(text: str) -> tuple[Handed, ...]:
    """dnsmasq's lease file: expiry, MAC, address, name, client id per line. Anything else is skipped."""
    found = []
    for line in text.splitlines():
        fields = line.split(" ")
        if len(fields) >= 5 and fields[0].isascii() and fields[0].isdigit():
            found.append(Handed(int(fields[0][:20]), fields[1], fields[2]))
    return tuple(found)


def hosts(leases: Sequence[Lease], domain: str) -> str:
    """hosts(5): each member under each of its names, alone and with the domain."""
    lines = []
    for lease in leases:
        names = [name for each in lease.names for name in (each, f"{each}.{domain}")]
        lines.append(" ".join([lease.address, *dict.fromkeys(names)]) + "\n")
    return "".join(lines)


def reservations(leases: Sequence[tuple[str, Lease]]) -> str:
    """dnsmasq's dhcp-hostsfile, from (MAC, lease)."""
    return "".join(f"{mac},{lease.address},{lease.names[0].partition('.')[0]}\n" for mac, lease in leases)


class Dnsmasq:
    """The dnsmasq of one network, running or not."""

    def __init__(self, bridge: str) -> None:
        self.bridge = bridge
        self.directory = ROOT / bridge

    def argv(self, spec: NetworkSpec, book: Book) -> list[str]:
        """Its command line, the same for the same network."""
        user, group, _ = account()
        directory, domain = self.directory, spec.domain.lower()
        argv = [
            *(
                "dnsmasq",
                "--conf-file=/dev/null",
                f"--pid-file={directory / PID}",
                f"--user={user}",
                f"--group={group}",
            ),
            *(f"--interface={self.bridge}", "--except-interface=lo", "--bind-interfaces", "--no-hosts"),
        ]
        if spec.dns:
            # Names without a dot and names of our domain are answered here or not at all. An internal network asks
            # nobody outside: questions would be a way out.
            argv += [f"--addn-hosts={directory / HOSTS}", f"--local=/{domain}/", "--domain-needed", "--bogus-priv"]
            argv += ["--no-resolv"] if spec.internal else []
        else:
            argv.append("--port=0")
        if spec.dhcp:
            network = book.network
            argv += [
                f"--dhcp-range={network.network_address},static,{network.netmask},{LEASE_TIME}",
                *(f"--dhcp-hostsfile={directory / RESERVATIONS}", f"--dhcp-leasefile={directory / LEASES}"),
                *("--dhcp-authoritative", "--no-ping", "--quiet-dhcp", "--dhcp-ignore-names", f"--domain={domain}"),
                *(f"--dhcp-option=option:mtu,{spec.mtu}", f"--dhcp-option=option:domain-search,{domain}"),
                "--dhcp-option=option:router" + ("" if spec.internal else f",{book.gateway}"),
            ]
        return argv

    def process(self) -> ProcessId | None:
        """The running one, by its pid file."""
        try:
            pid = int((self.directory / PID).read_text()[:20])
        except (OSError, ValueError):
            return None
        process = ProcessId.of(pid)
        return process if process is not None and self._pid_option() in command_line(pid) else None

    def runs(self, argv: Sequence[str]) -> ProcessId | None:
        """The running one, if it was started with just this command line."""
        process = self.process()
        return process if process is not None and command_line(process.pid)[1:] == list(argv[1:]) else None

    def intact(self, spec: NetworkSpec, members: Sequence[tuple[str, Lease]]) -> bool:
        """Whether its files say what they should."""
        try:
            return all((self.directory / name).read_text() == text for name, text in _files(spec, members).items())
        except OSError:
            return False

    async def ensure(self, mark: str, spec: NetworkSpec, book: Book, members: Sequence[tuple[str, Lease]]) -> None:
        """Let it run with these members; a running one reads them without an end. Raises OperationFailed."""
        if not (spec.dns or spec.dhcp):
            await self.stop()
            return
        fresh = self._write(mark, spec, members)
        argv = self.argv(spec, book)
        process = self.runs(argv)
        if process is None or not process.signal(signal.SIGHUP):
            await self._start(argv, book)
        if spec.dns and fresh:
            await self._answers(book.gateway, fresh[-1])

    async def _start(self, argv: Sequence[str], book: Book) -> None:
        await self._end()
        try:
            # It returns when it serves. The daemon closes what it inherits: until then it holds the lock with us.
            await run([which("dnsmasq"), *argv[1:]], timeout=20, cwd="/", pass_fds=lock.held())
        except CommandFailed as fault:
            hint = f"ss -lnup 'sport = :53 or sport = :67' # who else serves on {book.gateway}"
            raise OperationFailed(
                f"dnsmasq does not start on {self.bridge}", hint=hint, details=fault.details
            ) from fault

    async def _answers(self, server: str, lease: Lease) -> None:
        """Wait until it has read a member's name: it turns to a signal only after what came before."""
        deadline = time.monotonic() + ANSWER_S
        while not await _resolves(server, lease.names[0], lease.address):
            if time.monotonic() > deadline:
                hint = f"dig @{server} {lease.names[0]}"
                raise OperationFailed(f"dnsmasq on {self.bridge} does not answer for {lease.names[0]}", hint=hint)

    def _write(self, mark: str, spec: NetworkSpec, members: Sequence[tuple[str, Lease]]) -> list[Lease]:
        """Bring its files about; returns the members that were not in them."""
        _, _, gid = account()
        known: set[str] = set()
        with contextlib.suppress(OSError):
            known = set((self.directory / HOSTS).read_text().splitlines(keepends=True))
        self.directory.mkdir(mode=0o700, exist_ok=True)
        os.chown(self.directory, -1, gid)
        self.directory.chmod(0o750)
        for name, text in {MARK: mark, **_files(spec, members)}.items():
            path = self.directory / name
            with contextlib.suppress(OSError):
                if path.read_text() == text:
                    continue
            write_atomic(path, text.encode(), mode=0o644)
        return [lease for _, lease in members if hosts([lease], spec.domain.lower()) not in known]

    async def _end(self) -> None:
        """End every process that has our command line, also one whose pid file was never written."""
        for process in self._all():
            await process.end(grace_s=2.0)

    async def stop(self) -> None:
        """End it and remove its files. Absent is success."""
        await self._end()
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.directory)

    def handed(self) -> tuple[Handed, ...]:
        """The leases that members asked for and got."""
        try:
            with (self.directory / LEASES).open(errors="replace") as file:
                return parse_leases(file.read(MOST_LEASES_BYTES))
        except OSError:
            return ()

    def _pid_option(self) -> str:
        return f"--pid-file={self.directory / PID}"

    def _all(self) -> Iterator[ProcessId]:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and self._pid_option() in command_line(int(entry.name)):
                process = ProcessId.of(int(entry.name))
                if process is not None:
                    yield process


def _files(spec: NetworkSpec, members: Sequence[tuple[str, Lease]]) -> dict[str, str]:
    return {HOSTS: hosts([lease for _, lease in members], spec.domain.lower()), RESERVATIONS: reservations(members)}


async def _resolves(server: str, name: str, address: str) -> bool:
    """Whether the name server gives this address for a name, asked once (RFC 1035 4.1)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = struct.pack(">6H", 1, RECURSION_DESIRED, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asking:
        try:
            async with asyncio.timeout(ASK_S):
                await loop.sock_connect(asking, (server, 53))
                await loop.sock_sendall(asking, question)
                answer = await loop.sock_recv(asking, 4096)
        except (OSError, TimeoutError):
            await asyncio.sleep(ASK_S / 10)
            return False
    if ipaddress.ip_address(address).packed in answer[len(question) :]:
        return True
    await asyncio.sleep(ASK_S / 50)
    return False


def command_line(pid: int) -> list[str]:
    """The arguments of a process, [] if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").rstrip("\0").split("\0")
    except OSError:
        return []


def account() -> tuple[str, str, int]:
    """The user, group and gid that it runs as: its own, where Debian made one, or nobody."""
    for name in ("dnsmasq", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return name, grp.getgrgid(entry.pw_gid).gr_name, entry.pw_gid
    raise OperationFailed("there is neither a user dnsmasq nor a user nobody to run dnsmasq as")


def marks() -> Iterator[tuple[str, str]]:
    """(bridge, mark) of each directory there is, whatever workspace it is of."""
    with contextlib.suppress(OSError):
        for directory in ROOT.iterdir():
            with contextlib.suppress(OSError):
                yield directory.name, (directory / MARK).read_text()[:256]
