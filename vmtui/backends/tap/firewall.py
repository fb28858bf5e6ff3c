"""The one file that drives nft(8): what may pass, what is translated.

One table for all workspaces. Each network has base chains of its own in it, so that networks never share a rule, and
one is made, mended and removed in one transaction without a look at the others. A drop in any chain of a hook is
final, which is what isolates networks from each other. Rules carry as comment their owner's mark and a digest of what
they say; comparing these with what should be there finds every rule that is lost, stale or out of order.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmtui.backends.tap import lock
from vmtui.core.errors import CommandFailed, OperationFailed
from vmtui.core.units import Publish
from vmtui.host.process import run

CAP_NET_ADMIN = 12  # include/uapi/linux/capability.h
FAMILY, TABLE = "inet", "vmtui"
# An empty chain that says that net.ipv4.ip_forward was 0 before us: it lives as long as the need for it.
FORWARDING_WAS_OFF = "ip_forward_was_off"
# include/uapi/linux/netfilter_ipv4.h: raw is before connection tracking, dstnat before routing, srcnat after it
HOOKS: Mapping[str, tuple[str, str, int]] = {
    "guard": ("filter", "prerouting", -300),
    "prerouting": ("nat", "prerouting", -100),
    "output": ("nat", "output", -100),
    "input": ("filter", "input", 0),
    "forward": ("filter", "forward", 0),
    "postrouting": ("nat", "postrouting", 100),
}
DHCP_CLIENT, DHCP_SERVER, DNS = 68, 67, 53  # RFC 2131 4.1, RFC 1035 4.2

Expression = dict[str, Any]  # nft's own JSON (libnftables-json(5)): built here, and gone from here as text


@dataclass(frozen=True, slots=True)
class Published:
    """A port of the host that leads to a member. `mark` is the member's."""

    publish: Publish
    address: str
    mark: str


@dataclass(frozen=True, slots=True)
class Policy:
    """All that the rules of one network depend on."""

    bridge: str
    mark: str
    subnet: ipaddress.IPv4Network
    gateway: str
    internal: bool
    dns: bool
    dhcp: bool
    published: tuple[Published, ...] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """What the kernel has of the table: the comments of each chain in order, and where each published port leads."""

    exists: bool
    chains: Mapping[str, tuple[str, ...]]
    published: tuple[tuple[str, str, Publish], ...]  # the bridge, the member's mark, the port

    @classmethod
    def empty(cls) -> Listing:
        return cls(exists=False, chains={}, published=())

    @property
    def forwarding_was_off(self) -> bool:
        return FORWARDING_WAS_OFF in self.chains

    @property
    def bridges(self) -> frozenset[str]:
        """The networks that have chains, of all workspaces."""
        return frozenset(filter(None, map(_bridge_of, self.chains)))

    def marks(self) -> frozenset[str]:
        """The marks that rules carry."""
        return frozenset(comment.rpartition("#")[0] for rules in self.chains.values() for comment in rules)


def _match(left: Expression, right: Any, op: str = "==") -> Expression:
    return {"match": {"op": op, "left": left, "right": right}}


def _meta(key: str, value: Any, op: str = "==") -> Expression:
    return _match({"meta": {"key": key}}, value, op)


def _field(protocol: str, field: str, value: Any, op: str = "==") -> Expression:
    return _match({"payload": {"protocol": protocol, "field": field}}, value, op)


def _prefix(network: ipaddress.IPv4Network) -> Expression:
    return {"prefix": {"addr": str(network.network_address), "len": network.prefixlen}}


LOOPBACK = _prefix(ipaddress.IPv4Network("127.0.0.0/8"))
IPV4 = _meta("nfproto", "ipv4")
ANSWERS = _match({"ct": {"key": "state"}}, ["established", "related"], "in")
PUBLISHED = _match({"ct": {"key": "status"}}, "dnat", "in")
TO_THIS_HOST = _match({"fib": {"result": "type", "flags": ["daddr"]}}, "local")
ACCEPT: Expression = {"accept": None}
DROP: Expression = {"drop": None}
MASQUERADE: Expression = {"masquerade": None}


