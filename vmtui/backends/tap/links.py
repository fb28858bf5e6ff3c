"""The one file that makes and removes interfaces, by pyroute2's AsyncIPRoute; its untyped requests end here.

Importing pyroute2 takes longer than `vmtui ls` may, so it is imported where something is changed.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import ipaddress
import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from vmtui.backends.tap import kernel
from vmtui.backends.tap.kernel import Link
from vmtui.core.errors import Conflict, OperationFailed
from vmtui.host import trace

TUN = "/dev/net/tun"
# include/uapi/linux/if_tun.h
TUNSETIFF = 0x400454CA
TUNSETPERSIST = 0x400454CB
TUNSETOWNER = 0x400454CC
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
IFREQ = struct.Struct("16sH22x")  # ifreq(7): name, flags


class Links:
    """An open session with the kernel; see `session`."""

    def __init__(self, route: Any) -> None:
        self._route = route

    async def bridge(self, name: str, mark: str, mac: str, mtu: int, address: ipaddress.IPv4Interface) -> None:
        """Make the bridge or mend it. Raises Conflict if the name is taken, OperationFailed."""
        link = self._ours(name, mark, mac)
        if link is None:
            words = ("address", mac, "type", "bridge")
            await self._do("add", name, words, ifname=name, kind="bridge", address=mac)
            link = self._made(name)
        await self._set(link, mark=mark, mtu=mtu)
        held = kernel.addresses().get(link.index, ())
        if address not in held:
            await self._call(
                f"set {address} on {name}",
                ("address", "add", address, "broadcast", "+", "dev", name),
                lambda: self._route.addr(
                    "add",
                    index=link.index,
                    address=str(address.ip),
                    prefixlen=address.network.prefixlen,
                    broadcast=str(address.network.broadcast_address),
                ),
            )

    async def tap(self, name: str, mark: str, mac: str, mtu: int) -> None:
        """Make the TAP or mend it. Raises Conflict if the name is taken, OperationFailed."""
        link = self._ours(name, mark, mac)
        if link is not None:
            await self._set(link, mark=mark, mtu=mtu)
            return
        fd = -1
        try:
            # Until it is persistent it goes with the fd, so that there is never a persistent one without our mark.
            fd = os.open(TUN, os.O_RDWR | os.O_CLOEXEC)
            words = ("ip", "tuntap", "add", "dev", name, "mode", "tap", "user", os.geteuid(), "vnet_hdr")
            with trace.begin(trace.Way.IOCTL, words):
                fcntl.ioctl(fd, TUNSETIFF, IFREQ.pack(name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
            await self._do("set", name, ("address", mac), index=self._made(name).index, address=mac)
            await self._set(self._made(name), mark=mark, mtu=mtu)
            fcntl.ioctl(fd, TUNSETOWNER, os.geteuid())
            fcntl.ioctl(fd, TUNSETPERSIST, 1)
        except OSError as error:
            raise OperationFailed(f"cannot make TAP {name}: {error.strerror}", hint="modprobe tun") from error
        finally:
            if fd >= 0:
                os.close(fd)

    async def veth(self, name: str, mark: str, mac: str, mtu: int, *, peer: str, peer_mac: str) -> None:
        """Make the pair or mend our end. Raises Conflict if a name is taken, OperationFailed."""
        link = self._ours(name, mark, mac)
        if link is None:
            if kernel.find(peer):
                raise taken(peer)
            end = {"ifname": peer, "address": peer_mac, "mtu": mtu}
            words = ("address", mac, "type", "veth", "peer", "name", peer, "address", peer_mac, "mtu", mtu)
            await self._do("add", name, words, ifname=name, kind="veth", address=mac, peer=end)
            link = self._made(name)
        await self._set(link, mark=mark, mtu=mtu)

    async def enslave(self, link: Link, bridge: Link, *, hairpin: bool) -> None:
        """Make it a port of the bridge. With `hairpin` frames may go back to where they came from: so a member
        reaches a port that it publishes itself, where br_netfilter translates before the bridge decides.
        """
        if link.master != bridge.index:
            await self._do("set", link.name, ("master", bridge.name), index=link.index, master=bridge.index)
        if hairpin:
            what = f"set interface {link.name} to hairpin mode"
            words = ("link", "set", "dev", link.name, "type", "bridge_slave", "hairpin", "on")
            await self._call(what, words, lambda: self._route.brport("set", index=link.index, mode=1))

    async def remove(self, names: Iterable[str]) -> None:
        """Absent is success. Raises OperationFailed."""
        for link in kernel.find(*names).values():
            await self._do("del", link.name, (), index=link.index)

    def _ours(self, name: str, mark: str, mac: str) -> Link | None:
        link = kernel.find(name).get(name)
        if link is not None and not link.carries(mark, mac):
            raise taken(name)
        return link

    def _made(self, name: str) -> Link:
        link = kernel.find(name).get(name)
        if link is None:
            raise OperationFailed(f"interface {name} vanished while it was made")
        return link

    async def _set(self, link: Link, *, mark: str, mtu: int) -> None:
        """Mark it first, then only what differs."""
        if link.alias != mark:
            await self._do("set", link.name, ("alias", mark), index=link.index, ifalias=mark)
        changes: dict[str, object] = {}
        if link.mtu != mtu:
            changes["mtu"] = mtu
        if not link.up:
            changes["state"] = "up"
        if changes:
            words = [*(("mtu", mtu) if "mtu" in changes else ()), *(("up",) if "state" in changes else ())]
            await self._do("set", link.name, words, index=link.index, **changes)

    async def _do(self, verb: str, name: str, words: Sequence[object], **request: object) -> None:
        """`words` is what `ip link VERB NAME` would need besides, for the trace."""
        words = ("link", verb, "dev" if verb != "add" else "name", name, *words)
        await self._call(f"{verb} interface {name}", words, lambda: self._route.link(verb, **request))

    async def _call(self, what: str, words: Sequence[object], call: Callable[[], Awaitable[object]]) -> None:
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            with trace.begin(trace.Way.NETLINK, ("ip", *words)):
                async with asyncio.timeout(20):
                    await call()
        except NetlinkError as error:
            if what.startswith("del ") and error.code == errno.ENODEV:
                return  # the end of a container took its veth along
            raise OperationFailed(f"the kernel refuses to {what}: {error}", hint="vmtui doctor") from error
        except TimeoutError:
            raise OperationFailed(f"the kernel did not {what} in time") from None


def taken(name: str) -> Conflict:
    return Conflict(f"interface {name} exists and is not ours", hint=f"ip link show {name}")


@asynccontextmanager
async def session() -> AsyncIterator[Links]:
    from pyroute2 import AsyncIPRoute

    async with AsyncIPRoute() as route:
        yield Links(route)
