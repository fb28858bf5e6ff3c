"""virtio over PCI: what is agreed on, what a driver can and cannot change, and what a reset takes back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.bus import SELECT, STATUS, Bus, Probe
from tests.support.dev_kvm import needs_kvm
from vmtui.vmm.pci.msix import NO_VECTOR
from vmtui.vmm.virtio.queue import VERSION_1
from vmtui.vmm.virtio.transport import COMMON, DEVICE, FEATURES_OK, ISR, NEEDS_RESET, NOTIFY

pytestmark = needs_kvm


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus()
    yield bus
    bus.close()


# Features


def test_features_are_offered_by_halves(bus: Bus) -> None:
    assert bus.offered == Probe.features | VERSION_1
    bus.set_field(0, 4, 2)
    assert (bus.field(0, 4), bus.field(4, 4)) == (2, 0)
    bus.set_field(0, 4, 0xFFFFFFFF)
    assert bus.field(4, 4) == 0


def test_what_was_accepted_can_be_read_back_until_it_is_fixed(bus: Bus) -> None:
    bus.negotiate(VERSION_1 | 1 << 28)
    bus.set_field(8, 4, 0)
    assert bus.field(12, 4) == 1 << 28
    bus.set_field(12, 4, 0)
    assert bus.field(12, 4) == 1 << 28
    bus.set_field(8, 4, 7)
    bus.set_field(12, 4, 1)
    assert bus.field(12, 4) == 0


@pytest.mark.parametrize(
    "features", [0, Probe.features, VERSION_1 | 1 << 6, VERSION_1 | 1 << 63], ids=["none", "old", "one more", "last"]
)
def test_what_is_refused(bus: Bus, features: int) -> None:
    bus.negotiate(features)
    assert bus.field(STATUS, 1) == 3
    bus.set_field(STATUS, 1, 15)
    assert bus.field(STATUS, 1) == 3, "no driver is up without"
    assert bus.probe.sessions == []
    bus.accept(VERSION_1)
    bus.set_field(STATUS, 1, 11)
    bus.set_field(STATUS, 1, 15)
    assert (bus.field(STATUS, 1), len(bus.probe.sessions)) == (15, 1)


def test_what_was_agreed_on_reaches_the_device(bus: Bus) -> None:
    bus.negotiate(VERSION_1 | 1 << 40)
    bus.set_field(STATUS, 1, 15)
    (session,) = bus.probe.sessions
    assert session.features == VERSION_1 | 1 << 40
    assert [queue.enabled for queue in session.queues] == [False, False]


# Status


def test_a_driver_clears_no_bit_but_by_a_reset(bus: Bus) -> None:
    """Else the device would be activated a second time, in the middle of its work."""
    bus.bring_up()
    for value in (1, 3, 11, 15, 1, 15):
        bus.set_field(STATUS, 1, value)
        assert bus.field(STATUS, 1) == 15
    assert len(bus.probe.sessions) == 1
    bus.set_field(STATUS, 1, 128)
    assert bus.field(STATUS, 1) == 143


def test_a_driver_does_not_say_that_a_reset_is_needed(bus: Bus) -> None:
    bus.set_field(STATUS, 1, NEEDS_RESET | 1)
    assert bus.field(STATUS, 1) == 1


def test_a_reset_takes_everything_back(bus: Bus) -> None:
    fresh = [bus.field(offset, 1) for offset in range(64)]
    bus.bring_up()
    assert [bus.field(offset, 1) for offset in range(64)] != fresh
    bus.function.kicks[1].signal()
    bus.set_field(STATUS, 1, 0)
    assert [bus.field(offset, 1) for offset in range(64)] == fresh
    assert bus.probe.resets == 2, "the one before it was brought up, and this one"
    assert bus.function.kicks[1].drain() == 0
    bus.bring_up()
    assert len(bus.probe.sessions) == 2


# Queues


def test_queues_are_told_of(bus: Bus) -> None:
    assert bus.field(18, 2) == 2
    for number, size in enumerate(Probe.queue_sizes):
        bus.set_field(SELECT, 2, number)
        assert (bus.field(24, 2), bus.field(26, 2), bus.field(28, 2)) == (size, NO_VECTOR, 0)
        assert bus.field(30, 2) == number, "where it is kicked"
    bus.set_field(SELECT, 2, 2)
    assert (bus.field(24, 2), bus.field(28, 2), bus.field(32, 8)) == (0, 0, 0)
    bus.set_field(32, 8, 0x1000)
    bus.set_field(28, 2, 1)
    assert bus.field(32, 8) == 0


def test_addresses_may_be_written_by_halves(bus: Bus) -> None:
    for offset in (32, 40, 48):
        bus.set_field(offset, 8, (1 << 64) - 1)
        bus.set_field(offset, 4, 0x1000)
        bus.set_field(offset + 4, 4, 0x2)
        assert bus.field(offset, 8) == 0x2_0000_1000
        assert (bus.field(offset, 4), bus.field(offset + 4, 4)) == (0x1000, 2)


def test_a_queue_that_is_enabled_stays_as_it_is(bus: Bus) -> None:
    bus.negotiate()
    bus.set_up(0)
    before = [bus.field(offset, 1) for offset in (*range(24, 26), *range(28, 56))]
    for offset, size in ((24, 2), (28, 2), (32, 8), (40, 8), (48, 8), (32, 4), (36, 4), (44, 4), (52, 4)):
        for value in (0, 4, 0x20000):
            bus.set_field(offset, size, value)
    assert [bus.field(offset, 1) for offset in (*range(24, 26), *range(28, 56))] == before
    bus.set_field(26, 2, 2)
    assert bus.field(26, 2) == 2


def test_a_queue_is_enabled_by_a_one_alone(bus: Bus) -> None:
    for value in (0, 2, 0xFFFF):
        bus.set_field(28, 2, value)
        assert bus.field(28, 2) == 0


def test_no_queue_is_enabled_behind_the_devices_back(bus: Bus) -> None:
    """It was handed the queues that there were when the driver was up, and would take this for one of them."""
    bus.negotiate()
    bus.set_up(0)
    bus.set_field(STATUS, 1, 15)
    bus.set_up(1, 0x20000)
    assert bus.field(28, 2) == 0
    assert [queue.enabled for queue in bus.probe.sessions[0].queues] == [True, False]


@pytest.mark.parametrize(
    ("offset", "value"),
    [(24, 3), (24, 0), (24, 16), (32, 8), (40, 1), (48, 2), (32, 1 << 40), (48, (1 << 64) - 4), (40, 0x1FFFFE)],
)
def test_a_queue_that_is_none_needs_a_reset(bus: Bus, offset: int, value: int) -> None:
    bus.negotiate()
    bus.set_field(16, 2, 0)
    bus.set_field(SELECT, 2, 0)
    bus.set_field(24, 2, 8)
    for at, addr in ((32, 0x10000), (40, 0x11000), (48, 0x12000)):
        bus.set_field(at, 8, addr)
    bus.set_field(offset, 2 if offset == 24 else 8, value)
    bus.set_field(28, 2, 1)
    bus.set_field(STATUS, 1, 15)
    assert bus.field(STATUS, 1) == 15 | NEEDS_RESET
    assert bus.probe.sessions == []
    ((name, reason),) = bus.failures
    assert (name, bus.function.needs_reset) == ("probe", reason)
    bus.bring_up()
    assert (bus.field(STATUS, 1), bus.function.needs_reset, len(bus.probe.sessions)) == (15, "", 1)


def test_vectors(bus: Bus) -> None:
    for offset in (16, 26):
        for value in (0, 1, 2, NO_VECTOR):
            bus.set_field(offset, 2, value)
            assert bus.field(offset, 2) == value
        for value in (3, 0xFFFE, 0x8000):
            bus.set_field(offset, 2, 1)
            bus.set_field(offset, 2, value)
            assert bus.field(offset, 2) == NO_VECTOR, "one that is not there is refused (4.1.5.1.2)"


# What the device tells


def test_a_device_that_fails(bus: Bus) -> None:
    bus.bring_up()
    bus.probe.sessions[0].failed("it broke")
    bus.probe.sessions[0].failed("and again")
    assert bus.field(STATUS, 1) == 15 | NEEDS_RESET
    assert bus.failures == [("probe", "it broke")]
    assert bus.function._msix.event(0).drain() == 1, "the driver is told"
    bus.set_field(STATUS, 1, 15)
    assert bus.field(STATUS, 1) == 15 | NEEDS_RESET, "it is not to be written away"


def test_a_session_that_is_over_fails_nobody(bus: Bus) -> None:
    bus.bring_up()
    old = bus.probe.sessions[0]
    bus.set_field(STATUS, 1, 0)
    old.failed("late")
    assert (bus.field(STATUS, 1), bus.failures) == (0, [])
    bus.bring_up()
    old.failed("later")
    assert (bus.field(STATUS, 1), bus.failures) == (15, [])
    bus.probe.sessions[1].failed("now")
    assert bus.failures == [("probe", "now")]


def test_a_configuration_that_changes(bus: Bus) -> None:
    """A driver reads until two generations are the same (2.5.1)."""
    bus.function.config_changed()
    assert bus.function._msix.event(0).drain() == 0, "nobody is there to hear"
    bus.bring_up()
    before = bus.field(21, 1)
    bus.probe.sessions[0].config_changed()
    assert bus.field(21, 1) == (before + 1) & 0xFF
    assert bus.function._msix.event(0).drain() == 1
    for _ in range(300):
        bus.probe.sessions[0].config_changed()
    assert bus.field(21, 1) == (before + 301) & 0xFF


def test_calls_lead_to_the_vectors_that_were_chosen(bus: Bus) -> None:
    bus.negotiate()
    bus.set_up(0)
    bus.set_field(26, 2, 2)
    bus.set_field(STATUS, 1, 15)
    first, second = bus.probe.sessions[0].calls
    first.signal()
    assert [vector.event.drain() for vector in bus.function._msix.vectors] == [0, 0, 1]
    second.signal()
    assert [vector.event.drain() for vector in bus.function._msix.vectors] == [0, 0, 0], "NO_VECTOR: nobody hears"


# The other windows


def test_the_devices_own_configuration(bus: Bus) -> None:
    assert bus.read(DEVICE, 4) == int.from_bytes(b"conf", "little")
    assert bus.read(DEVICE + 12, 1) == ord("n")
    assert (bus.read(DEVICE + 12, 4), bus.read(DEVICE + 0xFF8, 8)) == (ord("n"), 0)
    bus.write(DEVICE, 4, int.from_bytes(b"CONF", "little"))
    assert bus.probe.space == b"CONFiguration"


def test_a_doorbell_that_comes_as_an_exit(bus: Bus) -> None:
    for number in (0, 1, 2, 0x3FF):
        bus.write(NOTIFY + 4 * number, 2, number)
    assert [kick.drain() for kick in bus.function.kicks] == [1, 1]
    assert bus.read(NOTIFY, 4) == bus.read(ISR, 1) == 0


ACCESS = st.tuples(st.booleans(), st.integers(0, 0xFFFF), st.sampled_from((1, 2, 4, 8)), st.integers(0, (1 << 64) - 1))
FIELD = st.tuples(st.booleans(), st.integers(COMMON, COMMON + 63), st.sampled_from((1, 2, 4, 8)), st.integers(0, 300))


@settings(max_examples=40, deadline=None)
@given(st.lists(ACCESS | FIELD, max_size=60))
def test_no_access_raises(accesses: list[tuple[bool, int, int, int]]) -> None:
    bus = Bus()
    try:
        for writes, offset, size, value in accesses:
            if writes:
                bus.write(offset, size, value & (1 << 8 * size) - 1)
            else:
                assert 0 <= bus.read(offset, size) < 1 << 8 * size
        bus.bring_up()
        assert bus.field(STATUS, 1) & FEATURES_OK
        assert bus.probe.sessions[-1].features == VERSION_1
    finally:
        bus.close()