def _chains(policy: Policy) -> dict[str, list[tuple[str, list[Expression]]]]:
    """The rules of each hook in order: the mark of its owner, and what it says."""
    subnet = _prefix(policy.subnet)
    enters, leaves = _meta("iifname", policy.bridge), _meta("oifname", policy.bridge)
    guard = [
        # route_localnet lets 127.0.0.1 leave through the bridge, so nobody may send to it from there.
        [enters, _field("ip", "daddr", LOOPBACK), DROP],
        [enters, _field("ip", "saddr", subnet, "!="), _field("ip", "saddr", "0.0.0.0", "!="), DROP],
    ]
    into_host = [[enters, ANSWERS, ACCEPT]]
    if policy.dhcp:
        into_host.append([enters, _field("udp", "sport", DHCP_CLIENT), _field("udp", "dport", DHCP_SERVER), ACCEPT])
    if policy.dns:
        to_gateway = _field("ip", "daddr", policy.gateway)
        into_host += [[enters, to_gateway, _field(protocol, "dport", DNS), ACCEPT] for protocol in ("udp", "tcp")]
    into_host += [[enters, _field("icmp", "type", "echo-request"), ACCEPT], [enters, DROP]]
    forward = [[enters, leaves, ACCEPT]]  # bridged frames come by here where br_netfilter is loaded
    if policy.internal:
        forward += [[enters, DROP], [leaves, DROP]]
    else:
        forward += [[leaves, ANSWERS, ACCEPT], [leaves, PUBLISHED, ACCEPT], [leaves, DROP]]
    postrouting = [
        [leaves, _field("ip", "saddr", LOOPBACK), MASQUERADE],  # the host to 127.0.0.1:PORT
        [leaves, _field("ip", "saddr", subnet), PUBLISHED, MASQUERADE],  # a member to a published port of a neighbour
    ]
    if not policy.internal:
        postrouting.append([_meta("oifname", policy.bridge, "!="), _field("ip", "saddr", subnet), MASQUERADE])
    marked = {"guard": guard, "input": into_host, "forward": forward, "postrouting": postrouting}
    chains = {hook: [(policy.mark, rule) for rule in rules] for hook, rules in marked.items()}
    chains["prerouting"] = [] if policy.internal else [_dnat(each) for each in _outside(policy)]
    chains["output"] = [_dnat(each) for each in policy.published]
    return chains


def _outside(policy: Policy) -> list[Published]:
    """What is published to others than this host."""
    return [each for each in policy.published if not ipaddress.ip_address(each.publish.host_address).is_loopback]


def _dnat(published: Published) -> tuple[str, list[Expression]]:
    publish = published.publish
    host_address = ipaddress.ip_address(publish.host_address)
    where = [IPV4, TO_THIS_HOST] if host_address.is_unspecified else [_field("ip", "daddr", str(host_address))]
    port = _field(publish.protocol, "dport", publish.host_port)
    target = {"dnat": {"family": "ip", "addr": published.address, "port": publish.guest_port}}
    return published.mark, [*where, port, target]


def _rendered(policy: Policy) -> dict[str, list[tuple[str, list[Expression]]]]:
    """Chain names to (comment, rule)."""
    return {
        f"{policy.bridge}_{hook}": [(f"{mark}#{_digest(rule)}", rule) for mark, rule in rules]
        for hook, rules in _chains(policy).items()
    }


def _digest(rule: list[Expression]) -> str:
    return hashlib.sha256(json.dumps(rule, sort_keys=True).encode()).hexdigest()[:8]


def intact(policy: Policy, listing: Listing) -> bool:
    """Whether the kernel has exactly the rules of this policy."""
    wanted = {name: tuple(comment for comment, _ in rules) for name, rules in _rendered(policy).items()}
    return wanted == {name: rules for name, rules in listing.chains.items() if _bridge_of(name) == policy.bridge}


def _bridge_of(chain: str) -> str:
    """The network that a chain is of, "" for none."""
    return chain.partition("_")[0] if chain != FORWARDING_WAS_OFF else ""


def commands(policy: Policy, listing: Listing) -> list[Expression]:
    """One transaction that makes the rules be exactly those of `policy`, where there are those of `listing`.

    A chain that lacks only its last rules gets these; emptying one makes the kernel wait for its readers.
    """
    told: list[Expression] = [{"add": {"table": {"family": FAMILY, "name": TABLE}}}]
    rendered = _rendered(policy)
    for hook, (kind, at, priority) in HOOKS.items():
        name = f"{policy.bridge}_{hook}"
        chain = {"family": FAMILY, "table": TABLE, "name": name}
        wanted, there = rendered[name], listing.chains.get(name, ())
        if name not in listing.chains:
            told.append({"add": {"chain": {**chain, "type": kind, "hook": at, "prio": priority, "policy": "accept"}}})
        elif there != tuple(comment for comment, _ in wanted[: len(there)]):
            told.append({"flush": {"chain": chain}})
            there = ()
        for comment, rule in wanted[len(there) :]:
            place = {"family": FAMILY, "table": TABLE, "chain": name}
            told.append({"add": {"rule": {**place, "comment": comment, "expr": rule}}})
    return told


