"""The port by which a guest says that it panicked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vmtui.vmm.devices.pvpanic import CRASH_LOADED, PANICKED, PORT, PORTS, SHUTDOWN, Pvpanic


def test_each_event_is_told_once() -> None:
    told: list[str] = []
    device = Pvpanic(told.append)
    assert device.read(0, 1) == PANICKED | CRASH_LOADED | SHUTDOWN
    device.write(0, 1, CRASH_LOADED)
    device.write(0, 1, CRASH_LOADED)
    device.write(0, 1, PANICKED | CRASH_LOADED)
    device.write(0, 1, SHUTDOWN)
    assert told == ["crash-loaded", "panicked", "shutdown"]
    device.reset()
    device.write(0, 1, PANICKED)
    assert told[3:] == ["panicked"]


def test_it_is_where_linux_looks_for_it() -> None:
    assert (PORT, PORTS) == (0x505, 1)


@given(st.lists(st.tuples(st.integers(0, 7), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**64 - 1))))
def test_what_a_guest_writes_is_heard_at_most_three_times(writes: list[tuple[int, int, int]]) -> None:
    told: list[str] = []
    device = Pvpanic(told.append)
    for offset, size, value in writes:
        device.write(offset, size, value)
        assert 0 <= device.read(offset, size) < 1 << 8 * size
    assert len(told) == len(set(told)) <= 3
