"""Ports of guests, reached by name: `ssh -J HOST web`, `ssh -W web:22 HOST`, `ssh -L 8080:web:80 HOST`.

A client names a resource and a port, never an address. The connection is made to what that resource really has: through
the bridge that its own interface is on, or to a port that its own process listens at. What the workspace merely says
of addresses would lead anywhere, since who may create resources writes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import asyncssh

from vmtui.core.errors import Denied, Fault, NotFound, NotPermitted
from vmtui.core.lifecycle import UP
from vmtui.core.policy import Verb
from vmtui.core.resource import Kind, Ref, Status
from vmtui.engine.authority import Authority
from vmtui.engine.endpoints import reach
from vmtui.engine.workspace import Workspace
from vmtui.host import sockets
from vmtui.host.paths import Paths
from vmtui.ssh.gate import Grant
from vmtui.ssh.journal import CONNECT, Journal, plain
from vmtui.ssh.relay import Relay

if TYPE_CHECKING:
    from vmtui.ssh.visitor import Visitor

CONNECT_S = 10.0
MOST_OF_ONE_CONNECTION = 64
LONGEST_NAME = 200
SO_BINDTODEVICE = 25  # asm-generic/socket.h
NET = Path("/sys/class/net")


class Forwarding:
    """Opens what is asked for, for who may."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def open(self, visitor: Visitor, grant: Grant, host: str, port: int) -> asyncssh.SSHTCPSession[bytes]:
        """A session that is connected. Raises asyncssh.ChannelOpenError, with what a person is to read."""
        wanted = plain(f"{host[:LONGEST_NAME]}:{port}")
        refs: tuple[str, ...] = ()

        def note(verb: str, of: tuple[Ref, ...], result: str, message: str) -> None:
            nonlocal refs
            refs = tuple(map(str, of)) or refs
            if result != "denied":  # that is noted below, with what was asked for
                self._journal.note(grant.person, "", verb, refs, result, message)

        visitor.forwards += 1
        try:
            with contextlib.ExitStack() as stack:
                self._permitted(visitor, grant, host, port)
                authority = Authority(person=grant.person, role=grant.role, note=note)
                ref, place, sock = await _connected(authority, host, port)
                stack.callback(sock.close)
                refs = (str(ref),)
                self._journal.note(grant.person, "", CONNECT, refs, "done", f"port {port}, at {place}")
                if visitor.connection is None:
                    raise NotPermitted("the client is gone meanwhile")
                stack.pop_all()
        except Fault as fault:
            visitor.forwards -= 1
            result = "denied" if isinstance(fault, Denied) else "failed"
            self._journal.refused(grant.person, f"{wanted}: {fault}", verb=CONNECT, result=result, refs=refs)
            raise _as_refusal(fault) from None
        except BaseException:
            visitor.forwards -= 1
            raise
        began = time.monotonic()

        def over(sent: int, received: int) -> None:
            visitor.forwards -= 1
            seconds = time.monotonic() - began
            message = f"port {port}: {sent} bytes to it, {received} bytes from it, {seconds:.1f} s"
            self._journal.try_note(grant.person, "", CONNECT, refs, "closed", message)

        return Relay(visitor, sock, over)

    def _permitted(self, visitor: Visitor, grant: Grant, host: str, port: int) -> None:
        if not grant.forwarding:
            raise Denied(f"the key of {grant.person.name} may not forward ports", hint="ssh HOST whoami")
        if grant.opens and not any(_opens(pattern, host, port) for pattern in grant.opens):
            raise Denied(f"the key of {grant.person.name} may not connect there", hint="ssh HOST whoami")
        if grant.role.user is not None:
            raise NotPermitted(f"the role {grant.role.name} has a workspace of its own, whose ports are not forwarded")
        if not 0 < port < 65536:
            raise NotPermitted(f"{port} is no port")
        if visitor.forwards > MOST_OF_ONE_CONNECTION:
            raise NotPermitted(f"{MOST_OF_ONE_CONNECTION} ports are forwarded on this connection already")


def _opens(pattern: str, host: str, port: int) -> bool:
    name, _, number = pattern.rpartition(":")
    return name == host and number in ("*", str(port))


def _as_refusal(fault: Fault) -> asyncssh.ChannelOpenError:
    text = plain(f"{fault}" + (f" ({fault.hint})" if fault.hint else ""))
    code = asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED if isinstance(fault, Denied) else asyncssh.OPEN_CONNECT_FAILED
    return asyncssh.ChannelOpenError(code, text)


async def _connected(authority: Authority, host: str, port: int) -> tuple[Ref, str, socket.socket]:
    """The resource, where it is, and a connection to it. Raises Fault."""
    async with await Workspace.open(Paths.from_environment(), authority=authority) as workspace:
        ref = _resolved(workspace, host)
        workspace.require(Verb.CONNECT, ref, to=f"connect to {ref}")
        desired = workspace.applied(ref)
        status = await workspace.inspect(ref)
    if desired is None or status.phase not in UP:
        raise NotPermitted(f"{ref} is {status.phase}", hint=f"ssh HOST start {ref}")
    found = reach(desired.spec, status, port)
    if found is None:
        raise NotPermitted(f"{ref} has no address, and does not publish port {port}", hint=f"ssh HOST inspect {ref}")
    bound = _way(status, *found)
    if bound is None:
        raise NotPermitted(f"nothing of {ref} is at port {port}", hint=f"ssh HOST inspect {ref}")
    address = ":".join(map(str, found))
    return ref, address, await _connect(ref, port, found, bound)


def _resolved(workspace: Workspace, host: str) -> Ref:
    """NAME, KIND/NAME, PROFILE/KIND/NAME, or as names of hosts have it: NAME.PROFILE, NAME.KIND.PROFILE."""
    if len(host) > LONGEST_NAME:
        raise NotFound("there is no resource of such a long name", hint="ssh HOST ls")
    parts = host.split(".")
    if len(parts) == 3:
        return workspace.resolve("/".join(reversed(parts)), ())
    if len(parts) == 2:
        name, profile = parts
        found = []
        for kind in Kind:
            with contextlib.suppress(NotFound):
                found.append(workspace.resolve(f"{profile}/{kind}/{name}", ()))
        if len(found) > 1:
            both = ", ".join(f"{name}.{ref.kind}.{profile}" for ref in found)
            raise NotFound(f"{host!r} can mean {both}", hint="write the full name")
        if not found:
            raise NotFound(f"there is no resource {host!r}", hint="ssh HOST ls")
        return found[0]
    return workspace.resolve(host, ())


def _way(status: Status, address: str, port: int) -> str | None:
    """The interface that it is reached through, "" for a port of this host; None if that is not the resource's own."""
    own = next((one for one in status.addresses if one.address == address), None)
    if own is None:
        return "" if status.pid is not None and sockets.listens(status.pid, port) else None
    try:
        return os.readlink(NET / own.interface / "master").rpartition("/")[2] if own.interface else None
    except OSError:
        return None


async def _connect(ref: Ref, port: int, to: tuple[str, int], interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if interface:
            sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, interface.encode())
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(CONNECT_S):
            await asyncio.get_running_loop().sock_connect(sock, to)
    except (OSError, TimeoutError) as error:
        sock.close()
        why = "nothing answers" if isinstance(error, TimeoutError) else os.strerror(error.errno or errno.EIO).lower()
        raise NotPermitted(f"{ref} port {port}: {why}", hint=f"ssh HOST logs {ref}") from None
    except BaseException:
        sock.close()
        raise
    return sock
