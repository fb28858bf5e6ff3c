"""Whether what has no condition is up: seen for a while, whenever its clock may have begun."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from vmtui.core.backend import ExecRequest, ExecSession, LogLine
from vmtui.core.errors import OperationFailed, ReadinessTimeout
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Exit, Kind, Ref, Status
from vmtui.core.specs import ContainerSpec, Restart
from vmtui.engine import readiness

WEB = Ref("t", Kind.CONTAINER, "web")
SPEC = ContainerSpec(backend="oci", image="x")


class Seen:
    """A host on which a container was started some time ago, and what its looks show, the last one for ever."""

    def __init__(self, started_s_ago: float, *phases: Phase) -> None:
        self.looks = 0
        self._started_at = time.time() - started_s_ago
        self._phases = phases

    async def inspect(self, ref: Ref) -> Status:
        phase = self._phases[min(self.looks, len(self._phases) - 1)]
        self.looks += 1
        ended = Exit(code=3, reason="") if phase is Phase.EXITED else None
        started_at = None if ended else self._started_at
        return Status(ref=ref, backend="oci", phase=phase, pid=None if ended else 7, started_at=started_at, exit=ended)

    async def logs(self, ref: Ref, *, tail: int | None, follow: bool) -> AsyncIterator[LogLine]:
        for line in list[LogLine]():
            yield line

    async def exec(self, ref: Ref, request: ExecRequest) -> ExecSession:
        raise AssertionError


@pytest.mark.parametrize("started_s_ago", [0.0, 2.0, 60.0])
async def test_who_is_about_to_end_is_not_up_though_its_start_took_long(started_s_ago: float) -> None:
    host = Seen(started_s_ago, Phase.RUNNING, Phase.EXITED)
    with pytest.raises(OperationFailed, match="ended with code 3 before it was ready"):
        await readiness.wait(host, WEB, SPEC, seen="", timeout=None)


async def test_who_ends_again_and_again_is_not_up() -> None:
    restarted = ContainerSpec(backend="oci", image="x", restart=Restart.ALWAYS)
    host = Seen(2.0, *(Phase.RUNNING, Phase.EXITED) * 100)
    with pytest.raises(ReadinessTimeout):
        await readiness.wait(host, WEB, restarted, seen="", timeout=1)
    assert host.looks > 5


async def test_it_is_watched_for_a_moment_unless_it_has_been_ready_before() -> None:
    fresh, old = Seen(60.0, Phase.RUNNING), Seen(60.0, Phase.RUNNING)
    assert (await readiness.wait(fresh, WEB, SPEC, seen="", timeout=None)).phase is Phase.RUNNING
    assert fresh.looks > 1
    before = readiness.instance(await old.inspect(WEB))
    assert (await readiness.wait(old, WEB, SPEC, seen=before, timeout=None)).phase is Phase.RUNNING
    assert old.looks == 2
