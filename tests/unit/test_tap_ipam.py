"""Addresses: never twice, always the same, and a clear word when there are none left."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmtui.backends.tap import ipam
from vmtui.backends.tap.ipam import Book, Taken
from vmtui.core.errors import Conflict, InvalidInput
from vmtui.core.resource import Kind, Ref
from vmtui.core.specs import NetworkSpec
from vmtui.core.units import Publish

CONSUMERS = st.builds(Ref, st.just("p"), st.sampled_from([Kind.VM, Kind.CONTAINER]), st.sampled_from("abcdefgh"))
ACTS = st.lists(st.tuples(st.sampled_from(["plug", "unplug", "forget"]), CONSUMERS, st.integers(0, 2)))


def plug(book: Book, consumer: Ref, index: int = 0) -> Book:
    return book.plug(consumer, index, medium="tap", names=("x",), publish=(Publish(1, 2),))[0]


@settings(deadline=None)
@given(ACTS)
def test_addresses_are_unique_and_stable(acts: list[tuple[str, Ref, int]]) -> None:
    book = Book(subnet="10.50.0.0/28", gateway="10.50.0.5")
    known: dict[tuple[Ref, int], str] = {}
    for act, consumer, index in acts:
        if act == "plug":
            try:
                book = plug(book, consumer, index)
            except Conflict:
                assert len(book.leases) == 13  # sixteen but the network, its broadcast and the gateway
                continue
            lease = book.find(consumer, index)
            assert lease is not None
            assert known.setdefault((consumer, index), lease.address) == lease.address
        else:
            book = book.unplug(consumer, forget=act == "forget")
            if act == "forget":
                known = {key: address for key, address in known.items() if key[0] != consumer}
        addresses = [lease.address for lease in book.leases]
        assert len(set(addresses)) == len(addresses)
        assert {(lease.consumer, lease.index): lease.address for lease in book.leases} == known
        assert all(ipaddress.ip_address(address) in list(book.network.hosts()) for address in addresses)
        assert "10.50.0.5" not in addresses


def test_a_full_subnet_says_so() -> None:
    book = plug(Book(subnet="10.50.0.0/30", gateway="10.50.0.1"), Ref("p", Kind.VM, "a"))
    with pytest.raises(Conflict, match=r"subnet 10\.50\.0\.0/30 is full: all 2 addresses are taken"):
        plug(book, Ref("p", Kind.VM, "b"))
    assert plug(book, Ref("p", Kind.VM, "a")) == book


@settings(deadline=None)
@given(ACTS)
def test_a_book_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[str, Ref, int]]
) -> None:
    directory = tmp_path_factory.mktemp("book")
    book = Book(subnet="10.50.0.0/24", gateway="10.50.0.1")
    for act, consumer, index in acts:
        book = plug(book, consumer, index) if act == "plug" else book.unplug(consumer, forget=act == "forget")
    ipam.save(directory, book)
    assert ipam.load(directory) == book
    assert [path.name for path in directory.iterdir()] == [ipam.FILE]


@settings(deadline=None)
@given(st.one_of(st.binary(), st.sampled_from([b"{}", b'{"subnet":"x","gateway":"y"}', b"[]", b'{"subnet":"::/0"}'])))
def test_a_damaged_book_is_no_book(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    directory = tmp_path_factory.mktemp("book")
    assert ipam.load(directory) is None
    (directory / ipam.FILE).write_bytes(data)
    assert ipam.load(directory) is None


NETWORKS = st.builds(
    lambda address, prefix: ipaddress.IPv4Network((address, prefix), strict=False),
    st.integers(int(ipam.POOL.network_address), int(ipam.POOL.broadcast_address)),
    st.integers(22, 32),
)


@settings(deadline=None)
@given(st.lists(NETWORKS, max_size=30))
def test_a_chosen_subnet_is_free(taken: list[ipaddress.IPv4Network]) -> None:
    book = ipam.open_book(NetworkSpec(), [Taken(network, "somebody") for network in taken])
    assert not any(book.network.overlaps(network) for network in taken)
    assert book.network.subnet_of(ipam.POOL)
    assert book.gateway == str(book.network[1])


def test_no_free_subnet_says_so() -> None:
    with pytest.raises(Conflict, match=r"no /24 of 10\.89\.0\.0/16 is free"):
        ipam.open_book(NetworkSpec(), [Taken(ipaddress.IPv4Network("10.0.0.0/8"), "a tunnel")])


def test_an_overlap_names_both() -> None:
    taken = [Taken(ipaddress.IPv4Network("10.50.0.0/16"), "a route of interface tun0")]
    with pytest.raises(Conflict, match=r"subnet 10\.50\.3\.0/24 overlaps 10\.50\.0\.0/16, a route of interface tun0"):
        ipam.open_book(NetworkSpec(subnet="10.50.3.0/24"), taken)


@pytest.mark.parametrize(
    ("subnet", "gateway"),
    [
        ("10.0.0.1/24", None),
        ("10.0.0.0/31", None),
        ("10.0.0.0/7", None),
        ("224.0.0.0/24", None),
        ("127.0.0.0/24", None),
        ("169.254.0.0/24", None),
        ("fd00::/64", None),
        ("", None),
        ("10.50.0.0/24", "10.50.0.0"),
        ("10.50.0.0/24", "10.50.0.255"),
        ("10.50.0.0/24", "10.51.0.1"),
        ("10.50.0.0/24", "fd00::1"),
        ("10.50.0.0/24", "x"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(subnet: str, gateway: str | None) -> None:
    with pytest.raises(InvalidInput):
        ipam.open_book(NetworkSpec(subnet=subnet, gateway=gateway), ())
