"""What is written for nft and dnsmasq, and what is read from them, without running either."""

from __future__ import annotations

import ipaddress
import json
import string
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmtui.backends.tap import dnsmasq, firewall, names
from vmtui.backends.tap.firewall import Listing, Policy, Published
from vmtui.backends.tap.ipam import Book, Lease
from vmtui.core.errors import InvalidInput
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import NetworkSpec
from vmtui.core.units import Publish

POLICY = Policy(
    bridge="vmb0123456789",
    mark="vmtui:w:p/network/lab",
    subnet=ipaddress.IPv4Network("10.89.0.0/24"),
    gateway="10.89.0.1",
    internal=False,
    dns=True,
    dhcp=True,
)
PUBLISHES = st.builds(
    Publish,
    st.integers(1, 65535),
    st.integers(1, 65535),
    st.one_of(st.just("0.0.0.0"), st.just("127.0.0.1"), st.ip_addresses(v=4).map(str)),
    st.sampled_from(["tcp", "udp"]),
)


LATE = Published(Publish(80, 80), "10.89.0.9", "vmtui:w:p/container/late")


def listed(policy: Policy, drop: int | None = None) -> Listing:
    """What nft would list after the transaction, but for one rule."""
    told: list[dict[str, Any]] = []
    for command in firewall.commands(policy, Listing.empty()):
        told += [command["add"]] if "add" in command else []
    rules = [item for item in told if "rule" in item]
    if drop is not None:
        told.remove(rules[drop % len(rules)])
    return firewall.parse(json.dumps({"nftables": [{"metainfo": {}}, *told]}).encode())


@settings(deadline=None)
@given(st.lists(PUBLISHES, max_size=6), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 99))
def test_rules_that_are_listed_are_intact_and_lost_ones_are_missed(
    publishes: list[Publish], internal: bool, dns: bool, dhcp: bool, lost: int
) -> None:
    published = tuple(Published(publish, "10.89.0.2", "vmtui:w:p/container/web") for publish in publishes)
    policy = replace(POLICY, published=published, internal=internal, dns=dns, dhcp=dhcp)
    listing = listed(policy)
    assert firewall.intact(policy, listing)
    assert listing.bridges == {POLICY.bridge}
    expected = {(POLICY.bridge, "vmtui:w:p/container/web", publish) for publish in publishes}
    assert set(listing.published) == expected
    assert not firewall.intact(policy, listed(policy, drop=lost))
    more = replace(policy, published=(*published, LATE))
    assert not firewall.intact(more, listing)
    assert not [command for command in firewall.commands(more, listing) if "flush" in command]
    flushed = [
        command["flush"]["chain"]["name"] for command in firewall.commands(policy, listed(more)) if "flush" in command
    ]
    assert set(flushed) <= {f"{POLICY.bridge}_output", f"{POLICY.bridge}_prerouting"}
    assert f"{POLICY.bridge}_output" in flushed
    assert firewall.commands(policy, listing) == firewall.commands(policy, Listing.empty())[:1]


def test_an_internal_network_translates_nothing_to_the_outside() -> None:
    text = json.dumps(firewall.commands(replace(POLICY, internal=True), Listing.empty()))
    assert "masquerade" in json.dumps(firewall.commands(POLICY, Listing.empty()))
    assert f'"op": "!=", "left": {{"meta": {{"key": "oifname"}}}}, "right": "{POLICY.bridge}"' not in text


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_foreign_rules_in_our_table_do_no_harm(expression: Any) -> None:
    rule = {
        "rule": {"chain": f"{POLICY.bridge}_output", "expr": [{"match": {"left": expression, "right": expression}}]}
    }
    chain = {"chain": {"name": f"{POLICY.bridge}_output"}}
    listing = firewall.parse(json.dumps({"nftables": [chain, rule]}).encode())
    assert listing.published == ()
    assert not firewall.intact(POLICY, listing)


def test_comments_fit() -> None:
    """NFTNL_UDATA_COMMENT_MAXLEN is 128."""
    longest = "a" * 40
    mark = f"vmtui:{'f' * 16}:{longest}/container/{longest}"
    policy = replace(
        POLICY, mark=mark, published=(Published(Publish(65535, 65535, "255.255.255.255"), "1.2.3.4", mark),)
    )
    comments = [
        command["add"]["rule"]["comment"]
        for command in firewall.commands(policy, Listing.empty())
        if "rule" in command.get("add", {})
    ]
    assert max(map(len, comments)) < 128


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_lease_file(text: str) -> None:
    for lease in dnsmasq.parse_leases(text):
        assert lease.expires >= 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**32), st.ip_addresses(v=4).map(str)), max_size=5))
def test_a_lease_file_is_read(leases: list[tuple[int, str]]) -> None:
    text = "".join(f"{expires} 02:00:00:00:00:01 {address} guest *\n" for expires, address in leases)
    found = dnsmasq.parse_leases("garbage\n\n" + text + "duid 00:01\n12 x")
    assert [(lease.expires, lease.address) for lease in found] == leases
    assert all(lease.mac == "02:00:00:00:00:01" for lease in found)


@settings(deadline=None)
@given(st.text(max_size=80))
def test_only_host_names_are_host_names(text: str) -> None:
    try:
        name = names.host_name(text, "hostname")
    except InvalidInput:
        return
    assert set(name) <= set(string.ascii_lowercase + string.digits + "-.")
    assert all(0 < len(label) <= 63 for label in name.split("."))
    lease = Lease(consumer=Ref("p", Kind.VM, "a"), index=0, address="10.89.0.2", medium="tap", names=(name,))
    assert dnsmasq.hosts([lease], "vmtui") == f"10.89.0.2 {name} {name}.vmtui\n"
    reserved = dnsmasq.reservations([("02:00:00:00:00:01", lease)])
    assert reserved.count(",") == 2
    assert reserved.count("\n") == 1


@pytest.mark.parametrize(
    "name", ["web\n", "web\n192.0.2.1 bank", "web,set:x", "we b", "#web", "-web", "web.", "", "é", "Ⅷ"]
)
def test_hostile_host_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        names.host_name(name, "hostname")


def test_an_internal_network_asks_nobody_outside() -> None:
    book = Book(subnet="10.89.0.0/24", gateway="10.89.0.1")
    served = dnsmasq.Dnsmasq("vmb0123456789")
    assert "--no-resolv" in served.argv(NetworkSpec(internal=True), book)
    assert "--no-resolv" not in served.argv(NetworkSpec(), book)
    assert "--port=0" in served.argv(NetworkSpec(dns=False), book)
    assert not [arg for arg in served.argv(NetworkSpec(dhcp=False), book) if "dhcp" in arg]


def test_interfaces_have_names_and_addresses_of_their_own() -> None:
    token = "0123456789"
    assert names.mac(token) == "02:01:23:45:67:89"
    assert names.host_mac(token) == "06:01:23:45:67:89"
    for address in (names.mac(token), names.host_mac(token)):
        assert int(address[:2], 16) & 0b11 == 0b10  # local, unicast
    assert all(len(prefix + token) < 16 for prefix in (names.BRIDGE, names.TAP, names.VETH, names.PEER))
