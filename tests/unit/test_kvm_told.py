"""What a running VMM says of itself, as its VM's status shows it."""

from __future__ import annotations

from vmtui.backends.kvm.backend import _told
from vmtui.core.resource import Ref

GUEST = Ref.parse("dev/vm/guest")


def test_all_of_it_is_shown() -> None:
    info = {
        "carried_by": {"net0": "vhost-net", "blk0": "qemu-storage-daemon"},
        "exits_at_boot": 694,
        "walls_missing": ["landlock: not in this kernel"],
        "lost": {"blk0": "killed by SIGKILL"},
        "needs_reset": {"blk1": "a chain without end"},
        "faults": ["net0: OSError: gone"],
    }
    facts, problems = _told(GUEST, info, "/s/control.sock")
    assert [(fact.name, fact.value) for fact in facts] == [
        ("blk0", "qemu-storage-daemon"),
        ("net0", "vhost-net"),
        ("boot exits", "694"),
        ("walls missing", "landlock: not in this kernel"),
        ("control", "/s/control.sock"),
    ]
    assert [(problem.code, problem.message) for problem in problems] == [
        ("backend-lost", "blk0 has lost its back-end, which is being started again: killed by SIGKILL"),
        ("needs-reset", "blk1 stands still: a chain without end"),
        ("vmm-fault", "the VMM itself is at fault: net0: OSError: gone"),
    ]
    assert [problem.hint for problem in problems] == ["vmtui inspect dev/vm/guest", *["vmtui restart dev/vm/guest"] * 2]


def test_of_one_that_says_little_there_is_little() -> None:
    facts, problems = _told(GUEST, {}, "/s")
    assert ([fact.name for fact in facts], problems) == (["control"], [])
