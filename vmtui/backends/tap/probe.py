"""Whether this host can do it: a network is made for real, in a network namespace of its own that goes with it."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import fcntl
import ipaddress
import json
import os
import subprocess
import threading
from collections.abc import Callable

from vmtui.backends.tap import dnsmasq, firewall, sysctl
from vmtui.backends.tap.firewall import Listing, Policy, Published
from vmtui.backends.tap.links import IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, IFREQ, TUN, TUNSETIFF
from vmtui.backends.tap.observe import NAME
from vmtui.core.backend import Probe
from vmtui.core.errors import Fault
from vmtui.core.resource import Kind, Problem
from vmtui.core.units import Publish
from vmtui.host import trace
from vmtui.host.netns import CLONE_NEWNET
from vmtui.host.process import run, tail, which
from vmtui.host.rtnetlink import (
    IFLA_IFNAME,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    LINK,
    NLM_F_CREATE,
    RTM_NEWLINK,
    Rtnetlink,
    attribute,
)

TIMEOUT_S = 10
IN_TRIAL = ("unshare", "--net")
_libc = ctypes.CDLL(None, use_errno=True)


async def probe() -> Probe:
    """Never raises."""
    problems: list[Problem] = []
    facts: list[tuple[str, str]] = []
    for tool in ("nft", "dnsmasq"):
        try:
            shown = await run([which(tool), "--version"], timeout=TIMEOUT_S, reads=True)
            facts.append((tool, _version(shown.stdout)))
        except Fault as fault:
            problems.append(Problem(code=f"no-{tool}", message=str(fault), hint=fault.hint))
    try:
        facts.append(("dnsmasq_user", dnsmasq.account()[0]))
    except Fault as fault:
        problems.append(Problem(code="no-user", message=str(fault), hint="adduser --system dnsmasq"))
    if not firewall.permitted():
        message = "no right to change the network (CAP_NET_ADMIN, and root for /run)"
        problems.append(Problem(code="no-privilege", message=message, hint="sudo vmtui doctor"))
    elif not problems:
        problems += await asyncio.to_thread(_try_all)
    usable = not problems
    if usable:
        problems += await _other_firewalls()
    facts.append(("ip_forward", "on" if sysctl.forwards() else "off, turned on while a network is up"))
    summary = "bridges, TAPs, NAT and names work" if usable else problems[0].message
    return Probe(
        backend=NAME, kind=Kind.NETWORK, usable=usable, summary=summary, problems=tuple(problems), facts=tuple(facts)
    )


def _version(output: bytes) -> str:
    words = tail(output).splitlines()[0].split() if output else []
    return next((word.lstrip("v") for word in words if word.lstrip("v")[:1].isdigit()), "unknown")


def _try_all() -> list[Problem]:
    """In a thread that leaves for a network namespace of its own and ends there."""
    found: list[Problem] = []

    def trial() -> None:
        if _libc.unshare(CLONE_NEWNET) != 0:
            message = f"no network namespace to try in: {os.strerror(ctypes.get_errno())}"
            found.append(Problem(code="no-namespace", message=message, hint="zgrep CONFIG_NET_NS /proc/config.gz"))
            return
        for code, what, hint, attempt in _TRIALS:
            try:
                attempt()
            except (OSError, subprocess.SubprocessError) as error:
                said = tail(error.stderr) if isinstance(error, subprocess.CalledProcessError) else str(error)
                found.append(Problem(code=code, message=f"{what} fails: {said}", hint=hint))

    thread = threading.Thread(target=contextvars.copy_context().run, args=(trial,))
    thread.start()
    thread.join()
    return found


def _make_link(kind: str) -> None:
    info = attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, kind))
    with Rtnetlink(IN_TRIAL) as kernel:
        words = ("link", "add", "name", f"try-{kind}", "type", kind)
        name = attribute(IFLA_IFNAME, f"try-{kind}")
        kernel.request(RTM_NEWLINK, LINK.pack(0, 0, 0, 0, 0), name, info, flags=NLM_F_CREATE, words=words)


def _make_tap() -> None:
    fd = os.open(TUN, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, TUNSETIFF, IFREQ.pack(b"try-tap", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    finally:
        os.close(fd)


def _make_rules() -> None:
    subnet = ipaddress.IPv4Network("192.0.2.0/24")  # RFC 5737
    published = (Published(Publish(80, 80), "192.0.2.2", "probe"),)
    policy = Policy(
        "try-bridge", "probe", subnet, "192.0.2.1", internal=False, dns=True, dhcp=True, published=published
    )
    told = json.dumps({"nftables": firewall.commands(policy, Listing.empty())}).encode()
    argv = [which("nft"), "-j", "-f", "-"]
    with trace.begin(trace.Way.COMMAND, argv, stdin=told, show_stdin=True):
        subprocess.run(argv, input=told, capture_output=True, check=True, timeout=TIMEOUT_S)


_TRIALS: tuple[tuple[str, str, str, Callable[[], None]], ...] = (
    ("no-bridge", "making a bridge", "modprobe bridge", lambda: _make_link("bridge")),
    ("no-veth", "making a veth pair", "modprobe veth", lambda: _make_link("veth")),
    ("no-tap", "making a TAP", "modprobe tun", _make_tap),
    ("no-nat", "loading the rules with nft", "modprobe -a nf_tables nft_masq nft_nat nft_fib_inet", _make_rules),
)


async def _other_firewalls() -> list[Problem]:
    """Chains of others that drop what they do not know: our accept does not outweigh them."""
    try:
        listed = await run(["nft", "-j", "list", "chains"], timeout=TIMEOUT_S, reads=True)
    except Fault:
        return []
    found = []
    for item in json.loads(listed.stdout).get("nftables", ()):
        chain = item.get("chain", {})
        if chain.get("hook") in ("forward", "input") and chain.get("policy") == "drop":
            where = f"{chain.get('family')} {chain.get('table')} {chain.get('name')}"
            message = f"nft chain {where} drops by default; members need it to let vmb* pass"
            hint = f"nft insert rule {where} iifname 'vmb*' accept"
            found.append(Problem(code="other-firewall", message=message, hint=hint))
    return found
