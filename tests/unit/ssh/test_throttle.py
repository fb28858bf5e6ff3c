"""What strangers cost: delays that grow and are forgiven, and a waiting room that always has place for one more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vmtui.ssh.throttle import LONGEST_DELAY_S, MOST_ADDRESSES, Throttle, WaitingRoom, neighbourhood


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_delay_grows_to_its_bound_and_is_of_its_address_alone() -> None:
    throttle = Throttle(clock=Clock())
    delays = [throttle.failed("192.0.2.7") for _ in range(10)]
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_DELAY_S
    assert throttle.failed("192.0.2.8") == 0.1


def test_failures_are_forgiven() -> None:
    clock = Clock()
    throttle = Throttle(clock=clock)
    for _ in range(5):
        throttle.failed("192.0.2.7")
    assert throttle.count("192.0.2.7") == 5
    clock.now = 30.0
    assert throttle.count("192.0.2.7") == 2
    clock.now = 1000.0
    assert throttle.failed("192.0.2.7") == 0.1


def test_a_million_failures_are_forgiven_in_minutes() -> None:
    clock = Clock()
    throttle = Throttle(clock=clock)
    for _ in range(1000):
        throttle.failed("192.0.2.7")
    clock.now = 330.0
    assert throttle.count("192.0.2.7") == 0


def test_a_network_of_ipv6_is_one_place_and_a_mapped_address_is_what_it_stands_for() -> None:
    assert neighbourhood("2001:db8::1") == neighbourhood("2001:db8::ffff:2") != neighbourhood("2001:db8:0:1::1")
    assert neighbourhood("::ffff:192.0.2.7") == "192.0.2.7"
    assert neighbourhood("fe80::1%eth0") == "fe80::/64"


def test_the_table_is_bounded() -> None:
    throttle = Throttle(clock=Clock())
    for number in range(MOST_ADDRESSES + 100):
        throttle.failed(f"10.{number >> 16}.{(number >> 8) & 255}.{number & 255}")
    assert throttle.count("10.0.0.0") == 0
    assert throttle.count("10.0.39.15") == 1


def test_the_silent_make_place_for_who_speaks() -> None:
    room = WaitingRoom[str](100, 10)
    for number in range(10):
        assert room.enter(f"silent {number}", "192.0.2.7") == []
    room.spoke("silent 0")
    assert room.enter("good", "192.0.2.7") == ["silent 1"]
    room.spoke("good")
    gone = [who for number in range(200) for who in room.enter(f"later {number}", "192.0.2.7")]
    assert "good" not in gone
    assert len(room) == 10


def test_a_crowd_from_one_place_does_not_keep_others_out() -> None:
    room = WaitingRoom[str](10, 100)
    for number in range(9):
        room.enter(f"crowd {number}", "192.0.2.7")
    assert room.enter("good", "192.0.2.8") == []
    assert room.enter("another", "192.0.2.9") == ["crowd 0"]
    assert len(room) == 10


@given(st.lists(st.tuples(st.sampled_from(["enter", "spoke", "leave"]), st.integers(0, 30), st.integers(0, 5))))
def test_a_room_is_never_too_full_and_the_newest_is_in_it(acts: list[tuple[str, int, int]]) -> None:
    room = WaitingRoom[int](8, 4)
    inside: set[int] = set()
    for act, who, place in acts:
        if act == "enter" and who not in inside:
            out = room.enter(who, f"10.0.0.{place}")
            inside = (inside | {who}) - set(out)
            assert who not in out
        elif act == "spoke":
            room.spoke(who)
        elif act == "leave":
            room.leave(who)
            inside.discard(who)
        assert len(room) == len(inside) <= 8