async def apply(policy: Policy, listing: Listing, *, forwarding_was_off: bool = False) -> None:
    """Put the rules in place, and, with `forwarding_was_off`, remember that. Raises OperationFailed."""
    told = commands(policy, listing)
    if forwarding_was_off:
        told.append({"add": {"chain": {"family": FAMILY, "table": TABLE, "name": FORWARDING_WAS_OFF}}})
    await _transact(told, policy.bridge)


async def remove(bridge: str, listing: Listing) -> None:
    """Remove the chains of one network, all of them there are. Raises OperationFailed."""
    names = [name for name in listing.chains if _bridge_of(name) == bridge]
    chains = [{"family": FAMILY, "table": TABLE, "name": name} for name in names]
    told: list[Expression] = [{"flush": {"chain": chain}} for chain in chains]
    told += [{"delete": {"chain": chain}} for chain in chains]
    if told:
        await _transact(told, bridge)


async def remove_table() -> None:
    """Raises OperationFailed."""
    await _transact([{"delete": {"table": {"family": FAMILY, "name": TABLE}}}], TABLE)


async def _transact(told: Sequence[Expression], what: str) -> None:
    try:
        script = json.dumps({"nftables": list(told)}).encode()
        await run(["nft", "-j", "-f", "-"], stdin=script, show_stdin=True, pass_fds=lock.held())
    except CommandFailed as fault:
        hint = "vmtui doctor"
        raise OperationFailed(f"nft refuses the rules of {what}", hint=hint, details=fault.details) from fault


def permitted() -> bool:
    """Whether this process may see and set rules. proc_pid_status(5): the effective capabilities as a mask."""
    for line in Path("/proc/thread-self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> CAP_NET_ADMIN & 1) and os.geteuid() == 0
    return False


async def read() -> Listing:
    """What the kernel has. Raises CommandFailed (no right), MissingCapability (no nft)."""
    argv = ["nft", "-j", "list", "table", FAMILY, TABLE]
    listed = await run(argv, check=False, env={"LC_ALL": "C"}, timeout=20, reads=True)
    if listed.code != 0:
        if b"No such file or directory" in listed.stderr:
            return Listing.empty()
        details = listed.stderr[-500:].decode("utf-8", "replace").strip()
        raise CommandFailed("nft cannot list the rules", code=listed.code, details=details)
    return parse(listed.stdout)


def parse(output: bytes) -> Listing:
    """nft's JSON to a Listing. Rules that others put into our chains count, so that they show."""
    chains: dict[str, tuple[str, ...]] = {}
    published: list[tuple[str, str, Publish]] = []
    for item in json.loads(output).get("nftables", ()):
        if chain := item.get("chain"):
            chains.setdefault(str(chain["name"]), ())
        elif rule := item.get("rule"):
            name, comment = str(rule["chain"]), str(rule.get("comment", ""))
            chains[name] = (*chains.get(name, ()), comment)
            port = _published_port(rule.get("expr", ())) if name.endswith("_output") else None
            if port is not None:
                published.append((_bridge_of(name), comment.rpartition("#")[0], port))
    return Listing(exists=True, chains=chains, published=tuple(published))


def _published_port(rule: Sequence[Expression]) -> Publish | None:
    """The port that a rule of `_dnat` publishes, None if it is none of these."""
    address, protocol, port, guest = "0.0.0.0", "", 0, 0
    for part in rule:
        payload = part.get("match", {}).get("left", {})
        payload = payload.get("payload", {}) if isinstance(payload, dict) else {}
        right = part.get("match", {}).get("right")
        if payload.get("field") == "daddr" and isinstance(right, str):
            address = right
        elif payload.get("field") == "dport" and isinstance(right, int):
            protocol, port = str(payload.get("protocol")), right
        elif isinstance(part.get("dnat"), dict):
            guest = int(part["dnat"].get("port", 0))
    return Publish(port, guest, address, protocol) if port and guest and protocol in ("tcp", "udp") else None
