"""Network namespaces of other processes: plugging a veth into one."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import ipaddress
import os
import socket
import struct
import threading

from vmtui.host.faults import Fault
from vmtui.host.rtnetlink import (
    ADDRESS,
    IFA_LOCAL,
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_MTU,
    LINK,
    NLM_F_CREATE,
    NLM_F_REPLACE,
    ROUTE,
    RTM_GETLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    Rtnetlink,
    attribute,
)

CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
# include/uapi/linux/if_link.h
IFLA_NET_NS_FD = 28
# include/uapi/linux/if_addr.h
IFA_ADDRESS = 1
IFA_BROADCAST = 4
IFA_F_NODAD = 0x02
# include/uapi/linux/rtnetlink.h
RTA_OIF = 4
RTA_GATEWAY = 5
RT_TABLE_MAIN = 254
RTPROT_STATIC = 4
RT_SCOPE_UNIVERSE = 0
RTN_UNICAST = 1

_libc = ctypes.CDLL(None, use_errno=True)


def socket_inside(namespace: int, pid: int) -> Rtnetlink:
    """A socket of the network namespace of `pid`, which the fd `namespace` is open on. Raises OSError.

    A socket stays in the namespace in which it was made. The thread that enters it makes that one call and ends, so
    that no thread of ours goes on in a foreign namespace.
    """
    made: list[Rtnetlink] = []
    errors: list[OSError] = []

    def enter() -> None:
        try:
            if _libc.setns(namespace, CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            made.append(Rtnetlink(("nsenter", "-t", pid, "-n")))
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return made[0]


async def plug_veth(
    pid: int,
    peer: str,
    *,
    name: str = "eth0",
    address: str,
    prefix: int,
    gateway: str,
    mac: str = "",
    mtu: int = 1500,
) -> None:
    """Move the interface `peer` into the network namespace of `pid` as `name`, with its address, up, and lo up.

    With a `gateway` it becomes the default route. Idempotent: an interface that is there already is set up again.
    Raises Fault; an interface that was moved then stays there, and goes with the namespace.
    """
    await asyncio.to_thread(_plug, pid, peer, name, address, prefix, gateway, mac, mtu)


def _plug(pid: int, peer: str, name: str, address: str, prefix: int, gateway: str, mac: str, mtu: int) -> None:
    try:
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Fault(f"process {pid} has no network namespace to plug {peer} into: {error.strerror}") from None
    try:
        if os.path.samestat(os.fstat(namespace), os.stat("/proc/thread-self/ns/net")):
            raise Fault(f"process {pid} is in the host's network namespace; {peer} is not moved")
        with Rtnetlink() as host, socket_inside(namespace, pid) as inside:
            _move(host, namespace, pid, peer, name)
            _configure(inside, name, address, prefix, gateway, mac, mtu)
    except OSError as error:
        raise Fault(f"cannot plug {peer} into process {pid} as {name}: {error.strerror}") from error
    finally:
        os.close(namespace)


def _move(host: Rtnetlink, namespace: int, pid: int, peer: str, name: str) -> None:
    """One message moves and renames. Not there: it was moved before, and `_configure` finds it, or not."""
    attributes = (attribute(IFLA_NET_NS_FD, namespace), attribute(IFLA_IFNAME, name))
    try:
        index = index_of(host, peer)
        words = ("link", "set", "dev", peer, "netns", pid, "name", name)
        host.request(RTM_NEWLINK, LINK.pack(0, 0, index, 0, 0), *attributes, words=words)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def index_of(inside: Rtnetlink, name: str) -> int:
    """Raises OSError (ENODEV)."""
    answers = inside.ask(RTM_GETLINK, LINK.pack(0, 0, 0, 0, 0), attribute(IFLA_IFNAME, name))
    index: int = LINK.unpack(answers[0].body)[2]
    return index


def _configure(inside: Rtnetlink, name: str, address: str, prefix: int, gateway: str, mac: str, mtu: int) -> None:
    link = index_of(inside, name)
    attributes = [attribute(IFLA_MTU, mtu)]
    if mac:
        attributes.append(attribute(IFLA_ADDRESS, bytes.fromhex(mac.replace(":", ""))))
    words = ("link", "set", "dev", name, "mtu", mtu, *(("address", mac) if mac else ()))
    inside.request(RTM_NEWLINK, LINK.pack(0, 0, link, 0, 0), *attributes, words=words)
    for each, dev in ((index_of(inside, "lo"), "lo"), (link, name)):
        inside.request(RTM_NEWLINK, LINK.pack(0, 0, each, IFF_UP, IFF_UP), words=("link", "set", "dev", dev, "up"))
    interface = ipaddress.ip_interface(f"{address}/{prefix}")
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    addresses = [attribute(IFA_LOCAL, interface.ip.packed), attribute(IFA_ADDRESS, interface.ip.packed)]
    if interface.version == 4:
        addresses.append(attribute(IFA_BROADCAST, interface.network.broadcast_address.packed))
    flags = NLM_F_CREATE | NLM_F_REPLACE
    body = ADDRESS.pack(family, prefix, IFA_F_NODAD, RT_SCOPE_UNIVERSE, link)
    words = ("address", "replace", interface, *(("broadcast", "+") if interface.version == 4 else ()), "dev", name)
    inside.request(RTM_NEWADDR, body, *addresses, flags=flags, words=words)
    if gateway:
        route = ROUTE.pack(family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0)
        to = attribute(RTA_GATEWAY, ipaddress.ip_address(gateway).packed)
        words = ("route", "replace", "default", "via", gateway, "dev", name, "proto", "static")
        inside.request(RTM_NEWROUTE, route, to, attribute(RTA_OIF, struct.pack("=I", link)), flags=flags, words=words)
